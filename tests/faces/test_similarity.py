from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from anonymix_plugin.errors import UsageError
from anonymix_plugin.faces import umeyama

POINTS = hnp.arrays(
    np.float64,
    st.tuples(st.integers(2, 12), st.just(2)),
    elements=st.floats(-1000, 1000, width=32),
)


def spread(points):
    return float(np.sqrt(((points - points.mean(0)) ** 2).sum(1).mean()))


@given(
    points=POINTS,
    angle=st.floats(-np.pi, np.pi),
    scale=st.floats(0.01, 100),
    shift=st.tuples(st.floats(-1e4, 1e4), st.floats(-1e4, 1e4)),
)
def test_a_known_similarity_is_recovered(points, angle, scale, shift):
    assume(spread(points) > 1)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = umeyama(points, points @ (scale * turn).T + shift)
    assert np.allclose(matrix[:, :2], scale * turn, atol=1e-6 * scale)
    assert np.allclose(matrix[:, 2], shift, atol=1e-5 * (1 + scale))


@given(src=POINTS, seed=st.integers(0, 2**32 - 1))
def test_the_result_turns_and_scales_and_never_mirrors(src, seed):
    assume(spread(src) > 1)
    dst = np.random.default_rng(seed).normal(0, 100, src.shape)
    linear = umeyama(src, dst)[:, :2]
    assert linear[0, 0] == pytest.approx(linear[1, 1], abs=1e-6)
    assert linear[0, 1] == pytest.approx(-linear[1, 0], abs=1e-6)


@given(src=POINTS, seed=st.integers(0, 2**32 - 1))
def test_no_similarity_nearby_fits_better(src, seed):
    assume(spread(src) > 1)
    rng = np.random.default_rng(seed)
    dst = rng.normal(0, 100, src.shape)
    best = umeyama(src, dst)

    def error(matrix):
        return ((src @ matrix[:, :2].T + matrix[:, 2] - dst) ** 2).sum()

    for _ in range(10):
        a, b, x, y = rng.normal(0, 0.01, 4)
        other = best + np.array([[a, -b, x], [b, a, y]])
        assert error(best) <= error(other) * (1 + 1e-9)


def test_a_mirrored_face_is_not_mirrored_back():
    points = np.array([[0, 0], [10, 0], [5, 5], [1, 9], [9, 9.0]])
    matrix = umeyama(points, points * (-1, 1))
    assert np.linalg.det(matrix[:, :2]) >= 0


@pytest.mark.parametrize(
    ("src", "dst"),
    [
        (np.zeros((5, 2)), np.ones((5, 2))),
        (np.full((5, 2), 1e6), np.ones((5, 2))),
        (np.ones((1, 2)), np.ones((1, 2))),
        (np.eye(3), np.eye(3)),
        (np.ones((4, 2)), np.ones((5, 2))),
        (np.ones(4), np.ones(4)),
        (np.array([[0, np.nan], [1, 1]]), np.eye(2)),
        (np.eye(2), np.array([[0, np.inf], [1, 1]])),
    ],
)
def test_points_that_settle_nothing_are_refused(src, dst):
    with pytest.raises(UsageError):
        umeyama(src, dst)
