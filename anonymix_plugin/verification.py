"""Do two faces match? A recogniser's answer, against a threshold that has a name and an origin.

The thresholds were measured on photos that are *not* protected: they are what a recogniser that knows nothing
of cancelable faces would be set to, and it is such a recogniser that stands behind the mixer. Those whose
name begins with "cancelable" were measured on cancelable faces, for a recogniser that sees nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import numpy as np

from anonymix_plugin.errors import NoFaceError, UsageError, naming_extras
from anonymix_plugin.faces import Detector, YuNet
from anonymix_plugin.images import ChannelOrder, ImageLimits, PhotoSource, decode_photo, default_limits
from anonymix_plugin.models import content_of_model
from anonymix_plugin.recognisers import Recogniser, load_recogniser
from anonymix_plugin.values import CancelableFace, Floats, Photo

__all__ = [
    "THRESHOLDS",
    "Comparison",
    "Threshold",
    "Verifier",
    "named_threshold",
]

RATES: Final[Mapping[str, float]] = MappingProxyType({"fmr-1%": 0.01, "fmr-0.1%": 0.001, "fmr-0.01%": 0.0001})

THRESHOLDS: Final[Mapping[str, Mapping[str, float]]] = MappingProxyType(
    {
        "arcface-mbf": MappingProxyType(
            {
                "fmr-1%": 0.1641,
                "fmr-0.1%": 0.2258,
                "fmr-0.01%": 0.2791,
                "cancelable-fmr-1%": 0.3362,
                "cancelable-fmr-0.1%": 0.4524,
            }
        ),
        "sface": MappingProxyType(
            {
                "fmr-1%": 0.2986,
                "fmr-0.1%": 0.3660,
                "cancelable-fmr-1%": 0.4604,
                "cancelable-fmr-0.1%": 0.5620,
            }
        ),
        "facenet": MappingProxyType(
            {
                "fmr-1%": 0.3667,
                "fmr-0.1%": 0.5035,
                "cancelable-fmr-1%": 0.5213,
                "cancelable-fmr-0.1%": 0.6401,
            }
        ),
    }
)
"""Thresholds by recogniser and false match rate.

| recogniser | FMR 1 % | FMR .1 % | FMR .01 % | cancelable, FMR 1 % | cancelable, FMR .1 % |
|---|---|---|---|---|---|
| arcface-mbf | .1641 | .2258 | .2791 | .3362 | .4524 |
| sface | .2986 | .3660 | | .4604 | .5620 |
| facenet | .3667 | .5035 | | .5213 | .6401 |

Measured by `anonymix measure thresholds LFW --recogniser NAME`, LFW being Labeled Faces in the Wild,
deep-funneled: the 1,771 photos of 1,695 people in the impostor pairs of view 1 (`pairsDevTrain.txt`), each
with those of all other people, 1,567,257 comparisons; YuNet found a face in every photo. With `--cancelable`
added, their cancelable faces are compared, twenty keys, each face with those of other people under the same
key, 77,473 comparisons: the mixer `65c4b092` under its default policy, 2026-11-27. Another mixer or policy has other
ones.

People of view 1 are in view 2 as well: whoever reports figures on view 2 takes thresholds from its other
folds. Numbers are rounded up, so that the rates are kept.
"""

CANCELABLE = "cancelable-"
"""What the name of a threshold that was measured on cancelable faces begins with."""

_BATCH = 32


@dataclass(frozen=True)
class Threshold:
    """From which cosine on two faces count as one person's.

    Attributes:
        recogniser: Whose cosine it is.
        name: "fmr-1%", "fmr-0.1%", "fmr-0.01%", one of these with "cancelable-" before it, or "given" for a
            number of the caller's.
        value: The cosine; a comparison matches at this value or above.
    """

    recogniser: str
    name: str
    value: float


@dataclass(frozen=True)
class Comparison:
    """What a recogniser says about two faces.

    Attributes:
        similarity: The cosine of the two embeddings, -1..1.
        threshold: What it was held against.
        seen_by_mixer: Whether the mixer was made with the help of this recogniser; an answer of one that
            was not counts for more.
    """

    similarity: float
    threshold: Threshold
    seen_by_mixer: bool

    @property
    def match(self) -> bool:
        """Whether the two count as one person."""
        return self.similarity >= self.threshold.value


def named_threshold(recogniser: str, wanted: str | float) -> Threshold:
    """Return a threshold by its name, or a number as a threshold.

    Args:
        recogniser: Name of a recogniser.
        wanted: "fmr-1%", "fmr-0.1%", "fmr-0.01%" (not known of all), "cancelable-fmr-1%",
            "cancelable-fmr-0.1%", or a cosine (as a number or a text), -1..1.

    Raises:
        UsageError: No such name, a number out of range, or no threshold of that name is known for the
            recogniser.
    """
    known = THRESHOLDS.get(recogniser, {})
    if isinstance(wanted, str) and wanted.removeprefix(CANCELABLE) in RATES:
        if wanted not in known:
            raise UsageError(
                f"no threshold {wanted} was measured for this recogniser",
                where=recogniser,
                fix="give a cosine as a number",
            )
        return Threshold(recogniser, wanted, known[wanted])
    try:
        value = float(wanted)
    except ValueError:
        value = math.nan
    if not -1 <= value <= 1:
        raise UsageError(
            "a threshold is a name or a cosine from -1 to 1",
            where=f"threshold {wanted}",
            fix=f"use {', '.join(RATES)}, one of these after {CANCELABLE}, or a number",
        )
    return Threshold(recogniser, "given", value)


class Verifier:
    """Compares faces the way that a back end does: it looks for the face, aligns it, embeds it.

    Args:
        recogniser: A recogniser, or its name in the registry of weights.
        threshold: A name as `named_threshold` takes it, or a cosine.
        detector: Finds the faces; YuNet by default.
        limits: What is refused before a photo is decoded; None takes those of the configuration file.

    Raises:
        UsageError: No such recogniser or threshold.
        ModelError: Weights, or a package that the recogniser needs, are missing or damaged.
    """

    @naming_extras()
    def __init__(
        self,
        recogniser: Recogniser | str = "arcface-mbf",
        threshold: str | float = "fmr-0.1%",
        *,
        detector: Detector | None = None,
        limits: ImageLimits | None = None,
    ) -> None:
        # The threshold first: a mistyped one should not cost seconds of loading.
        name = recogniser if isinstance(recogniser, str) else recogniser.name
        self._threshold = named_threshold(name, threshold)
        self._recogniser = load_recogniser(recogniser) if isinstance(recogniser, str) else recogniser
        self._detector = detector or YuNet(content_of_model("yunet"))
        self._limits = limits or default_limits()

    @property
    def threshold(self) -> Threshold:
        """What comparisons are held against."""
        return self._threshold

    def embed(self, face: CancelableFace | PhotoSource, *, channel_order: ChannelOrder = "rgb") -> Floats:
        """Embed the largest face of a picture.

        Args:
            face: A cancelable face, or a picture as `Anonymixer.protect` takes it, which is embedded as it
                is: an unprotected photo, or the saved file of a cancelable face.
            channel_order: Order of the channels of an array.

        Returns:
            (dim,) float32 of length 1.

        Raises:
            PhotoError: The photo can't be used, or there is no face.
        """
        if isinstance(face, CancelableFace):
            photo = drawn(face)
        else:
            photo = decode_photo(face, limits=self._limits, channel_order=channel_order, allow_protected=True)
        found = self._detector.detect(photo)
        if not found:
            raise NoFaceError("no face was found", where=photo.source, fix="use another photo")
        embedding: Floats = self._recogniser.embed(self._recogniser.crop(found[0])[None])[0]
        return embedding

    def compare(self, a: CancelableFace | PhotoSource, b: CancelableFace | PhotoSource) -> Comparison:
        """Compare two pictures; errors are those of `embed`."""
        similarity = float(np.dot(self.embed(a).astype(np.float64), self.embed(b).astype(np.float64)))
        return Comparison(similarity, self._threshold, self._recogniser.seen_by_mixer)


def drawn(face: CancelableFace) -> Photo:
    """A cancelable face as a photo that a detector can look at."""
    return Photo(face.pixels, f"the cancelable face of {face.source}")
