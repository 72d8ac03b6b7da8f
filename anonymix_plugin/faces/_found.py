"""Raw detections in one picture, on their way back to the coordinates of the photo."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from anonymix_plugin.values import Floats


@dataclass(frozen=True, eq=False)
class Found:
    """Detections in one picture, in its pixels, all float32.

    Attributes:
        boxes: (n, 4), x0 y0 x1 y1.
        landmarks: (n, 5, 2), x y.
        scores: (n,), 0..1.
    """

    boxes: Floats
    landmarks: Floats
    scores: Floats

    def __len__(self) -> int:
        return len(self.scores)

    def mapped(self, scale: tuple[float, float], shift: tuple[float, float]) -> Found:
        """The same detections after every point (x, y) became (x, y) / scale - shift."""
        by: Floats = np.array(scale, dtype=np.float32)
        less: Floats = np.array(shift, dtype=np.float32)
        boxes = (self.boxes.reshape(-1, 2, 2) / by - less).reshape(-1, 4)
        return Found(boxes, self.landmarks / by - less, self.scores)

    def picked(self, which: npt.NDArray[Any]) -> Found:
        """Those detections that an index or a mask picks out."""
        return Found(self.boxes[which], self.landmarks[which], self.scores[which])

    def joined(self, other: Found) -> Found:
        """These detections and those of `other`, which must be in the same coordinates."""
        return Found(
            np.concatenate([self.boxes, other.boxes]),
            np.concatenate([self.landmarks, other.landmarks]),
            np.concatenate([self.scores, other.scores]),
        )


NOTHING: Final = Found(np.zeros((0, 4), np.float32), np.zeros((0, 5, 2), np.float32), np.zeros(0, np.float32))


def without_parts(found: Found, share: float) -> Found:
    """Leave out what is a part of a face: a detector that looks very closely takes a cheek for one.

    Args:
        found: Detections, the highest score first.
        share: A detection goes if more than this share of its box (0..1) lies within that of one with a
            higher score.
    """
    x0, y0, x1, y1 = found.boxes.T
    areas = np.clip(x1 - x0, 0, None) * np.clip(y1 - y0, 0, None)
    kept: list[int] = []
    for i in range(len(found)):
        width = np.clip(np.minimum(x1[i], x1[kept]) - np.maximum(x0[i], x0[kept]), 0, None)
        height = np.clip(np.minimum(y1[i], y1[kept]) - np.maximum(y0[i], y0[kept]), 0, None)
        if not (width * height > share * areas[i]).any():
            kept.append(i)
    return found.picked(np.array(kept, np.intp))


def suppress(found: Found, overlap: float) -> Found:
    """Greedy non-maximum suppression.

    Args:
        found: Detections in any order.
        overlap: Of two boxes whose intersection over union is above this (0..1), the one with the higher
            score stays.

    Returns:
        The detections that stay, the highest score first.
    """
    x0, y0, x1, y1 = found.boxes.T
    areas = np.clip(x1 - x0, 0, None) * np.clip(y1 - y0, 0, None)
    rest = np.argsort(-found.scores, kind="stable")
    kept = []
    while rest.size:
        best, rest = rest[0], rest[1:]
        kept.append(best)
        width = np.clip(np.minimum(x1[best], x1[rest]) - np.maximum(x0[best], x0[rest]), 0, None)
        height = np.clip(np.minimum(y1[best], y1[rest]) - np.maximum(y0[best], y0[rest]), 0, None)
        shared = width * height
        union = areas[best] + areas[rest] - shared
        rest = rest[shared <= overlap * union]
    return found.picked(np.array(kept, np.intp))
