"""A picture, and HEIC files of it."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pillow_heif
from PIL import Image

from anonymix_plugin.values import Pixels


def gradient(width: int = 60, height: int = 44) -> Pixels:
    """Smooth, so that lossy formats keep it, and different at every corner, so that no turn goes unseen."""
    y, x = np.mgrid[:height, :width]
    return np.stack([255 * x // width, 255 * y // height, 40 + 90 * (x + y) // (width + height)], -1).astype(np.uint8)


def heif(image: Image.Image | Pixels, **options: Any) -> bytes:
    """A HEIC file, written by libheif."""
    if not isinstance(image, Image.Image):
        image = Image.fromarray(image)
    stream = io.BytesIO()
    pillow_heif.from_pillow(image).save(stream, **options)
    return stream.getvalue()
