"""RecordIO: what MXNet wrote is read, and written again byte for byte."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anonymix_lab.data import records_protocol
from anonymix_plugin.datasets import RecordWriter, read_records
from anonymix_plugin.errors import UnreadableImageError, UsageError
from anonymix_plugin.images import glance

VECTORS = Path(__file__).parent / "vectors"
MAGIC = (0xCED7230A).to_bytes(4, "little")


def copied(tmp_path: Path, name: str = "train") -> Path:
    for suffix in (".rec", ".idx"):
        (tmp_path / name).with_suffix(suffix).write_bytes((VECTORS / name).with_suffix(suffix).read_bytes())
    return tmp_path / f"{name}.rec"


def test_a_training_set_is_read() -> None:
    records = list(read_records(VECTORS / "train.rec"))
    assert [record.key for record in records] == list(range(13))
    assert (records[0].labels, records[0].photo) == ((9.0, 13.0), None)
    assert [record.label for record in records[1:9]] == [0, 0, 1, 1, 2, 2, 3, 3]
    assert [record.labels for record in records[9:]] == [(1, 3), (3, 5), (5, 7), (7, 9)]
    for record in records[1:9]:
        assert record.photo is not None
        assert glance(record.photo.read(100_000)) == ("JPEG", 112, 112)
        assert record.ids == (record.key, 0)


def test_records_that_hold_the_magic_number_are_read() -> None:
    records = list(read_records(VECTORS / "split.rec"))
    assert [record.photo.read(99) for record in records if record.photo] == [
        b"abcd" + MAGIC + b"efgh" + MAGIC + MAGIC + b"x",
        b"ab" + MAGIC + b"cd",
        MAGIC,
        b"abcde",
    ]
    assert [(record.labels, record.ids) for record in records] == [((n, 0.5, -1), (n, 7)) for n in range(4)]


@pytest.mark.parametrize("name", ["train", "split"])
def test_what_was_read_is_written_byte_for_byte(tmp_path: Path, name: str) -> None:
    with RecordWriter.into(tmp_path / f"{name}.rec") as writer:
        for record in read_records(VECTORS / f"{name}.rec"):
            writer.add(record, record.photo.read(100_000) if record.photo else b"")
    for suffix in (".rec", ".idx"):
        assert (tmp_path / f"{name}{suffix}").read_bytes() == (VECTORS / f"{name}{suffix}").read_bytes()


def test_without_an_index_records_are_counted(tmp_path: Path) -> None:
    path = copied(tmp_path)
    path.with_suffix(".idx").unlink()
    assert [record.key for record in read_records(path)] == list(range(13))


def test_records_that_the_index_does_not_name_are_left_out(tmp_path: Path) -> None:
    path = copied(tmp_path)
    lines = path.with_suffix(".idx").read_text().splitlines(keepends=True)
    path.with_suffix(".idx").write_text("".join(lines[:3]))
    assert [record.key for record in read_records(path)] == [0, 1, 2]


@pytest.mark.parametrize(
    ("index", "said"),
    [
        ("0\t0\n1\t7\n", "names 1 records that are not there"),
        ("0\t0\n0\t40\n", "twice"),
        ("0\t0\n1\t0\n", "twice"),
        ("0 0\n", "no line of an index"),
        ("a\tb\n", "no line of an index"),
        ("0\t" + "9" * 5000 + "\n", "no line of an index"),
    ],
)
def test_an_index_that_does_not_fit_is_refused(tmp_path: Path, index: str, said: str) -> None:
    path = copied(tmp_path)
    path.with_suffix(".idx").write_text(index)
    with pytest.raises(UsageError, match=said):
        list(read_records(path))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("key", [0, 2, 12], ids=["head", "photo", "range"])
def test_a_label_that_is_no_number_is_refused_in_words(tmp_path: Path, key: int, value: float) -> None:
    with RecordWriter.into(tmp_path / "train.rec") as writer:
        for record in read_records(VECTORS / "train.rec"):
            labels = (value, *record.labels[1:]) if record.key == key else record.labels
            writer.add(replace(record, labels=labels), record.photo.read(100_000) if record.photo else b"")
    with pytest.raises(UsageError, match=f"a label of record {key} is no number"):
        list(read_records(tmp_path / "train.rec"))


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    path = copied(tmp_path, "split")
    content = path.read_bytes()
    for end in range(len(content) - 3):  # the last three bytes fill the last record up
        path.write_bytes(content[:end])
        with pytest.raises(UsageError):
            list(read_records(path))


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_changed_bytes_never_do_more_than_be_refused(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.getbasetemp() / "changed.rec"
    content = bytearray((VECTORS / "split.rec").read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        for record in read_records(path):
            if record.photo is not None:
                record.photo.read(10_000)
    except (UsageError, UnreadableImageError):
        pass


def test_a_protocol_takes_people_from_labels() -> None:
    protocol = records_protocol(VECTORS / "train.rec")
    assert set(protocol.people) == {"0", "1", "2", "3"}
    assert (len(protocol.samples), int(protocol.pairs.same.sum())) == (8, 4)
    assert isinstance(protocol.samples[0].source, bytes)
    assert {notice.kind for notice in records_protocol(VECTORS / "train.rec", exclude=["2"]).notices} == {"excluded"}
