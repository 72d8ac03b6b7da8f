"""A photo for those who bring none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from anonymix_plugin.generator import load_generator, pictures_of
from anonymix_plugin.mixer.weights import load_mixer_weights


def draw_photo(path: Path) -> Path:
    """Draw the generator's mean face as a JPEG of 512 px; returns the path."""
    generator, centre = load_generator(), load_mixer_weights().centre
    code = np.repeat(centre[None, None], generator.layers.total, axis=1)
    picture = pictures_of(generator, np.ascontiguousarray(code), 512)[0]
    pixels = np.rint((picture.clip(-1, 1) + 1) * 127.5).astype(np.uint8).transpose(1, 2, 0)
    Image.fromarray(np.ascontiguousarray(pixels)).save(path, "JPEG", quality=92)
    return path
