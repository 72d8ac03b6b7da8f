"""Where the landmarks of a face lie, and pictures that show where they came to lie."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from anonymix_plugin.values import Pixels

UPRIGHT = np.array([[-30, -35], [30, -35], [0, 0], [-24, 33], [24, 33]], np.float32)
"""Eyes, nose and mouth corners around the middle of a face."""


def dots(shape: tuple[int, int], points: npt.ArrayLike, radius: float) -> Pixels:
    """A black picture with a soft dot at each point; five points, told apart by their colours."""
    colours = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 0], [0, 255, 255]], float)
    y, x = np.mgrid[: shape[0], : shape[1]]
    picture = np.zeros((*shape, 3))
    for (px, py), colour in zip(np.asarray(points), colours, strict=True):
        picture += np.exp(-((x - px) ** 2 + (y - py) ** 2) / (2 * radius**2))[:, :, None] * colour
    return np.clip(picture + 0.5, 0, 255).astype(np.uint8)


def middles(picture: Pixels) -> npt.NDArray[np.float64]:
    """Where the five dots of `dots` lie: the centres of mass of each colour, (5, 2)."""
    r, g, b = (picture[:, :, i].astype(float) for i in range(3))
    y, x = np.mgrid[: picture.shape[0], : picture.shape[1]]
    weights = [r - np.minimum(r, g), g - np.minimum(g, np.maximum(r, b)), b - np.minimum(b, g)]
    weights += [np.minimum(r, g), np.minimum(g, b)]
    weights = [np.where(w > 40, w, 0) for w in weights]
    return np.array([[(w * x).sum() / w.sum(), (w * y).sum() / w.sum()] for w in weights])
