"""Several photos of a person make one code; those of somebody else are left out and told."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anonymix_plugin.errors import DifferentPeopleError, UsageError
from anonymix_plugin.mixer.mean_code import mean_code


def code(seed: int) -> np.ndarray:
    numbers = np.random.Generator(np.random.Philox(seed)).standard_normal(32)
    return np.asarray(numbers / np.linalg.norm(numbers))


def near(centre: np.ndarray, seed: int, cosine: float = 0.8) -> np.ndarray:
    side = code(seed)
    side = side - side @ centre * centre
    return np.asarray(cosine * centre + np.sqrt(1 - cosine**2) * side / np.linalg.norm(side))


@given(seed=st.integers(0, 999), count=st.integers(2, 6))
def test_the_mean_lies_nearer_to_the_person_than_single_photos_do(seed: int, count: int) -> None:
    centre = code(seed)
    photos = [near(centre, 1000 * seed + number + 7) for number in range(count)]
    found = mean_code(photos)
    assert np.linalg.norm(found.code) == pytest.approx(1, abs=1e-12)
    assert np.allclose(found.code, sum(photos) / np.linalg.norm(sum(photos)))
    assert found.code @ centre > np.mean([photo @ centre for photo in photos])
    assert found.left_out == ()


@given(seed=st.integers(0, 999))
def test_a_single_photo_is_its_own_mean_bit_by_bit(seed: int) -> None:
    assert np.array_equal(mean_code([code(seed)]).code, code(seed))


@given(place=st.integers(0, 3))
def test_somebody_elses_photo_is_left_out_wherever_it_stands(place: int) -> None:
    photos = [near(code(1), number) for number in (2, 3, 4)]
    alone = mean_code(photos)
    photos.insert(place, -code(1))
    found = mean_code(photos)
    assert found.left_out == (place,)
    assert np.allclose(found.code, alone.code)


def test_without_a_majority_nothing_is_made() -> None:
    a, b = code(1), near(code(1), 2, 0.0)
    for photos in ([a, b], [a, b, a, b], [a, b, near(a, 3, -0.1)]):
        with pytest.raises(DifferentPeopleError, match="one person"):
            mean_code(photos)
    assert mean_code([a, a, b]).left_out == (2,)
    assert mean_code([a, b], doubt=-1).left_out == ()


def test_no_photo_is_no_person() -> None:
    with pytest.raises(UsageError, match="no photo"):
        mean_code([])
