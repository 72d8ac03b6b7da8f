"""Anchors: a memory outside the file of how far the store had come, and of what was revoked."""

from __future__ import annotations

import contextlib
import hmac
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from anonymix_keystore import _asked, _audit, _header
from anonymix_keystore._audit import Revoked
from anonymix_keystore._crypto import KeyRing, encode
from anonymix_keystore._database import Database, new_private_file
from anonymix_keystore._errors import AnchorError, RolledBackError
from anonymix_keystore._header import Header

STEP = 10_000  # revocations told to an anchor at once
_ACCEPT = (
    "call Keystore.open(..., accept_rollback=REASON)"
    " (on the command line: anonymix keys status --accept-rollback REASON)"
)


@dataclass(frozen=True, slots=True)
class AnchorState:
    """How far a store had come.

    Attributes:
        store_id: 16 bytes.
        epoch: Number of the last audit line; only ever grows.
        head: Chain code of that line, 32 bytes.
        mac: HMAC-SHA256 over the rest under a key of the store.
    """

    store_id: bytes
    epoch: int
    head: bytes
    mac: bytes

    @classmethod
    def of(cls, keys: KeyRing, epoch: int, head: bytes) -> AnchorState:
        """The state of an unlocked store."""
        return cls(keys.store_id, epoch, head, _mac(keys, epoch, head))

    def check(self, keys: KeyRing) -> None:
        """See that the state is this store's and was not changed.

        Raises:
            AnchorError: It is another store's, or forged.
        """
        if self.store_id != keys.store_id:
            raise AnchorError("the anchor belongs to another store")
        if not hmac.compare_digest(self.mac, _mac(keys, self.epoch, self.head)):
            raise AnchorError("the anchor fails authentication")


def compare(state: AnchorState, db: Database, keys: KeyRing, header: Header, *, lost: bool = False) -> None:
    """Compare a store with a state that was read from its anchor before.

    Args:
        state: The state.
        db: The store.
        keys: Its keys.
        header: Its header, not older than the state.
        lost: Whether the state may lie before the anchor's own, in a stretch whose loss was accepted.

    Raises:
        AnchorError: The state is forged or another store's.
        RolledBackError: The store is older than the state, or its history is another.
    """
    state.check(keys)
    if header.epoch < state.epoch:
        raise RolledBackError(
            f"an old file: it stands at epoch {header.epoch}, its anchor at {state.epoch}",
            where=db.where,
            fix=f"put the current file back, or {_ACCEPT}",
        )
    line = _audit.line(db, keys, state.epoch) if state.epoch else None
    if state.epoch and (line is None or line.code != state.head) and not _accepted(state, db, keys, lost):
        raise RolledBackError(
            "the store's history is not the anchor's",
            where=db.where,
            fix=f"put the right file back, or {_ACCEPT}",
        )


def _accepted(state: AnchorState, db: Database, keys: KeyRing, lost: bool) -> bool:
    """Whether the trail says that a rollback behind this very state, or one that lost it, was accepted."""
    wanted = {"anchor": state.epoch, "head": state.head.hex()}
    return any(
        wanted.items() <= told.items() or (lost and told["before"] < state.epoch < told["anchor"])
        for told in (line.content for line in _audit.lines(db, keys, state.epoch))
        if told["action"] == _audit.ACCEPT_ROLLBACK
    )


def advance(anchor: Anchor, db: Database, keys: KeyRing, *, everything: bool = False) -> None:
    """Move an anchor to where the store stands, and tell it all that was erased on the way.

    What it is told comes from the audit trail, from the line on that the anchor knows: so it hears of
    revocations that came while it was away, that other processes made, or that a crash kept from it.

    Args:
        anchor: The anchor.
        db: The store.
        keys: Its keys.
        everything: Tell it the whole trail, whatever it knows already.

    Raises:
        AnchorError: It is another store's, or can't be read or written.
        RolledBackError: The store is older than the anchor, or its history is another.
    """
    state = anchor.read()
    header = _header.load(db, keys)  # after the anchor: a change in between can only put the store ahead
    if state is not None:
        compare(state, db, keys, header)
    known = 0 if everything or state is None else state.epoch
    waiting: set[Revoked] = set()
    for line in _audit.lines(db, keys, known):
        if line.seq > header.epoch:
            break
        waiting.update(_audit.revoked(line.content))
        if len(waiting) >= STEP:
            anchor.advance(AnchorState.of(keys, line.seq, line.code), sorted(waiting))
            waiting.clear()
    anchor.advance(AnchorState.of(keys, header.epoch, header.head), sorted(waiting))


def _mac(keys: KeyRing, epoch: int, head: bytes) -> bytes:
    return hmac.digest(keys.anchor, encode(("anchor", keys.store_id, epoch, head)), "sha256")


class Anchor(Protocol):
    """Where the anchor is kept. Calls come after each change, from whichever process made it.

    An anchor that holds a state has been told everything that was revoked up to its epoch.
    """

    def read(self) -> AnchorState | None:
        """The state kept, or ``None`` where none was ever written."""
        ...

    def advance(self, state: AnchorState, revoked: Sequence[Revoked]) -> None:
        """Keep a state unless a later one is already kept, and add what was revoked."""
        ...

    def revoked(self) -> Iterable[Revoked]:
        """All (alias, version) ever added; version 0 stands for every version."""
        ...


class AnchorFile:
    """An anchor in a file of its own: put it on another disk than the store.

    It is a small SQLite file, since that gives a monotonic update that holds among processes and
    through a power cut.

    Args:
        path: The file. It is made by ``AnchorFile.create`` alone, so that a deleted anchor is
            noticed and not quietly begun again.
        busy_timeout: Seconds to wait for other writers.
    """

    def __init__(self, path: str | os.PathLike[str], *, busy_timeout: float = 10.0) -> None:
        self._path, self._patience = _asked.path(path, "path"), _asked.number(busy_timeout, "busy_timeout")

    @classmethod
    def create(cls, path: str | os.PathLike[str]) -> AnchorFile:
        """Make a new, empty anchor (0600).

        Raises:
            StoreExistsError: There is already a file.
        """
        anchor = cls(path)
        new_private_file(anchor._path)
        with anchor._open() as db:
            db.execute(
                "CREATE TABLE state (id INTEGER PRIMARY KEY CHECK (id = 1), store_id BLOB NOT NULL,"
                " epoch INTEGER NOT NULL, head BLOB NOT NULL, mac BLOB NOT NULL) STRICT"
            )
            db.execute(
                "CREATE TABLE revoked (alias BLOB NOT NULL, version INTEGER NOT NULL,"
                " PRIMARY KEY (alias, version)) STRICT, WITHOUT ROWID"
            )
        return anchor

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        where = str(self._path)
        if not self._path.is_file():
            raise AnchorError(
                "the anchor is missing",
                where=where,
                fix="put it back; if it is gone for good, tie the store to a new one with Keystore.tie_anchor"
                " (on the command line: unset ANONYMIX_ANCHOR, then anonymix keys tie-anchor FILE)",
            )
        try:
            uri = f"{self._path.resolve().as_uri()}?mode=rw"
            db = sqlite3.connect(uri, uri=True, timeout=self._patience, isolation_level=None)
            try:
                db.execute("PRAGMA synchronous=FULL")
                db.execute("BEGIN IMMEDIATE")
                yield db
                db.execute("COMMIT")
            finally:
                db.close()
        except (sqlite3.Error, UnicodeDecodeError) as error:
            raise AnchorError(f"the anchor can't be used: {type(error).__name__}", where=where) from None

    def read(self) -> AnchorState | None:
        """The state kept."""
        with self._open() as db:
            record = db.execute("SELECT store_id, epoch, head, mac FROM state").fetchone()
        if record is None:
            return None
        if [type(item) for item in record] != [bytes, int, bytes, bytes]:
            raise AnchorError("the anchor is damaged", where=str(self._path))
        return AnchorState(*record)

    def advance(self, state: AnchorState, revoked: Sequence[Revoked]) -> None:
        """Keep a state unless a later one is already kept, and add what was revoked."""
        with self._open() as db:
            db.executemany("INSERT OR IGNORE INTO revoked VALUES (?, ?)", revoked)
            db.execute(
                "INSERT INTO state VALUES (1, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET store_id ="
                " excluded.store_id, epoch = excluded.epoch, head = excluded.head, mac = excluded.mac"
                " WHERE excluded.epoch > state.epoch",
                (state.store_id, state.epoch, state.head, state.mac),
            )

    def revoked(self) -> Iterable[Revoked]:
        """All (alias, version) ever added."""
        with self._open() as db:
            return db.execute("SELECT alias, version FROM revoked").fetchall()


class CallbackAnchor:
    """An anchor kept wherever two functions put it (a cloud object, a transparency log, paper).

    It remembers the state alone: a rollback is told, but after it was knowingly accepted, keys
    revoked in the lost stretch have to be revoked again by hand.

    Args:
        load: Gives the state kept, or ``None``.
        save: Keeps a state; it must not let an earlier epoch replace a later one.
    """

    def __init__(self, load: Callable[[], AnchorState | None], save: Callable[[AnchorState], None]) -> None:
        self._load, self._save = load, save

    def read(self) -> AnchorState | None:
        """The state kept."""
        return self._load()

    def advance(self, state: AnchorState, revoked: Sequence[Revoked]) -> None:  # noqa: ARG002
        """Keep a state."""
        self._save(state)

    def revoked(self) -> Iterable[Revoked]:
        """Nothing: this anchor does not remember revocations."""
        return ()
