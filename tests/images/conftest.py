"""A picture, files of it in all formats, and a cancelable face."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image

from anonymix_plugin.values import CancelableFace, Pixels

Encode = Callable[..., bytes]


def gradient(width: int = 60, height: int = 44) -> Pixels:
    """Smooth, so that lossy formats keep it, and different at every corner, so that no turn goes unseen."""
    y, x = np.mgrid[:height, :width]
    return np.stack([255 * x // width, 255 * y // height, 40 + 90 * (x + y) // (width + height)], -1).astype(np.uint8)


@pytest.fixture
def picture() -> Pixels:
    return gradient()


@pytest.fixture(scope="session")
def encode() -> Encode:
    """Writes a PIL image or pixels with Pillow and returns the file."""

    def write(image: Image.Image | Pixels, kind: str, **options: Any) -> bytes:
        if not isinstance(image, Image.Image):
            image = Image.fromarray(image)
        stream = io.BytesIO()
        image.save(stream, kind, **options)
        return stream.getvalue()

    return write


@pytest.fixture(scope="session")
def files(encode: Encode) -> dict[str, bytes]:
    """The gradient in every format, and in the variants that differ inside."""
    image = Image.fromarray(gradient())
    return {
        "jpeg": encode(image, "JPEG", quality=95),
        "jpeg progressive": encode(image, "JPEG", quality=95, progressive=True),
        "png": encode(image, "PNG"),
        "webp": encode(image, "WEBP", quality=95),
        "webp lossless": encode(image, "WEBP", lossless=True),
        "bmp": encode(image, "BMP"),
        "tiff": encode(image, "TIFF"),
        "tiff deflate": encode(image, "TIFF", compression="tiff_adobe_deflate"),
        "tiff lzw": encode(image, "TIFF", compression="tiff_lzw"),
        "gif": encode(image, "GIF"),
    }


@pytest.fixture
def face(picture: Pixels) -> CancelableFace:
    return CancelableFace(
        pixels=picture,
        box=(1.0, 2.0, 30.0, 40.0),
        subject="alice-in-person",
        scope="staff-of-the-bank",
        key_version=3,
        fingerprint="0123456789abcdef" * 2,
        method="fast",
    )
