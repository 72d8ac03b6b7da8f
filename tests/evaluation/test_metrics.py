"""Error rates against their definitions and against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import roc_auc_score, roc_curve

from anonymix_lab.metrics.error_rates import (
    auc,
    eer,
    equal_error,
    error_rates,
    fnmr_at_fmr,
    threshold_at_fmr,
)
from anonymix_plugin.errors import BadArrayError, UsageError


def scores(dtype=np.float64):
    # Steps of 1/16 make ties frequent, which is where thresholds go wrong.
    steps = st.integers(-16, 16).map(lambda step: step / 16)
    return hnp.arrays(dtype, st.integers(1, 60), elements=steps)


def random_scores(seed, shift=1.5):
    generator = np.random.default_rng(seed)
    return generator.normal(shift, 1, 300), generator.normal(0, 1, 700)


def test_rates_are_shares_of_comparisons_on_the_wrong_side():
    fmr, fnmr = error_rates([0.2, 0.6, 0.9], [0.1, 0.3, 0.5, 0.6], [0.0, 0.5, 0.6, 1.0])
    assert fmr.tolist() == [1.0, 0.5, 0.25, 0.0]
    assert fnmr == pytest.approx([0, 1 / 3, 1 / 3, 1])


def test_separate_scores_have_no_error():
    assert equal_error([0.8, 0.9], [0.1, 0.2]) == (0.0, 0.8)
    assert auc([0.8, 0.9], [0.1, 0.2]) == 1.0
    assert fnmr_at_fmr([0.8, 0.9], [0.1, 0.2], 0.0) == 0.0


def test_scores_that_say_nothing_err_half_of_the_time():
    same = np.linspace(0, 1, 100)
    assert eer(same, same) == pytest.approx(0.5)
    assert auc(same, same) == pytest.approx(0.5)
    assert auc([0.5] * 3, [0.5] * 7) == 0.5


def test_scores_the_wrong_way_round_err_always():
    assert eer([0.1, 0.2], [0.8, 0.9]) == 1.0
    assert auc([0.1, 0.2], [0.8, 0.9]) == 0.0


def test_a_known_equal_error_rate_is_found():
    # Each side has one of four on the wrong side at any threshold in (0.4, 0.5].
    assert equal_error([0.4, 0.6, 0.7, 0.8], [0.1, 0.2, 0.3, 0.5]) == (0.25, 0.5)


@pytest.mark.parametrize("seed", range(5))
def test_rates_agree_with_the_roc_curve_of_scikit_learn(seed):
    same, other = random_scores(seed)
    labels, values = np.r_[np.ones(len(same)), np.zeros(len(other))], np.r_[same, other]
    false_match, true_match, thresholds = roc_curve(labels, values, drop_intermediate=False)
    fmr, fnmr = error_rates(same, other, thresholds)
    assert fmr == pytest.approx(false_match)
    assert fnmr == pytest.approx(1 - true_match)
    assert auc(same, other) == pytest.approx(roc_auc_score(labels, values))
    best = np.argmin(np.abs(false_match - (1 - true_match)))
    assert eer(same, other) == pytest.approx((false_match[best] + 1 - true_match[best]) / 2, abs=1 / 300)
    for target in (0.001, 0.01, 0.1):
        allowed = false_match <= target
        assert fnmr_at_fmr(same, other, target) == pytest.approx((1 - true_match)[allowed].min())


def test_the_rate_of_two_normal_distributions_is_the_textbooks():
    generator = np.random.default_rng(7)
    same, other = generator.normal(2, 1, 200_000), generator.normal(0, 1, 200_000)
    assert eer(same, other) == pytest.approx(0.15866, abs=0.002)  # Phi(-1)
    assert auc(same, other) == pytest.approx(0.92135, abs=0.002)  # Phi(2 / sqrt 2)


@given(scores(), st.floats(0, 1))
def test_the_threshold_keeps_its_promise_and_is_the_lowest_that_does(impostor, target):
    threshold = threshold_at_fmr(impostor, target)
    assert (impostor >= threshold).mean() <= target
    matching_too = impostor[impostor < threshold]
    if len(matching_too):
        assert (impostor >= matching_too.max()).mean() > target


@given(scores(np.float32), st.floats(0, 1))
def test_the_promise_holds_in_single_precision(impostor, target):
    threshold = threshold_at_fmr(impostor, target)
    assert (impostor >= threshold).mean() <= target  # numpy compares these as float32
    assert (impostor.astype(np.float64) >= threshold).mean() <= target


@pytest.mark.parametrize(("target", "matches"), [(0.29, 29), (0.07, 7), (0.001, 0), (0.0, 0), (1.0, 100)])
def test_as_many_may_match_as_the_target_says(target, matches):
    impostor = np.linspace(0, 1, 100)
    assert (impostor >= threshold_at_fmr(impostor, target)).sum() == matches


@given(scores(), scores())
def test_rates_lie_within_bounds_and_fall_and_rise_with_the_threshold(same, other):
    thresholds = np.linspace(-1.1, 1.1, 23)
    fmr, fnmr = error_rates(same, other, thresholds)
    assert ((fmr >= 0) & (fmr <= 1)).all()
    assert ((fnmr >= 0) & (fnmr <= 1)).all()
    assert (np.diff(fmr) <= 0).all()
    assert (np.diff(fnmr) >= 0).all()


@given(scores(), scores())
def test_exchanging_the_kinds_mirrors_the_area(same, other):
    assert auc(same, other) + auc(other, same) == pytest.approx(1)


@given(scores(), scores())
def test_the_area_is_the_share_of_pairs_in_the_right_order(same, other):
    right = (same[:, None] > other[None]).mean() + 0.5 * (same[:, None] == other[None]).mean()
    assert auc(same, other) == pytest.approx(right)


@given(scores(), scores())
def test_no_threshold_brings_the_rates_nearer_to_each_other(same, other):
    rate, threshold = equal_error(same, other)
    fmr, fnmr = error_rates(same, other, [threshold])
    assert rate == pytest.approx((fmr[0] + fnmr[0]) / 2)
    everywhere = np.subtract(*error_rates(same, other, np.linspace(-1.1, 1.1, 177)))
    assert abs(fmr[0] - fnmr[0]) <= np.abs(everywhere).min() + 1e-12


@given(scores(), scores())
def test_a_rising_function_of_the_scores_changes_no_rate(same, other):
    assert eer(np.exp(same), np.exp(other)) == eer(same, other)
    assert auc(np.exp(same), np.exp(other)) == auc(same, other)


@pytest.mark.parametrize("function", [eer, auc, lambda same, other: fnmr_at_fmr(same, other, 0.1)])
def test_no_scores_or_bad_ones_are_refused(function):
    with pytest.raises(UsageError, match="no scores"):
        function([], [0.1])
    with pytest.raises(UsageError, match="impostor"):
        function([0.1], [])
    with pytest.raises(BadArrayError, match="NaN"):
        function([0.1], [np.nan])
    with pytest.raises(BadArrayError, match="genuine"):
        function([[0.1]], [0.2])


@pytest.mark.parametrize("target", [-0.1, 1.1, float("nan")])
def test_a_target_that_is_no_rate_is_refused(target):
    with pytest.raises(UsageError, match="fmr="):
        threshold_at_fmr([0.1], target)
