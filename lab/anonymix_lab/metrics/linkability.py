"""Unlinkability of protected templates (Gomez-Barrero, Galbally, Rathgeb, Busch, IEEE TIFS 13(6), 2018).

*Mated*: two protected samples of one subject under different keys. *Non-mated*: of different subjects under
different keys. With LR(s) = p(s|mated) / p(s|non-mated) and prior odds w,

    D(s)  = 2 w LR / (1 + w LR) - 1   where w LR > 1, else 0;   1 where p(s|non-mated) = 0
    D_sys = integral of D(s) p(s|mated) ds

Both densities are histograms over the same equal bins of a range given beforehand, and the integral is the
sum over bins: for histograms that is exact, while trapezoids through bin centres lose half a bin at each
end. What remains is that finite samples never have equal histograms: D_sys of two samples of *one*
distribution is above 0, the more so the more bins. That floor is measured, by dealing the labels out again
at random, and reported beside the value.

The maximal linkability is M = log2(integral of max(p(s|mated), p(s|non-mated)) ds) bits, 0..1: one plus the
total variation distance, in bits of Bayes gain at even odds. It has a floor of the same kind.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from anonymix_plugin.errors import BadArrayError, UsageError

Array = npt.NDArray[np.float64]

COSINES: Final = (-1.0, 1.0)
_MOST_BINS: Final = 100
_FEWEST_BINS: Final = 10


@dataclass(frozen=True, eq=False)
class Linkability:
    """Linkability of one system.

    Attributes:
        d_sys: 0 (fully unlinkable) .. 1.
        maximal: M, 0..1 bits.
        floor: Mean D_sys of relabelled scores: what a system with nothing to link would show.
        floor_high: 95th percentile of the same.
        maximal_floor: Mean M of relabelled scores.
        p_value: Share of relabellings with a D_sys at least as high, counting the real one.
        bins: Number of bins.
        low: Lower end of the range.
        high: Upper end.
        edges: (bins + 1,) edges.
        mated: (bins,) density.
        non_mated: (bins,) density.
        local: (bins,) D(s).
    """

    d_sys: float
    maximal: float
    floor: float
    floor_high: float
    maximal_floor: float
    p_value: float
    bins: int
    low: float
    high: float
    edges: Array
    mated: Array
    non_mated: Array
    local: Array

    @property
    def above_floor(self) -> float:
        """D_sys less its floor, scaled so that 1 stays 1; 0 at least."""
        return max(self.d_sys - self.floor, 0.0) / (1.0 - self.floor) if self.floor < 1 else 0.0


def linkability(
    mated: npt.ArrayLike,
    non_mated: npt.ArrayLike,
    *,
    bins: int | None = None,
    score_range: tuple[float, float] = COSINES,
    odds: float = 1.0,
    relabellings: int = 100,
    seed: int = 1,
) -> Linkability:
    """Measure linkability.

    Args:
        mated: (n,) scores of one subject under different keys.
        non_mated: (m,) scores of different subjects under different keys.
        bins: How many; a tenth of the fewer scores by default, 10 to 100, as in the paper's own code.
        score_range: Ends of the range; scores beyond it are an error, not cut off.
        odds: w, prior odds of mated to non-mated; 1 in the paper.
        relabellings: Random relabellings for the floor; 0 leaves it at NaN.
        seed: Of the relabellings.

    Raises:
        UsageError: No scores of one kind, no bins, no range, or odds that are not positive.
        BadArrayError: Scores that are not finite or out of range.
    """
    own, other = _checked(mated, "mated", score_range), _checked(non_mated, "non-mated", score_range)
    count = default_bins(len(own), len(other)) if bins is None else bins
    low, high = score_range
    if count < 1 or not low < high or not odds > 0:
        raise UsageError(f"{count} bins over {low}..{high} at odds {odds} can't be", where="linkability")
    edges = np.linspace(low, high, count + 1)
    every = np.concatenate([own, other])
    # Once for all relabellings: in which bin each score lies.
    place = np.clip(np.searchsorted(edges, every, side="right") - 1, 0, count - 1)

    def shares(index: npt.NDArray[np.int64]) -> Array:
        return np.bincount(place[index], minlength=count) / len(index)

    everybody = np.arange(len(every))
    p, q = shares(everybody[: len(own)]), shares(everybody[len(own) :])
    local = local_linkability(p, q, odds)
    random = np.random.Generator(np.random.Philox(seed))
    floors, maximal_floors = [], []
    for _ in range(relabellings):
        order = random.permutation(len(every))
        a, b = shares(order[: len(own)]), shares(order[len(own) :])
        floors.append(min(1.0, float(local_linkability(a, b, odds) @ a)))
        maximal_floors.append(float(np.log2(np.maximum(a, b).sum())))
    value = min(1.0, float(local @ p))  # shares may add up to 1 and a rounding error
    nan = float("nan")
    width = (high - low) / count
    return Linkability(
        d_sys=value,
        maximal=float(np.log2(np.maximum(p, q).sum())),
        floor=float(np.mean(floors)) if floors else nan,
        floor_high=float(np.quantile(floors, 0.95)) if floors else nan,
        maximal_floor=float(np.mean(maximal_floors)) if floors else nan,
        p_value=(1 + sum(floor >= value for floor in floors)) / (1 + len(floors)) if floors else nan,
        bins=count,
        low=low,
        high=high,
        edges=edges,
        mated=p / width,
        non_mated=q / width,
        local=local,
    )


def local_linkability(mated: Array, non_mated: Array, odds: float = 1.0) -> Array:
    """D(s) of each bin from the densities of it; 0 where neither has any."""
    up, both = odds * mated - non_mated, odds * mated + non_mated
    # 2 w LR / (1 + w LR) - 1 = (w p - q) / (w p + q), which is 1 where q is 0.
    return np.clip(np.divide(up, both, out=np.zeros_like(up), where=both > 0), 0.0, 1.0)


def default_bins(mated: int, non_mated: int) -> int:
    """A tenth of the fewer scores, 10 to 100."""
    return int(np.clip(min(mated, non_mated) // 10, _FEWEST_BINS, _MOST_BINS))


def _checked(scores: npt.ArrayLike, name: str, score_range: tuple[float, float]) -> Array:
    array = np.asarray(scores, np.float64)
    if array.ndim != 1 or not np.isfinite(array).all():
        raise BadArrayError("scores are one row of finite numbers", where=name)
    if not len(array):
        raise UsageError("there are no scores", where=name)
    low, high = score_range
    # The cosine of a vector with itself may come out a hair above 1.
    slack = 1e-5 * (high - low)
    if array.min() < low - slack or array.max() > high + slack:
        raise BadArrayError(
            f"scores reach from {array.min():.4f} to {array.max():.4f}, the range is {low}..{high}",
            where=name,
        )
    return np.clip(array, low, high)
