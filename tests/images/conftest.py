"""A picture, files of it in all formats, and a cancelable face."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest
from heif_files import gradient, heif
from PIL import Image

from anonymix_plugin.values import CancelableFace, Pixels

Encode = Callable[..., bytes]


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
        "heic": heif(image, quality=95, chroma=444),
        "heic of tiles": heif(Image.fromarray(gradient(160, 130)), tile_size=64),
        "avif": encode(image, "AVIF", quality=95, subsampling="4:4:4"),
        "jpeg 2000": encode(image, "JPEG2000"),
        "jpeg 2000 stream": encode(image, "JPEG2000", no_jp2=True),
        "jpeg 2000 of tiles": encode(image, "JPEG2000", tile_size=(32, 32)),
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
