"""`anonymix protect --dataset`: copies of data sets that existing scripts read as they read the originals."""

from __future__ import annotations

import pickle
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest

from anonymix_keystore import Keystore
from anonymix_plugin import read_marker
from anonymix_plugin.datasets import Record, RecordWriter, read_records
from anonymix_plugin.images import decode_photo, glance
from anonymix_plugin.recognisers import load_recogniser

pytestmark = pytest.mark.usefixtures("weights")

VECTORS = Path(__file__).parents[1] / "datasets" / "vectors"


@pytest.fixture(scope="module")
def crops() -> list[bytes]:
    """Eight aligned crops of 112 pixels, two a person."""
    records = read_records(VECTORS / "train.rec")
    return [record.photo.read(100_000) for record in records if record.photo is not None]


@pytest.fixture
def lfw(tmp_path: Path, crops: list[bytes]) -> Path:
    """Pairs: alex with herself, alex with billie, billie with billie, chris with nobody to be seen."""
    photos = [crops[0], crops[1], crops[0], crops[2], crops[2], crops[3], crops[4], b"no photo"]
    (tmp_path / "sets").mkdir()
    path = tmp_path / "sets" / "lfw.bin"
    path.write_bytes(pickle.dumps((photos, [True, False, True, False]), protocol=2))
    return path


def written(path: Path) -> tuple[list[bytes], list[bool]]:
    photos, same = pickle.loads(path.read_bytes())  # noqa: S301 - as the scripts of InsightFace read it
    return photos, same


def vector(photo: bytes) -> np.ndarray:
    pixels = decode_photo(photo, allow_protected=True).pixels
    return load_recogniser("arcface-mbf").embed(pixels[None])[0]


def test_a_verification_set_is_copied_with_a_key_for_each_person(
    run, store: Keystore, lfw: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    ended = run("protect", lfw, "--dataset", "person", "--scope", "lfw", "--enrol", "-o", out, "--json")
    assert ended.code == 1  # the last pair has a photo that is none
    (told,) = ended.json["sets"]
    assert (told["photos"], told["made"], told["failed"]) == (8, 6, 1)
    assert told["failures"][0]["photo"] == "lfw.bin[7]"
    assert told["notes"] == ["1 of 4 pairs are left out, both photos of each"]
    photos, same = written(out / "lfw.bin")
    assert (len(photos), same) == (6, [True, False, True])
    assert {glance(photo) for photo in photos} == {("JPEG", 112, 112)}
    assert all(read_marker(photo) is not None for photo in photos)
    assert photos[0] == photos[2]
    vectors = [vector(photo) for photo in photos]
    assert vectors[0] @ vectors[1] > 0.4  # one person, one key
    assert vectors[2] @ vectors[3] < 0.4
    assert vectors[4] @ vectors[5] > 0.4
    assert vectors[0] @ vector(pickle.loads(lfw.read_bytes())[0][0]) < 0.4  # noqa: S301 - made above
    assert set(store.subjects("lfw")) == {"lfw.bin:1", "lfw.bin:2", "lfw.bin:3"}  # none of the pair that is left out


def test_under_claims_both_photos_of_a_pair_have_one_key(run, store: Keystore, lfw: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run("protect", lfw, "--dataset", "claim", "--enrol", "-o", out)
    claimed, _ = written(out / "lfw.bin")
    run("protect", lfw, "--dataset", "person", "--enrol", "-o", out, "--force")
    own, _ = written(out / "lfw.bin")
    assert [a == b for a, b in zip(claimed, own, strict=True)] == [True, True, True, False, True, True]


def test_the_gallery_key_needs_nobody_enrolled(run, store: Keystore, lfw: Path, tmp_path: Path) -> None:
    refused = run("protect", lfw, "--dataset", "person", "-o", tmp_path / "none")
    assert refused.code == 4
    assert "--enrol" in refused.err
    assert not list((tmp_path / "none").glob("*"))
    before = len(list(store.subjects()))
    ended = run("protect", lfw, "--dataset", "gallery", "-o", tmp_path / "out")
    assert ended.code == 1
    assert "6 of 8 photos" in ended.out
    assert "lfw.bin[7]" in ended.err
    assert len(list(store.subjects())) == before


def test_a_training_set_keeps_labels_keys_and_ranges(run, store: Keystore, tmp_path: Path, crops) -> None:
    source, out = tmp_path / "faces", tmp_path / "out"
    source.mkdir()
    (source / "property").write_text("4,112,112")
    with RecordWriter.into(source / "train.rec") as writer:
        for record in read_records(VECTORS / "train.rec"):
            photo = record.photo.read(100_000) if record.photo else b""
            spoilt = record.key == 3
            several = record.key == 5  # a label of its own and ten numbers of five points
            labels = (record.label, 7.0, *range(10)) if several else record.labels
            writer.add(
                Record(record.key, labels, record.several or several, record.ids, record.photo),
                b"no photo" if spoilt else photo,
            )
    ended = run("protect", source, "--dataset", "person", "--enrol", "-o", out, "--json")
    assert ended.code == 1
    (told,) = ended.json["sets"]
    assert (told["photos"], told["made"]) == (8, 7)
    assert told["failures"][0]["photo"] == "train.rec[3]"
    assert len(told["notes"]) == 2
    records = list(read_records(out / "train.rec"))
    assert records[0].labels == (8, 12)
    assert [record.key for record in records] == list(range(12))
    assert [record.label for record in records[1:8]] == [0, 0, 1, 2, 2, 3, 3]
    assert records[4].labels == (2, 7)
    assert [record.labels for record in records[8:]] == [(1, 3), (3, 4), (4, 6), (6, 8)]
    for record in records[1:8]:
        assert record.photo is not None
        assert read_marker(record.photo.read(100_000)) is not None
    assert (out / "property").read_text() == "4,112,112"
    again = run("protect", out, "--dataset", "person", "-o", tmp_path / "again")
    assert again.code == 2
    assert "not mixed twice" in again.err


def test_a_folder_keeps_the_names_of_its_files(run, store: Keystore, tmp_path: Path, one: Path, crops) -> None:
    source, out = tmp_path / "people", tmp_path / "out"
    for name, content in (
        ("anna/1.jpg", one.read_bytes()),
        ("anna/crop.JPG", crops[0]),
        ("bert/b.jpeg", crops[2]),
    ):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(content)
    ended = run("protect", source, "--dataset", "person", "--enrol", "-o", out)
    assert (ended.code, ended.err) == (0, "")
    assert sorted(str(p.relative_to(out)) for p in out.rglob("*.*")) == [
        "anna/1.jpg",
        "anna/crop.JPG",
        "bert/b.jpeg",
    ]
    assert glance((out / "anna/1.jpg").read_bytes())[:2] == ("JPEG", 512)
    assert glance((out / "anna/crop.JPG").read_bytes()) == ("JPEG", 112, 112)
    refused = run("protect", source, "--dataset", "person", "-o", out)
    assert refused.code == 6
    assert "--force" in refused.err


def test_a_copy_never_replaces_its_set(run, store: Keystore, lfw: Path) -> None:
    before = lfw.read_bytes()
    ended = run("protect", lfw, "--dataset", "gallery", "-o", lfw.parent, "--force")
    assert ended.code == 6
    assert "would replace the data set" in ended.err
    assert lfw.read_bytes() == before


def test_a_damaged_set_leaves_nothing_behind(run, store: Keystore, tmp_path: Path) -> None:
    path = tmp_path / "train.rec"
    path.write_bytes((VECTORS / "train.rec").read_bytes()[:-9000])
    ended = run("protect", path, "--dataset", "gallery", "-o", tmp_path / "out")
    assert ended.code == 2
    assert "the file ends within the record" in ended.err
    assert not list((tmp_path / "out").glob("*"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--dataset", "person", "--subject", "alice"), "--subject contradicts"),
        (("--dataset", "person", "--gallery"), "--gallery contradicts"),
        (("--dataset", "gallery", "--enrol"), "--enrol issues first keys"),
        (("--dataset", "person", "--faces", "all"), "--faces all contradicts"),
        (("--dataset", "person", "--record"), "--record writes biometric records"),
    ],
)
def test_options_that_contradict_are_refused(run, lfw: Path, tmp_path: Path, arguments, said: str) -> None:
    ended = run("protect", lfw, *arguments, "-o", tmp_path / "out")
    assert ended.code == 2
    assert said in ended.err


def test_the_file_of_measures_is_not_replaced_either(run, store: Keystore, tmp_path: Path) -> None:
    source, out = tmp_path / "faces", tmp_path / "out"
    for folder, text in ((source, "4,112,112"), (out, "mine")):
        folder.mkdir()
        (folder / "property").write_text(text)
    for suffix in (".rec", ".idx"):
        shutil.copy((VECTORS / "train").with_suffix(suffix), source)
    ended = run("protect", source, "--dataset", "gallery", "-o", out)
    assert ended.code == 6
    assert "--force" in ended.err
    assert (out / "property").read_text() == "mine"
    assert not (out / "train.rec").exists()


def test_claims_are_for_pairs(run, store: Keystore, tmp_path: Path) -> None:
    ended = run("protect", VECTORS / "train.rec", "--dataset", "claim", "--enrol", "-o", tmp_path / "out")
    assert ended.code == 2
    assert "claims are for sets of pairs" in ended.err


def test_weights_that_are_called_bin_are_no_set(run, store: Keystore, tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(struct.pack("<4f", 1, 2, 3, 4))
    ended = run("protect", path, "--dataset", "gallery", "-o", tmp_path / "out")
    assert ended.code == 2
    assert "this is no data set" in ended.err
