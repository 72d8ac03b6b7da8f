"""Pictures on their way to a commercial API: where they come from, and what may not pass."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import IO, Any, TypeAlias, cast

import cv2
import numpy as np
from PIL import Image

from anonymix_adapters._wire import current
from anonymix_adapters.encoding import ImageLimit, encode_within
from anonymix_adapters.errors import AdapterError, BypassError
from anonymix_adapters.interceptor import Interceptor, Whose
from anonymix_plugin.errors import AnonymixError, UsageError
from anonymix_plugin.images import PhotoSource, default_limits, read_source
from anonymix_plugin.values import CancelableFace, Pixels

Fetch: TypeAlias = Callable[[str], bytes]
"""Fetches the photo behind an address, for calls that name one. Which addresses it follows is up to it."""


@dataclass(frozen=True)
class Url:
    """The address of a photo, which the API would fetch by itself, past the mixer.

    Attributes:
        address: http(s)://...
    """

    address: str = field(repr=False)  # it may be signed


Upload: TypeAlias = bytes | bytearray | memoryview | os.PathLike[str] | IO[bytes]
"""A photo as the clients take it: the bytes of an image file, a `Path`, or a file opened in binary mode.

No plain text: it could be a path, an address or a token, and one must not be taken for another."""


def draw(interceptor: Interceptor, photo: PhotoSource, whose: Whose, limit: ImageLimit) -> tuple[CancelableFace, bytes]:
    """A cancelable face and its file, within the API's limits."""
    face = interceptor.protect(photo, whose)
    picture = encode_within(alone(face), limit, where=interceptor.adapter)
    call = current(interceptor)
    if call is not None:
        call.note(picture)
    return face, picture


def alone(face: CancelableFace) -> CancelableFace:
    """The face without what is around it.

    Generators that learned from portraits draw, now and then, part of a second face beside the first. A back
    end may count it, enrol it, or refuse the picture for it. In FFHQ framing the place of the first is known:
    outside an ellipse around it all is painted in the picture's mean colour.
    """
    pixels, side = face.pixels, face.pixels.shape[0]
    painted = np.empty_like(pixels)
    cv2.rectangle(painted, (0, 0), (side, side), cv2.mean(pixels[::8, ::8].copy())[:3], -1)
    return replace(face, pixels=np.asarray(cv2.copyTo(pixels, _inside(side), painted), np.uint8))


@lru_cache(maxsize=8)
def _inside(side: int) -> Pixels:
    """(side, side) uint8, 255 within the ellipse around a face in FFHQ framing.

    Centre (.50, .54), half axes .45 and .53 of the side: hair and chin of faces turned aside are inside.
    """
    mask = np.zeros((side, side), np.uint8)
    centre = (round(0.50 * side), round(0.54 * side))
    cv2.ellipse(mask, centre, (round(0.45 * side), round(0.53 * side)), 0, 0, 360, 255, -1)
    return mask


def fetched(interceptor: Interceptor, address: str, fetch: Fetch | None) -> bytes:
    """The photo behind an address.

    Raises:
        BypassError: Nobody said how to fetch it, and the API itself may not.
        AdapterError: The function failed. What it said is left out, as the address may be signed.
    """
    if fetch is None:
        raise BypassError(
            "the API would fetch this address itself, past the mixer; nothing was sent",
            where=interceptor.adapter,
            fix="send the photo, or protect with fetch=, a function that fetches it",
        )
    try:
        return fetch(address)
    except AnonymixError:
        raise
    except Exception as error:  # noqa: BLE001 - the host's function may raise what it likes
        kind = type(error).__name__
    raise AdapterError(f"fetching the photo failed ({kind}); nothing was sent", where=interceptor.adapter)


def encoded(interceptor: Interceptor, value: Any, name: str) -> bytes:
    """The photo in a field that holds encoded bytes or an open file.

    Raises:
        UsageError: It holds something else. A text is not taken for a path: a name from outside must not
            make us read a file.
    """
    content = value.read() if hasattr(value, "read") else value
    if not isinstance(content, bytes | bytearray | memoryview):
        raise UsageError(
            f"{name} holds a {type(value).__name__}; nothing was sent",
            where=interceptor.adapter,
            fix="give the bytes of an image file",
        )
    return bytes(content)


def refused(interceptor: Interceptor, call: str, why: str, fix: str = "") -> BypassError:
    """The error for a call that has no way through the mixer."""
    return BypassError(f"{call} {why}; nothing was sent", where=interceptor.adapter, fix=fix)


def upload(interceptor: Interceptor, photo: Any) -> PhotoSource:
    """A photo as the clients take it, for the mixer.

    Raises:
        UsageError: It is something else; nothing was sent.
    """
    if isinstance(photo, bytes | bytearray | memoryview | os.PathLike) or hasattr(photo, "read"):
        return cast("PhotoSource", photo)
    raise UsageError(
        f"a photo can't be a {type(photo).__name__}; nothing was sent",
        where=interceptor.adapter,
        fix="give bytes, a pathlib.Path or an open file; an address as Url(...)",
    )


def file_of(photo: PhotoSource) -> bytes:
    """A photo as the bytes of an image file, as it is; arrays (RGB) and PIL images become PNG."""
    if isinstance(photo, np.ndarray | Image.Image):
        stream = io.BytesIO()
        picture = Image.fromarray(photo) if isinstance(photo, np.ndarray) else photo
        picture.save(stream, "PNG")
        return stream.getvalue()
    return read_source(photo, default_limits())[0]


def best(scores: Sequence[float]) -> float:
    """The highest score; 0 where there is none."""
    return max(scores, default=0.0)
