"""What a user might do to a face instead, on the same crop."""

from __future__ import annotations

import cv2
import numpy as np

from anonymix_plugin.values import Pixels


def blurred(face: Pixels, share: float = 0.1) -> Pixels:
    """Gaussian blur with a standard deviation of a share of the side, which is strong enough to hide features."""
    return np.asarray(cv2.GaussianBlur(face, (0, 0), share * len(face)), np.uint8)


def pixelated(face: Pixels, cells: int = 16) -> Pixels:
    """A mosaic of `cells` x `cells` squares."""
    small = cv2.resize(face, (cells, cells), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(small, face.shape[1::-1], interpolation=cv2.INTER_NEAREST), np.uint8)
