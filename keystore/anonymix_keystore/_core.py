"""The unlocked store underneath the public class: reads, and changes as all-or-nothing steps."""

from __future__ import annotations

import contextlib
import os
import random
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from anonymix_keystore import _anchor, _audit, _clock, _header, _schema
from anonymix_keystore._anchor import Anchor, compare
from anonymix_keystore._cache import Cache
from anonymix_keystore._crypto import Columns, KeyRing
from anonymix_keystore._database import BUSY, Database, inherited
from anonymix_keystore._errors import (
    AnchorError,
    BusyError,
    DamagedError,
    KeystoreError,
    LockedError,
    RolledBackError,
    StorageError,
)
from anonymix_keystore._header import MODULUS, Header
from anonymix_keystore._rows import HEADS, Head, Table

R = TypeVar("R", bound=tuple[Any, ...])
T = TypeVar("T")

USES_KEPT = 1_000
ISSUED_KEPT = 4_096
SCRUB_SECONDS = 0.05  # how long a change waits, once, for readers before erased bytes leave the log
_SHORT = 32  # bytes; tags are as long, and stand in other rows, too
TURN_SECONDS = 0.005  # a pause between two batches, in which other writers get their turn


_acting: ContextVar[str] = ContextVar("anonymix_keystore_acting", default="")


@contextlib.contextmanager
def acting_as(actor: str) -> Iterator[None]:
    """Make the changes of the block for somebody, in this thread or task."""
    before = _acting.set(actor)
    try:
        yield
    finally:
        _acting.reset(before)


@dataclass(frozen=True, slots=True)
class Erased(Generic[R]):
    """What a change took away: rows, and records that failed authentication, of which nothing is believed."""

    rows: list[R]
    damaged: list[Sequence[Any]]

    @property
    def count(self) -> int:
        """How many there were."""
        return len(self.rows) + len(self.damaged)

    @property
    def values(self) -> set[bytes]:
        """Their long values, as bytes to look for in the file."""
        records: list[Sequence[Any]] = [*self.rows, *self.damaged]
        return {value for record in records for value in record if isinstance(value, bytes) and len(value) > _SHORT}


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
        self.damaged: Counter[str] = Counter()  # rows that failed authentication and were erased, by table
        self.made = False  # whether it is durable, whatever fails after it
        # Whether bytes erased by an earlier change are still in the log, which nobody else can
        # write to or empty while this step holds the write lock.
        self.pending = header.unscrubbed and not db.log_empty()
        self.scrubbed = True  # once it is done: whether all erased bytes are out of the log

    @property
    def epoch(self) -> int:
        """The number that the next audit line of this step bears."""
        return self._seq + 1

    def insert(self, table: Table[R], row: R) -> None:
        """Add a row."""
        self.insert_all(table, (row,))

    def insert_all(self, table: Table[R], rows: Iterable[R]) -> None:
        """Add rows."""
        self.insert_columns(table, tuple(zip(*rows, strict=True)))

    def insert_columns(self, table: Table[Any], columns: Columns) -> None:
        """Add rows, given column by column."""
        macs, weights = self.keys.authenticate_all(table.name, columns)
        self._tally += sum(weights)
        self.db.many(table.insert, zip(*columns, macs, strict=True))

    def update_all(self, table: Table[R], rows: Iterable[tuple[R, int]]) -> None:
        """Put rows over those with the same primary key, whose weights come with them."""
        pairs = list(rows)
        self.update_columns(table, tuple(zip(*(row for row, _ in pairs), strict=True)), [old for _, old in pairs])

    def update_columns(self, table: Table[Any], columns: Columns, old_weights: Iterable[int]) -> None:
        """Put rows, given column by column, over those with the same primary key."""
        macs, weights = self.keys.authenticate_all(table.name, columns)
        self._tally += sum(weights) - sum(old_weights)
        self.db.many(table.update, zip(*table.rest(columns), macs, *table.primary(columns), strict=True))

    def delete_all(self, table: Table[R], rows: Iterable[tuple[R, int]]) -> None:
        """Take rows away, whose weights come with them."""
        records = []
        for row, weight in rows:
            self._tally -= weight
            records.append(table.primary(row))
        self.db.many(table.delete, records)

    def erase(self, table: Table[R], condition: str, values: Sequence[Any] = ()) -> Erased[R]:
        """Take away all rows that a condition finds, those that fail authentication as well.

        Getting rid of something must not depend on whether it is whole. What a damaged row had added to the
        sum over all rows is not known and stays in it, so that the full check still tells.
        """
        return self.erase_records(table, self.db.rows(f"{table.select} WHERE {condition}", values))

    def erase_records(self, table: Table[R], records: Sequence[Sequence[Any]]) -> Erased[R]:
        """Take away rows that were read, those that fail authentication as well."""
        rows, damaged = table.sift(self.keys, records)
        self.delete_all(table, rows)
        self._take_away(table, damaged)
        found = Erased([row for row, _ in rows], damaged)
        self.erased = self.erased or bool(found.count)
        return found

    def erase_damaged(self, table: Table[R]) -> None:
        """Take away all rows that fail authentication."""
        self._take_away(table, list(table.damaged(self.db, self.keys)))

    def _take_away(self, table: Table[R], records: Sequence[Sequence[Any]]) -> None:
        self.db.many(table.delete, [table.primary(record) for record in records])
        self.damaged[table.name] += len(records)
        self.erased = self.erased or bool(records)

    def note(self, action: str, **facts: Any) -> None:
        """Add a line to the audit trail."""
        content = {"action": action, "actor": self._actor, "time": self.now, **facts}
        self._head = _audit.append(self.db, self.keys, self.epoch, self._head, content)
        self._seq += 1

    def accept_sum(self, tally: int) -> None:
        """Take another sum over all rows as right (damage is being accepted)."""
        self._tally = tally

    def skip_to(self, epoch: int) -> None:
        """Let the next line bear a number after this one (a rollback is being accepted)."""
        self._seq = max(self._seq, epoch)

    def finish(self) -> None:
        """Write the header."""
        if damaged := +self.damaged:
            self.note(_audit.ERASE_DAMAGED, rows=dict(damaged))
        self.header = _header.replace(
            self.header,
            epoch=self._seq,
            head=self._head,
            tally=self._tally % MODULUS,
            clock=self.now,
            leap=self._leap,
            wrap=self.wrap,
            unscrubbed=self.pending or self.erased,
        )
        _header.store(self.db, self.keys, self.header)


class Core:
    """An unlocked store.

    Reads and changes go over connections of their own, each under its own lock: a lookup never waits
    for a change, nor for anybody for whom a change waits. SQLite lets one connection do one thing at
    a time, so reads are serialised by ``lock``; so is the cache, which must not see a key between a
    read of it and its invalidation. Whoever makes a change may take ``lock`` in it, never the other
    way round.
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
        self._pid = os.getpid()
        self._open = True
        self._form = -1  # SQLite's number of the tables' definitions, when they were last found right
        self.issued: OrderedDict[bytes, None] = OrderedDict()  # tags of first keys issued here lately
        self._used: dict[bytes, int] = {}  # tag -> day, uses not yet written
        self._writer = self._another(rank=-1)

    @property
    def path(self) -> Path:
        """The store's file."""
        return self._db.path

    @property
    def lock(self) -> threading.RLock:
        """Held by whoever reads or uses the cache.

        Raises:
            LockedError: In a forked child, before it waits for a lock that nobody there gives back.
        """
        self._check_process()
        return self._db.lock

    def _check_process(self) -> None:
        if os.getpid() != self._pid:
            raise inherited(self._db.where)

    def _usable(self) -> None:
        if not self._open:
            raise LockedError("the keystore is closed", where=self._db.where, fix="open it again")

    @property
    def db(self) -> Database:
        """The connection for reads, if the store is open and in its place."""
        db = self._db
        if not self._open or not db.in_place() or db.look_due():
            self._usable()
            try:
                db.check_place("nothing was read")
                self._check_form(db)
            except KeystoreError:
                self.cache.clear()
                raise
            db.looked()
        return db

    def _check_form(self, db: Database, header: Header | None = None) -> None:
        """See that nobody changed the tables since they were last looked at, as the next opening would.

        Args:
            db: The connection; in a transaction if a header comes along.
            header: The header, as read in that transaction.
        """
        form = _schema.number(db)
        if form != self._form:
            if header is None:
                with db.snapshot():
                    header = _header.load(db, self._keys)
                    _schema.check(db, header.schema, header.digest)
            else:
                _schema.check(db, header.schema, header.digest)
            self._form = form

    @property
    def keys(self) -> KeyRing:
        """The store's keys, if it is open."""
        if not self._open:
            self._usable()
        return self._keys

    def _another(self, rank: int = 0) -> Database:
        db = Database(self._db.path, self._db.patience, rank=rank)
        if db.main != self._db.main:
            db.close()
            self._db.check_place("nothing was read")
        return db

    @contextlib.contextmanager
    def connection(self) -> Iterator[tuple[Database, KeyRing]]:
        """A connection of its own, for what takes long: it holds nobody up.

        While it reads, erased bytes can't leave the log, so that is tried once more at its end.
        """
        self._check_process()
        self._usable()
        self._db.check_place("nothing was read")
        db = self._another()
        try:
            with db.lock:
                yield db, self._keys
        finally:
            db.close()
        self.tidy()

    def close(self) -> None:
        """Forget keys and close the file."""
        if os.getpid() != self._pid or not self._open:
            return  # a child leaves the parent's connections alone
        # A day of use that can't be noted is no reason to fail: the next use notes its own.
        with contextlib.suppress(KeystoreError):
            self.flush_uses()
            self.tidy()
        self.abandon()

    def abandon(self) -> None:
        """Forget keys and close the file, writing nothing."""
        with self._writer.lock, self.lock:
            self.cache.clear()
            self._open = False
            self._db.close()
            self._writer.close()

    def used(self, head: Head) -> None:
        """Remember that a key was used today; written with the next change, or on closing.

        Retention counts from the last use, and a day is fine enough: most lookups write nothing. Since
        it may write now and then, ``lock`` must not be held.
        """
        today = self._system() // _clock.DAY
        if head.used < today and self._used.get(head.tag) != today:
            self._used[head.tag] = today
            if len(self._used) % USES_KEPT == 0:
                with contextlib.suppress(KeystoreError):
                    self.flush_uses()

    def issued_first(self, tag: bytes) -> None:
        """Remember that a first key was issued here; the latest ones alone."""
        with self.lock:
            self.issued[tag] = None
            while len(self.issued) > ISSUED_KEPT:
                self.issued.popitem(last=False)

    def flush_uses(self) -> None:
        """Write the uses that wait."""
        if self._used:
            with self.change():
                pass  # every change writes the uses that wait

    def _write_uses(self, change: Change, used: Mapping[bytes, int]) -> None:
        rows = []
        for tag, day in used.items():
            # A damaged one is told where it is read; here it would stop everybody's changes.
            found, _ = HEADS.sift(change.keys, change.db.rows(f"{HEADS.select} WHERE tag = ?", (tag,)))
            for head, weight in found:
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

    def pages(self, page: Callable[[Database, KeyRing, Any], list[T]], after: Any) -> Iterator[T]:
        """Rows page by page: ``lock`` is held for one page at a time and never across a yield.

        Args:
            page: Gives the next rows after a row, or after the start; none at the end.
            after: The start.
        """
        while True:
            with self.lock:
                found = page(self.db, self.keys, after)
            if not found:
                return
            yield from found
            after = found[-1]

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
            StorageError: The file was moved or exchanged; nothing is claimed as done.
            AnchorError: The change was made, but the anchor could not be moved.
        """
        with self._writing() as (db, deadline):
            used, self._used = self._used, {}
            try:
                with db.immediate(deadline):
                    header = _header.load(db, self._keys)
                    self._check_form(db, header)
                    _audit.check_tail(db, header)
                    now = self._time(header, accept_clock)
                    actor = _acting.get() or self._actor
                    change = Change(db, self._keys, header, now, actor, clock_accepted=accept_clock)
                    self._write_uses(change, used)
                    yield change
                    change.finish()
            except BaseException as error:
                self._used = used | self._used
                if isinstance(error, StorageError):
                    with self.lock:
                        self.cache.clear()
                raise
            change.made = True
            try:
                self._after(change)
            finally:
                if change.header.unscrubbed:
                    change.scrubbed = db.scrub(wait=not change.pending)
        if not change.scrubbed and not change.pending:
            change.scrubbed = self._scrub(SCRUB_SECONDS)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[tuple[Database, float]]:
        """The connection for changes, for this thread alone, and until when it may wait for others."""
        self._check_process()
        db = self._writer
        deadline = time.monotonic() + db.patience
        lock = db.lock
        if not lock.acquire(timeout=db.patience):
            raise BusyError("other threads hold the store", where=db.where, fix=BUSY)
        try:
            self._usable()
            yield db, deadline
        finally:
            lock.release()

    @staticmethod
    def give_way() -> None:
        """Let other writers in between two batches: whoever waits for a lock can't hold its place."""
        time.sleep(TURN_SECONDS)

    # --- what was erased --------------------------------------------------------------------------

    def _scrub(self, patience: float) -> bool:
        """Try to empty the log, between the turns of others, until it is done or patience ends."""
        deadline = time.monotonic() + patience
        while True:
            with self._writer.lock:
                if self._open and self._writer.scrub(wait=False):
                    return True
            if time.monotonic() >= deadline:
                return False
            time.sleep(random.uniform(0.001, 0.01))  # noqa: S311 - spreads writers, no secret

    def tidy(self) -> None:
        """Try once, without waiting, to empty the log if erased bytes may be in it."""
        with contextlib.suppress(KeystoreError):
            if not self.scrubbed:
                self._scrub(0)

    @property
    def scrubbed(self) -> bool:
        """Whether all erased bytes are out of the write-ahead log."""
        with self.lock:
            return not self.header().unscrubbed or self.db.log_empty()

    def _time(self, header: Header, accept_clock: bool) -> int:
        system = self._system()
        if accept_clock:
            return system
        _clock.check_not_behind(system, header, self._db.where)
        return max(system, header.clock)

    def _after(self, change: Change) -> None:
        with self.lock:
            self.cache.drop(change.touched)
        if self.anchor is not None:
            self.move_anchor(self.anchor)

    def move_anchor(self, anchor: Anchor, *, everything: bool = False) -> None:
        """Tell an anchor how far the store is, after a change.

        Raises:
            AnchorError: The change was made, but the anchor could not be moved.
            RolledBackError: The change was made in a file that is older than the anchor.
        """
        try:
            with self._writing() as (db, _):
                _anchor.advance(anchor, db, self._keys, everything=everything)
        except (RolledBackError, DamagedError):
            raise
        except Exception as error:  # an anchor may be anybody's code
            what = str(error) if isinstance(error, KeystoreError) else type(error).__name__
            raise AnchorError(
                "the change was made, but the anchor could not be moved",
                where=what,
                fix="see to the anchor: the next change tells it all that it missed",
            ) from error

    def check_anchor(self) -> None:
        """Compare the store with its anchor.

        Raises:
            RolledBackError: The store is older than the anchor, or its history is another.
            AnchorError: The anchor is missing, damaged or another store's.
        """
        if self.anchor is None:
            return
        with self._writing():  # for no fork comes in between, and lookups don't wait for an anchor
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
    _schema.check(db, header.schema, header.digest)
    _audit.check_tail(db, header)
