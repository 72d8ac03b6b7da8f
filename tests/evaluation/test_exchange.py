"""What is exported: score files that pyeer and bob.measure read, with their figures beside ours; and the tables."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyeer.eer_stats import calculate_roc, calculate_roc_auc, get_eer_values, get_fmr_op

from anonymix_lab.evaluation.report.exchange import exchange_files
from anonymix_lab.metrics.curves import WeightedRates
from anonymix_lab.metrics.error_rates import auc, eer, equal_error, error_rates, fnmr_at_fmr, threshold_at_fmr

VECTORS = Path(__file__).parent / "vectors"
CASES = sorted(path.stem for path in VECTORS.glob("*.txt"))
BOB = json.loads((VECTORS / "bob_measure.json").read_text())

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning:pyeer.*", "ignore::UserWarning:pyeer.*")


def scores_of(case: str) -> tuple[np.ndarray, np.ndarray]:
    """Scores, and which are genuine."""
    rows = np.loadtxt(VECTORS / f"{case}.txt")
    return rows[:, 1], rows[:, 0] == 1


@dataclass(frozen=True)
class Pyeer:
    """What pyeer's `geteerinf` puts together. Its module of that name needs pkg_resources (setuptools up to 81)."""

    thresholds: np.ndarray
    fmr: np.ndarray
    fnmr: np.ndarray
    eer: float
    auc: float
    fmr1000_th: float

    @classmethod
    def of(cls, case: str) -> Pyeer:
        thresholds, fmr, fnmr = calculate_roc(*kinds(case))
        place, _ = get_fmr_op(fmr, fnmr, 0.001)
        found = get_eer_values(fmr, fnmr)[3]
        return cls(thresholds, fmr, fnmr, found, calculate_roc_auc(fmr, fnmr), thresholds[place])


def kinds(case: str) -> tuple[np.ndarray, np.ndarray]:
    scores, same = scores_of(case)
    return scores[same], scores[~same]


@pytest.mark.parametrize("case", CASES)
def test_bob_measure_read_the_very_files_that_are_written(case: str) -> None:
    scores, same = scores_of(case)
    assert exchange_files(case, scores, same)[f"bob/{case}.txt"] == (VECTORS / f"{case}.txt").read_text()
    assert (BOB[case]["genuine"], BOB[case]["impostor"]) == (same.sum(), (~same).sum())


@pytest.mark.parametrize("case", CASES)
def test_figures_are_those_of_bob_measure(case: str) -> None:
    genuine, impostor = kinds(case)
    theirs = BOB[case]["at_eer"]
    ours = error_rates(genuine, impostor, [equal_error(genuine, impostor).threshold])
    assert abs(ours[0][0] - ours[1][0]) == pytest.approx(abs(theirs[0] - theirs[1]), abs=1e-12)
    if case != "few":  # there FMR and FNMR are as near to each other at two thresholds, and each takes another
        assert eer(genuine, impostor) == pytest.approx(sum(theirs) / 2, abs=1e-12)
    for name, theirs in BOB[case]["at_fmr"].items():
        fmr, fnmr = error_rates(genuine, impostor, [theirs["threshold"]])
        assert (fmr[0], fnmr[0]) == pytest.approx((theirs["fmr"], theirs["fnmr"]), abs=1e-12)
        # Both keep the FMR at most at the target. Ours is the lowest such threshold, so that it rejects no more.
        lowest = threshold_at_fmr(impostor, float(name))
        assert lowest <= theirs["threshold"]
        assert (impostor >= lowest).mean() == pytest.approx(theirs["fmr"], abs=1e-12)
        assert theirs["fmr"] <= float(name)
        assert fnmr_at_fmr(genuine, impostor, float(name)) <= theirs["fnmr"]


@pytest.mark.parametrize("case", CASES)
def test_curves_are_those_of_pyeer(case: str) -> None:
    theirs = Pyeer.of(case)
    scores, same = scores_of(case)
    thresholds, fmr, fnmr = WeightedRates(scores, same).curve()
    # pyeer's curve ends at the highest score; ours has a threshold above it as well, at which nothing matches.
    assert np.array_equal(thresholds[:-1], theirs.thresholds)
    assert np.allclose(fmr[:-1], theirs.fmr, rtol=0, atol=1e-12)
    assert np.allclose(fnmr[:-1], theirs.fnmr, rtol=0, atol=1e-12)
    assert (fmr[-1], fnmr[-1]) == (0, 1)


@pytest.mark.parametrize("case", [case for case in CASES if case != "tied"])
def test_the_eer_is_within_a_step_of_pyeers(case: str) -> None:
    """Of the two thresholds around the crossing pyeer takes that of the lower sum, we that of the lower difference."""
    genuine, impostor = kinds(case)
    stats, ours = Pyeer.of(case), eer(genuine, impostor)
    assert stats.eer - 1e-12 <= ours <= stats.eer + max(1 / len(genuine), 1 / len(impostor))
    if case in {"apart", "failures", "ties"}:
        assert stats.eer == pytest.approx(ours, abs=1e-12)
    assert stats.auc == pytest.approx(auc(genuine, impostor), abs=1e-12)


def test_of_scores_that_are_all_the_same_pyeer_says_the_worst() -> None:
    stats = Pyeer.of("tied")
    assert (stats.eer, eer(*kinds("tied"))) == (1, 0.5)
    assert (stats.auc, auc(*kinds("tied"))) == (0, 0.5)


def test_at_fmr_one_in_a_thousand_pyeer_takes_the_nearest_and_we_the_next_below() -> None:
    _, impostor = kinds("smooth")
    theirs = Pyeer.of("smooth")
    assert (impostor >= theirs.fmr1000_th).sum() == 2  # of 1,500: .13 %
    assert (impostor >= threshold_at_fmr(impostor, 0.001)).sum() == 1


@pytest.mark.parametrize("case", CASES)
def test_numbers_are_written_whole(case: str) -> None:
    scores, same = scores_of(case)
    turned = scores / 3
    files = exchange_files(case, turned, same)
    assert np.array_equal(np.array(files[f"pyeer/genuine/{case}.txt"].split(), float), turned[same])
    assert np.array_equal(np.array(files[f"pyeer/impostor/{case}.txt"].split(), float), turned[~same])
    rows: list[Any] = list(csv.DictReader(files[f"det/{case}.csv"].splitlines()))
    thresholds = [float(row["threshold"]) for row in rows]
    fmr, fnmr = error_rates(turned[same], turned[~same], thresholds)
    assert np.allclose([float(row["fmr"]) for row in rows], fmr, rtol=0, atol=1e-12)
    assert np.allclose([float(row["fnmr"]) for row in rows], fnmr, rtol=0, atol=1e-12)
