"""People of the street: whom the subspace learns from, and that the weights say so."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from anonymix_lab.data import lfw_folds
from anonymix_lab.training.street import PHOTOS_OF_ONE, embed_street, street_people
from anonymix_plugin.errors import UsageError
from anonymix_plugin.mixer.subspace import IdentitySubspace
from anonymix_plugin.mixer.weights import SHIPPED, load_mixer_weights


def lfw_of(folder: Path, photos: dict[str, int]) -> Path:
    """A folder like LFW: ten folds of one genuine and one impostor pair; fold f has the people Af and Bf."""
    rows = ["10\t1"]
    for fold in range(10):
        rows += [f"A{fold}\t1\t2", f"A{fold}\t1\tB{fold}\t1"]
    (folder / "pairs.txt").write_text("\n".join(rows) + "\n")
    for name, count in photos.items():
        (folder / "images" / name).mkdir(parents=True)
        for number in range(count):
            (folder / "images" / name / f"{name}_{number + 1:04d}.jpg").write_bytes(b"x")
    return folder


PHOTOS = {"A0": 2, "B0": 1, "A7": 3, "B7": 1, "Nobody": 1, "Often": 30}


def test_people_of_the_folds_and_of_none_are_learned_from_and_nobody_else(tmp_path: Path) -> None:
    street = street_people(lfw_of(tmp_path, PHOTOS), [1, 2])
    names = [path.parent.name for path in street.paths]
    assert {name: names.count(name) for name in names} == {
        "A0": 2,
        "B0": 1,
        "Nobody": 1,
        "Often": PHOTOS_OF_ONE,
    }
    assert [name for name, alone in zip(names, street.alone, strict=True) if alone] == ["B0", "Nobody"]
    with pytest.raises(UsageError, match="no fold 12"):
        street_people(tmp_path, [12])


class Numbers:
    """Embeds each photo as a number of its own, and finds no face on photos of Nobody."""

    def __init__(self) -> None:
        self.asked: list[Path] = []

    def embed(self, path: Path) -> np.ndarray | None:
        self.asked.append(path)
        return None if path.parent.name == "Nobody" else np.full(640, len(self.asked), np.float32)


def test_embeddings_of_folder_and_street_keep_who_is_who(tmp_path: Path) -> None:
    lfw = lfw_of(tmp_path / "lfw", PHOTOS) if (tmp_path / "lfw").mkdir() is None else tmp_path
    for name in ("Anna", "Bert"):
        (tmp_path / "people" / name).mkdir(parents=True)
        for number in range(3):
            (tmp_path / "people" / name / f"{number}.jpg").write_bytes(b"x")
    reader, central = Numbers(), Numbers()
    learned = embed_street(reader, central, tmp_path / "people", lfw, [1], tmp_path, lambda *_: None)  # type: ignore[arg-type]
    assert learned.of_folder == 6
    assert np.bincount(learned.who)[np.unique(learned.who)].tolist() == [3, 3, 2, PHOTOS_OF_ONE]
    assert len(learned.photos) == len(learned.who)
    assert len(learned.others) == 1  # B0; on Nobody there was no face
    assert "folds 1 of view 2" in " ".join(learned.used)
    again = embed_street(Numbers(), central, tmp_path / "people", lfw, [1], tmp_path, lambda *_: None)  # type: ignore[arg-type]
    np.testing.assert_array_equal(again.photos, learned.photos)
    assert len(central.asked) == len(set(central.asked))


def test_weights_say_which_folds_they_have_learned_from(tmp_path: Path) -> None:
    weights = load_mixer_weights(SHIPPED)
    other = replace(weights, subspace=replace(weights.subspace, lfw_folds=(6, 7)))
    other.save(tmp_path / "w.safetensors", {})
    assert load_mixer_weights(tmp_path / "w.safetensors").subspace.lfw_folds == (6, 7)
    other.subspace.save(tmp_path / "s.safetensors", {})
    assert IdentitySubspace.read(tmp_path / "s.safetensors").lfw_folds == (6, 7)


def test_the_shipped_subspace_leaves_half_of_lfw_to_be_tested_on(shared_data: Path) -> None:
    learned = load_mixer_weights(SHIPPED).subspace.lfw_folds
    assert learned == (1, 2, 3, 4, 5)
    people = lfw_folds(shared_data / "lfw")
    tested = frozenset.union(*(people[fold - 1] for fold in range(1, 11) if fold not in learned))
    names = {path.parent.name for path in street_people(shared_data / "lfw", learned).paths}
    assert not names & tested
