"""From a person's keyed code to the latent space: a linear map, and a small network that bends it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from anonymix_plugin.values import Floats

Matrix = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Bend:
    """A network with two hidden layers of SiLU (Hendrycks and Gimpel 2016) that adds to the linear map.

    Attributes:
        scale: The code, of length 1, is multiplied by this first, so that its numbers are of order 1.
        first: (H, D) float32 and its bias (H,).
        second: (H, H) float32 and its bias (H,).
        last: (groups * axes, H) float32 and its bias: the widest `axes` whitened coordinates of each group.
    """

    scale: float
    first: tuple[Floats, Floats]
    second: tuple[Floats, Floats]
    last: tuple[Floats, Floats]

    def tensors(self) -> dict[str, Floats]:
        """Return name -> array, for the file."""
        found: dict[str, Floats] = {"scale": np.array([self.scale], np.float32)}
        for name in ("first", "second", "last"):
            weight, bias = getattr(self, name)
            found |= {f"{name}.weight": weight, f"{name}.bias": bias}
        return found

    @classmethod
    def of_tensors(cls, tensors: Mapping[str, Floats]) -> Bend:
        """Read what `tensors` returned.

        Raises:
            KeyError: One is missing.
        """
        layers = [
            (tensors[f"{name}.weight"], tensors[f"{name}.bias"]) for name in ("first", "second", "last")
        ]
        return cls(float(tensors["scale"][0]), *layers)


class IdentityMap:
    """The map as the fast road uses it, in double precision and without BLAS.

    Args:
        linear: (groups, 512, D) float32.
        bend: What is added, or None.
        removed: (512,) float32, a direction that is taken out of the sum, of length 1; or None.
    """

    def __init__(self, linear: Floats, bend: Bend | None = None, removed: Floats | None = None) -> None:
        self.linear = linear.astype(np.float64)
        self._removed = None if removed is None else removed.astype(np.float64)
        self._scale = 1.0 if bend is None else bend.scale
        self._layers = [] if bend is None else list(_doubles(bend))

    def __call__(self, keyed: Matrix) -> Matrix:
        """(D,) float64, a keyed code of length 1 -> (groups, 512) float64, whitened coordinates."""
        codes = np.stack([product(matrix, keyed) for matrix in self.linear])
        if self._layers:
            x = self._scale * keyed
            for weight, bias in self._layers[:-1]:
                x = product(weight, x) + bias
                x = 0.5 * x * (1 + np.tanh(0.5 * x))  # x * sigmoid(x), without overflow
            weight, bias = self._layers[-1]
            added = (product(weight, x) + bias).reshape(len(codes), -1)
            codes[:, : added.shape[1]] += added
        if self._removed is not None:
            codes -= np.outer(codes @ self._removed, self._removed)
        return codes


def _doubles(bend: Bend) -> Iterator[tuple[Matrix, Matrix]]:
    for weight, bias in (bend.first, bend.second, bend.last):
        yield weight.astype(np.float64), bias.astype(np.float64)


def product(matrix: Matrix, vector: Matrix) -> Matrix:
    """Multiply without BLAS, whose threads cost more than such small products and sum in varying order."""
    return np.asarray(np.einsum("ij,j->i", matrix, vector))
