"""Streams depend on key and label alone, are what the formulas say, and stay what they are."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from anonymix_plugin.errors import KeyUnavailableError
from anonymix_plugin.mixer.key_schedule import KeySchedule

VECTORS = json.loads((Path(__file__).parent / "vectors.json").read_text())
keys = st.binary(min_size=32, max_size=32)


@pytest.mark.parametrize("vector", VECTORS["key schedule"], ids=lambda vector: vector["label"])
def test_vectors_hold(vector: dict[str, str]) -> None:
    schedule = KeySchedule(bytes.fromhex(vector["key"]))
    label = vector["label"]
    assert schedule.stream(label, 32).hex() == vector["stream"]
    assert schedule.gaussian(label, 4).tolist() == [float.fromhex(value) for value in vector["gaussian"]]
    rotation = schedule.rotation(label, 4, 2)
    assert np.allclose(rotation, [[float.fromhex(v) for v in row] for row in vector["rotation"]], atol=1e-12)


@given(key=keys, count=st.integers(1, 200))
def test_a_longer_stream_begins_with_the_shorter_one(key: bytes, count: int) -> None:
    schedule = KeySchedule(key)
    assert schedule.stream("label", 200).startswith(schedule.stream("label", count))
    assert np.array_equal(schedule.gaussian("label", 200)[:count], schedule.gaussian("label", count))


@given(key=keys, bit=st.integers(0, 255))
def test_one_bit_of_the_key_changes_the_whole_stream(key: bytes, bit: int) -> None:
    other = bytearray(key)
    other[bit // 8] ^= 1 << bit % 8
    a = np.frombuffer(KeySchedule(key).stream("x", 512), np.uint8)
    b = np.frombuffer(KeySchedule(bytes(other)).stream("x", 512), np.uint8)
    assert 0.4 < np.unpackbits(a ^ b).mean() < 0.6


@given(key=keys)
def test_labels_give_independent_streams(key: bytes) -> None:
    schedule = KeySchedule(key)
    a = np.frombuffer(schedule.stream("person", 512), np.uint8)
    b = np.frombuffer(schedule.stream("synthetic code", 512), np.uint8)
    assert 0.4 < np.unpackbits(a ^ b).mean() < 0.6


def test_numbers_are_standard_normal() -> None:
    values = KeySchedule(bytes(range(32))).gaussian("normality", 20_000)
    assert stats.kstest(values, "norm").pvalue > 0.001
    assert abs(np.corrcoef(values[:-1], values[1:])[0, 1]) < 0.03


@given(key=keys, size=st.integers(1, 40), data=st.data())
def test_rotations_have_orthonormal_columns(key: bytes, size: int, data: st.DataObject) -> None:
    columns = data.draw(st.integers(1, size))
    rotation = KeySchedule(key).rotation("r", size, columns)
    assert rotation.shape == (size, columns)
    assert np.allclose(rotation.T @ rotation, np.eye(columns), atol=1e-12)


@pytest.mark.parametrize("length", [0, 16, 31, 33, 64])
def test_a_key_of_another_length_is_refused_without_showing_it(length: int) -> None:
    material = b"\xa5" * length
    with pytest.raises(KeyUnavailableError, match=f"this one has {length}") as caught:
        KeySchedule(material)
    assert "a5" not in str(caught.value)


def test_a_schedule_shows_and_pickles_nothing() -> None:
    schedule = KeySchedule(b"\xa5" * 32)
    assert "a5" not in repr(schedule)
    assert "\\xa5" not in repr(schedule)
    with pytest.raises(TypeError):
        pickle.dumps(schedule)
