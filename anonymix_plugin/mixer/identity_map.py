"""From a person's keyed code to the latent space: a linear map, and a small network that bends it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from anonymix_plugin.values import Floats

Matrix = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Bend:
    """A network with two hidden layers of SiLU (Hendrycks and Gimpel 2016) that adds to the linear map.

    What is added is (f(v) - f(-v)) / 2. An odd function of codes that a key spreads evenly over the sphere
    has a mean of zero: the network can't move everybody towards one type of face.

    Attributes:
        scale: The code, of length 1, is multiplied by this first, so that its numbers are of order 1.
        first: (H, D) float32 and its bias (H,).
        second: (H, H) float32 and its bias (H,).
        last: (groups * axes, H) float32: the widest `axes` whitened coordinates of each group.
    """

    scale: float
    first: tuple[Floats, Floats]
    second: tuple[Floats, Floats]
    last: Floats

    def tensors(self) -> dict[str, Floats]:
        """Return name -> array, for the file."""
        found: dict[str, Floats] = {
            "scale": np.array([self.scale], np.float32),
            "last.weight": self.last,
        }
        for name, (weight, bias) in (("first", self.first), ("second", self.second)):
            found |= {f"{name}.weight": weight, f"{name}.bias": bias}
        return found

    @classmethod
    def of_tensors(cls, tensors: Mapping[str, Floats]) -> Bend:
        """Read what `tensors` returned.

        Raises:
            KeyError: One is missing.
        """
        first, second = ((tensors[f"{name}.weight"], tensors[f"{name}.bias"]) for name in ("first", "second"))
        return cls(float(tensors["scale"][0]), first, second, tensors["last.weight"])


class IdentityMap:
    """The map as the fast method uses it, in double precision and without BLAS.

    Args:
        linear: (groups, 512, D) float32.
        bend: What is added, or None.
        removed: (512,) float32, a direction that is taken out of the sum, of length 1; or None.
    """

    def __init__(self, linear: Floats, bend: Bend | None = None, removed: Floats | None = None) -> None:
        self.linear = linear.astype(np.float64)
        self._removed = None if removed is None else removed.astype(np.float64)
        self._bend = bend
        if bend is not None:
            self._hidden = [(w.astype(np.float64), b.astype(np.float64)) for w, b in (bend.first, bend.second)]
            self._last = bend.last.astype(np.float64)

    def __call__(self, keyed: Matrix) -> Matrix:
        """(D,) float64, a keyed code of length 1 -> (groups, 512) float64, whitened coordinates."""
        codes = np.stack([product(matrix, keyed) for matrix in self.linear])
        if self._bend is not None:
            scaled = self._bend.scale * keyed
            added = product(self._last, 0.5 * (self._through(scaled) - self._through(-scaled)))
            added = added.reshape(len(codes), -1)
            codes[:, : added.shape[1]] += added
        if self._removed is not None:
            codes -= np.outer(codes @ self._removed, self._removed)
        return codes

    def _through(self, x: Matrix) -> Matrix:
        for weight, bias in self._hidden:
            x = product(weight, x) + bias
            x = 0.5 * x * (1 + np.tanh(0.5 * x))  # x * sigmoid(x), without overflow
        return x


def product(matrix: Matrix, vector: Matrix) -> Matrix:
    """Multiply without BLAS, whose threads cost more than such small products and sum in varying order."""
    return np.asarray(np.einsum("ij,j->i", matrix, vector))
