"""What adapters of recognisers on this machine have in common."""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from typing import Any, TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

from anonymix_adapters.errors import AdapterError
from anonymix_adapters.interceptor import Interceptor, Whose
from anonymix_adapters.protocol import Answer, Leaked
from anonymix_plugin.claims import claim_within, claimed
from anonymix_plugin.errors import NoFaceError
from anonymix_plugin.faces import Detector, YuNet
from anonymix_plugin.images import ChannelOrder, PhotoSource, decode_photo
from anonymix_plugin.models import locate
from anonymix_plugin.values import CancelableFace, Pixels

Box: TypeAlias = tuple[float, float, float, float]
"""(x0, y0, x1, y1) in pixels."""

Vector: TypeAlias = npt.NDArray[np.float64]

_MARGINS = (0.6, 0.35, 0.15)
_PORTRAIT = 0.05  # a face that takes as much of a photo is usually its largest


def face_in_box(
    interceptor: Interceptor,
    pixels: npt.NDArray[Any],
    box: Box,
    whose: Whose,
    *,
    channel_order: ChannelOrder,
    largest: bool | None = None,
) -> CancelableFace:
    """Protect the face that a host's own detector found, of several in a photo.

    The mixer takes the largest face of what it is given: the whole photo, or the box and a border around it;
    a smaller border is tried where a neighbour's face would be the larger one. One that turns out to be
    another face is thrown away.

    Args:
        interceptor: The interceptor.
        pixels: (height, width, 3) uint8.
        box: Where the face is.
        whose: Whose it is.
        channel_order: Order of the channels.
        largest: Whether this is the photo's largest face; None guesses it from its size.

    Raises:
        NoFaceError: No face is found in the box, or always another one.
        PhotoError, KeystoreError: As for `Interceptor.protect`.
    """
    height, width = pixels.shape[:2]
    x0, y0, x1, y1 = box
    if largest is None:
        largest = (x1 - x0) * (y1 - y0) >= height * width * _PORTRAIT
    for margin in (None, *_MARGINS) if largest else _MARGINS:
        dx, dy = (width, height) if margin is None else ((x1 - x0) * margin, (y1 - y0) * margin)
        left, top = max(int(x0 - dx), 0), max(int(y0 - dy), 0)
        right, bottom = min(int(x1 + dx) + 1, width), min(int(y1 + dy) + 1, height)
        if left >= right or top >= bottom:
            break
        face = interceptor.protect(
            np.ascontiguousarray(pixels[top:bottom, left:right]), whose, channel_order=channel_order
        )
        a0, b0, a1, b1 = face.box
        if x0 <= left + (a0 + a1) / 2 <= x1 and y0 <= top + (b0 + b1) / 2 <= y1:
            return face
        interceptor.discard(face)
    raise NoFaceError(
        "no face is found where the detector says there is one", where=interceptor.adapter, fix="use another photo"
    )


def finder() -> Detector:
    """Finds the face in a cancelable picture, which is always framed alike, so that a small look does."""
    return YuNet(locate("yunet"), sizes=(192, 256, 512), padded_sizes=())


def bgr(face: CancelableFace) -> Pixels:
    """A cancelable face in OpenCV's order of channels."""
    return np.asarray(cv2.cvtColor(face.pixels, cv2.COLOR_RGB2BGR), np.uint8)


class Recorder:
    """Keeps copies of all pictures that reach a recogniser behind its adapter."""

    def __init__(self) -> None:
        self.pictures: list[Pixels] = []
        self.paused = False

    def note(self, picture: npt.NDArray[Any]) -> None:
        """Keep a copy of a picture, (height, width, 3) uint8 RGB."""
        if not self.paused:
            self.pictures.append(np.array(picture, np.uint8, copy=True))


class VectorBackEnd:
    """A back end made of a recogniser on this machine and a host that keeps its vectors; meets `BackEnd`.

    Args:
        interceptor: What stands in front of the recogniser.
        collection: The host's collection.
        vectors: Entry id to subject and vector.
        embed: Embeds an RGB photo through the protected recogniser: (height, width, 3) uint8 to (dim,).
        score: Compares two vectors.
        accepts: The recogniser's own verdict on a score, at its own threshold.
        higher_is_closer: Whether a higher score means more alike.
    """

    def __init__(
        self,
        interceptor: Interceptor,
        collection: str,
        vectors: MutableMapping[str, tuple[str, Vector]],
        *,
        embed: Callable[[Pixels], npt.NDArray[Any]],
        score: Callable[[Vector, Vector], float],
        accepts: Callable[[float], bool],
        higher_is_closer: bool = True,
    ) -> None:
        self.interceptor, self.collection = interceptor, collection
        self._vectors, self._embed = vectors, embed
        self._score, self._accepts, self._higher = score, accepts, higher_is_closer

    def enrol(self, subject: str, photo: PhotoSource) -> str:
        """Embed a photo and keep the vector."""
        pixels = decode_photo(photo).pixels
        name = uuid.uuid4().hex
        with self.interceptor.enrolment(
            subject,
            collection=self.collection,
            external_id=name,
            undo=lambda: self.delete(name),
        ):
            self._vectors[name] = (subject, self._vector(self._embed, pixels))
        return name

    def verify(self, subject: str, photo: PhotoSource) -> Answer:
        """Compare with the subject's vectors."""
        with claimed(claim_within(subject)):
            vector = self._vector(self._embed, decode_photo(photo).pixels)
        return self._best(vector, subject)

    def delete(self, external_id: str) -> None:
        """Let go of a vector."""
        self._vectors.pop(external_id, None)

    def entries(self) -> Mapping[str, str]:
        """Whose vectors there are."""
        return {name: subject for name, (subject, _) in self._vectors.items()}

    @staticmethod
    def _vector(embed: Callable[[Pixels], npt.NDArray[Any]], pixels: Pixels) -> Vector:
        return embed(pixels).astype(np.float64).ravel()

    def _best(self, vector: Vector, subject: str | None) -> Answer:
        scores = [
            (self._score(vector, other), owner) for owner, other in self._vectors.values() if subject in {None, owner}
        ]
        if not scores:
            return Answer(False, float("-inf") if self._higher else float("inf"))
        score, owner = (max if self._higher else min)(scores)
        return Answer(self._accepts(score), float(score), owner if self._accepts(score) else "")


class VectorRehearsal(VectorBackEnd):
    """The same with its vectors in memory, for rehearsals; meets `Rehearsal`.

    Args:
        interceptor: As for `VectorBackEnd`.
        client: The protected recogniser.
        embed: As for `VectorBackEnd`.
        embed_original: The same past the adapter.
        score: As for `VectorBackEnd`.
        accepts: As for `VectorBackEnd`.
        higher_is_closer: As for `VectorBackEnd`.
        recorder: Notes what the recogniser is given.
    """

    def __init__(
        self,
        interceptor: Interceptor,
        client: Any,
        *,
        embed: Callable[[Pixels], npt.NDArray[Any]],
        embed_original: Callable[[Pixels], npt.NDArray[Any]],
        score: Callable[[Vector, Vector], float],
        accepts: Callable[[float], bool],
        higher_is_closer: bool,
        recorder: Recorder,
    ) -> None:
        collection = f"rehearsal-{secrets.token_hex(4)}"
        ways: Any = {"score": score, "accepts": accepts, "higher_is_closer": higher_is_closer}
        super().__init__(interceptor, collection, {}, embed=embed, **ways)
        self.client, self._embed_original, self._recorder = client, embed_original, recorder

    @property
    def searches(self) -> bool:
        """Search needs one key for all."""
        return self.interceptor.keys == "gallery"

    def search(self, photo: PhotoSource) -> Answer:
        """Compare with all vectors."""
        return self._best(self._vector(self._embed, decode_photo(photo).pixels), None)

    def verify_original(self, subject: str, photo: PhotoSource) -> Answer:
        """Compare the photo as it is."""
        self._recorder.paused = True
        try:
            vector = self._vector(self._embed_original, decode_photo(photo).pixels)
        finally:
            self._recorder.paused = False
        return self._best(vector, subject)

    def seen(self) -> Sequence[Any]:
        """What reached the recogniser."""
        return list(self._recorder.pictures)

    def leak(self) -> Sequence[Leaked]:
        """Copies of all vectors."""
        return [Leaked(subject, name, vector.copy()) for name, (subject, vector) in self._vectors.items()]

    def match(self, leaked: Leaked, subject: str) -> Answer:
        """Compare a stolen vector with those of a subject."""
        return self._best(leaked.template, subject)


def cosine(a: Vector, b: Vector) -> float:
    """Cosine of the angle between two vectors."""
    length = float(np.linalg.norm(a) * np.linalg.norm(b))
    if not np.isfinite(length) or length == 0:
        raise AdapterError("a recogniser returned a vector that can't be compared")
    return float(a @ b) / length


def euclidean(a: Vector, b: Vector) -> float:
    """Length of the difference of two vectors."""
    return float(np.linalg.norm(a - b))
