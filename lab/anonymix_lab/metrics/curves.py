"""Weighted error rates, for intervals and curves; without weights they equal those of `metrics`."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


class WeightedRates:
    """Error rates of one set of scores under many weightings; sorted once.

    Args:
        scores: (n,) float64.
        same: (n,) bool, which are genuine.
    """

    def __init__(self, scores: Array, same: npt.NDArray[np.bool_]) -> None:
        self._order = np.argsort(scores, kind="stable")
        self._same = same[self._order]
        ordered = scores[self._order]
        # Positions at which a threshold can lie: in front of each group of equal scores, and behind all.
        self._starts = np.append(np.flatnonzero(np.append(True, np.diff(ordered) > 0)), len(ordered))
        self._thresholds = np.append(ordered[self._starts[:-1]], np.nextafter(ordered[-1], np.inf))

    def curve(self, weights: Array | None = None) -> tuple[Array, Array, Array]:
        """Thresholds, FMR and FNMR, rising in the threshold; NaN where one kind has no weight."""
        w = np.ones(len(self._order)) if weights is None else weights[self._order]
        own, other = np.where(self._same, w, 0.0), np.where(self._same, 0.0, w)
        below_own = np.append(0.0, np.cumsum(own))[self._starts]
        below_other = np.append(0.0, np.cumsum(other))[self._starts]
        with np.errstate(invalid="ignore"):
            return (
                self._thresholds,
                np.clip(1.0 - below_other / below_other[-1], 0.0, 1.0),
                np.asarray(below_own / below_own[-1]),
            )

    def eer(self, weights: Array | None = None) -> float:
        """The equal error rate, as `metrics.equal_error` defines it."""
        _, fmr, fnmr = self.curve(weights)
        if np.isnan(fmr[0]) or np.isnan(fnmr[0]):
            return float("nan")
        best = int(np.argmin(np.abs(fmr - fnmr)))
        return float(fmr[best] + fnmr[best]) / 2

    def auc(self, weights: Array | None = None) -> float:
        """Area under 1 - FNMR over FMR, by trapezoids: equal scores count half."""
        _, fmr, fnmr = self.curve(weights)
        return float(np.trapezoid((1.0 - fnmr)[::-1], fmr[::-1]))


def accuracy_of_folds(scores: Array, same: npt.NDArray[np.bool_], folds: npt.NDArray[np.int64]) -> tuple[float, float]:
    """The accuracy of LFW's protocol: each fold at the threshold that is best on all others.

    Args:
        scores: (n,) float64.
        same: (n,) bool.
        folds: (n,) int64.

    Returns:
        Mean over folds and standard error of that mean.
    """
    shares = []
    for fold in np.unique(folds):
        rest, own = folds != fold, folds == fold
        candidates, fmr, fnmr = WeightedRates(scores[rest], same[rest]).curve()
        positives, negatives = same[rest].sum(), (~same[rest]).sum()
        wrong = fmr * negatives + fnmr * positives
        # Where several are as good, the middle of them is the fairest guess for other people.
        best = np.flatnonzero(wrong <= wrong.min() + 1e-9)
        threshold = candidates[best[len(best) // 2]]
        shares.append(float(((scores[own] >= threshold) == same[own]).mean()))
    return float(np.mean(shares)), float(np.std(shares) / np.sqrt(len(shares)))


def det_points(fmr: Array, fnmr: Array, count: int = 160) -> list[tuple[float, float]]:
    """Points of a DET curve, FMR falling, thinned to those that can be told apart on its axes.

    Args:
        fmr: (n,) falling.
        fnmr: (n,) rising.
        count: About how many.
    """
    grid = np.append(np.logspace(-6, 0, count), 0.0)
    # For each FMR allowed, the lowest FNMR that keeps it.
    index = np.searchsorted(-fmr, -np.sort(grid)[::-1], side="left").clip(0, len(fmr) - 1)
    return [(float(fmr[i]), float(fnmr[i])) for i in dict.fromkeys(index.tolist())]
