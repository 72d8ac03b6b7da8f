"""Faces without a photo of anybody: landmarks placed at will in pictures drawn at will."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from drawn_faces import UPRIGHT

from anonymix_plugin.values import Face, Photo, Pixels

MakeFace = Callable[..., Face]


@pytest.fixture
def make_face() -> MakeFace:
    def make(
        pixels: Pixels | None = None,
        landmarks: npt.ArrayLike | None = None,
        *,
        box: tuple[float, float, float, float] | None = None,
        score: float = 0.9,
    ) -> Face:
        if pixels is None:
            pixels = np.zeros((400, 400, 3), np.uint8)
        photo = Photo(pixels, "drawn.png")
        points = np.asarray(UPRIGHT + 200 if landmarks is None else landmarks, np.float32)
        if box is None:
            box = (*(float(v) for v in points.min(0)), *(float(v) for v in points.max(0)))
        return Face(photo, box, points, score)

    return make
