"""The recognisers behind the mixer: as they come, without a line changed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from anonymix_lab.demo.values import MatcherFacts, Skipped
from anonymix_plugin.errors import ModelError
from anonymix_plugin.faces import Detector
from anonymix_plugin.values import CancelableFace, Floats, Pixels
from anonymix_plugin.verification import CANCELABLE, THRESHOLDS, Verifier

THRESHOLD: Final = "fmr-0.1%"

Embeddings = Mapping[str, Floats]
"""Embedding by name of the recogniser."""

_REQUIRED: Final = {"arcface-mbf": "ArcFace"}
_WELCOME: Final = {"facenet": "FaceNet"}
_SEEN: Final = ("arcface-mbf", "sface")


class Matchers:
    """All recognisers that take part.

    Args:
        detector: Finds the faces for all of them.

    Raises:
        MissingModelError: The weights of the recogniser that can't be done without are missing.

    ArcFace is part of the mixer as well. FaceNet is not: its answers count for more. Where its weights or
    its package are missing, the demo goes on without it and says so.
    """

    def __init__(self, detector: Detector) -> None:
        self._verifiers: dict[str, Verifier] = {}
        self.missing: tuple[Skipped, ...] = ()
        facts = []
        for name, title in (_REQUIRED | _WELCOME).items():
            try:
                verifier = Verifier(name, THRESHOLD, detector=detector)
            except ModelError as error:
                if name in _REQUIRED:
                    raise
                self.missing += (Skipped(title, str(error)),)
                continue
            self._verifiers[name] = verifier
            limit = verifier.threshold
            recalibrated = THRESHOLDS[name].get(CANCELABLE + THRESHOLD)
            facts.append(MatcherFacts(name, title, name in _SEEN, limit.name, limit.value, recalibrated))
        self.facts: tuple[MatcherFacts, ...] = tuple(facts)

    def embed(self, picture: CancelableFace | Pixels) -> Embeddings:
        """Embed the largest face of a picture with every recogniser.

        Raises:
            NoFaceError: There is none.
        """
        return {name: verifier.embed(picture) for name, verifier in self._verifiers.items()}


def similarity(a: Embeddings, b: Embeddings) -> dict[str, float]:
    """Cosines of two pictures, by name of the recogniser."""
    return {name: float(a[name].astype(float) @ b[name].astype(float)) for name in a}
