"""The kinds of pictures that DeepFace takes, as the mixer takes them; what would pass it by is refused."""

from __future__ import annotations

import base64
import binascii
import contextlib
import io
import re
from typing import Any, Final

import numpy as np

from anonymix_adapters.errors import BypassError
from anonymix_plugin.errors import AlreadyProtectedError, UsageError
from anonymix_plugin.images import ChannelOrder, PhotoSource
from anonymix_plugin.values import CancelableFace

_DATA: Final = re.compile(r"\A\s*data:image/[^,]*,", re.IGNORECASE)
_ADDRESS: Final = re.compile(r"\A\s*[a-z][a-z0-9+.-]*://", re.IGNORECASE)


def is_address(text: str) -> bool:
    """Whether a text is an address, and no path."""
    return _ADDRESS.match(text) is not None


def is_vector(image: Any) -> bool:
    """Whether this is an embedding: a list, or an array of one dimension, of numbers."""
    if isinstance(image, np.ndarray):
        return image.ndim < 2
    return (
        isinstance(image, list | tuple) and bool(image) and all(isinstance(it, int | float | np.number) for it in image)
    )


def batch(image: Any) -> list[Any] | None:
    """The pictures of a batch, which is a list or an array of four dimensions; None for one picture.

    Raises:
        UsageError: The list is empty.
    """
    array = isinstance(image, np.ndarray) and image.ndim == 4
    if not array and (not isinstance(image, list | tuple) or is_vector(image)):
        return None
    pictures = list(image)
    if not pictures:
        raise UsageError("the list of pictures is empty", where="img_path", fix="give one picture or more")
    return pictures


def order_of(image: Any) -> ChannelOrder:
    """DeepFace takes arrays in OpenCV's order of channels."""
    return "bgr" if isinstance(image, np.ndarray) else "rgb"


def source(image: Any) -> PhotoSource:
    """One picture, in a form that the mixer takes.

    Raises:
        BypassError: An embedding, or an address that DeepFace would fetch itself.
        UsageError: The base64 is damaged, or the object is no picture.
        AlreadyProtectedError: It is a cancelable face.
    """
    if is_vector(image):
        raise BypassError(
            "this is an embedding, not a picture, and this client did not give it out",
            where="deepface",
            fix="give the photo",
        )
    if isinstance(image, CancelableFace):
        raise AlreadyProtectedError("this is a cancelable face", where="deepface", fix="give the photo")
    if isinstance(image, list | tuple):
        raise UsageError(
            "one picture is expected here, not a list", where="deepface", fix="call it once for each picture"
        )
    if isinstance(image, str):
        return _text(image)
    if isinstance(image, io.TextIOBase):
        raise UsageError("the file is open as text", where="<file>", fix="open it in binary mode: 'rb'")
    if callable(getattr(image, "read", None)):
        # DeepFace reads a file from its beginning, however often it is given.
        with contextlib.suppress(AttributeError, OSError):  # a pipe can't; it is read once
            image.seek(0)
    found: PhotoSource = image
    return found


def _text(image: str) -> PhotoSource:
    found = _DATA.match(image)
    if found:
        # Line breaks are common in base64, and DeepFace takes them.
        content = re.sub(r"\s+", "", image[found.end() :])
        try:
            return base64.b64decode(content, validate=True)
        except (binascii.Error, ValueError):
            raise UsageError("the base64 of the picture is damaged", where="data:image/...") from None
    if is_address(image):
        raise BypassError(
            "addresses are not fetched", where=image.split(":", 1)[0].strip() + ":...", fix="give the bytes"
        )
    return image
