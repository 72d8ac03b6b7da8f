from __future__ import annotations

import shutil
import sqlite3
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest
from keystore_clock import Clock
from keystore_copies import Truth, build, examine

from anonymix_keystore import DamagedError, KeyFileUnlock, Keystore, KeystoreError

PAGE = 4096


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, KeyFileUnlock, Truth]:
    folder = tmp_path_factory.mktemp("sound")
    unlock = KeyFileUnlock.generate(folder / "key")
    truth = build(folder / "store.db", unlock)
    assert examine(folder / "store.db", unlock, truth) == "sound"
    assert not Path(f"{folder / 'store.db'}-wal").exists()
    return folder / "store.db", unlock, truth


def flipped(sound: tuple[Path, KeyFileUnlock, Truth], place: Path, positions: Iterable[int], mask: int) -> Counter[str]:
    path, unlock, truth = sound
    content = path.read_bytes()
    outcomes: Counter[str] = Counter()
    for position in positions:
        changed = bytearray(content)
        changed[position] ^= mask
        place.write_bytes(changed)
        outcome = examine(place, unlock, truth)
        outcomes[outcome] += 1
        if outcome == "sound":
            assert not _is_content(path, content, position), f"byte {position} was changed unnoticed"
        for rest in ("-wal", "-shm"):
            Path(f"{place}{rest}").unlink(missing_ok=True)
    return outcomes


def _is_content(path: Path, content: bytes, position: int) -> bool:
    """Whether a byte belongs to a row's stored value, found by looking for the values in the file."""
    global _SPANS  # noqa: PLW0603 - worked out once per file
    if _SPANS is None:
        _SPANS = []
        with sqlite3.connect(path) as db:
            for (table,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
                if table.startswith(("sqlite", "_sqlite")):
                    continue
                for row in db.execute(f"SELECT * FROM {table}"):  # noqa: S608 - names from the file
                    for value in row:
                        if isinstance(value, bytes) and len(value) >= 16:
                            start = content.find(value)
                            while start >= 0:
                                _SPANS.append((start, start + len(value)))
                                start = content.find(value, start + 1)
        db.close()
        assert len(_SPANS) > 40
    return any(start <= position < stop for start, stop in _SPANS)


_SPANS: list[tuple[int, int]] | None = None


def test_flipped_bytes_never_yield_a_wrong_key(sound, tmp_path: Path) -> None:
    """A spread of bytes, many of the file's header among them; every byte in the long suite."""
    size = sound[0].stat().st_size
    positions = sorted({*range(0, 100, 2), *range(100, size, 331)})
    outcomes = flipped(sound, tmp_path / "store.db", positions, 0x01)
    assert outcomes["noticed"] > 50


@pytest.mark.long
@pytest.mark.timeout(3600)  # ten minutes on a quiet machine
@pytest.mark.parametrize("mask", [0x01, 0x80, 0xFF])
def test_each_flipped_byte_in_turn(sound, tmp_path: Path, mask: int) -> None:
    outcomes = flipped(sound, tmp_path / "store.db", range(sound[0].stat().st_size), mask)
    assert outcomes["noticed"] > 500


def test_a_file_cut_at_any_page_is_noticed(sound, tmp_path: Path) -> None:
    path, unlock, truth = sound
    content = path.read_bytes()
    place = tmp_path / "store.db"
    for length in [*range(0, len(content), PAGE), 1, 99, 100, 512, len(content) - 1]:
        place.write_bytes(content[:length])
        outcome = examine(place, unlock, truth)
        # SQLite reads zeros where the last page ends early; only zeros may be lost unnoticed.
        assert outcome == "noticed" or (length % PAGE and not any(content[length:])), length
        for rest in ("-wal", "-shm"):
            Path(f"{place}{rest}").unlink(missing_ok=True)


def test_a_page_put_back_to_zero_is_noticed(sound, tmp_path: Path) -> None:
    path, unlock, truth = sound
    content = path.read_bytes()
    place = tmp_path / "store.db"
    for start in range(0, len(content), PAGE):
        place.write_bytes(content[:start] + bytes(PAGE) + content[start + PAGE :])
        outcome = examine(place, unlock, truth)
        assert outcome == "noticed" or content[start : start + PAGE].count(0) > PAGE - 100
        for rest in ("-wal", "-shm"):
            Path(f"{place}{rest}").unlink(missing_ok=True)


def test_a_log_without_its_last_frames_loses_whole_steps_only(sound, tmp_path: Path) -> None:
    """A missing or cut write-ahead log: some last changes are gone, and what is left fits together."""
    path, unlock, _ = sound
    live, copy = tmp_path / "live.db", tmp_path / "copy.db"
    shutil.copy(path, live)
    with Keystore.open(live, unlock, clock=Clock()) as store:
        for number in range(6):
            store.issue(f"new{number}")
        log = Path(f"{live}-wal").read_bytes()
        main = live.read_bytes()
    frame = 24 + PAGE
    seen = set()
    for length in [0, 31, *range(32, len(log), frame), len(log) - 1, len(log)]:
        copy.write_bytes(main)
        Path(f"{copy}-wal").write_bytes(log[:length])
        with Keystore.open(copy, unlock, clock=Clock()) as store:
            assert store.verify().ok
            names = {name for name in store.subjects() if name.startswith("new")}
            assert names == {f"new{number}" for number in range(len(names))}
            seen.add(len(names))
        for rest in ("-wal", "-shm"):
            Path(f"{copy}{rest}").unlink(missing_ok=True)
    assert seen == set(range(7))


@pytest.mark.parametrize(
    ("table", "column"),
    [("heads", "tag"), ("keys", "tag"), ("heads", "name"), ("keys", "wrapped"), ("enrolments", "detail")],
)
def test_rows_can_not_take_each_others_place(sound, tmp_path: Path, table: str, column: str) -> None:
    path, unlock, truth = sound
    place = tmp_path / "store.db"
    shutil.copy(path, place)
    with sqlite3.connect(place) as db:
        values = [row[0] for row in db.execute(f"SELECT DISTINCT {column} FROM {table}")]  # noqa: S608
        first, second = values[0], values[1] if len(values) > 1 else b"x" * 32
        for old, new in ((first, b"aside"), (second, first), (b"aside", second)):
            db.execute(f"UPDATE {table} SET {column} = ? WHERE {column} IS ?", (new, old))  # noqa: S608
    db.close()
    assert examine(place, unlock, truth) == "noticed"


def test_a_row_of_another_store_with_the_same_subjects_does_not_open(sound, tmp_path: Path) -> None:
    path, unlock, _ = sound
    other, place = tmp_path / "other.db", tmp_path / "store.db"
    build(other, unlock)
    shutil.copy(path, place)
    with sqlite3.connect(place) as db:
        db.execute("ATTACH ? AS other", (str(other),))
        for table in ("keys", "heads", "scopes"):
            db.execute(f"DELETE FROM main.{table}")  # noqa: S608
            db.execute(f"INSERT INTO main.{table} SELECT * FROM other.{table}")  # noqa: S608
    db.close()
    with Keystore.open(place, unlock) as store:
        with pytest.raises(KeystoreError):
            store.current("alice")
        with pytest.raises(DamagedError):
            list(store.list())
        assert not store.verify().ok


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE extra (a)",
        "CREATE TRIGGER spy AFTER INSERT ON keys BEGIN DELETE FROM audit; END",
        "CREATE VIEW v AS SELECT * FROM keys",
        "CREATE INDEX i ON keys (state)",
        "ALTER TABLE keys RENAME COLUMN wrapped TO w",
        "DROP TABLE originals",
        "PRAGMA user_version = 1",
        "PRAGMA user_version = 0",
        "PRAGMA user_version = -5",
        "UPDATE header SET store_id = zeroblob(16)",
        "UPDATE header SET store_id = zeroblob(15)",
        "UPDATE slots SET params = '[]'",
        "UPDATE slots SET sealed = zeroblob(128)",
        "UPDATE slots SET kind = 'passphrase'",
    ],
)
def test_changed_tables_headers_and_slots_are_refused_on_opening(sound, tmp_path: Path, statement: str) -> None:
    path, unlock, _ = sound
    place = tmp_path / "store.db"
    shutil.copy(path, place)
    with sqlite3.connect(place) as db:
        db.execute(statement)
    db.close()
    with pytest.raises(DamagedError):
        Keystore.open(place, unlock)


def test_table_definitions_that_are_no_text_are_refused(sound, tmp_path: Path) -> None:
    path, unlock, truth = sound
    content = path.read_bytes()
    place = tmp_path / "store.db"
    for name in (b"CREATE TABLE keys", b"version INTEGER", b"STRICT, WITHOUT ROWID"):
        position = content.find(name)
        changed = bytearray(content)
        changed[position + 3] ^= 0x80
        place.write_bytes(changed)
        with pytest.raises(KeystoreError):
            Keystore.open(place, unlock)
        assert examine(place, unlock, truth) == "noticed"
