"""The ledger of a bulk job: one SQLite file in the target folder, written block by block."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import shutil
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from anonymix_plugin.bulk._places import EXTRA
from anonymix_plugin.bulk._values import Block, BulkError, Mixer, Result, Row, Summary
from anonymix_plugin.csv_cells import as_cells
from anonymix_plugin.errors import OutputError, naming_extras
from anonymix_plugin.files import make_folder, whole_file, write_bytes

LEDGER: Final = "bulk-ledger.db"
OUTCOMES: Final = "outcomes.csv"
_MIXER: Final = "the workers' mixer"
_DRAFTS: Final = ".bulk-drafts"
_COLUMNS: Final = (
    *("source", "subject", "scope", "state", "output", "sha256", "key_version", "fingerprint"),
    *("method", "engine", "quality", "error", "what", "where_", "fix"),
)
_SCHEMA: Final = f"""
CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE blocks (number INTEGER PRIMARY KEY, name TEXT NOT NULL);
CREATE TABLE outcomes (row INTEGER PRIMARY KEY, {", ".join(_COLUMNS)});
"""


class Ledger:
    """The faces of a job and what is known of them.

    A block's faces are written first, each whole, then its outcomes in one transaction. A block that is not in
    the ledger is done anew and replaces its faces.

    Args:
        target: The target folder; new, empty, or that of a job with the same settings.
        settings: What must stay the same from the first run to the last.

    Raises:
        OutputError: The folder holds something else, or can't be written.
        BulkError: The job there has other settings, or is at work.
    """

    def __init__(self, target: Path, settings: Mapping[str, Any]) -> None:
        self._target, path = target, target / LEDGER
        self._drafts = target / _DRAFTS
        make_folder(target)
        self._seen = 0  # blocks that were asked for
        try:
            others = any(each.name != LEDGER or each.is_dir() for each in target.iterdir())
        except OSError as error:
            raise OutputError(f"it can't be read: {error.strerror}", where=str(target), fix="check it") from error
        if others and not path.is_file():
            fix = "choose an empty folder, or one of a job to go on with"
            raise OutputError("the folder is not empty and holds no job", where=str(target), fix=fix)
        with self._told():
            self._db = sqlite3.connect(path, isolation_level=None, timeout=1)
        try:
            with self._told():
                self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
                self._db.execute("PRAGMA synchronous = FULL")
                self._begin(settings)
            self._clear_drafts()  # of a run that was killed; nobody else is at work here
            make_folder(self._drafts)
        except BaseException:
            self._db.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._clear_drafts()
        self._db.close()

    def _clear_drafts(self) -> None:
        shutil.rmtree(self._drafts, ignore_errors=True)

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            where = str(self._target / LEDGER)
            if "locked" in str(error):
                raise BulkError("another job is at work here", where=where, fix="wait for its end") from None
            if any(word in str(error) for word in ("full", "I/O", "readonly", "unable to open")):
                fix = "make room, see that the folder may be written in, and go on"
                raise OutputError("the ledger can't be written", where=where, fix=fix) from None
            raise BulkError(
                "the ledger is damaged, or is no ledger", where=where, fix="choose an empty folder"
            ) from None

    def _begin(self, settings: Mapping[str, Any]) -> None:
        told = {name: json.dumps(value) for name, value in settings.items()}
        self._db.execute("BEGIN EXCLUSIVE")
        try:
            if not self._db.execute("SELECT 1 FROM sqlite_master").fetchone():
                for statement in filter(str.strip, _SCHEMA.split(";")):
                    self._db.execute(statement)
                self._db.executemany("INSERT INTO settings VALUES (?, ?)", told.items())
            before = dict(self._db.execute("SELECT name, value FROM settings WHERE name != ?", (_MIXER,)))
            self._db.execute("COMMIT")
        except BaseException:
            self._roll_back()
            raise
        if other := sorted(name for name in told.keys() | before.keys() if told.get(name) != before.get(name)):
            raise BulkError(
                f"the job in this folder was begun with other settings: {', '.join(other)}",
                where=str(self._target),
                fix="give the same options, or choose an empty folder",
            )

    def _roll_back(self) -> None:
        with suppress(sqlite3.Error):  # SQLite may have done it itself
            self._db.execute("ROLLBACK")

    def meet(self, mixer: Mixer) -> None:
        """Keep, or compare, what the workers' mixer is: faces of two mixers are of two spaces of templates.

        Raises:
            BulkError: The job was begun with another one.
        """
        told = json.dumps([mixer.fingerprint, mixer.guided])
        with self._told():
            self._db.execute("INSERT OR IGNORE INTO settings VALUES (?, ?)", (_MIXER, told))
            (kept,) = self._db.execute("SELECT value FROM settings WHERE name = ?", (_MIXER,)).fetchone()
        if kept != told:
            raise BulkError(
                "the job in this folder was begun with another mixer: its faces are none of this one's",
                where=str(self._target),
                fix="go on with the weights and the version that it was begun with, or choose an empty folder",
            )

    def has(self, block: Block) -> bool:
        """Whether a block is done.

        Raises:
            BulkError: The block of this number asked for something else.
        """
        with self._told():
            found = self._db.execute("SELECT name FROM blocks WHERE number = ?", (block.number,)).fetchone()
        self._seen = block.number + 1
        if found is not None and found[0] != block.name:
            raise _changed(f"block {block.number}, from row {block.first + 1} on")
        return found is not None

    def write(self, block: Block) -> None:
        """Write the faces and the outcomes of a complete block.

        Raises:
            OutputError: A file can't be written; the block is not in the ledger then.
        """
        outcomes = [
            (block.first + place, *told) for place, told in enumerate(self._put(block, self._target, self._drafts))
        ]
        marks = ", ".join("?" * (len(_COLUMNS) + 1))
        with self._told():
            self._db.execute("BEGIN")
            try:
                self._db.executemany(f"INSERT INTO outcomes VALUES ({marks})", outcomes)  # noqa: S608 - marks alone
                self._db.execute("INSERT INTO blocks VALUES (?, ?)", (block.number, block.name))
                self._db.execute("COMMIT")
            except BaseException:
                self._roll_back()
                raise

    def _put(self, block: Block, target: Path, drafts: Path) -> list[tuple[Any, ...]]:
        """Write the faces of a block, and return its outcomes."""
        outcomes = []
        for place, row in enumerate(block.rows):
            result, path = block.results[place], target / row.output
            if result.image is None:
                path.unlink(missing_ok=True)  # of an earlier attempt at this block
            else:
                write_bytes(path, result.image, drafts)
            outcomes.append(_outcome(row, result))
        for folder in {target / row.output.parent for row in block.rows}:
            _keep(folder)
        return outcomes

    def summary(self, *, finished: bool) -> Summary:
        """How many rows have a face, and how many failed.

        Raises:
            BulkError: The source ended, and the job had more blocks of it.
        """
        with self._told():
            states = dict(self._db.execute("SELECT state, count(*) FROM outcomes GROUP BY state"))
            (blocks,) = self._db.execute("SELECT coalesce(max(number) + 1, 0) FROM blocks").fetchone()
        if finished and blocks > self._seen:
            raise _changed(f"block {self._seen}, where it ends now")
        return Summary(states.get("made", 0), states.get("failed", 0), finished)

    def failures(self, most: int) -> list[tuple[str, str, str]]:
        """Source, reason and cure of the first rows that failed."""
        with self._told():
            return self._db.execute(
                "SELECT source, what, fix FROM outcomes WHERE state = 'failed' ORDER BY row LIMIT ?", (most,)
            ).fetchall()

    def export(self) -> Path:
        """Write all outcomes as a CSV table beside the faces, and return its path."""
        path = self._target / OUTCOMES
        columns = ", ".join(_COLUMNS)
        with (
            self._told(),
            whole_file(path, self._drafts) as draft,
            draft.open("w", encoding="utf-8", newline="") as stream,
        ):
            table = csv.writer(stream)
            table.writerow(name.rstrip("_") for name in _COLUMNS)
            outcomes = self._db.execute(f"SELECT {columns} FROM outcomes ORDER BY row")  # noqa: S608
            table.writerows(map(as_cells, outcomes))
        return path


class ParquetLedger(Ledger):
    """The same with the faces of a block in a Parquet file, beside the outcomes: `part-000000.parquet`.

    Its columns are those of the table of outcomes, and `image`, the image file.
    """

    def _put(self, block: Block, target: Path, drafts: Path) -> list[tuple[Any, ...]]:
        with naming_extras(EXTRA):
            import pyarrow as pa
            from pyarrow import parquet
        part = Path(f"part-{block.number:06d}.parquet")
        images = [block.results[place].image for place in range(len(block.rows))]
        outcomes = [_outcome(replace(row, output=part), block.results[place]) for place, row in enumerate(block.rows)]
        kinds = {"key_version": pa.int64(), "quality": pa.float64()}
        columns = {
            name.rstrip("_"): pa.array(cells, kinds.get(name, pa.string()))
            for name, cells in zip(_COLUMNS, zip(*outcomes, strict=True), strict=True)
        }
        with whole_file(target / part, drafts) as draft:
            # An image is compressed already.
            parquet.write_table(
                pa.table({**columns, "image": pa.array(images, pa.binary())}), draft, compression="none"
            )
        _keep(target)
        return outcomes


def _changed(where: str) -> BulkError:
    fix = "restore the source, or choose an empty folder"
    return BulkError("the source is not what it was when the job was begun", where=where, fix=fix)


def _outcome(row: Row, result: Result) -> tuple[Any, ...]:
    known = (_storable(str(row.source)), row.subject, row.scope)
    if result.image is None:
        fault = result.fault
        told = ("", "", "", "") if fault is None else (fault.code, fault.what, fault.where, fault.fix)
        return (*known, "failed", *(None,) * 7, *map(_storable, told))
    face = (result.key_version, result.fingerprint, result.method, result.engine, round(result.quality, 3))
    digest = hashlib.sha256(result.image).hexdigest()
    return (*known, "made", _storable(str(row.output)), digest, *face, *(None,) * 4)


def _keep(folder: Path) -> None:
    """Let the names in a folder outlast a power cut, before the ledger says that they are there."""
    with suppress(OSError):  # not made, as all its photos failed; or a system that opens no folders
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _storable(text: str) -> str:
    """A text that SQLite and UTF-8 take: a file name need not be text."""
    return text.encode("utf-8", "backslashreplace").decode()
