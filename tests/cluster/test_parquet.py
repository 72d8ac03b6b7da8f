"""Tables in Parquet, files by address, faces into Parquet. Run by `make test-ray`, whose environment has pyarrow."""

from __future__ import annotations

import csv
import hashlib
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.ray
pa = pytest.importorskip("pyarrow", reason="runs in the environment of `make test-ray`")
sys.path.insert(0, str(Path(__file__).parents[1] / "bulk"))

import bulk_stub  # noqa: E402 - of tests/bulk
from pyarrow import parquet  # noqa: E402

from anonymix_keystore import KeyFileUnlock, Keystore  # noqa: E402
from anonymix_plugin.bulk import (  # noqa: E402
    LEDGER,
    BulkError,
    ParquetLedger,
    Work,
    count_rows,
    photo_store,
    protect_in_bulk,
    rows_at,
    rows_of_table,
)
from anonymix_plugin.bulk._places import PhotoAt  # noqa: E402
from anonymix_plugin.cli import main  # noqa: E402
from anonymix_plugin.errors import UnreadableImageError, UsageError  # noqa: E402
from anonymix_plugin.images import default_limits, read_source  # noqa: E402
from anonymix_plugin.options import MixerOptions  # noqa: E402


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("anonymix_plugin.bulk._driver.Worker", bulk_stub.StubWorker)
    path = tmp_path / "keys.db"
    with Keystore.create(path, KeyFileUnlock.generate(path.with_suffix(".key"))) as made:
        made.issue_many(["alice", "bob"])
    return path


def table_of(path: Path, photos: list[object], subjects: list[str]) -> str:
    parquet.write_table(pa.table({"subject": subjects, "photo": photos}), path)
    return str(path)


def test_photos_in_a_table_become_faces_in_tables_with_their_outcomes(tmp_path: Path, store: Path) -> None:
    photos: list[object] = [b"photo %d" % number for number in range(11)]
    subjects = ["alice", "bob", "carol"] * 4
    table = table_of(tmp_path / "in.parquet", photos, subjects[:11])
    assert count_rows(table) == 11
    with bulk_stub.open_store(store) as keys:
        for limit in (4, None):  # in two runs
            with ParquetLedger(tmp_path / "out", {}) as ledger:
                work = Work(block=4, limit=limit)
                rows = rows_of_table(table, ".png", "default")
                summary = protect_in_bulk(rows, keys, ledger, MixerOptions(), work)
                ledger.export()
        assert (summary.made, summary.failed, summary.finished) == (8, 3, True)
        parts = sorted((tmp_path / "out").glob("*.parquet"))
        assert [part.name for part in parts] == [f"part-{number:06d}.parquet" for number in range(3)]
        made = [row for part in parts for row in parquet.read_table(part).to_pylist()]
        assert [row["state"] for row in made] == [*["made", "made", "failed"] * 3, "made", "made"]
        for number, row in enumerate(made):
            if row["state"] == "made":
                assert row["image"] == bulk_stub.face_of(keys.current(subjects[number]), photos[number])
                assert row["sha256"] == hashlib.sha256(row["image"]).hexdigest()
            else:
                assert row["image"] is None
                assert row["error"] == "unknown_subject"
        with (tmp_path / "out" / "outcomes.csv").open(newline="") as stream:
            told = list(csv.DictReader(stream))
        assert [row["source"] for row in told] == [row["source"] for row in made]
        photos[2] = b"another photo"
        table_of(tmp_path / "in.parquet", photos, subjects[:11])
        with ParquetLedger(tmp_path / "out", {}) as ledger, pytest.raises(BulkError, match="not what it was"):
            protect_in_bulk(rows_of_table(table, ".png", "default"), keys, ledger, MixerOptions(), Work(block=4))
    assert LEDGER in {path.name for path in (tmp_path / "out").iterdir()}


def test_addresses_name_tables_folders_and_photos(tmp_path: Path) -> None:
    for name in ("alice/1.jpg", "alice/more/2.jpg", "bob/A.PNG", "bob/notes.txt", "top.jpg"):
        (tmp_path / "people" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "people" / name).write_bytes(name.encode())
    base = (tmp_path / "people").as_uri()
    found = [
        (row.source, row.subject, str(row.output)) for row in rows_at(base, ".png", "", "default", recursive=False)
    ]
    assert found == [(f"{base}/alice/1.jpg", "alice", "alice/1.png"), (f"{base}/bob/A.PNG", "bob", "bob/A.png")]
    assert len(list(rows_at(base, ".png", "", "default", recursive=True))) == 3
    assert [row.subject for row in rows_at(base, ".png", None, "default", recursive=False)] == [None]
    (tmp_path / "people" / "table.csv").write_text(f"subject,photo\nalice,alice/1.jpg\nbob,{base}/bob/A.PNG\n")
    rows = list(rows_of_table(f"{base}/table.csv", ".png", "default"))
    assert [row.source for row in rows] == [f"{base}/alice/1.jpg", f"{base}/bob/A.PNG"]
    assert read_source(PhotoAt(str(rows[0].source)), default_limits())[0] == b"alice/1.jpg"
    with pytest.raises(UnreadableImageError):
        read_source(PhotoAt(f"{base}/gone.jpg"), default_limits())
    looked_up = photo_store(f"{base}/table.csv", "default")
    assert looked_up("bob", "default") == [b"bob/A.PNG"]
    assert looked_up("carol", "default") == []


def test_what_can_not_be_read_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "broken.parquet").write_bytes(b"no table")
    parquet.write_table(pa.table({"photo": ["a.jpg"]}), tmp_path / "nobody.parquet")
    for name, said in (
        (str(tmp_path / "broken.parquet"), "can't be read"),
        (str(tmp_path / "none.parquet"), "can't be read"),
        (str(tmp_path / "nobody.parquet"), "no column subject"),
        ("nosuch://bucket/people/", "can't be opened"),
        ((tmp_path / "nowhere").as_uri(), "no folder"),
    ):
        assert main(["bulk", "protect", name, "-o", str(tmp_path / "out")]) == 2
        assert said in capsys.readouterr().err.replace("\n", " "), name
    table = table_of(tmp_path / "bytes.parquet", [b"photo"], ["alice"])
    with pytest.raises(UsageError, match="can't be looked up"):
        photo_store(table, "default")


def test_an_object_can_not_be_named_out_of_the_target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pyarrow import fs

    class Bucket:
        def get_file_info(self, _: object) -> list[fs.FileInfo]:
            names = ("b/people/alice/1.jpg", "b/people/../../evil/1.jpg", "b/people/alice/../../../e.jpg")
            return [fs.FileInfo(name, fs.FileType.File) for name in names]

    monkeypatch.setattr("anonymix_plugin.bulk._places.file_system", lambda _: (Bucket(), "b/people"))
    outputs = [row.output for row in rows_at("s3://b/people", ".png", "", "default", recursive=True)]
    assert outputs == [Path("alice/1.png")]


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"subject": [17], "photo": ["a.jpg"]}, "column subject is no text"),
        ({"subject": ["alice"], "photo": ["a.jpg"], "scope": [3]}, "column scope is no text"),
        ({"subject": ["alice"], "photo": [7]}, "column photo is no path"),
        ({"subject": [None], "photo": ["a.jpg"]}, "no photo, or no subject"),
    ],
)
def test_a_row_that_holds_no_text_is_told_by_its_column(
    tmp_path: Path, columns: dict[str, list[object]], said: str
) -> None:
    parquet.write_table(pa.table(columns), tmp_path / "in.parquet")
    with pytest.raises(UsageError, match=said):
        list(rows_of_table(str(tmp_path / "in.parquet"), ".png", "default"))


def test_of_two_columns_of_one_name_neither_is_believed(tmp_path: Path) -> None:
    doubled = pa.table([["alice"], ["a.jpg"], ["bob"]], names=["subject", "photo", "subject"])
    parquet.write_table(doubled, tmp_path / "in.parquet")
    with pytest.raises(UsageError, match="several columns subject"):
        count_rows(str(tmp_path / "in.parquet"))
