"""Operating thresholds of the unprotected recognisers, frozen on people who are not under test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from anonymix_lab.matchers import Table
from anonymix_lab.metrics.error_rates import threshold_at_fmr
from anonymix_plugin.verification import THRESHOLDS

Array = npt.NDArray[np.float64]
Source = Literal["development", "published"]

TARGETS: Final = (0.01, 0.001, 0.0001, 0.00001)
_PUBLISHED: Final = {0.01: "fmr-1%", 0.001: "fmr-0.1%"}


@dataclass(frozen=True)
class Frozen:
    """A threshold.

    Attributes:
        matcher: Whose.
        target: The FMR that it keeps.
        value: The cosine, or None where there were too few comparisons to tell.
        source: "development" or "published" (measured on LFW view 1, `verification.THRESHOLDS`).
        comparisons: Impostor comparisons that it comes from; 0 for published ones.
    """

    matcher: str
    target: float
    value: float | None
    source: Source
    comparisons: int


def freeze(matcher: str, table: Table | None, people: Sequence[str]) -> dict[float, Frozen]:
    """Thresholds of a matcher from all comparisons of different people of a development set.

    A target that would rest on less than one wrong comparison is not set; for FMR 1 % and .1 % the published
    threshold of the recogniser takes its place where there is one.

    Args:
        matcher: Its name.
        table: Answers about the development photos; None where there are none.
        people: Who is on each.
    """
    scores = np.zeros(0) if table is None else all_impostors(table.vectors[matcher], people)
    frozen = {}
    for target in TARGETS:
        if len(scores) * target >= 1:
            frozen[target] = Frozen(matcher, target, threshold_at_fmr(scores, target), "development", len(scores))
        else:
            known = THRESHOLDS.get(matcher, {}).get(_PUBLISHED.get(target, ""))
            frozen[target] = Frozen(
                matcher, target, known, "published" if known else "development", 0 if known else len(scores)
            )
    return frozen


def all_impostors(vectors: npt.NDArray[np.float32], people: Sequence[str]) -> Array:
    """Scores of all pairs of answers about different people, (n,) float64; NaN rows are left out."""
    there = ~np.isnan(vectors[:, 0])
    rows = vectors[there].astype(np.float64)
    _, owner = np.unique(np.asarray(people)[there], return_inverse=True) if there.any() else (0, np.zeros(0, int))
    first, second = np.triu_indices(len(rows), 1)
    different = owner[first] != owner[second]
    return np.asarray((rows @ rows.T)[first[different], second[different]], np.float64)


def top_thresholds(scores: Array, targets: Sequence[float]) -> dict[float, float]:
    """`metrics.threshold_at_fmr` for several low targets, without sorting all of the scores."""
    keep = min(int(len(scores) * max(targets)) + 2, len(scores))
    top = np.partition(scores, len(scores) - keep)[len(scores) - keep :]
    top = np.sort(top)[::-1]
    found = {}
    for target in targets:
        allowed = int(np.floor(len(scores) * target * (1 + 1e-12)))
        found[target] = float(np.nextafter(top[allowed], np.inf)) if allowed < len(scores) else float("-inf")
    return found
