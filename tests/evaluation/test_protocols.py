"""Protocols draw what they say, and bad data is told with counts."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from photo_folders import shared

from anonymix_lab.data import (
    Protocol,
    folder_protocol,
    lfw_folds,
    lfw_protocol,
    pairs_protocol,
    parse_folds,
    read_names,
)
from anonymix_lab.evaluation.run import part_of
from anonymix_plugin.errors import UsageError


@pytest.fixture
def people(tmp_path: Path) -> Callable[..., Path]:
    """Makes a folder of people; photos are files of different bytes, as nobody decodes them here."""

    def make(counts: dict[str, int]) -> Path:
        folder = tmp_path / "people"
        for person, count in counts.items():
            (folder / person).mkdir(parents=True)
            for number in range(count):
                (folder / person / f"{number}.jpg").write_bytes(f"{person} {number}".encode())
        return folder

    return make


@pytest.fixture(scope="module")
def lfw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """LFW where it is; otherwise a folder like it: ten folds of 2 x 300 pairs; its files are no photos."""
    if (real := shared() / "data" / "lfw").is_dir():
        return real
    folder = tmp_path_factory.mktemp("lfw")

    def pairs(people: list[str]) -> list[str]:
        """Of each kind half as many as the people have pairs of photos 1 to 4."""
        for name in people:
            (folder / "images" / name).mkdir(parents=True, exist_ok=True)
            for number in range(1, 5):
                (folder / "images" / name / f"{name}_{number:04}.jpg").write_text(f"{name} {number}")
        rows = [f"{name}\t{a}\t{b}" for name in people for a, b in combinations(range(1, 5), 2)]
        return rows + [
            f"{name}\t{number}\t{people[(place + step) % len(people)]}\t{number}"
            for place, name in enumerate(people)
            for step in (1, 2, 3)
            for number in (1, 2)
        ]

    view2 = [row for fold in range(10) for row in pairs([f"Fold{fold}_{i}" for i in range(50)])]
    (folder / "pairs.txt").write_text("\n".join(["10\t300", *view2]))
    for listing in ("Train", "Test"):  # people of view 1, ten of whom stand in view 2 as well
        view1 = pairs([*(f"{listing}_{i}" for i in range(60)), *(f"Fold{i}_0" for i in range(10))])
        (folder / f"pairsDev{listing}.txt").write_text("\n".join([str(len(view1) // 2), *view1]))
    return folder


def kinds(protocol: Protocol) -> dict[str, int]:
    return {notice.kind: notice.count for notice in protocol.notices}


def check(protocol: Protocol) -> None:
    """What holds of every protocol."""
    samples, pairs = protocol.samples, protocol.pairs
    assert len({sample.photo for sample in samples}) == len(samples)
    assert len({frozenset(pair) for pair in zip(pairs.first.tolist(), pairs.second.tolist(), strict=True)}) == len(
        pairs
    )
    for first, second, same in zip(pairs.first, pairs.second, pairs.same, strict=True):
        assert (samples[first].person == samples[second].person) == same
    tested = {sample.person for sample in samples}
    assert not tested & {sample.person for sample in protocol.development}
    fold_of: dict[str, set[int]] = {}
    for sample in samples:
        fold_of.setdefault(sample.person, set()).add(sample.fold)
        assert len(sample.sha256) == 64
    assert all(len(folds) == 1 for folds in fold_of.values())
    assert set(np.unique(np.concatenate([pairs.first, pairs.second]))) == set(range(len(samples)))


def test_lfw_has_the_official_pairs_and_folds(shared_data: Path) -> None:
    protocol = lfw_protocol(shared_data / "lfw")
    check(protocol)
    assert (len(protocol.pairs), int(protocol.pairs.same.sum()), protocol.folds) == (6000, 3000, 10)
    assert len(protocol.samples) == 7701
    assert protocol.official
    folds = np.array([protocol.samples[i].fold for i in protocol.pairs.first])
    assert np.bincount(folds).tolist() == [600] * 10
    assert len(protocol.development) > 500


def test_a_limit_takes_as_many_pairs_of_each_kind_from_each_fold(lfw: Path) -> None:
    protocol = lfw_protocol(lfw, limit=40)
    check(protocol)
    folds = np.array([protocol.samples[i].fold for i in protocol.pairs.first])
    for same in (True, False):
        assert np.bincount(folds[protocol.pairs.same == same]).tolist() == [2] * 10
    assert len(protocol.development) == 400
    assert not protocol.official


def test_a_longer_look_contains_the_shorter_one(lfw: Path) -> None:
    short, longer = (lfw_protocol(lfw, limit=limit) for limit in (20, 60))
    assert {sample.photo for sample in short.samples} <= {sample.photo for sample in longer.samples}


def test_people_who_were_trained_on_are_left_out_of_everything(lfw: Path) -> None:
    plain = lfw_protocol(lfw, limit=40)
    gone = {plain.samples[0].person, plain.development[0].person}
    protocol = lfw_protocol(lfw, limit=40, exclude=gone)
    check(protocol)
    assert not gone & {sample.person for sample in (*protocol.samples, *protocol.development)}
    assert kinds(protocol)["excluded"] >= 1


def test_folds_that_a_mixer_has_learned_from_are_left_out_of_test_and_thresholds(lfw: Path) -> None:
    people = lfw_folds(lfw)
    assert len(people) == 10
    assert not frozenset.union(*people[:5]) & frozenset.union(*people[5:])
    protocol = lfw_protocol(lfw, limit=40, folds=range(6, 11))
    check(protocol)
    assert protocol.folds == 5
    assert {sample.person for sample in protocol.samples} <= frozenset.union(*people[5:])
    assert not {sample.person for sample in protocol.development} & frozenset.union(*people[:5])
    assert kinds(protocol)["folds_left_out"] == 3000
    assert protocol.settings["folds"] == "6,7,8,9,10"
    assert not protocol.official
    with pytest.raises(UsageError, match="no fold 11"):
        lfw_protocol(lfw, folds=[11])
    with pytest.raises(UsageError, match="no fold left"):
        lfw_protocol(lfw, folds=())


@pytest.mark.parametrize(("text", "folds"), [("6-10", (6, 7, 8, 9, 10)), ("3, 1", (1, 3)), ("2,4-5", (2, 4, 5))])
def test_folds_are_read(text: str, folds: tuple[int, ...]) -> None:
    assert parse_folds(text) == folds


@pytest.mark.parametrize("text", ["", "a", "5-1", "1-", "-3"])
def test_what_names_no_folds_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="names no folds"):
        parse_folds(text)


def test_a_folder_that_is_not_lfw_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"can't be read.*Labeled Faces"):
        lfw_protocol(tmp_path)
    (tmp_path / "pairs.txt").write_text("10\t300\nsomebody\t1\n")
    with pytest.raises(UsageError, match=r"pairs.txt:2: no pair"):
        lfw_protocol(tmp_path)


def test_real_people_in_folders(shared_data: Path) -> None:
    protocol = folder_protocol(shared_data / "pins", limit=200, seed=3)
    check(protocol)
    assert len(protocol.pairs) == 200
    assert int(protocol.pairs.same.sum()) == 100
    apart = {sample.person for sample in protocol.development}
    assert len(apart) == round(55 * 0.3)


def test_the_seed_settles_everything(people: Callable[..., Path]) -> None:
    folder = people({f"person {i}": 3 for i in range(20)})
    first, again, other = (folder_protocol(folder, limit=20, seed=seed) for seed in (5, 5, 6))
    assert first.samples == again.samples
    assert first.pairs.first.tolist() == again.pairs.first.tolist()
    assert {sample.person for sample in first.development} != {sample.person for sample in other.development}


def test_all_genuine_pairs_are_taken_where_there_is_room(people: Callable[..., Path]) -> None:
    protocol = folder_protocol(people({"a": 4, "b": 3, "c": 1}))
    check(protocol)
    assert int(protocol.pairs.same.sum()) == len(list(combinations(range(4), 2))) + 3
    assert kinds(protocol) == {"one_photo": 1}


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({}, "no such folder"),
        ({"a": 0}, "no photos in sub-folders"),
        ({"a": 3}, "photos of 1 people are too few"),
        ({"a": 1, "b": 1}, "of none of the 2 people there are two photos"),
    ],
)
def test_folders_without_comparisons_are_refused(
    people: Callable[..., Path], tmp_path: Path, counts: dict[str, int], message: str
) -> None:
    people(counts)
    with pytest.raises(UsageError, match=message):
        folder_protocol(tmp_path / "people")


def test_what_is_left_out_of_a_folder_is_counted(people: Callable[..., Path]) -> None:
    folder = people({"a": 2, "b": 3, "c": 2, "empty": 0})
    (folder / "loose.jpg").write_bytes(b"x")
    (folder / "a" / "notes.txt").write_text("x")
    (folder / "b" / "1.jpg").write_bytes((folder / "b" / "0.jpg").read_bytes())
    (folder / "c" / "0.jpg").write_bytes((folder / "a" / "0.jpg").read_bytes())
    protocol = folder_protocol(folder)
    check(protocol)
    found = kinds(protocol)
    assert found["empty_folder"] == found["loose_file"] == found["other_file"] == 1
    assert found["identical_files"] == found["identical_across_people"] == 1
    assert found["identical_pair"] >= 1
    names = [sample.sha256 for sample in protocol.samples]
    pairs = protocol.pairs
    assert all(names[a] != names[b] for a, b in zip(pairs.first, pairs.second, strict=True))


def test_people_whose_photos_are_all_the_same_file_leave_nothing(people: Callable[..., Path]) -> None:
    folder = people({"a": 2, "b": 1})
    (folder / "a" / "1.jpg").write_bytes((folder / "a" / "0.jpg").read_bytes())
    with pytest.raises(UsageError, match=r"no pairs of one person.*1 × pairs of identical files"):
        folder_protocol(folder)


def write_pairs(folder: Path, text: str, photos: str = "abcdef") -> Path:
    for name in photos:
        (folder / f"{name}.jpg").write_bytes(name.encode())
    path = folder / "pairs.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_people_follow_from_genuine_pairs(tmp_path: Path) -> None:
    path = write_pairs(
        tmp_path,
        "first,second,same,fold\na.jpg,b.jpg,1,x\nb.jpg,c.jpg,yes,x\nd.jpg,e.jpg,1,y\na.jpg,d.jpg,0,x\n",
    )
    protocol = pairs_protocol(path)
    check(protocol)
    assert {sample.photo.name: sample.person for sample in protocol.samples} == {
        "a.jpg": "a.jpg",
        "b.jpg": "a.jpg",
        "c.jpg": "a.jpg",
        "d.jpg": "d.jpg",
        "e.jpg": "d.jpg",
    }
    assert protocol.folds == 2


def test_unusable_lines_are_counted_and_the_rest_serves(tmp_path: Path) -> None:
    lines = [
        "first,second,same",
        "a.jpg,b.jpg,1",
        "a.jpg,c.jpg,0",
        "a.jpg,c.jpg,0",
        "a.jpg,,1",
        "a.jpg,b.jpg,maybe",
    ]
    path = write_pairs(tmp_path, "\n".join([*lines, "a.jpg,gone.jpg,1"]) + "\n")
    protocol = pairs_protocol(path)
    assert kinds(protocol) == {"unreadable_pair": 2, "missing_photo": 1, "repeated_pair": 1}
    assert len(protocol.pairs) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "header"),
        ("one,two\na.jpg,b.jpg\n", "header"),
        ("first,second,same\n", "no pair that can be used"),
        ("first,second,same\na.jpg,gone.jpg,1\n", "1 × pairs with a photo that is not there"),
        ("first,second,same\na.jpg,b.jpg,1\n", "no pairs of different people"),
        ("first,second,same\na.jpg,b.jpg,0\n", "no pairs of one person"),
        ("first,second,same\na.jpg,b.jpg,1\nb.jpg,a.jpg,0\n", "as genuine and as impostor"),
        (
            "first,second,same\na.jpg,b.jpg,1\nb.jpg,c.jpg,1\na.jpg,c.jpg,0\n",
            "show one person by other pairs",
        ),
    ],
)
def test_files_of_pairs_that_make_no_sense_are_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        pairs_protocol(write_pairs(tmp_path, text))


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pairs.csv").write_bytes(b"\xff\xfe\x00first")
    with pytest.raises(UsageError, match="can't be read"):
        pairs_protocol(tmp_path / "pairs.csv")


def test_a_part_takes_both_kinds_evenly(people: Callable[..., Path]) -> None:
    protocol = folder_protocol(people({f"person {i:02}": 3 for i in range(20)}), limit=60)
    part = part_of(protocol, 20, seed=1)
    check(part)
    assert (len(part.pairs), int(part.pairs.same.sum())) == (20, 10)
    assert part_of(protocol, 100, seed=1) is protocol


def test_names_are_read_from_a_list(tmp_path: Path) -> None:
    path = tmp_path / "people.txt"
    path.write_text("# trained on\n Ada \n\nGrace\n")
    assert read_names(path) == {"Ada", "Grace"}
    path.write_text("# nobody\n")
    with pytest.raises(UsageError, match="empty"):
        read_names(path)
    with pytest.raises(UsageError, match="can't be read"):
        read_names(tmp_path / "gone.txt")
