"""`anonymix train`: what it writes can be used, its card says how it was made, bad input is refused."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from anonymix_plugin.cli import main
from anonymix_plugin.mixer.subspace import IdentitySubspace
from anonymix_plugin.mixer.weights import SHIPPED, load_mixer_weights


@pytest.fixture
def few_people(portraits: Path, tmp_path: Path) -> Path:
    """Four people with five photos each: two as they are, both mirrored, and one of them darker."""
    folder = tmp_path / "people"
    for neutral in sorted(portraits.glob("*_neutral.jpg"))[:4]:
        (own := folder / neutral.name[:3]).mkdir(parents=True)
        for path in (neutral, neutral.with_name(neutral.name.replace("neutral", "smiling"))):
            with Image.open(path) as photo:
                photo.save(own / path.name, quality=95)
                ImageOps.mirror(photo).save(own / f"mirrored_{path.name}", quality=95)
                if path == neutral:
                    photo.point(lambda value: value * 0.7).save(own / f"darker_{path.name}", quality=95)
    return folder


def test_a_subspace_is_learned_from_photos_and_says_what_it_was_learned_from(
    few_people: Path, tmp_path: Path, model: Callable[[str], Path]
) -> None:
    for name in ("yunet", "arcface-mbf", "sface"):
        model(name)
    output = tmp_path / "subspace.safetensors"
    common = ["--pairs", str(tmp_path / "pairs"), "--people-only", "-o", str(output)]
    assert main(["train", "subspace", "--people", str(few_people), "--dims", "3", *common]) == 0
    subspace = IdentitySubspace.read(output)
    assert subspace.dims == 3
    photos = np.load(tmp_path / "pairs" / "people.npz")["rows"]
    codes = subspace.project(photos[np.isfinite(photos[:, 0])])
    assert len(codes) >= 18
    card = (tmp_path / "subspace.safetensors.md").read_text()
    assert hashlib.sha256(output.read_bytes()).hexdigest() in card
    assert "people: 4" in card
    assert "dims: 3" in card


def test_the_subspace_of_shipped_weights_can_be_read_on_its_own() -> None:
    assert IdentitySubspace.read(SHIPPED).directions.shape[0] == 640


def test_a_file_without_a_subspace_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = tmp_path / "bad.safetensors"
    bad.write_bytes(b"nothing")
    code = main(["train", "mapper", "--subspace", str(bad), "-o", str(tmp_path / "out.safetensors")])
    assert code == 5
    assert "anonymix train subspace" in capsys.readouterr().err
    assert not (tmp_path / "out.safetensors").exists()


def test_people_without_folders_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "people").mkdir()
    command = ["train", "subspace", "--people", str(tmp_path / "people"), "-o", str(tmp_path / "s")]
    assert main([*command, "--pairs", str(tmp_path / "pairs"), "--people-only"]) == 2
    assert "one per person" in capsys.readouterr().err


def test_a_map_gets_another_subspace_without_learning_again(tmp_path: Path) -> None:
    weights = load_mixer_weights(SHIPPED)
    other = replace(weights.subspace, mean=weights.subspace.mean + 0.5, lfw_folds=(6,))
    other.save(tmp_path / "other.safetensors", {})
    output = tmp_path / "out.safetensors"
    command = ["train", "mapper", "--start", str(SHIPPED), "--subspace", str(tmp_path / "other.safetensors")]
    assert main([*command, "--steps", "0", "-o", str(output)]) == 0
    made = load_mixer_weights(output)
    assert made.subspace.lfw_folds == (6,)
    np.testing.assert_array_equal(made.subspace.mean, other.mean)
    np.testing.assert_array_equal(made.person, weights.person)
    assert weights.sha256 in (tmp_path / "out.safetensors.md").read_text()


def test_more_numbers_of_a_person_than_the_map_takes_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = load_mixer_weights(SHIPPED)
    many = weights.keyed_dims + 1
    directions = np.ones((640, many), np.float32)
    replace(weights.subspace, directions=directions).save(tmp_path / "many.safetensors", {})
    command = ["train", "mapper", "--start", str(SHIPPED), "--subspace", str(tmp_path / "many.safetensors")]
    assert main([*command, "--steps", "0", "-o", str(tmp_path / "out.safetensors")]) == 2
    assert f"{many} numbers" in capsys.readouterr().err
    assert not (tmp_path / "out.safetensors").exists()
