"""A guided code lies in the plane of code and reference, at the angle that the curve gives."""

from __future__ import annotations

import inspect
import json
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anonymix_plugin.errors import BadArrayError, UsageError
from anonymix_plugin.mixer import guide
from anonymix_plugin.mixer.guide import GuidingCurve, guided

VECTORS = json.loads((Path(__file__).parent / "vectors.json").read_text())
CURVE = GuidingCurve(0.2, 0.5, -0.5, 1.0)
seeds = st.integers(0, 10_000)
curves = st.builds(
    lambda low, wide, floor, top: GuidingCurve(low, low + wide, floor, top),
    st.floats(-1, 0.49),
    st.floats(0.05, 0.5),
    st.floats(-1, 0.9),
    st.floats(0.91, 1),
)


def code(seed: int, dims: int = 32) -> np.ndarray:
    numbers = np.random.Generator(np.random.Philox(seed)).standard_normal(dims)
    return np.asarray(numbers / np.linalg.norm(numbers))


def at(cosine: float, reference: np.ndarray, seed: int) -> np.ndarray:
    """A code with that cosine to the reference."""
    side = code(seed, len(reference))
    side = side - side @ reference * reference
    return np.asarray(cosine * reference + np.sqrt(1 - cosine**2) * side / np.linalg.norm(side))


@pytest.mark.parametrize("vector", VECTORS["guide"], ids=lambda vector: vector["name"])
def test_vectors_hold(vector: dict[str, list[str]]) -> None:
    numbers = {name: np.array([float.fromhex(v) for v in vector[name]]) for name in ("code", "reference", "guided")}
    curve = GuidingCurve(*(float.fromhex(v) for v in vector["curve"]))
    assert np.allclose(guided(numbers["code"], numbers["reference"], curve), numbers["guided"], rtol=0, atol=1e-12)


@given(curve=curves, cosine=st.floats(-0.999, 0.999), seed=seeds, dims=st.integers(3, 40))
def test_a_code_is_turned_to_the_angle_of_the_curve_in_its_own_plane(
    curve: GuidingCurve, cosine: float, seed: int, dims: int
) -> None:
    reference = code(seed, dims)
    probe = at(cosine, reference, seed + 1)
    made = guided(probe, reference, curve)
    assert np.linalg.norm(made) == pytest.approx(1, abs=1e-12)
    assert made @ reference == pytest.approx(curve.turned(cosine), abs=1e-9)
    plane = np.linalg.qr(np.stack([reference, probe], axis=1))[0]
    assert np.linalg.norm(made - plane @ (plane.T @ made)) < 1e-9
    side = probe - cosine * reference
    assert made @ side >= -1e-9  # on the probe's side of the reference, never mirrored


@given(curve=curves, a=st.floats(-1, 1), b=st.floats(-1, 1))
def test_the_curve_never_falls_and_stays_between_its_floor_and_one(curve: GuidingCurve, a: float, b: float) -> None:
    near, far = curve.turned(max(a, b)), curve.turned(min(a, b))
    assert curve.floor - 1e-12 <= far <= near <= 1 + 1e-12


def test_the_curve_is_the_smoothstep_between_its_ends() -> None:
    assert CURVE.turned(-1) == CURVE.turned(0.2) == -0.5
    assert CURVE.turned(0.5) == CURVE.turned(1) == 1
    assert CURVE.turned(0.35) == pytest.approx(0.25)
    assert CURVE.turned(0.275) == pytest.approx(-0.5 + 1.5 * (3 / 16 - 1 / 32))


def test_above_its_upper_end_the_curve_rises_in_a_line_to_the_reference() -> None:
    curve = GuidingCurve(0.2, 0.5, -0.5, 0.97)
    assert curve.turned(0.2) == -0.5
    assert curve.turned(0.35) == pytest.approx((-0.5 + 0.97) / 2)
    assert curve.turned(0.5) == pytest.approx(0.97)
    assert curve.turned(0.75) == pytest.approx(0.985)
    assert curve.turned(1) == pytest.approx(1)


@given(seed=seeds, near=st.floats(0.6, 0.98), step=st.floats(0.01, 0.02))
def test_the_default_curve_makes_nobody_but_the_reference_the_reference(seed: int, near: float, step: float) -> None:
    reference = code(seed)
    far, closer = (
        guided(at(c, reference, seed + 1), reference, GuidingCurve()) @ reference for c in (near, near + step)
    )
    assert far < closer < 1 - 1e-6


@given(seed=seeds)
def test_where_the_top_is_one_who_is_near_becomes_the_reference_and_who_is_far_is_moved_away(seed: int) -> None:
    reference = code(seed)
    assert np.allclose(guided(at(0.6, reference, seed + 1), reference, CURVE), reference, atol=1e-12)
    assert guided(at(0.1, reference, seed + 1), reference, CURVE) @ reference == pytest.approx(-0.5, abs=1e-12)


@given(seed=seeds, dims=st.integers(2, 40))
def test_codes_on_the_line_of_the_reference_are_turned_the_same_way_each_time(seed: int, dims: int) -> None:
    reference = code(seed, dims)
    assert np.allclose(guided(reference, reference, CURVE), reference, atol=1e-12)
    opposite = guided(-reference, reference, CURVE)
    assert opposite @ reference == pytest.approx(-0.5, abs=1e-12)
    assert np.linalg.norm(opposite) == pytest.approx(1, abs=1e-12)
    assert np.array_equal(opposite, guided(-reference, reference, CURVE))
    nearly = -reference + 1e-9 * code(seed + 1, dims)
    assert np.allclose(guided(nearly / np.linalg.norm(nearly), reference, CURVE), opposite, atol=1e-12)


def test_the_spare_plane_is_that_of_the_farthest_axis() -> None:
    reference = np.array([0.0, 1.0, 0.0])
    assert np.allclose(guided(-reference, reference, CURVE), [np.sqrt(0.75), -0.5, 0])


@given(seed=seeds)
def test_the_same_comes_out_bit_by_bit_whatever_the_memory_layout(seed: int) -> None:
    probe, reference = code(seed), code(seed + 1)
    strided = np.repeat(probe, 3)[::3]
    assert np.array_equal(guided(probe, reference, CURVE), guided(strided, reference, CURVE))


def test_every_code_takes_the_same_steps() -> None:
    # Once the shapes are checked, no statement depends on a number: there is neither a branch nor a loop.
    steps = inspect.getsource(guide.guided).split("cosine = ", 1)[1]
    assert not {"if", "for", "while", "and", "or"} & set(steps.split())
    assert "@" not in steps


def test_guiding_costs_less_than_a_millisecond_of_the_processor() -> None:
    probe, reference = code(1), code(2)
    times = []
    for _ in range(50):
        started = time.thread_time()
        guided(probe, reference, CURVE)
        times.append(time.thread_time() - started)
    assert min(times) < 1e-3


@pytest.mark.parametrize(
    "bad",
    [np.ones(32), np.full(32, np.nan), np.zeros(32), np.ones((1, 1)), np.ones(1), np.array([np.inf, 0.0])],
    ids=["length", "nan", "zero", "matrix", "single", "inf"],
)
def test_what_is_no_code_is_refused(bad: np.ndarray) -> None:
    with pytest.raises(BadArrayError, match="code"):
        guided(bad, code(1), CURVE)
    with pytest.raises(BadArrayError, match="reference"):
        guided(code(1), bad, CURVE)


def test_codes_of_two_lengths_are_refused() -> None:
    with pytest.raises(BadArrayError, match="shapes"):
        guided(code(1, 32), code(1, 31), CURVE)


@pytest.mark.parametrize(
    "numbers",
    [
        *((0.5, 0.5, 0), (0.6, 0.5, 0), (-1.1, 0, 0), (0, 1, 0), (0, 0.5, 1), (0, 0.5, -2), (np.nan, 0.5, 0)),
        *((0, 0.5, 0, 0), (0, 0.5, 0, 1.1), (0, 0.5, 0, np.nan)),
    ],
)
def test_curves_that_fall_or_leave_the_sphere_are_refused(numbers: tuple[float, ...]) -> None:
    with pytest.raises(UsageError, match="guiding curve"):
        GuidingCurve(*numbers)
