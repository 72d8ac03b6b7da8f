"""Cancelable faces as image files that a back end takes: in its formats, within its limits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import cv2
import numpy as np

from anonymix_adapters.errors import AdapterError, FaceTooSmallError
from anonymix_plugin.images import ImageFormat, encode_cancelable
from anonymix_plugin.values import CancelableFace, Pixels

_QUALITIES = (95, 90, 80, 65)
_FACE_SHARE = 0.45  # of the side of a cancelable face, the face's own width in FFHQ framing


@dataclass(frozen=True)
class ImageLimit:
    """What a back end says about the pictures it takes.

    Attributes:
        format: "JPEG", "PNG" or "WEBP".
        max_bytes: Size of the file.
        min_bytes: Least size of the file.
        min_side: Least length of a side in pixels.
        max_side: Greatest length of a side in pixels.
        min_face: Least width of the face in pixels.
    """

    format: ImageFormat = "JPEG"
    max_bytes: int = 2_000_000
    min_bytes: int = 0
    min_side: int = 1
    max_side: int = 4096
    min_face: int = 0


def encode_within(face: CancelableFace, limit: ImageLimit, *, where: str) -> bytes:
    """Encode a cancelable face, marked as one, as large as the limits allow.

    Raises:
        FaceTooSmallError: No picture within the limits is large enough.
        AdapterError: No picture within the limits is small enough, or large enough in bytes.
    """
    side = min(face.pixels.shape[0], limit.max_side)
    least = max(limit.min_side, round(limit.min_face / _FACE_SHARE), 1)
    if side < least:
        raise FaceTooSmallError(
            f"the back end wants pictures of at least {least} px; this one may have {side}",
            where=where,
            fix="open the mixer with size=1024",
        )
    for length in _sides(side, least):
        smaller = _resized(face.pixels, length)
        for quality in _QUALITIES if limit.format != "PNG" else _QUALITIES[:1]:
            data = encode_cancelable(replace(face, pixels=smaller), limit.format, quality=quality)
            if len(data) < limit.min_bytes:
                raise AdapterError(f"the picture has fewer than {limit.min_bytes} bytes", where=where)
            if len(data) <= limit.max_bytes:
                return data
    raise AdapterError(f"no picture of at most {limit.max_bytes} bytes can be made", where=where)


def _sides(side: int, least: int) -> Iterator[int]:
    while side > least:
        yield side
        side = side * 3 // 4
    yield least


def _resized(pixels: Pixels, side: int) -> Pixels:
    if pixels.shape[0] == side:
        return pixels
    return np.asarray(cv2.resize(pixels, (side, side), interpolation=cv2.INTER_AREA), np.uint8)
