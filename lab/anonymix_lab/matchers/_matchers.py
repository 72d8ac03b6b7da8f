"""Matchers: whoever says how alike two pictures are, by an embedding of each."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import cv2
import numpy as np

from anonymix_plugin.errors import UsageError
from anonymix_plugin.faces import Detector, FaceChoice, meant_face, recogniser_crop
from anonymix_plugin.mixer.subspace import IdentitySubspace, joint_embedding
from anonymix_plugin.models import weights_hash
from anonymix_plugin.recognisers import Recogniser, load_recogniser
from anonymix_plugin.values import Face, Floats, Photo

TRAITS = "traits"
"""Name under which a panel gives the measures of a picture that are no identity."""

TRAIT_NAMES = (
    "yaw",
    "pitch",
    "roll",
    "smile",
    "brightness",
    "side_light",
    "sharpness",
    "detector_score",
    *(f"{point}_{axis}" for point in ("eye_left", "eye_right", "nose", "mouth_left", "mouth_right") for axis in "xy"),
)

CODE = "code"
"""Name of the matcher that is no recogniser: the mixer's own codes of photos."""

_VERSION = "1"


@runtime_checkable
class Matcher(Protocol):
    """Embeds pictures. Meets it: every recogniser of the registry, and whatever a user names by import path.

    Attributes:
        name: Short name.
        dim: Length of an embedding.
        seen_by_mixer: Whether the mixer or its training uses it. What such a matcher says does not count as
            proof.
        identity: Everything that its embeddings depend on (hashes of weights, version), for the cache.
    """

    @property
    def name(self) -> str: ...
    @property
    def dim(self) -> int: ...
    @property
    def seen_by_mixer(self) -> bool: ...
    @property
    def identity(self) -> str: ...

    def embed_photo(self, photo: Photo, face: Face | None) -> Floats | None:
        """Embed the face of a picture.

        Args:
            photo: The picture.
            face: The face that the panel's detector found, or None. A matcher with a detector of its own
                passes over it.

        Returns:
            (dim,) float32 of length 1, or None where the matcher finds no face.
        """
        ...


class RecogniserMatcher:
    """A recogniser of the registry."""

    def __init__(self, recogniser: Recogniser) -> None:
        self._recogniser = recogniser
        self.name: str = recogniser.name
        self.dim: int = recogniser.dim
        self.seen_by_mixer: bool = recogniser.seen_by_mixer
        self.identity: str = f"{recogniser.name} {weights_hash(recogniser.name)} {recogniser.alignment}"

    def embed_photo(self, photo: Photo, face: Face | None) -> Floats | None:  # noqa: ARG002 - the face knows it
        """See `Matcher.embed_photo`."""
        if face is None:
            return None
        embedding: Floats = self._recogniser.embed(self._recogniser.crop(face)[None])[0]
        return embedding


class CodeMatcher:
    """Codes of photos, as the mixer reads them: what references are made of.

    Args:
        arcface: The mixer's first recogniser.
        sface: Its second one.
        subspace: The mixer's.
    """

    seen_by_mixer = True
    name = CODE

    def __init__(self, arcface: Recogniser, sface: Recogniser, subspace: IdentitySubspace) -> None:
        self._arcface, self._sface, self._subspace = arcface, sface, subspace
        self.dim = subspace.dims
        weights = f"{weights_hash(arcface.name)} {weights_hash(sface.name)}"
        self.identity = f"{CODE} {weights} {subspace.sha256()}"

    def embed_photo(self, photo: Photo, face: Face | None) -> Floats | None:  # noqa: ARG002 - the face knows it
        """See `Matcher.embed_photo`."""
        if face is None:
            return None
        crop = recogniser_crop(face)[None]
        joint = joint_embedding(self._arcface.embed(crop), self._sface.embed(crop))
        return np.asarray(self._subspace.project(joint)[0], np.float32)


@dataclass(frozen=True, eq=False)
class Panel:
    """Matchers that look at the same picture, with one detector between them.

    Attributes:
        matchers: At least one, with different names.
        detector: Finds faces.
        detector_identity: What its answers depend on.
    """

    matchers: Sequence[Matcher]
    detector: Detector
    detector_identity: str

    def __post_init__(self) -> None:
        """Refuse a panel without matchers, or with two of one name.

        Raises:
            UsageError: It is one of those.
        """
        names = [matcher.name for matcher in self.matchers]
        if not names or len(set(names)) < len(names) or TRAITS in names:
            raise UsageError("matchers need different names, and there must be one", where=", ".join(names))

    def identity(self, name: str) -> str:
        """What the answers of a matcher, or the traits, depend on."""
        own = {matcher.name: matcher.identity for matcher in self.matchers} | {TRAITS: f"traits {TRAIT_NAMES}"}
        return f"{_VERSION} {self.detector_identity} {own[name]}"

    @property
    def dims(self) -> Mapping[str, int]:
        """Length of the answers by name, traits included."""
        return {matcher.name: matcher.dim for matcher in self.matchers} | {TRAITS: len(TRAIT_NAMES)}

    def look(self, photo: Photo, names: Sequence[str], choice: FaceChoice) -> dict[str, Floats | None]:
        """Ask matchers about a picture.

        Args:
            photo: The picture.
            names: Which matchers, or traits.
            choice: Which of several faces, as `faces.meant_face` says.

        Returns:
            Name -> embedding, or None where no face was found.
        """
        face = meant_face(self.detector.detect(photo), choice)
        answers: dict[str, Floats | None] = {}
        for name in names:
            if name == TRAITS:
                answers[name] = None if face is None else face_traits(face)
            else:
                matcher = next(matcher for matcher in self.matchers if matcher.name == name)
                answers[name] = matcher.embed_photo(photo, face)
        return answers


def face_traits(face: Face) -> Floats:
    """Measures of a face that are no identity, (len(TRAIT_NAMES),) float32.

    yaw: sideways place of the nose between the eyes; pitch: height of the nose between eyes and mouth;
    roll: angle of the eyes in radians; smile: width of the mouth over the distance of the eyes; brightness:
    mean luminance of the aligned face, 0..255; side_light: luminance of its left half less that of its
    right; sharpness: logarithm of the variance of the Laplacian of its luminance; detector_score: 0..1; and
    the five landmarks in units of the distance of the eyes, from the point between the eyes, without roll.
    """
    points = face.landmarks.astype(np.float64)
    left, right, _, mouth_left, mouth_right = points
    eyes, across = (left + right) / 2, right - left
    between = max(float(np.linalg.norm(across)), 1e-6)
    along = across / between
    down = np.array([-along[1], along[0]])
    level = np.stack([(points - eyes) @ along, (points - eyes) @ down], axis=1) / between
    height = level[3:, 1].mean()
    luminance = recogniser_crop(face).astype(np.float64) @ (0.299, 0.587, 0.114)
    return np.array(
        [
            level[2, 0],
            level[2, 1] / height if abs(height) > 1e-6 else 0.0,
            np.arctan2(across[1], across[0]),
            np.linalg.norm(mouth_right - mouth_left) / between,
            luminance.mean(),
            luminance[:, :56].mean() - luminance[:, 56:].mean(),
            np.log(cv2.Laplacian(luminance, cv2.CV_64F).var() + 1.0),
            face.score,
            *level.ravel(),
        ],
        np.float32,
    )


def load_matchers(names: Sequence[str]) -> list[Matcher]:
    """Load matchers.

    Args:
        names: Names of the registry of weights ("facenet", "arcface-mbf", "sface", "dlib-recognition", ...)
            or `PACKAGE.MODULE:FACTORY`, a callable without arguments that returns a `Matcher`: that is the way
            for back ends behind an adapter.

    Raises:
        UsageError: No recogniser has that name, or the import path leads to none.
        ModelError: Weights are missing or damaged.
    """
    return [_imported(name) if ":" in name else RecogniserMatcher(load_recogniser(name)) for name in names]


def _imported(path: str) -> Matcher:
    module, _, attribute = path.partition(":")
    try:
        matcher = getattr(importlib.import_module(module), attribute)()
    except (ImportError, AttributeError, TypeError) as error:
        raise UsageError(
            f"the matcher can't be made: {error}", where=path, fix="give PACKAGE.MODULE:FACTORY or a recogniser"
        ) from error
    if not isinstance(matcher, Matcher):
        raise UsageError(
            "this is no matcher", where=path, fix="it needs name, dim, seen_by_mixer, identity and embed_photo"
        )
    return matcher
