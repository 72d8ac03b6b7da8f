"""Crops and embeddings that the adapter gave out, told by their content when they are handed back."""

from __future__ import annotations

import contextlib
import hashlib
import threading
import weakref
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal

import cv2
import numpy as np
import numpy.typing as npt
from cachetools import FIFOCache

from anonymix_adapters.errors import BypassError
from anonymix_adapters.interceptor import Interceptor, Whose
from anonymix_plugin.errors import AnonymixError, UsageError
from anonymix_plugin.images import ImageLimits, decode_photo
from anonymix_plugin.values import CancelableFace

Array = npt.NDArray[Any]

_CROPS = 1024
_VECTORS = 16_384
_THUMB = 16
# Levels of 255 on average. Of 120 photos, whole and cut in three ways, the nearest lay at 26 from 48
# cancelable pictures and crops; crops made smaller, to 40 px with any interpolation, at 8 or less.
_ALIKE = 12.0
_LARGEST = 2_000_000  # pixels of an array that may be a crop made larger
_SMALL: Final = ImageLimits(max_bytes=3_000_000, max_pixels=_LARGEST)


class ProtectedFace(np.ndarray[Any, np.dtype[Any]]):
    """A crop of a cancelable face that `extract_faces` gave out, in DeepFace's own shape, range and order.

    It may be handed back to the same client and is not mixed again. What counts is its content: a crop that
    was changed is refused, and an unchanged one that lost this class passes.
    """

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        def plain(it: Any) -> Any:
            return it.view(np.ndarray) if isinstance(it, ProtectedFace) else it

        if options.get("out") is not None:
            options["out"] = tuple(plain(it) for it in options["out"])
        return getattr(ufunc, method)(*(plain(it) for it in inputs), **options)


@dataclass(frozen=True)
class Origin:
    """What a crop was made from, as an enrolment record needs it.

    Attributes:
        whose: Whose it is, and under which kind of key.
        key_version: Version of the key.
        fingerprint: Mixer fingerprint.
    """

    whose: Whose
    key_version: int
    fingerprint: str

    @classmethod
    def of(cls, face: CancelableFace, whose: Whose) -> Origin:
        """The origin of everything that is cut from a face."""
        return cls(whose, face.key_version, face.fingerprint)


@dataclass(frozen=True)
class Handed:
    """A crop that came back.

    Attributes:
        pixels: (height, width, 3) BGR: uint8, or floats in 0..1.
        whole: Whether it is a whole cancelable picture, out of which the face is still to be cut.
        origin: What it was made from.
    """

    pixels: Array
    whole: bool
    origin: Origin


@dataclass(frozen=True)
class _Entry:
    interceptor: weakref.ref[Interceptor]
    order: Literal["rgb", "bgr", "grey"]
    whole: bool
    origin: Origin


class Given:
    """What was given out lately: digests and thumbnails of crops, digests of embeddings. No picture is kept.

    One for all clients of a process, because a crop of another client is to be refused and not mixed again.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._crops: OrderedDict[bytes, _Entry] = OrderedDict()
        self._shapes: OrderedDict[bytes, tuple[int, ...]] = OrderedDict()
        self._thumbs: list[Array] = []
        self._vectors: FIFOCache[bytes, None] = FIFOCache(_VECTORS)

    # --- crops ------------------------------------------------------------------------------------

    def give(self, crop: Array, interceptor: Interceptor, origin: Origin, *, bgr: bool, whole: bool) -> ProtectedFace:
        """Note a crop, and return it as one that may be handed back."""
        order: Literal["rgb", "bgr"] = "bgr" if bgr else "rgb"
        other: Literal["rgb", "bgr"] = "rgb" if bgr else "bgr"
        noted: dict[bytes, _Entry] = {}
        for form in _forms(crop):
            if form.ndim == 2:
                noted[_digest(form)] = _Entry(weakref.ref(interceptor), "grey", whole, origin)
            colour = np.repeat(form[..., None], 3, axis=2) if form.ndim == 2 else form
            for content, name in ((colour, order), (colour[..., ::-1], other)):
                noted.setdefault(_digest(content), _Entry(weakref.ref(interceptor), name, whole, origin))
        with self._lock:
            self._crops.update(noted)
            self._shapes.update((digest, crop.shape[:2]) for digest in noted)
            while len(self._crops) > 8 * _CROPS:
                digest, _ = self._crops.popitem(last=False)
                self._shapes.pop(digest, None)
            self._thumbs.append(_thumbnail(crop))
            del self._thumbs[:-_CROPS]
        return crop.view(ProtectedFace)

    def handed(self, image: Any, interceptor: Interceptor) -> Handed | None:
        """A crop that was given out, if this is one; None for a picture that was never seen here.

        Raises:
            BypassError: It is such a crop, but was changed, or another client's.
            UsageError: It is a grey one.
        """
        if not isinstance(image, np.ndarray) or image.ndim not in {2, 3} or not image.size:
            return None
        with self._lock:
            known_shape = image.shape[:2] in self._shapes.values()
            thumbs = np.stack(self._thumbs) if self._thumbs else None
        if thumbs is None and not isinstance(image, ProtectedFace):
            return None
        if known_shape:
            for candidate in (image, image[:, ::-1]):  # a mirrored crop is still one
                digest = _digest(_levels(np.asarray(candidate)))
                with self._lock:
                    entry = self._crops.get(digest)
                if entry is not None:
                    return self._passed(np.asarray(image), entry, interceptor)
        if isinstance(image, ProtectedFace) or (thumbs is not None and _alike(np.asarray(image), thumbs)):
            raise BypassError(
                "this looks like a crop that extract_faces gave out, but was changed since: cut, resized or "
                "written to; mixed again, it would be recognised as nobody",
                where=interceptor.adapter,
                fix="hand back the crop as it was, or give the photo",
            )
        return None

    @staticmethod
    def _passed(image: Array, entry: _Entry, interceptor: Interceptor) -> Handed:
        maker = entry.interceptor()
        if maker is None or not maker.same_as(interceptor):
            raise BypassError(
                "this crop is a cancelable face of another client",
                where=interceptor.adapter,
                fix="hand it back to the client that gave it out, or give the photo",
            )
        if entry.order == "grey":
            raise UsageError(
                "a grey crop can't be embedded", where=interceptor.adapter, fix="extract it with color_face='rgb'"
            )
        pixels = image if entry.order == "bgr" else image[..., ::-1]
        levels = _levels(pixels)
        if levels.dtype != np.uint8:  # between the levels, as DeepFace resizes them; 0..1 is its own range
            levels = levels / np.float32(255)
        return Handed(np.ascontiguousarray(levels), entry.whole, entry.origin)

    def handed_as_file(self, image: Any, interceptor: Interceptor) -> Handed | None:
        """The same for a picture that is no array: a crop that was saved is looked for in small files.

        Raises:
            BypassError, UsageError: As for `handed`.
        """
        with self._lock:
            if not self._thumbs or isinstance(image, np.ndarray):
                return None
        stream = callable(getattr(image, "read", None))
        try:
            if stream and not image.seekable():
                return None
            pixels = decode_photo(image, limits=_SMALL).pixels
        except (AnonymixError, AttributeError, OSError, ValueError):
            return None  # the mixer says what is wrong with it
        finally:
            if stream:
                with contextlib.suppress(AttributeError, OSError, ValueError):
                    image.seek(0)
        # As `handed` tells the order of the channels by the content, either one will do.
        return self.handed(pixels, interceptor)

    # --- embeddings -------------------------------------------------------------------------------

    def give_vector(self, vector: list[float]) -> None:
        """Note an embedding."""
        digest = _digest(np.asarray(vector, np.float64))
        with self._lock:
            self._vectors[digest] = None

    def gave_vector(self, vector: Any) -> bool:
        """Whether an embedding was given out, unchanged."""
        try:
            digest = _digest(np.asarray(vector, np.float64))
        except (TypeError, ValueError):
            return False
        with self._lock:
            return digest in self._vectors


GIVEN: Final = Given()


def _levels(image: Array) -> Array:
    """Pixels in 0..255: uint8 where all are whole levels, float32 where not."""
    if image.dtype == np.uint8:
        return image
    if image.dtype.kind not in "fiu" or not np.isfinite(image).all():
        return image.astype(np.float32, copy=False) if image.dtype.kind in "fiu" else np.zeros(0, np.uint8)
    # Resizing may overshoot; a picture of levels that reaches to 2 would be black.
    scaled = image.astype(np.float64) * (255 if image.dtype.kind == "f" and image.max() <= 2 else 1)
    whole = np.rint(scaled)
    if np.abs(scaled - whole).max() < 0.01 and whole.min() >= 0 and whole.max() <= 255:
        return whole.astype(np.uint8)
    return scaled.astype(np.float32)


def _forms(crop: Array) -> Iterator[Array]:
    """The levels of a crop, and what `(crop * 255).astype("uint8")` makes of them: it cuts off decimals."""
    levels = _levels(np.asarray(crop))
    yield levels
    if levels.dtype != np.uint8:
        yield np.asarray(crop * 255 if crop.max() <= 1 else crop).astype(np.uint8)
        return
    for kind in (np.float64, np.float32):
        cut = ((levels / 255).astype(kind) * 255).astype(np.uint8)
        if not np.array_equal(cut, levels):
            yield cut


def _digest(content: Array) -> bytes:
    made = np.ascontiguousarray(content)
    return hashlib.sha256(f"{made.dtype.str} {made.shape} ".encode() + made.tobytes()).digest()


def _thumbnail(image: Array) -> Array:
    levels = np.asarray(_levels(image), np.float32)
    if levels.ndim == 2:
        levels = np.repeat(levels[..., None], 3, axis=2)
    small = cv2.resize(np.ascontiguousarray(levels[..., :3]), (_THUMB, _THUMB), interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.float32)


def _alike(image: Array, thumbs: Array) -> bool:
    """Whether a picture looks like a crop that was given out, in either order of channels, or mirrored."""
    if image.shape[0] * image.shape[1] > _LARGEST or (image.ndim == 3 and image.shape[2] not in {3, 4}):
        return False
    if image.dtype.kind not in "fiu" or not np.isfinite(image).all():
        return False
    small = _thumbnail(image)
    looks = [small, small[..., ::-1], small[:, ::-1], small[:, ::-1, ::-1]]
    return any(float(np.abs(thumbs - look).mean(axis=(1, 2, 3)).min()) < _ALIKE for look in looks)
