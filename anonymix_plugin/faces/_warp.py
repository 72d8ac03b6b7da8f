"""Cutting a turned and scaled square out of a photo without aliasing."""

from __future__ import annotations

import math
from typing import Literal, TypeAlias

import cv2
import numpy as np

from anonymix_plugin.faces._similarity import Matrix
from anonymix_plugin.values import Pixels

Outside: TypeAlias = Literal["black", "reflect"]
"""What the photo continues with beyond its edges."""

_MARGIN = 4  # pixels of the photo that interpolation and averaging may reach beyond the square


def warp_square(pixels: Pixels, matrix: Matrix, size: int, outside: Outside) -> Pixels:
    """Cuts out the square that a similarity carries onto (0, 0) .. (size, size).

    Where the similarity shrinks, the part of the photo that it needs is first shrunk by averaging areas;
    bilinear interpolation alone would skip pixels and make noise out of hair and skin.

    Args:
        pixels: (height, width, 3) uint8.
        matrix: (2, 3) similarity from photo to square, in coordinates where the centre of the first
            pixel is (0, 0), as OpenCV has them.
        size: Side of the result in pixels.
        outside: What lies beyond the edges of the photo.

    Returns:
        (size, size, 3) uint8.
    """
    part, (x, y) = _needed(pixels, matrix, size, mirrored=outside == "reflect")
    matrix = matrix @ np.array([[1, 0, x], [0, 1, y], [0, 0, 1.0]])
    scale = math.sqrt(abs(float(np.linalg.det(matrix[:, :2]))))
    if scale < 1:
        height, width = part.shape[:2]
        shrunk = (max(1, round(width * scale)), max(1, round(height * scale)))
        part = np.asarray(cv2.resize(part, shrunk, interpolation=cv2.INTER_AREA), np.uint8)
        fx, fy = width / shrunk[0], height / shrunk[1]
        # Pixel centres: the centre of the first small pixel lies half a small pixel from the edge.
        matrix = matrix @ np.array([[fx, 0, (fx - 1) / 2], [0, fy, (fy - 1) / 2], [0, 0, 1]])
    warped = cv2.warpAffine(
        part,
        matrix,
        (size, size),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REFLECT if outside == "reflect" else cv2.BORDER_CONSTANT,
        borderValue=(0, 0, 0),
    )
    return np.asarray(warped, np.uint8)


def _needed(pixels: Pixels, matrix: Matrix, size: int, *, mirrored: bool) -> tuple[Pixels, tuple[int, int]]:
    """The part of the photo that the square is made from, and where it begins."""
    inverse = np.linalg.inv(np.vstack([matrix, [0, 0, 1]]))
    corners = np.array([[-0.5, -0.5, 1], [size, -0.5, 1], [size, size, 1], [-0.5, size, 1]]) @ inverse.T
    spans = []
    for axis, length in ((0, pixels.shape[1]), (1, pixels.shape[0])):
        low = math.floor(corners[:, axis].min()) - _MARGIN
        high = math.ceil(corners[:, axis].max()) + 1 + _MARGIN
        if mirrored:  # what lies beyond an edge shows what lies as far within
            low, high = min(low, 2 * length - high), max(high, -low)
        low = min(max(low, 0), length - 1)
        spans.append((low, max(min(high, length), low + 1)))
    (x0, x1), (y0, y1) = spans
    return pixels[y0:y1, x0:x1], (x0, y0)
