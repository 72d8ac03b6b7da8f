"""The curve over dimensions: more of them tell people apart better, and give more away."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from anonymix_lab.studies.dimensions import PARTS, PhotoPairs, dims_curve, read_view1_pairs
from anonymix_plugin.errors import BadArrayError, UsageError
from anonymix_plugin.mixer.subspace import fit_subspace


def normalised(rows: np.ndarray) -> np.ndarray:
    halves = [rows[:, part] / np.linalg.norm(rows[:, part], axis=1, keepdims=True) for part in PARTS.values()]
    return np.concatenate(halves, axis=1).astype(np.float32)


def world(seed: int = 8) -> tuple[np.ndarray, np.ndarray, np.ndarray, PhotoPairs]:
    """People who differ in 60 dimensions; photos are off in 40 others, and a little in all."""
    dice = np.random.default_rng(seed)

    def photos_of(people: np.ndarray) -> np.ndarray:
        rows = np.zeros((len(people), 640))
        rows[:, :30], rows[:, 512:542] = people[:, :30], people[:, 30:]
        rows[:, 40:80] += 1 * dice.standard_normal((len(people), 40))
        return normalised(rows + 0.6 * dice.standard_normal(rows.shape))

    who = np.repeat(np.arange(12), 20)
    photos = photos_of(dice.standard_normal((12, 60))[who])
    population = photos_of(dice.standard_normal((400, 60)))
    matchers = dice.standard_normal((150, 60))
    one = np.arange(150)
    pairs = PhotoPairs(
        np.concatenate([photos_of(matchers), photos_of(matchers)]),
        np.concatenate([one, one]),
        np.concatenate([one + 150, np.roll(one, 1) + 150]),
        np.repeat([True, False], 150),
    )
    return photos, who, population, pairs


def test_more_dimensions_tell_people_apart_better_and_give_more_away() -> None:
    photos, who, population, pairs = world()
    points = dims_curve([4, 16, 48], photos, who, population, pairs, {"arcface-mbf": 0.15})
    assert [point.dims for point in points] == [4, 16, 48]
    assert points[0].eer > points[1].eer > points[2].eer
    assert points[0].spread > points[1].spread > points[2].spread
    assert points[0].rebuilt < points[1].rebuilt < points[2].rebuilt
    accepted = [point.accepted["arcface-mbf"] for point in points]
    assert accepted[0] < accepted[2]
    assert accepted[0] <= accepted[1] <= accepted[2]


def test_a_population_teaches_how_people_differ() -> None:
    photos, who, population, pairs = world()
    few = dims_curve([11], photos, who, None, pairs, {})[0]
    many = dims_curve([11, 24], photos, who, population, pairs, {})
    assert many[0].eer < few.eer
    assert many[1].eer < few.eer


def test_counts_that_the_people_do_not_allow_are_left_out_of_the_curve_and_refused_by_the_fit() -> None:
    photos, who, population, pairs = world()
    assert [point.dims for point in dims_curve([4, 11, 12], photos, who, None, pairs, {})] == [4, 11]
    with pytest.raises(BadArrayError, match="1 to 11"):
        fit_subspace(photos, who, dims=12)
    assert fit_subspace(photos, who, dims=12, population=population).dims == 12
    with pytest.raises(BadArrayError, match="1 to 640"):
        fit_subspace(photos, who, dims=641, population=np.repeat(population, 2, axis=0))


def test_view_1_is_read_and_what_is_no_listing_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pairsDevTest.txt").write_text("1\nAnna\t1\t4\nAnna\t2\tBert\t3\n")
    pairs = read_view1_pairs(tmp_path)
    assert [genuine for *_, genuine in pairs] == [True, False]
    assert pairs[1][1] == tmp_path / "images" / "Bert" / "Bert_0003.jpg"
    for text in ("1\n", "1\nAnna\tx\ty\n"):
        (tmp_path / "pairsDevTest.txt").write_text(text)
        with pytest.raises(UsageError, match="pairsDevTest"):
            read_view1_pairs(tmp_path)
    with pytest.raises(UsageError, match="pairsDevTrain"):
        read_view1_pairs(tmp_path, "pairsDevTrain.txt")
