"""The SQLite file: opening it safely, transactions with bounded patience, errors as our types."""

from __future__ import annotations

import contextlib
import os
import random
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import sqlite_utils

from anonymix_keystore._errors import (
    BusyError,
    DamagedError,
    DiskFullError,
    ForeignFileError,
    KeystoreError,
    ReadOnlyError,
    StorageError,
    StoreExistsError,
    StoreMissingError,
)

APPLICATION_ID = 0x414E4D58  # "ANMX"
Parameters = Sequence[int | str | bytes | None]
Record = tuple[Any, ...]

_HELD = (BusyError, "other writers hold the store", "try again, or raise busy_timeout")
_SHUT = (ReadOnlyError, "the store can't be written", "make file and folder writable")
_MEANINGS: dict[int, tuple[type[KeystoreError], str, str]] = {
    sqlite3.SQLITE_BUSY: _HELD,
    sqlite3.SQLITE_LOCKED: _HELD,
    sqlite3.SQLITE_READONLY: _SHUT,
    sqlite3.SQLITE_PERM: _SHUT,
    sqlite3.SQLITE_FULL: (DiskFullError, "no room left; nothing was changed", "make room and try again"),
    sqlite3.SQLITE_CANTOPEN: (StorageError, "the store, or a file beside it, can't be opened", ""),
    sqlite3.SQLITE_IOERR: (StorageError, "the system failed to read or write; nothing was changed", ""),
    sqlite3.SQLITE_NOTADB: (ForeignFileError, "not an SQLite file", "restore a backup if it was a keystore"),
}
# Python fails to decode SQLite's own message where that quotes damaged table definitions.
_FAILURES = (sqlite3.Error, UnicodeDecodeError)
_SPIN_SECONDS = 0.02


def translate(error: Exception, where: str) -> KeystoreError:
    """Turn an SQLite error into one of ours; the message never repeats parameters."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    kind, what, fix = _MEANINGS.get(
        code, (DamagedError, "the store's tables can't be read", "restore a backup")
    )
    return kind(what, where=where, fix=fix)


def new_private_file(path: Path) -> None:
    """Make an empty file that only its owner can read (0600), failing where there is one.

    Raises:
        StoreExistsError: There is already a file (or a dangling link).
        StorageError: The folder is missing or can't be written.
    """
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    except FileExistsError:
        raise StoreExistsError(
            "there is already a file here", where=str(path), fix="open it, or choose another path"
        ) from None
    except PermissionError:
        raise ReadOnlyError("the folder can't be written", where=str(path.parent)) from None
    except OSError as error:
        raise StorageError(f"can't make the file: {error.strerror}", where=str(path)) from None


def sync_folder(folder: Path) -> None:
    """Make a new name in a folder survive a power cut (where the system can)."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


class Database:
    """One connection to a store's file. Not locked by itself: its owner serialises the calls.

    Args:
        path: An existing file.
        busy_timeout: Seconds to wait for other writers before giving up.
    """

    def __init__(self, path: Path, busy_timeout: float) -> None:
        self.path, self.where = path, str(path)
        self._patience = busy_timeout
        if not path.is_file():
            raise StoreMissingError("there is no keystore", where=self.where, fix="create one first")
        try:
            connection = sqlite3.connect(
                f"{path.resolve().as_uri()}?mode=rw",
                uri=True,
                timeout=_SPIN_SECONDS,
                isolation_level=None,
                check_same_thread=False,
                cached_statements=64,
            )
        except sqlite3.Error as error:
            raise translate(error, self.where) from None
        # No plugins: one that is installed in the same environment would see every statement.
        self._db = sqlite_utils.Database(connection, recursive_triggers=False, execute_plugins=False)
        try:
            self._configure()
        except BaseException:
            self.close()
            raise

    @property
    def raw(self) -> sqlite_utils.Database:
        """The sqlite-utils database, for migrations."""
        return self._db

    def _configure(self) -> None:
        # The builds' defaults differ; what the format relies on is set here each time.
        for pragma in (
            "trusted_schema=OFF",
            "cell_size_check=ON",
            "secure_delete=ON",
            "temp_store=MEMORY",
            "foreign_keys=ON",
            "cache_size=-16384",
            "synchronous=FULL",
            "journal_mode=WAL",
        ):
            self.patiently(f"PRAGMA {pragma}")

    def close(self) -> None:
        """Close the connection; the last one out folds the write-ahead log into the file."""
        self._db.close()

    def row(self, sql: str, parameters: Parameters = ()) -> Record | None:
        """The first row, or ``None``."""
        rows = self.rows(sql, parameters)
        return rows[0] if rows else None

    def rows(self, sql: str, parameters: Parameters = ()) -> list[Record]:
        """All rows, fetched at once so that no read transaction stays open."""
        try:
            return self._db.conn.execute(sql, parameters).fetchall()
        except _FAILURES as error:
            raise translate(error, self.where) from None

    def many(self, sql: str, parameters: Iterable[Parameters]) -> None:
        """Run a statement for each set of parameters, inside a transaction."""
        try:
            self._db.conn.executemany(sql, parameters)
        except _FAILURES as error:
            raise translate(error, self.where) from None

    def patiently(self, sql: str) -> Record | None:
        """Run a statement, trying again while others hold the file, until the busy timeout.

        SQLite's own busy handler sleeps ever longer and lets a newcomer overtake; short random
        pauses share the file more evenly among many writers.
        """
        deadline = time.monotonic() + self._patience
        while True:
            try:
                return self.row(sql)
            except BusyError:
                if time.monotonic() >= deadline:
                    raise
            time.sleep(random.uniform(0.0005, _SPIN_SECONDS))  # noqa: S311 - spreads writers, no secret

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[None]:
        """A read transaction: what is read in it fits together, whatever others write meanwhile."""
        self.patiently("BEGIN")
        try:
            yield
        finally:
            self.rows("ROLLBACK")

    @contextlib.contextmanager
    def immediate(self) -> Iterator[None]:
        """A transaction that takes the write lock first, so that what it reads stays true.

        Raises:
            BusyError: The lock was not to be had within the busy timeout.
        """
        self.patiently("BEGIN IMMEDIATE")
        try:
            yield
            self.rows("COMMIT")
        except BaseException:
            # SQLite may have rolled back by itself (disk full, say).
            if self._db.conn.in_transaction:
                self.rows("ROLLBACK")
            raise

    def scrub(self) -> bool:
        """Fold the write-ahead log into the file and empty it, so that erased bytes are gone.

        Returns:
            Whether it could be done within the busy timeout; a reader or writer elsewhere can
            hold it up.
        """
        deadline = time.monotonic() + self._patience
        while True:
            result = self.row("PRAGMA wal_checkpoint(TRUNCATE)")
            if result is not None and result[0] == 0:
                return True
            if time.monotonic() >= deadline:
                return False
            time.sleep(random.uniform(0.0005, _SPIN_SECONDS))  # noqa: S311 - as above
