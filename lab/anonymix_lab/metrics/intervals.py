"""How sure a figure is: bootstrap over people and keys.

Comparisons are no independent draws: one person, and one key, takes part in many. People are drawn with
replacement, and a comparison counts as often as its two people were drawn, multiplied (for a genuine one:
as often as its person was); so do shared keys. This is the subset bootstrap of Bolle, Ratha and Pankanti,
"Error analysis of pattern recognition systems", CVIU 93, 2004, for pairs. With a key for each subject,
drawing people draws their keys.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

REPLICATES = 200
LEVEL = 0.95
_REMEMBERED = 5_000_000  # weights; bounds the memory


class Interval(NamedTuple):
    """A figure with its interval.

    Attributes:
        value: The figure.
        low: Lower end of the interval.
        high: Upper end.
    """

    value: float
    low: float
    high: float


class Resampler:
    """Draws weights for comparisons.

    Args:
        first: (n,) int64, number of the person of the first picture.
        second: (n,) int64, the same of the second.
        keys: (n,) int64, number of the shared key, or None where each subject has a key of its own.
        seed: Of the draws.
    """

    def __init__(self, first: Integers, second: Integers, keys: Integers | None = None, *, seed: int = 1) -> None:
        self._first, self._second, self._keys, self._seed = first, second, keys, seed
        self._people = int(max(first.max(initial=-1), second.max(initial=-1))) + 1
        self._known: dict[int, Array] = {}

    def weights(self, replicate: int) -> Array:
        """Weights of one replicate, (n,) float64; the same for the same number."""
        if replicate in self._known:
            return self._known[replicate]
        random = np.random.Generator(np.random.Philox(key=self._seed, counter=replicate << 64))
        drawn = _drawn(random, self._people)
        weights = np.where(self._first == self._second, drawn[self._first], drawn[self._first] * drawn[self._second])
        if self._keys is not None and (keys := int(self._keys.max(initial=-1)) + 1) > 1:
            weights = weights * _drawn(random, keys)[self._keys]
        if len(self._known) * len(weights) < _REMEMBERED:
            self._known[replicate] = weights
        return weights

    def people_of(self, which: npt.NDArray[np.bool_]) -> int:
        """How many people are on the first side of some comparisons."""
        return len(np.unique(self._first[which]))

    def interval(
        self, figure: Callable[[Array], float], *, replicates: int = REPLICATES, level: float = LEVEL
    ) -> Interval:
        """Percentile interval of a figure.

        Args:
            figure: From weights (n,) to the figure; NaN where it has none, which is passed over.
            replicates: How many.
            level: What share of replicates lies within.
        """
        value = figure(np.ones(len(self._first)))
        drawn = np.array([figure(self.weights(i)) for i in range(replicates)])
        drawn = drawn[np.isfinite(drawn)]
        if not len(drawn):
            return Interval(value, float("nan"), float("nan"))
        tail = (1 - level) / 2
        low, high = np.quantile(drawn, [tail, 1 - tail])
        return Interval(value, float(low), float(high))


def share(events: npt.NDArray[np.bool_]) -> Callable[[Array], float]:
    """The weighted share of events, as a figure for `Resampler.interval`."""

    def figure(weights: Array) -> float:
        total = weights.sum()
        return float(weights[events].sum() / total) if total else float("nan")

    return figure


def share_interval(
    resampler: Resampler,
    events: npt.NDArray[np.bool_],
    among: npt.NDArray[np.bool_] | None = None,
    *,
    replicates: int = REPLICATES,
) -> Interval:
    """Interval of a share of comparisons.

    Where all comparisons went one way, so do all replicates, and the bootstrap can't see its own uncertainty:
    Wilson's interval for as many trials as there are people takes its place.

    Args:
        resampler: Of all comparisons.
        events: (n,) bool.
        among: (n,) bool, which comparisons count; all of them by default.
        replicates: Of the bootstrap.
    """
    which = np.ones(len(events), np.bool_) if among is None else among
    hits, count = int((events & which).sum()), int(which.sum())
    if hits in {0, count}:
        people = resampler.people_of(which)
        return wilson(people if hits else 0, people)

    def figure(weights: Array) -> float:
        total = weights[which].sum()
        return float(weights[events & which].sum() / total) if total else float("nan")

    return resampler.interval(figure, replicates=replicates)


def wilson(events: int, count: int, z: float = 1.96) -> Interval:
    """Share with Wilson's interval (1927), for independent trials; it does not collapse at 0 and 1."""
    if count == 0:
        return Interval(float("nan"), 0.0, 1.0)
    p = events / count
    centre = (p + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * np.sqrt(p * (1 - p) / count + z * z / (4 * count * count))
    return Interval(p, float(max(centre - half, 0.0)), float(min(centre + half, 1.0)))


def _drawn(random: np.random.Generator, count: int) -> Array:
    return np.bincount(random.integers(0, count, count), minlength=count).astype(np.float64)
