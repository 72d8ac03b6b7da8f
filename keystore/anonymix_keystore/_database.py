"""The SQLite file: opening it safely, transactions with bounded patience, errors as our types.

A store is up to four files: the one that was named, its write-ahead log (``-wal``), the log's index
(``-shm``) and, where there is no log, a journal (``-journal``). They belong together.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import shlex
import sqlite3
import stat
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import sqlite_utils

from anonymix_keystore import _held
from anonymix_keystore._errors import (
    RESTORE,
    BusyError,
    DamagedError,
    DiskFullError,
    ForeignFileError,
    KeystoreError,
    LockedError,
    ReadOnlyError,
    StorageError,
    StoreExistsError,
    StoreMissingError,
)

APPLICATION_ID = 0x414E4D58  # "ANMX"
Parameters = Sequence[int | str | bytes | None]
Record = tuple[Any, ...]

# Where a writer gives up waiting for others.
BUSY = "try again, or raise busy_timeout (on the command line: in anonymix.toml, under [keystore])"
_HELD = (BusyError, "other writers hold the store", BUSY)
_SHUT = (ReadOnlyError, "the store can't be written", "make file and folder writable")
_BESIDE = "make its folder writable: a log is kept beside the store"
_DISK = "look at the disk, and try again"
_MEANINGS: dict[int, tuple[type[KeystoreError], str, str]] = {
    sqlite3.SQLITE_BUSY: _HELD,
    sqlite3.SQLITE_LOCKED: _HELD,
    sqlite3.SQLITE_READONLY: _SHUT,
    sqlite3.SQLITE_PERM: _SHUT,
    sqlite3.SQLITE_FULL: (DiskFullError, "no room left; nothing was changed", "make room and try again"),
    sqlite3.SQLITE_CANTOPEN: (StorageError, "the store, or a file beside it, can't be opened", _BESIDE),
    sqlite3.SQLITE_IOERR: (StorageError, "the system failed to read or write; nothing was changed", _DISK),
    sqlite3.SQLITE_NOTADB: (ForeignFileError, "not an SQLite file", f"if it was a keystore, {RESTORE}"),
    sqlite3.SQLITE_CORRUPT: (DamagedError, "the store's tables can't be read", RESTORE),
    sqlite3.SQLITE_NOMEM: (StorageError, "no memory left; nothing was changed", "make room and try again"),
}
_CHANGED = (
    DamagedError,
    "the store's tables are not as they were made",
    "undo what other tools changed in the file; keep it",
)
# Python fails to decode SQLite's own message where that quotes damaged table definitions.
_FAILURES = (sqlite3.Error, UnicodeDecodeError)
_SPIN_SECONDS = 0.02
_LOG, _INDEX, _JOURNAL = "-wal", "-shm", "-journal"
_LOOK_SECONDS = 0.05  # how often reads look after the files beside the store's
_TRIES = 3
_MOST_VALUES = 10_000  # SQLite takes 32,766 parameters
_MOUNTS = Path("/proc/self/mountinfo")
DRAFT = re.compile(r"\..+\.(?:image|writing|restoring)-[0-9a-f]{12}", re.DOTALL)  # of a backup or a restore
_MOVED = "put back what was opened, with its -wal and -shm, or open the store that is there now"


def on_read_only_mount(path: str) -> bool:
    """Whether a file's folder lies on a mount that can't be written to, as far as the system says."""
    try:
        return bool(os.statvfs(Path(path).resolve().parent).f_flag & os.ST_RDONLY)
    except (AttributeError, OSError):
        return False


def translate(error: Exception, where: str) -> KeystoreError:
    """Turn an SQLite error into one of ours; the message never repeats parameters."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    if code == sqlite3.SQLITE_READONLY_DBMOVED:
        return ReadOnlyError("the store's file was moved or exchanged under way", where=where, fix=_MOVED)
    if code & 0xFF in {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY} and on_read_only_mount(where):
        return ReadOnlyError(
            "the store lies on a read-only mount, and even a reader keeps a log beside it",
            where=where,
            fix="mount its folder writable, or copy the store into one that is, and open the copy",
        )
    kind, what, fix = _MEANINGS.get(code & 0xFF, _CHANGED)
    return kind(what, where=where, fix=fix)


def inherited(where: str) -> LockedError:
    """SQLite connections don't survive a fork; using one would destroy the file."""
    return LockedError(
        "the keystore was opened before this process forked",
        where=where,
        fix="open it again in the child process",
    )


def files_of(path: Path) -> tuple[Path, ...]:
    """The files that a store at a path may consist of."""
    return tuple(Path(f"{path}{suffix}") for suffix in ("", _LOG, _INDEX, _JOURNAL))


def check_free(path: Path) -> None:
    """See that neither a store's file nor one of those beside it is there.

    A log or journal that another store left would be played into the new file and destroy it.

    Raises:
        StoreExistsError: One is there (or a dangling link), or the path is a name for a file beside another.
    """
    check_not_beside(path)
    names = [str(name) for name in files_of(path)]
    left = [name for name in names if os.path.lexists(name)]
    if left:
        what = "there is already a file here" if left[0] == names[0] else "there is a file of another store here"
        raise StoreExistsError(
            what,
            where=", ".join(left),
            fix="choose another path, or move all files of the old store together: "
            f"{', '.join(names[:3])}, so far as they are there",
        )


def check_not_beside(path: Path) -> None:
    """See that a new file is not put where SQLite takes it for a log or journal of a file that is there.

    SQLite would play it into that file or delete it.

    Raises:
        StoreExistsError: It would be.
    """
    for suffix in (_LOG, _INDEX, _JOURNAL):
        if path.name.endswith(suffix) and os.path.isfile(str(path).removesuffix(suffix)):  # noqa: PTH113
            raise StoreExistsError(
                "SQLite keeps a file of its own under this name",
                where=str(path),
                fix=f"choose a name that does not end in {suffix}",
            )


def check_one_name(path: Path) -> None:
    """See that a store's file has one name, so that everybody keeps its log in the same place.

    The log lies beside the name by which the file was opened. Two who open one file by two names in two
    places each keep a log of their own, and one loses what the other wrote. Symbolic links do no harm,
    since they are followed first.

    Raises:
        StorageError: The file has a hard link, or is a mount of its own.
    """
    real = Path(os.path.realpath(path))
    try:
        status = real.stat()
    except OSError:  # missing, or shut: opening it says more
        return
    if not stat.S_ISREG(status.st_mode):
        return
    if status.st_nlink > 1 + _drafts_left(real, status):
        raise StorageError(
            "the store's file has another name (a hard link), and each name would have a log of its own",
            where=str(path),
            fix=f"remove the other name (find FOLDER -samefile {real}), or copy the file and open the copy",
        )
    if _is_mount(real):
        raise StorageError(
            "the store's file is mounted by itself, and its log stays outside the mount",
            where=str(path),
            fix="mount the folder that holds the store in place of the file",
        )


def _drafts_left(real: Path, status: os.stat_result) -> int:
    """How many names a killed restore left to a file, by which nobody opens it."""
    found = 0
    with contextlib.suppress(OSError):
        for name in real.parent.iterdir():
            if DRAFT.fullmatch(name.name) and _held.identity(name) == (status.st_dev, status.st_ino):
                found += 1
    return found


def _is_mount(real: Path) -> bool:
    """Whether something is mounted at a file, as far as the system says."""
    try:
        mounts = _MOUNTS.read_bytes().splitlines()
    except OSError:
        return False
    # The fifth field is the place, in which blanks and backslashes are octal.
    places = (line.split(b" ", 5)[4] for line in mounts)
    plain = (re.sub(rb"\\([0-7]{3})", lambda found: bytes([int(found[1], 8)]), place) for place in places)
    return os.fsencode(real) in plain


def new_private_file(path: Path) -> None:
    """Make an empty file for SQLite that only its owner can read (0600), failing where there is one.

    Raises:
        StoreExistsError: There is already a file (or a dangling link), or one that belongs to it.
        StorageError: The folder is missing or can't be written.
    """
    check_free(path)
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    except FileExistsError:  # made just now by somebody else
        raise StoreExistsError("there is already a file here", where=str(path), fix="choose another path") from None
    except PermissionError:
        raise ReadOnlyError(
            "the folder can't be written", where=str(path.parent), fix="make it writable, or choose another"
        ) from None
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
    """One connection to a store's file. Its owner serialises the calls by ``lock``.

    Args:
        path: An existing file.
        busy_timeout: Seconds to wait for other writers before giving up.
        rank: Locks of several connections are taken in ascending order of this.
        new: Whether the file was made just now, to become a store.

    Raises:
        StoreMissingError: There is no file.
        LockedError: This process was forked while the store was in use.
        StorageError: The file can't be opened, or is exchanged all the time.
    """

    def __init__(self, path: Path, busy_timeout: float, *, rank: int = 0, new: bool = False) -> None:
        self.path, self.where, self.rank, self._new = path, str(path), rank, new
        self.patience = busy_timeout
        self.lock = threading.RLock()
        self._writing = self._inherited = False
        self._looked = 0.0
        self._main: _held.Identity | None = None
        self._beside: dict[str, _held.Identity | None] = {}
        # Absolute, so that a change of the working directory is not taken for a move; as it was
        # named and as it resolves, since a link can be turned to another file.
        self._real = os.path.realpath(path)
        self._names = tuple(dict.fromkeys((os.path.abspath(path), self._real)))  # noqa: PTH100
        if not path.is_file():
            raise StoreMissingError(
                "there is no keystore",
                where=self.where,
                fix=f"make one with: anonymix keys init --keystore {shlex.quote(self.where)}",
            )
        with self.lock:
            for _ in range(_TRIES):
                if self._open():
                    return
                self.close()  # exchanged while it was being opened
        raise StorageError("the store's file is exchanged again and again", where=self.where)

    def _open(self) -> bool:
        """Connect; returns whether the file was the same before and after."""
        named = _held.identity(self._real)
        _held.check_inherited(named, self.where)
        _held.register(self._connect)
        try:
            self._configure()
        except BaseException:
            self.close()
            raise
        self._main = _held.identity(self._real)
        self._beside = {suffix: _held.identity(self._real + suffix) for suffix in (_LOG, _INDEX)}
        return named is not None and named == self._main

    def _connect(self) -> Database:
        try:
            connection = sqlite3.connect(
                f"{Path(self._real).as_uri()}?mode=rw",
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
        self._execute = connection.execute
        return self

    @property
    def raw(self) -> sqlite_utils.Database:
        """The sqlite-utils database, for migrations."""
        return self._db

    @property
    def main(self) -> _held.Identity | None:
        """Device and inode of the file that was opened."""
        return self._main

    @property
    def identities(self) -> frozenset[_held.Identity]:
        """Device and inode of each of its files."""
        return frozenset(found for found in (self._main, *self._beside.values()) if found is not None)

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
        ):
            self.patiently(f"PRAGMA {pragma}")
        # This alone writes to the file: another program's database stays as it is.
        if self._new or self.patiently("PRAGMA application_id") == (APPLICATION_ID,):
            self.patiently("PRAGMA journal_mode=WAL")

    def close(self) -> None:
        """Close the connection; the last one out folds the write-ahead log into the file."""
        with self.lock:
            if not self._inherited:
                self._db.close()
                _held.release(self)

    def inherit(self, *, idle: bool) -> bool:
        """In a forked child: give the connection up, so that SQLite forgets the parent's locks.

        Closing releases nothing of the parent's and writes nothing while the parent holds its own
        locks. In the middle of a call or of a change it would; then the connection is left alone, and
        the child can't open the file.
        """
        self.lock, self._inherited = threading.RLock(), True
        if not idle or self._writing:
            _LEFT.append(self._db)
            return False
        with contextlib.suppress(sqlite3.Error):
            self._db.close()
        return True

    # --- the place --------------------------------------------------------------------------------

    def in_place(self) -> bool:
        """Whether the names still lead to the file that was opened; for reads, which ask each time."""
        try:
            for name in self._names:
                status = os.stat(name)  # noqa: PTH116 - a Path costs as much again
                if (status.st_dev, status.st_ino) != self._main:
                    return False
        except OSError:
            return False
        return True

    def look_due(self) -> bool:
        """Whether it is time for reads to look around again (20 times a second)."""
        return time.monotonic() - self._looked >= _LOOK_SECONDS

    def looked(self) -> None:
        """All was found right."""
        self._looked = time.monotonic()

    def check_main(self, done: str) -> None:
        """See that the names still lead to the file that was opened.

        What is written to a file that was moved away, replaced or removed is seen by nobody else, and
        lost when the process ends.

        Args:
            done: What to say of what is under way.

        Raises:
            StorageError: They don't.
        """
        for name in self._names:
            if _held.identity(name) != self._main:
                raise StorageError(
                    f"the store's file was moved, removed or exchanged under way; {done}",
                    where=self.where,
                    fix=_MOVED,
                )

    def check_place(self, done: str) -> None:
        """See that the file and those beside it are those that were opened.

        Args:
            done: What to say of what is under way.

        Raises:
            StorageError: They are not.
        """
        self.check_main(done)
        for suffix, known in self._beside.items():
            found = _held.identity(self._real + suffix)
            if known is None:  # a new store has no log yet
                self._beside[suffix] = found
            elif found != known:
                raise StorageError(
                    f"the store's log was moved, removed or exchanged under way; {done}",
                    where=self._real + suffix,
                    fix="close the store in every process: the last one folds what it holds into the file",
                )

    def log_empty(self) -> bool:
        """Whether the write-ahead log has no bytes."""
        try:
            return os.stat(self._real + _LOG).st_size == 0  # noqa: PTH116 - as in identity()
        except OSError:
            return True

    # --- statements -------------------------------------------------------------------------------

    def _told(self, error: Exception) -> KeystoreError:
        return inherited(self.where) if self._inherited else translate(error, self.where)

    def row(self, sql: str, parameters: Parameters = ()) -> Record | None:
        """The first row, or ``None``."""
        for row in self.rows(sql, parameters):
            return row
        return None

    def rows(self, sql: str, parameters: Parameters = ()) -> list[Record]:
        """All rows, fetched at once so that no read transaction stays open."""
        try:
            return self._execute(sql, parameters).fetchall()
        except _FAILURES as error:
            raise self._told(error) from None

    def among(self, sql: str, values: Sequence[bytes]) -> list[Record]:
        """All rows for which a column is one of many values.

        Args:
            sql: A query that ends where the list of values follows.
            values: The values, without doubles.
        """
        found: list[Record] = []
        for start in range(0, len(values), _MOST_VALUES):
            part = values[start : start + _MOST_VALUES]
            found += self.rows(f"{sql} ({', '.join('?' * len(part))})", part)
        return found

    def many(self, sql: str, parameters: Iterable[Parameters]) -> None:
        """Run a statement for each set of parameters, inside a transaction."""
        try:
            self._db.conn.executemany(sql, parameters)
        except _FAILURES as error:
            raise self._told(error) from None

    def image(self) -> bytes:
        """The whole file as it stands in the current transaction, log included; in memory.

        It never reaches the disk, so that a killed process leaves no copy, and it takes no other
        descriptor of the file, whose closing would drop the locks of the process.
        """
        try:
            return self._db.conn.serialize()
        except _FAILURES as error:
            raise self._told(error) from None
        except MemoryError:
            raise StorageError(
                "there is not enough memory for an image of the store",
                where=self.where,
                fix="make room: it takes twice the size of the file",
            ) from None

    def patiently(self, sql: str, deadline: float | None = None) -> Record | None:
        """Run a statement, trying again while others hold the file, until the busy timeout.

        SQLite's own busy handler sleeps ever longer and lets a newcomer overtake; short random
        pauses share the file more evenly among many writers.
        """
        if deadline is None:
            deadline = time.monotonic() + self.patience
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
    def immediate(self, deadline: float | None = None) -> Iterator[None]:
        """A transaction that takes the write lock first, so that what it reads stays true.

        It ends well only if its file is in its place before and after it was committed.

        Raises:
            BusyError: The lock was not to be had within the busy timeout.
            StorageError: The file was moved or exchanged.
        """
        self.patiently("BEGIN IMMEDIATE", deadline)
        self._writing = True
        try:
            yield
            self.check_main("nothing was changed")
            self.rows("COMMIT")
        except BaseException:
            # SQLite may have rolled back by itself (disk full, say).
            if self._db.conn.in_transaction:
                self.rows("ROLLBACK")
            raise
        finally:
            self._writing = False
        self.check_place("the change is not made")

    def scrub(self, *, wait: bool) -> bool:
        """Fold the write-ahead log into the file and empty it, so that erased bytes are gone.

        Args:
            wait: Whether to give others a moment (20 ms) to finish reading.

        Returns:
            Whether it could be done; a reader or writer elsewhere can stand in the way.
        """
        if not wait:
            self.rows("PRAGMA busy_timeout=0")
        try:
            result = self.row("PRAGMA wal_checkpoint(TRUNCATE)")
        except KeystoreError:  # a full disk, say: what was changed before stands all the same
            return False
        finally:
            if not wait:
                self.rows(f"PRAGMA busy_timeout={_SPIN_SECONDS * 1000:.0f}")
        return result is not None and result[0] == 0


_LEFT: list[sqlite_utils.Database] = []  # a forked child never closes these
