"""The unlocked store underneath the public class: reads, and changes as all-or-nothing steps."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from anonymix_keystore import _anchor, _audit, _clock, _header, _schema
from anonymix_keystore._anchor import Anchor, compare
from anonymix_keystore._cache import Cache
from anonymix_keystore._crypto import KeyRing
from anonymix_keystore._database import Database
from anonymix_keystore._errors import (
    AnchorError,
    DamagedError,
    KeystoreError,
    LockedError,
    RolledBackError,
)
from anonymix_keystore._header import MODULUS, Header
from anonymix_keystore._rows import HEADS, Head, Table

R = TypeVar("R", bound=tuple[Any, ...])

USES_KEPT = 1_000


class Change:
    """One step: what is written in it stands together with its audit lines, or not at all."""

    def __init__(
        self, db: Database, keys: KeyRing, header: Header, now: int, actor: str, *, clock_accepted: bool
    ) -> None:
        self.db, self.keys, self.now = db, keys, now
        self._leap = _clock.leap_after(now, header, accepted=clock_accepted)
        self.header, self._actor = header, actor
        self._seq, self._head, self._tally = header.epoch, header.head, header.tally
        self.wrap = header.wrap
        self.touched: set[bytes] = set()  # tags whose cached keys are stale
        self.erased = False

    @property
    def epoch(self) -> int:
        """The number that the next audit line of this step bears."""
        return self._seq + 1

    def insert(self, table: Table[R], row: R) -> None:
        """Add a row."""
        self.insert_all(table, (row,))

    def insert_all(self, table: Table[R], rows: Iterable[R]) -> None:
        """Add rows."""
        records = []
        for row in rows:
            mac, weight = self.keys.authenticate(table.name, row)
            self._tally += weight
            records.append((*row, mac))
        self.db.many(table.insert, records)

    def update_all(self, table: Table[R], rows: Iterable[tuple[R, int]]) -> None:
        """Put rows over those with the same primary key, whose weights come with them."""
        records = []
        for row, old_weight in rows:
            mac, weight = self.keys.authenticate(table.name, row)
            self._tally += weight - old_weight
            records.append((*table.rest(row), mac, *table.primary(row)))
        self.db.many(table.update, records)

    def delete_all(self, table: Table[R], rows: Iterable[tuple[R, int]]) -> None:
        """Take rows away, whose weights come with them."""
        records = []
        for row, weight in rows:
            self._tally -= weight
            records.append(table.primary(row))
        self.db.many(table.delete, records)

    def note(self, action: str, **facts: Any) -> None:
        """Add a line to the audit trail."""
        content = {"action": action, "actor": self._actor, "time": self.now, **facts}
        self._head = _audit.append(self.db, self.keys, self.epoch, self._head, content)
        self._seq += 1

    def skip_to(self, epoch: int) -> None:
        """Let the next line bear a number after this one (a rollback is being accepted)."""
        self._seq = max(self._seq, epoch)

    def finish(self) -> None:
        """Write the header."""
        self.header = _header.replace(
            self.header,
            epoch=self._seq,
            head=self._head,
            tally=self._tally % MODULUS,
            clock=self.now,
            leap=self._leap,
            wrap=self.wrap,
        )
        _header.store(self.db, self.keys, self.header)


class Core:
    """An unlocked store.

    All calls are serialised by one lock: SQLite lets one connection do one thing at a time, and
    the cache must not see a key between another thread's commit and its invalidation.
    """

    def __init__(
        self,
        db: Database,
        keys: KeyRing,
        *,
        cache: Cache,
        clock: Callable[[], float],
        actor: str,
        anchor: Anchor | None,
    ) -> None:
        self.cache, self._clock = cache, clock
        self._db, self._keys, self._actor, self.anchor = db, keys, actor, anchor
        self.lock = threading.RLock()
        self._pid = os.getpid()
        self._open = True
        self._unscrubbed = False
        self._used: dict[bytes, int] = {}  # tag -> day, uses not yet written

    @property
    def path(self) -> Path:
        """The store's file."""
        return self._db.path

    def _usable(self) -> None:
        if not self._open:
            raise LockedError("the keystore is closed", where=self._db.where, fix="open it again")
        if os.getpid() != self._pid:
            # SQLite connections don't survive a fork; using one corrupts the file.
            raise LockedError(
                "the keystore was opened before this process forked",
                where=self._db.where,
                fix="open it anew in the child process",
            )

    @property
    def db(self) -> Database:
        """The connection, if the store is open in this process."""
        self._usable()
        return self._db

    @property
    def keys(self) -> KeyRing:
        """The store's keys, if it is open in this process."""
        self._usable()
        return self._keys

    def close(self) -> None:
        """Forget keys and close the file."""
        with self.lock:
            if self._open and os.getpid() == self._pid:
                # A day of use that can't be noted is no reason to fail: the next use notes its own.
                with contextlib.suppress(KeystoreError):
                    self._note_uses()
                self.cache.clear()
                self._open = False
                self._db.close()

    def used(self, head: Head) -> None:
        """Remember that a key was used today; written with the next change, or on closing.

        Retention counts from the last use, and a day is fine enough: most lookups write nothing.
        """
        today = self._system() // _clock.DAY
        if head.used < today and self._used.get(head.tag) != today:
            self._used[head.tag] = today
            if len(self._used) % USES_KEPT == 0:
                with contextlib.suppress(KeystoreError):
                    self._note_uses()

    def flush_uses(self) -> None:
        """Write the uses that wait."""
        with self.lock:
            self._note_uses()

    def _note_uses(self) -> None:
        if self._used:
            with self.change():
                pass  # every change writes the uses that wait

    def _write_uses(self, change: Change) -> None:
        rows = []
        for tag, day in self._used.items():
            record = change.db.row(f"{HEADS.select} WHERE tag = ?", (tag,))
            if record is not None:
                head, weight = HEADS.check(change.keys, record, change.db.where)
                if head.used < day:
                    rows.append((head._replace(used=day), weight))
        change.update_all(HEADS, rows)

    @contextlib.contextmanager
    def reading(self) -> Iterator[tuple[Database, KeyRing]]:
        """Connection and keys for several reads that have to fit together."""
        with self.lock:
            db, keys = self.db, self.keys
            with db.snapshot():
                yield db, keys

    def header(self) -> Header:
        """The header as it is now."""
        with self.lock:
            return _header.load(self.db, self.keys)

    def now(self, header: Header) -> int:
        """The time (Unix seconds), never before the last change of the store."""
        return max(self._system(), header.clock)

    def _system(self) -> int:
        return _clock.read(self._clock, self._db.where)

    def check_clock(self) -> None:
        """See that the clock may be trusted with erasing by date; done before any change moves the header.

        Raises:
            ClockError: It stands far after the last change, or leapt that far a short while ago.
        """
        header = self.header()
        _clock.check_believed(self.now(header), header, self._db.where)

    @contextlib.contextmanager
    def change(self, *, accept_clock: bool = False) -> Iterator[Change]:
        """Make a change; when the block ends well it is durable, otherwise nothing happened.

        Raises:
            BusyError: Other writers held the store too long.
            ClockError: The clock stands more than an hour before the last change.
            RolledBackError: The audit trail was cut.
            AnchorError: The change was made, but the anchor could not be moved.
        """
        with self.lock:
            db, keys = self.db, self.keys
            with db.immediate():
                header = _header.load(db, keys)
                _audit.check_tail(db, header)
                now = self._time(header, accept_clock)
                change = Change(db, keys, header, now, self._actor, clock_accepted=accept_clock)
                self._write_uses(change)
                yield change
                change.finish()
            self._used.clear()
            self._after(change)

    def _time(self, header: Header, accept_clock: bool) -> int:
        system = self._system()
        if accept_clock:
            return system
        _clock.check_not_behind(system, header, self._db.where)
        return max(system, header.clock)

    def _after(self, change: Change) -> None:
        self.cache.drop(change.touched)
        if change.erased or self._unscrubbed:
            # Where a reader is in the way now, the next change tries again, and closing does it.
            self._unscrubbed = not self._db.scrub()
        if self.anchor is not None:
            self.move_anchor(self.anchor)

    def move_anchor(self, anchor: Anchor, *, everything: bool = False) -> None:
        """Tell an anchor how far the store is, after a change.

        Raises:
            AnchorError: The change was made, but the anchor could not be moved.
            RolledBackError: The change was made in a file that is older than the anchor.
        """
        try:
            _anchor.advance(anchor, self._db, self._keys, everything=everything)
        except (RolledBackError, DamagedError):
            raise
        except Exception as error:  # an anchor may be anybody's code
            what = str(error) if isinstance(error, KeystoreError) else type(error).__name__
            raise AnchorError(
                "the change was made, but the anchor could not be moved",
                where=what,
                fix="see to the anchor: the next change tells it all that it missed",
            ) from error

    @property
    def scrubbed(self) -> bool:
        """Whether all erased bytes are out of the write-ahead log, as far as this process knows."""
        return not self._unscrubbed

    def check_anchor(self) -> None:
        """Compare the store with its anchor.

        Raises:
            RolledBackError: The store is older than the anchor, or its history is another.
            AnchorError: The anchor is missing, damaged or another store's.
        """
        if self.anchor is None:
            return
        with self.lock:
            state = self.anchor.read()
            if state is None:
                raise AnchorError(
                    "the anchor is empty",
                    fix="tie the store to it with Keystore.tie_anchor (on the command line, to a new"
                    " one: anonymix keys tie-anchor FILE)",
                )
            # Read after the anchor, so that a change in between can only put the store ahead.
            with self.reading() as (db, keys):
                header = _header.load(db, keys)
                compare(state, db, keys, header)
            if header.epoch > state.epoch:
                # A crash came before the anchor was told. Where it can't be told now, the next change does.
                with contextlib.suppress(AnchorError):
                    self.move_anchor(self.anchor)


def check_form(db: Database, header: Header) -> None:
    """See that the file's tables are those that the header, read in the same snapshot, was written for.

    Raises:
        DamagedError: Schema number or table definitions were changed.
        RolledBackError: The audit trail was cut.
    """
    if header.schema != _schema.found(db) or header.digest != _schema.digest(db):
        raise DamagedError("the table definitions were changed", where=db.where, fix="restore a backup")
    _audit.check_tail(db, header)
