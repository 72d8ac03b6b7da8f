"""Guided mixing: a code is compared with the subject's reference, and moved before it is drawn.

Where a claim exists, the keystore may keep the subject's own code, the *reference*. The code of a photo is
turned in the plane that it spans with the reference, to an angle that a monotone curve gives: near ones are
drawn together, far ones apart. The face is then drawn as always, and the recogniser behind decides. The mixer
decides nothing: every code leaves here as a code, and the work is the same for each.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import numpy as np

from anonymix_plugin.errors import BadArrayError, UsageError
from anonymix_plugin.mixer.subspace import Matrix

_SAME_LINE = 1e-6  # below this sine, two codes count as one line, and the plane is a fixed one
_UNIT = 1e-6  # how far from 1 a length may be


@dataclass(frozen=True)
class GuidingCurve:
    """From the cosine of code and reference to the cosine that the two are given.

    With a, b, f, t the four numbers and s(x) = x^2 (3 - 2x) the smoothstep, x clamped to 0..1 everywhere:

        turned(c) = f + (t - f) s((c - a) / (b - a)) + (1 - t) x((c - b) / (1 - b))

    It never falls, is f up to a, t at b, and rises from there in a line to 1 at 1. With t below 1, only the
    reference itself becomes the reference: of two codes that are near, the nearer one stays the nearer.

    Attributes:
        low: a, a cosine.
        high: b, a cosine above `low`.
        floor: f, the cosine that all codes up to `low` are given, below `top`.
        top: t, the cosine that a code at `high` is given, at most 1.

    The defaults were learned by `anonymix measure guiding`, on people of PINS and of folds 1 to 5 of LFW.

    Raises:
        UsageError: The numbers are not finite, or not -1 <= low < high < 1 and -1 <= floor < top <= 1.
    """

    low: float = 0.25
    high: float = 0.6
    floor: float = -0.75
    top: float = 0.97

    def __post_init__(self) -> None:
        if not (-1 <= self.low < self.high < 1 and -1 <= self.floor < self.top <= 1):
            raise UsageError(
                "a guiding curve has -1 <= low < high < 1 and -1 <= floor < top <= 1",
                where=f"GuidingCurve({self.low}, {self.high}, {self.floor}, {self.top})",
            )

    def turned(self, cosine: float) -> float:
        """Return the cosine, -1..1, that a code with the cosine -1..1 is given; it never falls."""
        at = min(max((cosine - self.low) / (self.high - self.low), 0.0), 1.0)
        near = min(max((cosine - self.high) / (1 - self.high), 0.0), 1.0)
        return self.floor + (self.top - self.floor) * at * at * (3 - 2 * at) + (1 - self.top) * near

    def describe(self) -> dict[str, float]:
        """Return the numbers in a form that JSON and the fingerprint take."""
        return asdict(self)


def guided(code: Matrix, reference: Matrix, curve: GuidingCurve) -> Matrix:
    """Turn a code in the plane of code and reference to the cosine that the curve gives.

    The same operations run for every code, in double precision and without BLAS: no branch, and no memory
    that is touched, depends on how near the two are. Where both lie on one line, they span no plane. Then the
    plane of the reference and the coordinate axis farthest from it is taken, the first one of several.

    Args:
        code: (d,) float64, length 1.
        reference: (d,) float64, length 1, d at least 2.
        curve: What becomes of their cosine.

    Returns:
        (d,) float64, length 1.

    Raises:
        BadArrayError: A shape is wrong, a number is not finite, or a length is not 1.
    """
    code, reference = _checked(code, "code"), _checked(reference, "reference")
    if code.shape != reference.shape:
        raise BadArrayError(f"code and reference have shapes {code.shape} and {reference.shape}", where="reference")
    cosine = _dot(code, reference)
    turned = curve.turned(min(max(cosine, -1.0), 1.0))
    across = _outside(code, reference)
    sine = _length(across)
    axis = (np.arange(len(reference)) == np.argmin(np.abs(reference))).astype(np.float64)
    spare = _outside(axis, reference)
    plane = np.where(sine > _SAME_LINE, across / max(sine, _SAME_LINE), spare / _length(spare))
    made = turned * reference + math.sqrt(max(1 - turned * turned, 0.0)) * plane
    return np.asarray(made / _length(made))


def _outside(code: Matrix, reference: Matrix) -> Matrix:
    """The part of a code that is perpendicular to the reference; twice, so that rounding leaves nothing."""
    once = code - _dot(code, reference) * reference
    return np.asarray(once - _dot(once, reference) * reference)


def _dot(a: Matrix, b: Matrix) -> float:
    return float(np.einsum("i,i->", a, b))


def _length(code: Matrix) -> float:
    return math.sqrt(_dot(code, code))


def _checked(code: Matrix, name: str) -> Matrix:
    if code.ndim != 1 or len(code) < 2 or not abs(_length(code) - 1) <= _UNIT:
        raise BadArrayError("a person's code is a vector of two or more numbers, of length 1", where=name)
    return np.ascontiguousarray(code)  # another layout is summed in another order
