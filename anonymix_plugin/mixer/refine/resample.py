"""Cutting faces out of drawn pictures, with gradients, the way `faces.recogniser_crop` cuts them.

Both steps, shrinking by areas and bilinear sampling, are written as products with weight matrices. That is
more arithmetic than `grid_sample` and adaptive pooling take, but a product's gradient is a product too: it
adds up in the same order each time, on a GPU as well, where theirs do not.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

Matrix = npt.NDArray[np.float64]

_MARGIN: Final = 4  # as `faces` has it: pixels that may be reached beyond the crop


def area_weights(size: int, shrunk: int) -> Matrix:
    """The matrix that brings a line to another length by averaging areas.

    Args:
        size: Pixels of the line.
        shrunk: Pixels of the result. Where it is more than `size`, pixels are repeated.

    Returns:
        (shrunk, size) float64; each row adds up to 1.
    """
    return _averages(size, np.arange(shrunk, dtype=np.float64) * (size / shrunk), size / shrunk)


def _averages(size: int, begins: npt.NDArray[np.float64], length: float) -> Matrix:
    """Averages over stretches of a line: (stretches, size). A stretch may reach over the line's ends."""
    begin, pixel = begins[:, None], np.arange(size)[None]
    covered = np.clip(np.minimum(begin + length, pixel + 1) - np.maximum(begin, pixel), 0, None)
    return np.asarray(covered / covered.sum(axis=1, keepdims=True))


def area_resize(pictures: torch.Tensor, size: int) -> torch.Tensor:
    """Bring square pictures to another size by averaging areas.

    Args:
        pictures: (N, C, S, S); returned as they are where S is the size.
        size: Side of the result.

    Returns:
        (N, C, size, size).
    """
    if pictures.shape[-1] == size:
        return pictures
    weights = torch.from_numpy(area_weights(pictures.shape[-1], size)).to(pictures)
    return weights @ pictures @ weights.T


def sample_crops(picture: torch.Tensor, to_crop: Matrix, moves: Matrix, size: int = 112) -> torch.Tensor:
    """Cut crops out of one picture, bilinearly and without aliasing.

    Args:
        picture: (1, C, S, S).
        to_crop: (2, 3) similarity from picture to crop, in coordinates where the centre of the first pixel
            is (0, 0), as OpenCV has them.
        moves: (K, 2, 3) affine maps within the crop: where output pixel p takes its colour from. The
            identity gives the crop itself.
        size: Side of the crops.

    Returns:
        (K, C, size, size); black, which is -1, beyond the edges of the picture.
    """
    scale = math.sqrt(abs(float(np.linalg.det(to_crop[:, :2]))))
    back = np.linalg.inv(np.vstack([to_crop, [0, 0, 1]]))
    edges = np.array([[-0.5, -0.5, 1], [size, -0.5, 1], [size, size, 1], [-0.5, size, 1]]) @ back.T
    rasters = [_raster(picture.shape[-1], edges[:, axis], scale) for axis in (0, 1)]
    across, down = (torch.from_numpy(raster.weights).to(picture) for raster in rasters)
    # Shifted so that black is 0, which is what a sample beyond the edge weighs in with.
    small = down @ (picture[0] + 1) @ across.T
    y, x = np.mgrid[:size, :size]
    pixels = np.stack([x.ravel(), y.ravel(), np.ones(size * size)])
    crops = []
    for move in moves:
        places = back[:2] @ np.vstack([move @ pixels, np.ones(size * size)])
        places = np.stack([raster.place(line) for raster, line in zip(rasters, places, strict=True)])
        crops.append(_bilinear(small, places).reshape(-1, size, size))
    return torch.stack(crops) - 1


@dataclass(frozen=True, eq=False)
class _Raster:
    """The pixels that one axis of the picture is averaged to.

    Attributes:
        weights: (pixels, size) float64.
        origin: Where the first of them begins, in pixels of the picture from its edge.
        step: How many pixels of the picture one of them covers.
    """

    weights: Matrix
    origin: float
    step: float

    def place(self, x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """From coordinates of the picture to those of the raster; both count from the first centre."""
        return np.asarray((x + 0.5 - self.origin) / self.step - 0.5)


def _raster(size: int, edges: npt.NDArray[np.float64], scale: float) -> _Raster:
    """The raster on which `faces.recogniser_crop` averages, continued over the whole of the picture.

    That one begins where the part of the picture begins that the crop needs, and has a whole number of
    pixels in that part. A raster of another phase gives crops that look the same and whose embeddings
    differ by a cosine of up to .015.
    """
    low = min(max(math.floor(edges.min()) - _MARGIN, 0), size - 1)
    high = max(min(math.ceil(edges.max()) + 1 + _MARGIN, size), low + 1)
    step = (high - low) / max(1, round((high - low) * scale)) if scale < 1 else 1.0
    first, last = math.floor(-low / step + 1e-9), math.ceil((size - low) / step - 1e-9)
    origin = low + first * step
    return _Raster(_averages(size, origin + np.arange(last - first) * step, step), origin, step)


def _bilinear(picture: torch.Tensor, places: Matrix) -> torch.Tensor:
    """Sample (C, H, W) at (2, P) places x y, 0 beyond the edges; (C, P)."""
    x, y = torch.from_numpy(places).to(picture)
    across, down = _tents(x, picture.shape[-1]), _tents(y, picture.shape[-2])
    # Along the rows for every place, then the two rows that each place lies between.
    return (torch.matmul(picture, across) * down).sum(dim=1)


def _tents(places: torch.Tensor, size: int) -> torch.Tensor:
    """Bilinear weights of `size` pixels at (P,) places: (size, P), at most two of a column not 0."""
    pixels = torch.arange(size, device=places.device, dtype=places.dtype)
    return (1 - (places[None] - pixels[:, None]).abs()).clamp_min(0)
