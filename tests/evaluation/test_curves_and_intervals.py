"""Weighted rates equal the plain ones, and intervals cover what they should."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats
from sklearn.metrics import roc_auc_score, roc_curve

from anonymix_lab.metrics.curves import WeightedRates, accuracy_of_folds, det_points
from anonymix_lab.metrics.error_rates import auc, eer, fnmr_at_fmr, threshold_at_fmr
from anonymix_lab.metrics.intervals import Resampler, share, wilson
from anonymix_lab.metrics.thresholds import top_thresholds


@st.composite
def labelled(draw):
    steps = st.integers(-16, 16).map(lambda step: step / 16)
    own = draw(hnp.arrays(np.float64, st.integers(1, 40), elements=steps))
    other = draw(hnp.arrays(np.float64, st.integers(1, 40), elements=steps))
    return np.concatenate([own, other]), np.arange(len(own) + len(other)) < len(own)


@given(labelled())
def test_without_weights_they_are_the_plain_rates(case):
    scores, same = case
    rates = WeightedRates(scores, same)
    assert rates.eer() == pytest.approx(eer(scores[same], scores[~same]))
    assert rates.auc() == pytest.approx(auc(scores[same], scores[~same]))


@given(labelled(), st.integers(0, 2**31))
def test_a_weight_is_that_many_copies(case, seed):
    scores, same = case
    weights = np.random.Generator(np.random.Philox(seed)).integers(1, 4, len(scores))
    copies = np.repeat(np.arange(len(scores)), weights)
    rates = WeightedRates(scores, same)
    assert rates.eer(weights.astype(float)) == pytest.approx(
        eer(scores[copies][same[copies]], scores[copies][~same[copies]])
    )
    assert rates.auc(weights.astype(float)) == pytest.approx(
        auc(scores[copies][same[copies]], scores[copies][~same[copies]])
    )


@pytest.mark.parametrize("seed", range(3))
def test_weighted_area_and_curve_agree_with_scikit_learn(seed):
    random = np.random.Generator(np.random.Philox(seed))
    same = random.uniform(size=500) < 0.3
    scores, weights = random.normal(same * 1.2, 1), random.uniform(0.1, 3, 500)
    rates = WeightedRates(scores, same)
    assert rates.auc(weights) == pytest.approx(roc_auc_score(same, scores, sample_weight=weights))
    fmr, tpr, _ = roc_curve(same, scores, sample_weight=weights, drop_intermediate=False)
    _, own_fmr, own_fnmr = rates.curve(weights)
    assert own_fmr[::-1] == pytest.approx(fmr)
    assert 1 - own_fnmr[::-1] == pytest.approx(tpr)


@given(labelled())
def test_points_of_the_det_curve_never_rise(case):
    scores, same = case
    _, fmr, fnmr = WeightedRates(scores, same).curve()
    points = np.array(det_points(fmr, fnmr))
    order = np.argsort(points[:, 0], kind="stable")
    assert (np.diff(points[order][:, 1]) <= 1e-12).all()
    for allowed, missed in points:
        target = min(allowed + 1e-9, 1.0)  # rates are sums of shares: 1/3 may come out a hair below itself
        assert missed == pytest.approx(fnmr_at_fmr(scores[same], scores[~same], target), abs=1e-12)


@given(
    hnp.arrays(np.float64, st.integers(1, 300), elements=st.integers(-50, 50).map(lambda s: s / 50)),
    st.lists(st.sampled_from([0.5, 0.1, 0.07, 0.01, 0.001]), min_size=1, max_size=3, unique=True),
)
def test_thresholds_without_full_sorting_are_the_same(scores, targets):
    found = top_thresholds(scores, targets)
    for target in targets:
        assert found[target] == threshold_at_fmr(scores, target)


def test_the_accuracy_of_folds_uses_the_threshold_of_the_others():
    # The third fold alone lies elsewhere: the others' threshold of .5 is wrong for all its genuine pairs.
    scores = np.array([0.9, 0.1, 0.8, 0.2, 0.4, 0.3])
    same = np.array([True, False] * 3)
    folds = np.array([0, 0, 1, 1, 2, 2])
    mean, error = accuracy_of_folds(scores, same, folds)
    assert mean == pytest.approx((1 + 1 + 0.5) / 3)
    assert error == pytest.approx(np.std([1, 1, 0.5]) / np.sqrt(3))


def test_intervals_of_independent_people_are_the_textbooks():
    random = np.random.Generator(np.random.Philox(5))
    people = np.arange(400)
    events = random.uniform(size=400) < 0.2
    interval = Resampler(people, people).interval(share(events), replicates=400)
    half = 1.96 * np.sqrt(interval.value * (1 - interval.value) / 400)
    assert interval.low == pytest.approx(interval.value - half, abs=0.012)
    assert interval.high == pytest.approx(interval.value + half, abs=0.012)


def test_many_comparisons_of_few_people_leave_the_interval_wide():
    # 20 people, each of 50 comparisons all of one kind: they are 20 observations and not 1,000.
    random = np.random.Generator(np.random.Philox(6))
    kinds = np.arange(20) < 6
    people = np.repeat(np.arange(20), 50)
    clustered = Resampler(people, people).interval(share(kinds[people]))
    lone = np.arange(1000)
    independent = Resampler(lone, lone).interval(share(random.permutation(kinds[people])))
    assert clustered.high - clustered.low > 3 * (independent.high - independent.low)


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    covered = 0
    for seed in range(40):
        random = np.random.Generator(np.random.Philox(seed))
        people = np.arange(120)
        own, other = random.normal(1.5, 1, 120), random.normal(0, 1, 120)
        rates = WeightedRates(np.concatenate([own, other]), np.arange(240) < 120)
        resampler = Resampler(np.tile(people, 2), np.concatenate([people, (people + 1) % 120]), seed=seed)
        interval = resampler.interval(rates.auc, replicates=40)
        covered += interval.low <= stats.norm.cdf(1.5 / np.sqrt(2)) <= interval.high
    assert 33 <= covered <= 40


def test_shared_keys_are_drawn_too():
    people = np.arange(300)
    keys = people % 3
    events = keys == 0  # all goes wrong under one of three keys
    with_keys = Resampler(people, people, keys).interval(share(events))
    without = Resampler(people, people).interval(share(events))
    assert with_keys.high - with_keys.low > 3 * (without.high - without.low)


def test_draws_are_the_same_again():
    people = np.arange(30)
    events = people % 3 == 0
    assert Resampler(people, people, seed=4).interval(share(events)) == Resampler(people, people, seed=4).interval(
        share(events)
    )


@pytest.mark.parametrize(("events", "count"), [(0, 50), (50, 50), (3, 40), (1, 1)])
def test_wilson_agrees_with_scipy_and_does_not_collapse(events, count):
    expected = stats.binomtest(events, count).proportion_ci(0.95, "wilson")
    interval = wilson(events, count)
    assert interval.low == pytest.approx(expected.low, abs=1e-4)
    assert interval.high == pytest.approx(expected.high, abs=1e-4)
    assert interval.high > interval.low
