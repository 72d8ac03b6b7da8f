"""OpenCV's `FaceRecognizerSF` (SFace).

    detector = cv2.FaceDetectorYN.create(yunet, "", (320, 320))
    recogniser = protect(cv2.FaceRecognizerSF.create(sface, ""), mixer)
    with mixer.subject("alice"):
        feature = recogniser.feature(recogniser.alignCrop(photo, detector.detect(photo)[1][0]))

The mixer works in `alignCrop`, which is given the photo and the face: what it returns is the aligned crop of
the cancelable face, and `feature` takes nothing else. The detector is the host's own and is left as it is.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt
from cachetools import LRUCache

from anonymix_adapters.errors import BypassError
from anonymix_adapters.interceptor import FaceMixer, Interceptor, KeyUse, ScopeRule
from anonymix_adapters.local import Recorder, Vector, VectorBackEnd, VectorRehearsal, bgr, cosine, face_in_box, finder
from anonymix_adapters.protocol import Rehearsal
from anonymix_adapters.sdk import Sdk
from anonymix_adapters.wrapping import StandIn, interceptor_of, stand_in, unwrap
from anonymix_plugin.errors import BadArrayError, NoFaceError
from anonymix_plugin.models import locate
from anonymix_plugin.values import Photo, Pixels

__all__ = [
    "NAME",
    "SDKS",
    "ProtectedCrop",
    "ProtectedFaceRecognizerSF",
    "back_end",
    "interceptor_of",
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

_KEPT: Final = 10_000  # seals of 64 bytes: a crop is known again by its pixels as long as they are kept
_ROW = 15  # numbers: box, five points, score

COSINE_THRESHOLD = 0.363
"""From this cosine on two faces are one person's, says OpenCV's own sample for SFace."""

_COMPARING: Any = {
    "score": cosine,
    "accepts": lambda score: score >= COSINE_THRESHOLD,
    "higher_is_closer": True,
}


class ProtectedCrop(np.ndarray[Any, np.dtype[np.uint8]]):
    """An aligned crop that `alignCrop` of a protected recogniser made: (112, 112, 3) uint8 BGR.

    It carries a seal of its pixels that the recogniser alone can make. `feature` takes the crop, a copy of it
    and its mirror image, as often as they are given; where a pixel was changed the seal is broken. Copies
    that carry no seal (plain arrays, files) are known by their pixels: those of the last 10,000 crops.
    """

    _seal: bytes = b""

    def __array_finalize__(self, origin: Any) -> None:
        self._seal = getattr(origin, "_seal", b"")

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        plain = [it.view(np.ndarray) if isinstance(it, ProtectedCrop) else it for it in inputs]
        return getattr(ufunc, method)(*plain, **options)

    @classmethod
    def of(cls, crop: npt.NDArray[np.uint8], seal: bytes) -> Self:
        """Mark a crop as protected."""
        made = np.array(crop, np.uint8, copy=True).view(cls)
        made._seal = seal
        made.setflags(write=False)
        return made


class ProtectedFaceRecognizerSF(StandIn):
    """Stands in for a `cv2.FaceRecognizerSF`, with its methods; one may be used by many threads."""

    def __init__(self, target: Any, interceptor: Interceptor) -> None:
        super().__init__(target, interceptor)
        self._detector = finder()
        self._lock = threading.Lock()  # OpenCV's networks hold the buffers of the call in hand
        self._secret = secrets.token_bytes(32)
        self._given: LRUCache[bytes, None] = LRUCache(_KEPT)

    def alignCrop(  # noqa: N802
        self,
        src_img: Pixels,
        face_box: npt.NDArray[np.float32],
        aligned_img: npt.NDArray[np.uint8] | None = None,
        *,
        subject: str | None = None,
    ) -> ProtectedCrop:
        """Protect a face and cut the cancelable one out, aligned.

        Args:
            src_img: (height, width, 3) uint8 BGR.
            face_box: The face's row of 15 numbers from `FaceDetectorYN.detect`.
            aligned_img: Gets a copy of the crop if it is an array of its shape and type; another array is
                returned all the same.
            subject: Whose face it is; `with mixer.subject(...)` around the call says it otherwise.

        Raises:
            SubjectNeededError: Nobody said whose face it is.
            PhotoError: The photo can't be used, or this is no one face.
            KeystoreError: There is no usable key.
        """
        whose = self._interceptor.whose(argument=subject)
        if face_box is None:
            raise NoFaceError("the detector found no face", where=NAME, fix="use another photo")
        row = np.array(face_box, np.float32).ravel()
        if not 4 <= row.size <= _ROW or not np.isfinite(row[:4]).all():
            raise BadArrayError("a face is one row of FaceDetectorYN.detect", where="face_box")
        x, y, width, height = (float(value) for value in row[:4])
        face = face_in_box(self._interceptor, src_img, (x, y, x + width, y + height), whose, channel_order="bgr")
        found = self._detector.detect(Photo(face.pixels, "cancelable face"))
        if not found:
            raise NoFaceError("the cancelable face has no face", where=NAME, fix="use another photo")
        best = found[0]
        x0, y0, x1, y1 = best.box
        there = np.array([x0, y0, x1 - x0, y1 - y0, *best.landmarks.ravel(), best.score], np.float32)
        crop = np.asarray(self._target.alignCrop(bgr(face), there[None]), np.uint8)
        if isinstance(aligned_img, np.ndarray) and (aligned_img.shape, aligned_img.dtype) == _like(crop):
            np.copyto(aligned_img, crop)
        seal = self._sealed(crop)
        with self._lock:
            self._given[seal] = None
        return ProtectedCrop.of(crop, seal)

    def feature(
        self,
        aligned_img: npt.NDArray[np.uint8],
        face_feature: npt.NDArray[np.float32] | None = None,
        *,
        subject: str | None = None,  # noqa: ARG002 - the crop is somebody's already
    ) -> npt.NDArray[np.float32]:
        """Embed an aligned crop of a cancelable face: (1, 128) float32.

        Args:
            aligned_img: What `alignCrop` of this recogniser returned, a copy of it, or its mirror image.
            face_feature: Gets a copy of the feature if it is an array of its shape and type.
            subject: Of no account: the crop was made under somebody's key.

        Raises:
            BypassError: The crop is none that `alignCrop` made, or was changed.
        """
        its_own = aligned_img._seal if isinstance(aligned_img, ProtectedCrop) else b""
        crop = np.array(aligned_img, copy=True, subok=False, order="C")  # nobody changes it any more
        pixels = crop.ndim == 3 and crop.dtype == np.uint8
        seals = [self._sealed(it) for it in ((crop, crop[:, ::-1]) if pixels else ())]
        with self._lock:
            if not any(it in self._given or hmac.compare_digest(it, its_own) for it in seals):
                raise BypassError(
                    "this crop did not come from alignCrop, was changed since, or was made by another "
                    "recogniser, so that it may show the person; nothing was embedded",
                    where=NAME,
                    fix="give feature() what alignCrop() of this recogniser returned, as it is",
                )
            # OpenCV hands out the same memory at each call.
            feature: npt.NDArray[np.float32] = np.array(self._target.feature(crop), copy=True)
        if isinstance(face_feature, np.ndarray) and (face_feature.shape, face_feature.dtype) == _like(feature):
            np.copyto(face_feature, feature)
        return feature

    def match(
        self,
        face_feature1: npt.NDArray[np.float32],
        face_feature2: npt.NDArray[np.float32],
        dis_type: int = 0,
        *,
        subject: str | None = None,  # noqa: ARG002 - the features are somebody's already
    ) -> float:
        """Compare two features; as OpenCV's, but without changing them, which OpenCV's own does.

        Lists and float64, as databases hand features on, are taken as well.
        """
        one, other = (np.array(it, np.float32) for it in (face_feature1, face_feature2))
        return float(self._target.match(one, other, dis_type))

    def _sealed(self, crop: npt.NDArray[np.uint8]) -> bytes:
        text = repr(_like(crop)).encode() + np.ascontiguousarray(crop).tobytes()
        return hashlib.blake2b(text, key=self._secret).digest()


def _like(array: npt.NDArray[Any]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    return array.shape, array.dtype


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
    interceptor = Interceptor(mixer, NAME, keys=keys, scope=scope)
    return stand_in(target, interceptor, ProtectedFaceRecognizerSF)


unprotect = unwrap


class _Recorded:
    """A `FaceRecognizerSF` that keeps what it is given."""

    def __init__(self, recogniser: Any, recorder: Recorder) -> None:
        self.original, self._recorder = recogniser, recorder

    def alignCrop(self, picture: Pixels, face: npt.NDArray[np.float32]) -> Pixels:  # noqa: N802
        self._recorder.note(picture[..., ::-1])
        return np.asarray(self.original.alignCrop(picture, face), np.uint8)

    def feature(self, crop: Pixels) -> npt.NDArray[np.float32]:
        self._recorder.note(crop[..., ::-1])
        return np.asarray(self.original.feature(crop), np.float32)

    def match(self, *args: Any, **kwargs: Any) -> float:
        return float(self.original.match(*args, **kwargs))


def back_end(
    mixer: FaceMixer,
    vectors: MutableMapping[str, tuple[str, Vector]],
    collection: str,
    *,
    keys: KeyUse = "own",
    scope: ScopeRule = "default",
) -> VectorBackEnd:
    """OpenCV's detector and recogniser with the weights of the registry, and a host's vectors, for bulk renewal.

    Args:
        mixer: Makes the cancelable faces.
        vectors: Entry id to subject and vector; the host's own.
        collection: The host's collection.
        keys: See `protect`.
        scope: See `protect`.
    """
    cv2 = SDKS[0].load()
    client = protect(cv2.FaceRecognizerSF.create(str(locate("sface")), ""), mixer, keys=keys, scope=scope)
    embed = _embedding(cv2)
    return VectorBackEnd(client._interceptor, collection, vectors, embed=lambda it: embed(client, it), **_COMPARING)


@contextmanager
def rehearse(mixer: FaceMixer, *, keys: KeyUse = "own", scope: ScopeRule = "default") -> Iterator[Rehearsal]:
    """OpenCV's detector and recogniser with the weights of the registry, and a gallery in memory."""
    cv2 = SDKS[0].load()
    recorder, embed = Recorder(), _embedding(cv2)
    original = _Recorded(cv2.FaceRecognizerSF.create(str(locate("sface")), ""), recorder)
    client = protect(original, mixer, keys=keys, scope=scope)
    yield VectorRehearsal(
        client._interceptor,
        client,
        embed=lambda pixels: embed(client, pixels),
        embed_original=lambda pixels: embed(original, pixels),
        recorder=recorder,
        **_COMPARING,
    )


def _embedding(cv2: Any) -> Callable[[Any, Pixels], npt.NDArray[np.float32]]:
    """What embeds the largest face of a photo by a recogniser."""
    detector, lock = cv2.FaceDetectorYN.create(str(locate("yunet")), "", (320, 320)), threading.Lock()

    def embed(recogniser: Any, pixels: Pixels) -> npt.NDArray[np.float32]:
        photo = np.ascontiguousarray(pixels[..., ::-1])
        with lock:
            detector.setInputSize((photo.shape[1], photo.shape[0]))
            _, faces = detector.detect(photo)
        if faces is None:
            raise NoFaceError("FaceDetectorYN found no face", where=NAME, fix="use another photo")
        return np.asarray(recogniser.feature(recogniser.alignCrop(photo, faces[0])), np.float32)

    return embed
