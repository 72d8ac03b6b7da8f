"""Linkability against closed forms and numerical integration; its bias is shown and bounded."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import integrate, stats

from anonymix_lab.metrics.linkability import default_bins, linkability, local_linkability
from anonymix_plugin.errors import BadArrayError, UsageError


def scores():
    return hnp.arrays(np.float64, st.integers(1, 80), elements=st.floats(-1, 1))


def test_scores_apart_are_fully_linkable():
    result = linkability(np.linspace(0.5, 0.9, 200), np.linspace(-0.5, 0.1, 200))
    assert result.d_sys == 1.0
    assert result.maximal == pytest.approx(1.0)
    assert result.p_value == pytest.approx(1 / 101)


def test_the_same_scores_are_not_linkable_at_all():
    same = np.linspace(-0.5, 0.5, 300)
    result = linkability(same, same)
    assert result.d_sys == 0.0
    assert result.maximal == pytest.approx(0.0, abs=1e-12)
    assert result.above_floor == 0.0


def test_overlapping_uniforms_have_the_value_of_the_closed_form():
    # Mated uniform on [0, .5), non-mated on [.25, .75): half of the mated scores are certain, for the others
    # the likelihood ratio is 1. D_sys = 1/2, M = log2(3/2).
    fine = (np.arange(100_000) + 0.5) / 200_000
    result = linkability(fine, fine + 0.25, bins=8, score_range=(-1, 1), relabellings=0)
    assert result.d_sys == pytest.approx(0.5)
    assert result.maximal == pytest.approx(np.log2(1.5))


@pytest.mark.parametrize("shift", [0.0, 0.5, 1.0, 2.0, 4.0])
def test_normal_distributions_agree_with_numerical_integration(shift):
    mated, other = stats.norm(shift * 0.1, 0.1), stats.norm(0, 0.1)

    def density(s):
        p, q = mated.pdf(s), other.pdf(s)
        return max(p - q, 0) / (p + q) * p if p + q > 0 else 0.0

    expected, _ = integrate.quad(density, -1, 1, points=[0, shift * 0.05, shift * 0.1], limit=400)
    sample = np.random.Generator(np.random.Philox(3))
    result = linkability(
        sample.normal(shift * 0.1, 0.1, 200_000), sample.normal(0, 0.1, 200_000), bins=100, relabellings=0
    )
    assert result.d_sys == pytest.approx(expected, abs=0.005)


def test_the_bias_of_binning_shrinks_with_scores_grows_with_bins_and_is_told():
    random = np.random.Generator(np.random.Philox(11))

    def one(count, bins):
        # Nothing links these: both are draws of one distribution.
        return linkability(random.normal(0, 0.1, count), random.normal(0, 0.1, count), bins=bins)

    few, many, coarse = one(100, 100), one(20_000, 100), one(100, 10)
    assert few.d_sys > 0.08  # a careless reader would call that linkable
    assert many.d_sys < 0.02
    assert coarse.d_sys < few.d_sys
    for result in (few, many, coarse):
        assert result.floor / 2 < result.d_sys < 2 * result.floor_high
        assert result.above_floor < 0.08


def test_the_floor_does_not_hide_what_links():
    random = np.random.Generator(np.random.Philox(12))
    result = linkability(random.normal(0.15, 0.1, 300), random.normal(0, 0.1, 3000))
    assert result.d_sys > result.floor_high
    assert result.above_floor > 0.2
    assert result.p_value < 0.05


def test_scores_that_never_overlap_are_fully_linkable_and_no_more_than_that():
    mated = np.linspace(0.1, 0.9, 49)  # in 49 bins of 1/49 each, which add up to a hair above 1
    assert linkability(mated, np.full(7, -0.9), bins=98, relabellings=0).d_sys == pytest.approx(1.0)
    for count in range(1, 200):
        found = linkability(np.linspace(0.1, 0.9, count), [-0.9], bins=2 * count, relabellings=0)
        assert found.d_sys <= 1


@given(scores(), scores(), st.integers(1, 60))
def test_it_lies_within_bounds_and_below_total_variation_twice(mated, other, bins):
    result = linkability(mated, other, bins=bins, relabellings=0)
    assert 0 <= result.d_sys <= 1
    assert -1e-12 <= result.maximal <= 1 + 1e-12
    width = 2 / bins
    variation = np.clip(result.mated - result.non_mated, 0, None).sum() * width
    # (p - q) p / (p + q) <= p - q: D_sys can't exceed the total variation distance.
    assert result.d_sys <= variation + 1e-9
    assert result.maximal == pytest.approx(np.log2(1 + variation), abs=1e-9)


@given(scores(), scores(), st.integers(1, 40))
def test_order_of_scores_and_mirroring_change_nothing_and_exchange_does(mated, other, bins):
    plain = linkability(mated, other, bins=bins, relabellings=0)
    assert linkability(mated[::-1], np.sort(other), bins=bins, relabellings=0).d_sys == pytest.approx(plain.d_sys)
    doubled = linkability(np.tile(mated, 3), other, bins=bins, relabellings=0)
    assert doubled.d_sys == pytest.approx(plain.d_sys)


@given(scores(), scores())
def test_joining_bins_never_adds_linkability_in_the_maximal_sense(mated, other):
    fine = linkability(mated, other, bins=40, relabellings=0)
    coarse = linkability(mated, other, bins=10, relabellings=0)
    assert coarse.maximal <= fine.maximal + 1e-9


def test_only_where_the_odds_speak_for_mated_is_there_linkability():
    p, q = np.array([0.5, 0.3, 0.2, 0.0]), np.array([0.0, 0.3, 0.4, 0.3])
    assert local_linkability(p, q).tolist() == [1.0, 0.0, 0.0, 0.0]
    assert local_linkability(p, q, odds=2.0)[1] == pytest.approx(1 / 3)  # 2 LR / (1 + 2 LR) - ... at LR = 1


def test_bins_follow_the_fewer_scores():
    assert default_bins(40, 10_000) == 10
    assert default_bins(500, 10_000) == 50
    assert default_bins(10_000, 10_000) == 100


def test_bad_scores_are_refused():
    with pytest.raises(UsageError, match="no scores"):
        linkability([], [0.1])
    with pytest.raises(BadArrayError, match="finite"):
        linkability([np.nan], [0.1])
    with pytest.raises(BadArrayError, match="range"):
        linkability([1.5], [0.1])
    with pytest.raises(UsageError, match="can't be"):
        linkability([0.5], [0.1], bins=0)
