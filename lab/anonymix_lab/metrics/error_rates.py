"""Error rates of a recogniser from its scores, as ISO/IEC 19795-1 defines them.

Everywhere a higher score means more similar, and a comparison is a match if its score is at least the
threshold. *Genuine* scores compare two samples of one person; *impostor* scores two of different people, who
make no effort to look alike.

- FMR(t), the false match rate: the share of impostor comparisons that match.
- FNMR(t), the false non-match rate: the share of genuine comparisons that don't.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from anonymix_plugin.errors import BadArrayError, UsageError

__all__ = ["EqualError", "auc", "eer", "equal_error", "error_rates", "fnmr_at_fmr", "threshold_at_fmr"]

Scores = npt.ArrayLike
"""Scores of comparisons, (N,) floats, N >= 1, no NaN."""

_Array = npt.NDArray[np.float64]


class EqualError(NamedTuple):
    """Where both kinds of error are equally frequent.

    Attributes:
        rate: The equal error rate, 0..1.
        threshold: The threshold at which it was read off.
    """

    rate: float
    threshold: float


def error_rates(genuine: Scores, impostor: Scores, thresholds: Scores) -> tuple[_Array, _Array]:
    """FMR and FNMR at given thresholds.

    Args:
        genuine: (N,) scores of comparisons of one person.
        impostor: (M,) scores of comparisons of different people.
        thresholds: (T,) thresholds.

    Returns:
        FMR and FNMR, (T,) float64 each, 0..1.

    Raises:
        UsageError: There are no scores of one kind.
        BadArrayError: There are NaN among the scores, or more than one dimension.
    """
    same, other = np.sort(_checked(genuine, "genuine")), np.sort(_checked(impostor, "impostor"))
    at = np.asarray(thresholds, np.float64)
    fmr = 1.0 - np.searchsorted(other, at, side="left") / len(other)
    fnmr = np.searchsorted(same, at, side="left") / len(same)
    return fmr, np.asarray(fnmr, np.float64)


def equal_error(genuine: Scores, impostor: Scores) -> EqualError:
    """The equal error rate and its threshold.

    The threshold is the one among all scores, and just above the highest of them, that minimises
    |FMR - FNMR|, the lowest if there are several; the rate is the mean of FMR and FNMR there.

    Args:
        genuine: (N,) scores of comparisons of one person.
        impostor: (M,) scores of comparisons of different people.

    Raises:
        UsageError: There are no scores of one kind.
        BadArrayError: There are NaN among the scores, or more than one dimension.
    """
    scores = np.union1d(_checked(genuine, "genuine"), _checked(impostor, "impostor"))
    thresholds = np.append(scores, np.nextafter(scores[-1], np.inf))
    fmr, fnmr = error_rates(genuine, impostor, thresholds)
    best = int(np.argmin(np.abs(fmr - fnmr)))
    return EqualError(float(fmr[best] + fnmr[best]) / 2, float(thresholds[best]))


def eer(genuine: Scores, impostor: Scores) -> float:
    """The equal error rate alone, 0..1; see `equal_error`."""
    return equal_error(genuine, impostor).rate


def threshold_at_fmr(impostor: Scores, fmr: float) -> float:
    """The lowest threshold at which the FMR is *at most* the target on these scores.

    It is the next number above the score that must not match any more, in the precision of the scores, so
    that comparing float32 scores with it gives what was promised. With fewer than 1 / fmr scores it lies
    above all of them.

    Args:
        impostor: (M,) scores of comparisons of different people; float32 or float64.
        fmr: The target, 0..1.

    Returns:
        The threshold; minus infinity if everything may match.

    Raises:
        UsageError: There are no scores, or the target is not within 0..1.
        BadArrayError: There are NaN among the scores, or more than one dimension.
    """
    if not 0 <= fmr <= 1:
        raise UsageError("a false match rate lies within 0..1", where=f"fmr={fmr}")
    single = getattr(impostor, "dtype", None) == np.float32
    descending = np.sort(_checked(impostor, "impostor"))[::-1]
    count = len(descending)
    # The largest number of matches whose share, as a float, does not exceed the target.
    allowed = int(np.searchsorted(np.arange(count + 1) / count, fmr, side="right")) - 1
    if allowed >= count:
        return float("-inf")
    score = np.float32(descending[allowed]) if single else descending[allowed]
    return float(np.nextafter(score, type(score)(np.inf)))


def fnmr_at_fmr(genuine: Scores, impostor: Scores, fmr: float) -> float:
    """The FNMR at the lowest threshold that keeps the FMR at most at the target.

    The threshold comes from the impostor scores given. To report a system's accuracy, take it from
    development data by `threshold_at_fmr`, and the rates from other people by `error_rates`.

    Args:
        genuine: (N,) scores of comparisons of one person.
        impostor: (M,) scores of comparisons of different people.
        fmr: The target, 0..1.

    Returns:
        FNMR, 0..1.

    Raises:
        UsageError: There are no scores of one kind, or the target is not within 0..1.
        BadArrayError: There are NaN among the scores, or more than one dimension.
    """
    _, fnmr = error_rates(genuine, impostor, [threshold_at_fmr(impostor, fmr)])
    return float(fnmr[0])


def auc(genuine: Scores, impostor: Scores) -> float:
    """Area under the curve of 1 - FNMR over FMR.

    It is the probability that a genuine score exceeds an impostor score, equal ones counting half: the
    statistic of Mann and Whitney (1947), divided by the number of pairs.

    Args:
        genuine: (N,) scores of comparisons of one person.
        impostor: (M,) scores of comparisons of different people.

    Returns:
        The area, 0..1; 0.5 for scores that say nothing.

    Raises:
        UsageError: There are no scores of one kind.
        BadArrayError: There are NaN among the scores, or more than one dimension.
    """
    same, other = _checked(genuine, "genuine"), np.sort(_checked(impostor, "impostor"))
    below = np.searchsorted(other, same, side="left")
    not_above = np.searchsorted(other, same, side="right")
    return float((below + not_above).mean() / 2 / len(other))


def _checked(scores: Scores, name: str) -> _Array:
    array = np.asarray(scores, np.float64)
    if array.ndim != 1 or np.isnan(array).any():
        raise BadArrayError("scores are one row of numbers without NaN", where=name)
    if not len(array):
        raise UsageError("there are no scores", where=name)
    return array
