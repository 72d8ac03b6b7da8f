"""Distances of distributions against closed forms, traits of real faces, and groups that are told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy import linalg

from anonymix_lab.evaluation.features import FeatureMatcher
from anonymix_lab.evaluation.traits import frechet_distance, kernel_distance, read_groups
from anonymix_lab.matchers._matchers import TRAIT_NAMES, face_traits
from anonymix_plugin.errors import ModelError, UsageError
from anonymix_plugin.faces import YuNet
from anonymix_plugin.images import decode_photo
from anonymix_plugin.values import Photo


def samples(seed: int, count: int = 400, dim: int = 5, shift: float = 0.0) -> np.ndarray:
    random = np.random.Generator(np.random.Philox(seed))
    return random.standard_normal((count, dim)) @ random.uniform(-1, 1, (dim, dim)) + shift


def test_the_frechet_distance_agrees_with_the_matrix_root_of_scipy() -> None:
    a, b = samples(1), samples(2, shift=0.5)
    covariances = [np.cov(rows, rowvar=False) for rows in (a, b)]
    root = linalg.sqrtm(covariances[0] @ covariances[1]).real
    shift = a.mean(axis=0) - b.mean(axis=0)
    expected = shift @ shift + np.trace(covariances[0] + covariances[1] - 2 * root)
    assert frechet_distance(a, b) == pytest.approx(expected)


def test_the_frechet_distance_of_a_shift_is_its_square() -> None:
    a = samples(3)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-6)
    assert frechet_distance(a, a + np.array([2, 0, 0, 0, 1])) == pytest.approx(5, abs=1e-6)
    assert frechet_distance(a, samples(4)) == pytest.approx(frechet_distance(samples(4), a))


def test_the_kernel_distance_is_unbiased() -> None:
    random = np.random.Generator(np.random.Philox(5))
    draws = [kernel_distance(random.standard_normal((40, 3)), random.standard_normal((50, 3))) for _ in range(200)]
    assert abs(np.mean(draws)) < 3 * np.std(draws) / np.sqrt(len(draws))
    assert min(draws) < 0
    a = random.standard_normal((40, 3))
    assert kernel_distance(a, a + 1.0) > 1


def test_traits_follow_what_was_done_to_a_photo(
    portraits: Path, real_people: bool, model: Callable[[str], Path]
) -> None:
    detector = YuNet(model("yunet"))

    def traits(photo: Photo) -> dict[str, float]:
        return dict(zip(TRAIT_NAMES, face_traits(detector.detect(photo)[0]).tolist(), strict=True))

    photo = decode_photo(portraits / "001_neutral.jpg")
    plain = traits(photo)
    darker = traits(Photo((photo.pixels * 0.6).astype(np.uint8), "darker"))
    mirrored = traits(Photo(np.ascontiguousarray(photo.pixels[:, ::-1]), "mirrored"))
    assert darker["brightness"] == pytest.approx(0.6 * plain["brightness"], rel=0.05)
    assert mirrored["yaw"] == pytest.approx(-plain["yaw"], abs=0.06)
    assert mirrored["side_light"] == pytest.approx(-plain["side_light"], abs=4)
    wider = [
        traits(decode_photo(portraits / f"{number:03}_smiling.jpg"))["smile"]
        - traits(decode_photo(portraits / f"{number:03}_neutral.jpg"))["smile"]
        for number in ((1, 2, 3) if real_people else (2, 6, 9))
    ]
    assert min(wider) > 0


def test_groups_are_read_and_faults_are_told(tmp_path: Path) -> None:
    path = tmp_path / "groups.csv"
    path.write_text("person,group\nada,women\nada,older\nalan,men\n")
    assert read_groups(path) == {"ada": ("women", "older"), "alan": ("men",)}
    for text, message in (("a,b\n1,2\n", "columns person and group"), ("person,group\n", "nobody belongs")):
        path.write_text(text)
        with pytest.raises(UsageError, match=message):
            read_groups(path)


def test_features_that_do_not_fit_are_refused(tmp_path: Path, model: Callable[[str], Path]) -> None:
    (tmp_path / "no.onnx").write_bytes(b"no network")
    with pytest.raises(ModelError, match="no ONNX network"):
        FeatureMatcher(tmp_path / "no.onnx")
    with pytest.raises(ModelError, match="can't be read"):
        FeatureMatcher(tmp_path / "gone.onnx")
    with pytest.raises(ModelError, match="do not serve"):
        FeatureMatcher(model("yunet"))
