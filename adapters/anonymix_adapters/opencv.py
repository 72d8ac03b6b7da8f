"""OpenCV's `FaceRecognizerSF` (SFace).

    detector = cv2.FaceDetectorYN.create(yunet, "", (320, 320))
    recogniser = protect(cv2.FaceRecognizerSF.create(sface, ""), mixer)
    with mixer.subject("alice"):
        feature = recogniser.feature(recogniser.alignCrop(photo, detector.detect(photo)[1][0]))

The mixer works in `alignCrop`, which is given the photo and the face: what it returns is the aligned crop of
the cancelable face, and `feature` takes nothing else. The detector is the host's own and is left as it is.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from anonymix_adapters.errors import BypassError
from anonymix_adapters.gate import FaceMixer, Gate, KeyUse, ScopeRule
from anonymix_adapters.local import Recorder, VectorRehearsal, bgr, cosine, face_in_box, finder
from anonymix_adapters.protocol import Rehearsal
from anonymix_adapters.sdk import Sdk
from anonymix_adapters.wrapping import StandIn, gate_of, stand_in, unwrap
from anonymix_plugin.errors import BadArrayError, NoFaceError
from anonymix_plugin.models import locate
from anonymix_plugin.values import Photo, Pixels

__all__ = [
    "NAME",
    "SDKS",
    "ProtectedCrop",
    "ProtectedFaceRecognizerSF",
    "gate_of",
    "protect",
    "rehearse",
    "unprotect",
]

NAME = "opencv"
SDKS = (
    Sdk(
        "cv2",
        (
            "opencv-python-headless",
            "opencv-contrib-python-headless",
            "opencv-python",
            "opencv-contrib-python",
        ),
        "opencv",
        ">=4.9,<6",
    ),
)

COSINE_THRESHOLD = 0.363
"""From this cosine on two faces are one person's, says OpenCV's own sample for SFace."""


class ProtectedCrop(np.ndarray[Any, np.dtype[np.uint8]]):
    """An aligned crop that `alignCrop` of a protected recogniser made: (112, 112, 3) uint8 BGR.

    It can't be written to. Slices and copies of it are still such crops; the result of a calculation with it,
    or an array made in any other way, is none.
    """

    _gate: Gate | None = None

    def __array_finalize__(self, origin: Any) -> None:
        self._gate = getattr(origin, "_gate", None)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        plain = [it.view(np.ndarray) if isinstance(it, ProtectedCrop) else it for it in inputs]
        return getattr(ufunc, method)(*plain, **options)

    @classmethod
    def of(cls, crop: npt.NDArray[np.uint8], gate: Gate) -> Self:
        """Mark a crop as protected."""
        made = np.array(crop, np.uint8, copy=True).view(cls)
        made._gate = gate
        made.setflags(write=False)
        return made


class ProtectedFaceRecognizerSF(StandIn):
    """Stands in for a `cv2.FaceRecognizerSF`, with its methods; one may be used by many threads."""

    def __init__(self, target: Any, gate: Gate) -> None:
        super().__init__(target, gate)
        self._detector = finder()
        self._lock = threading.Lock()  # OpenCV's networks hold the buffers of the call in hand

    def alignCrop(self, src_img: Pixels, face_box: npt.NDArray[np.float32]) -> ProtectedCrop:  # noqa: N802
        """Protect a face and cut the cancelable one out, aligned.

        Args:
            src_img: (height, width, 3) uint8 BGR.
            face_box: The face's row of 15 numbers from `FaceDetectorYN.detect`.

        Raises:
            SubjectNeededError: Nobody said whose face it is.
            PhotoError: The photo can't be used.
            KeystoreError: There is no usable key.
        """
        whose = self._gate.whose()
        row = np.asarray(face_box, np.float32).ravel()
        if row.size < 4 or not np.isfinite(row[:4]).all():
            raise BadArrayError("a face is a row of FaceDetectorYN.detect", where="face_box")
        x, y, width, height = (float(value) for value in row[:4])
        face = face_in_box(self._gate, src_img, (x, y, x + width, y + height), whose, channel_order="bgr")
        found = self._detector.detect(Photo(face.pixels, "cancelable face"))
        if not found:
            raise NoFaceError("the cancelable face has no face", where=NAME, fix="use another photo")
        best = found[0]
        x0, y0, x1, y1 = best.box
        there = np.array([x0, y0, x1 - x0, y1 - y0, *best.landmarks.ravel(), best.score], np.float32)
        return ProtectedCrop.of(self._target.alignCrop(bgr(face), there[None]), self._gate)

    def feature(self, aligned_img: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Embed an aligned crop of a cancelable face: (1, 128) float32.

        Raises:
            BypassError: The crop is none that `alignCrop` made.
        """
        if not isinstance(aligned_img, ProtectedCrop) or aligned_img._gate is not self._gate:
            raise BypassError(
                "this crop did not come from alignCrop, so that it may show the person; nothing was embedded",
                where=NAME,
                fix="give feature() what alignCrop() of this recogniser returned",
            )
        with self._lock:
            feature: npt.NDArray[np.float32] = self._target.feature(np.array(aligned_img))
            return feature.copy()  # OpenCV hands out the same memory at each call

    def match(self, *args: Any, **kwargs: Any) -> float:
        """Compare two features; as OpenCV's."""
        return float(self._target.match(*args, **kwargs))


def protect(target: Any, mixer: FaceMixer, *, keys: KeyUse = "own", scope: ScopeRule = "default") -> Any:
    """Put the mixer in front of a `cv2.FaceRecognizerSF`.

    Args:
        target: The recogniser.
        mixer: Makes the cancelable faces.
        keys: "own" or "gallery".
        scope: Scope of the keys.

    Returns:
        An object with the recogniser's methods, for use in its place.

    Raises:
        SdkMissingError, SdkVersionError: OpenCV is not there, or not as tested.
        DoubleProtectionError: It is protected already, in another way.
    """
    SDKS[0].check()
    gate = Gate(mixer, NAME, keys=keys, scope=scope)
    return stand_in(target, gate, ProtectedFaceRecognizerSF)


unprotect = unwrap


class _Recorded:
    """A `FaceRecognizerSF` that keeps what it is given."""

    def __init__(self, recogniser: Any, recorder: Recorder) -> None:
        self._recogniser, self._recorder = recogniser, recorder

    def alignCrop(self, picture: Pixels, face: npt.NDArray[np.float32]) -> Pixels:  # noqa: N802
        self._recorder.note(picture[..., ::-1])
        return np.asarray(self._recogniser.alignCrop(picture, face), np.uint8)

    def feature(self, crop: Pixels) -> npt.NDArray[np.float32]:
        self._recorder.note(crop[..., ::-1])
        return np.asarray(self._recogniser.feature(crop), np.float32)

    def match(self, *args: Any, **kwargs: Any) -> float:
        return float(self._recogniser.match(*args, **kwargs))


@contextmanager
def rehearse(mixer: FaceMixer, *, keys: KeyUse = "own", scope: ScopeRule = "default") -> Iterator[Rehearsal]:
    """OpenCV's detector and recogniser with the weights of the registry, and a gallery in memory."""
    cv2 = SDKS[0].load()
    detector = cv2.FaceDetectorYN.create(str(locate("yunet")), "", (320, 320))
    recorder, lock = Recorder(), threading.Lock()
    original = _Recorded(cv2.FaceRecognizerSF.create(str(locate("sface")), ""), recorder)
    client = protect(original, mixer, keys=keys, scope=scope)

    def embed(recogniser: Any, pixels: Pixels) -> npt.NDArray[np.float32]:
        photo = np.ascontiguousarray(pixels[..., ::-1])
        with lock:
            detector.setInputSize((photo.shape[1], photo.shape[0]))
            _, faces = detector.detect(photo)
        if faces is None:
            raise NoFaceError("FaceDetectorYN found no face", where=NAME, fix="use another photo")
        return np.asarray(recogniser.feature(recogniser.alignCrop(photo, faces[0])), np.float32)

    yield VectorRehearsal(
        client._gate,
        client,
        embed=lambda pixels: embed(client, pixels),
        embed_original=lambda pixels: embed(original, pixels),
        score=cosine,
        accepts=lambda score: score >= COSINE_THRESHOLD,
        higher_is_closer=True,
        recorder=recorder,
    )
