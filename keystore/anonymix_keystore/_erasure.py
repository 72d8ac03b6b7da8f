"""Erasing: all about a person (GDPR art. 17), what is due by retention, retired keys past their date."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

from anonymix_keystore import _audit, _jobs, _lifecycle
from anonymix_keystore._clock import DAY
from anonymix_keystore._core import Change, Core, Erased
from anonymix_keystore._database import Database
from anonymix_keystore._enrolments import last_info
from anonymix_keystore._errors import ClockError, DamagedError, KeystoreError, UnknownSubjectError
from anonymix_keystore._lifecycle import Ending, Who, subject_in
from anonymix_keystore._names import checked
from anonymix_keystore._rows import (
    ENROLMENTS,
    HEADS,
    KEYS,
    ORIGINALS,
    PAGE,
    REFERENCE_SCOPES,
    REFERENCES,
    RENEWALS,
    SCOPES,
    TABLES,
    Key,
    Purpose,
    State,
    Table,
)
from anonymix_keystore._values import EnrolmentInfo, ForgetReceipt


@dataclass(frozen=True, slots=True)
class LastUse:
    """When a subject's key was last used.

    Attributes:
        subject: The subject's id.
        scope: The scope.
        used: Day of the last use (UTC).
    """

    subject: str
    scope: str
    used: date


def forget(core: Core, subject: str, scope: str | None, reason: str) -> ForgetReceipt:
    """Erase everything about a person, in one scope or in all."""
    checked(subject, "subject")
    erased: _Erased | None = None
    try:
        with core.change() as change:
            names = _all_scopes(change) if scope is None else (scope,)  # read here, so that none comes in between
            erased = _Erased(change, [subject_in(change.keys, subject, name) for name in names])
            if not erased.found:
                if scope is None and change.db.row(_LOST) is not None:
                    raise _untold(change, "a scope is missing")
                raise UnknownSubjectError(
                    "nothing is known about this subject",
                    where=f"subject {subject!r}",
                    fix="look for the id: anonymix keys list",
                )
            erased.write(reason)
    except KeystoreError as error:
        if erased is not None and erased.made:
            error.receipt = erased.receipt(core)
        raise
    return erased.receipt(core)


_LOST = "SELECT 1 FROM heads WHERE scope NOT IN (SELECT id FROM scopes) LIMIT 1"


def _all_scopes(change: Change) -> tuple[str, ...]:
    try:
        scopes = SCOPES.every(change.db, change.keys)
        return tuple(_lifecycle.scope_names(scopes, change.keys, change.db.where).values())
    except DamagedError as error:
        raise _untold(change, error.what) from None


def _untold(change: Change, what: str) -> DamagedError:
    return DamagedError(
        f"{what}, so that it can't be told in which scopes the person is; nothing was erased",
        where=change.db.where,
        fix="name the scopes one by one (--scope, scope=), then look for the cause: anonymix keys verify",
    )


class _Erased:
    """Gathers what there is about a person, erases it, and looks whether it is gone."""

    def __init__(self, change: Change, whos: Sequence[Who]) -> None:
        self._change, self._whos = change, whos
        self._needles: list[bytes] = []
        self._tags: list[bytes] = []
        self._moves: list[list[object]] = []
        self._aliases: list[str] = []
        self._scopes: list[str] = []
        self._entries: list[EnrolmentInfo] = []
        self._unlisted = 0
        self._counts = {"keys": 0, "enrolments": 0, "originals": 0, "references": 0}
        for who in whos:
            self._take(who)

    @property
    def made(self) -> bool:
        """Whether it is erased for good."""
        return self._change.made

    @property
    def found(self) -> bool:
        """Whether anything was found."""
        return bool(self._scopes)

    def _take(self, who: Who) -> None:
        """Delete what belongs to the person in one scope."""
        change, db, ring = self._change, self._change.db, self._change.keys
        for raw in db.rows(f"{ENROLMENTS.select} WHERE subject = ?", (who.tag,)):
            try:
                if (entry := last_info(ring, db, raw, who)) is not None:
                    self._entries.append(entry)
            except KeystoreError:
                self._unlisted += 1
        heads = change.erase(HEADS, "tag = ?", (who.tag,))
        erased: dict[str, Erased[Any]] = {
            "keys": change.erase(KEYS, "tag = ?", (who.tag,)),
            "enrolments": change.erase(ENROLMENTS, "subject = ?", (who.tag,)),
            "originals": change.erase(ORIGINALS, "subject = ?", (who.tag,)),
            "references": change.erase(REFERENCES, "tag = ?", (who.tag,)),
        }
        self._needles += change.erase(RENEWALS, "subject = ?", (who.tag,)).values
        for head in heads.rows:  # of a damaged one the alias is not believed: it may be another's
            self._aliases.append(head.alias.hex())
            self._moves.append([head.alias.hex(), head.latest, 0])
            self._needles += [who.tag, head.alias]
        if heads.count or any(found.count for found in erased.values()):
            self._scopes.append(who.scope)
        for name, found in erased.items():
            self._counts[name] += found.count
            self._needles += found.values
        self._tags.append(who.tag)
        change.touched.add(who.tag)

    def write(self, reason: str) -> None:
        """Put it on record."""
        _jobs.forget_tags(self._change, self._tags)
        self._change.erased = True
        self._change.note("forget", keys=self._moves, erased=self._counts, reason=reason)

    def receipt(self, core: Core) -> ForgetReceipt:
        """Look whether all of it is gone; the connection is not the one that erased it."""
        header = self._change.header
        needles = set(self._needles)
        rows, left = 0, len(needles)
        # What can't be looked at may all be there. The receipt is given all the same: the records that
        # it is made of are gone.
        with contextlib.suppress(KeystoreError), core.connection() as (db, _):
            with db.snapshot():
                rows, image = self._rows(db), db.image()
            # The image is what the file holds once the log was folded into it. Nobody looks into the log
            # itself: as long as it could not be emptied, all may be there.
            if self._change.scrubbed:
                left = sum(needle in image for needle in needles)
        return ForgetReceipt(
            aliases=tuple(self._aliases),
            scopes=tuple(self._scopes),
            keys=self._counts["keys"],
            enrolments=self._counts["enrolments"],
            originals=self._counts["originals"],
            references=self._counts["references"],
            entries=tuple(self._entries),
            epoch=header.epoch,
            code=header.head.hex(),
            time=datetime.fromtimestamp(self._change.now, UTC),
            rows_left=rows,
            traces_left=left,
            damaged=self._change.damaged.total(),
            unlisted=self._unlisted,
        )

    def _rows(self, db: Database) -> int:
        rows = 0
        for who in self._whos:
            for sql, values in (
                ("SELECT count(*) FROM heads WHERE tag = ?", (who.tag,)),
                ("SELECT count(*) FROM keys WHERE tag = ?", (who.tag,)),
                ("SELECT count(*) FROM enrolments WHERE subject = ? OR holder = ?", (who.tag, who.tag)),
                ("SELECT count(*) FROM originals WHERE subject = ?", (who.tag,)),
                ("SELECT count(*) FROM sealed_references WHERE tag = ?", (who.tag,)),
                ("SELECT count(*) FROM renewals WHERE subject = ?", (who.tag,)),
            ):
                rows += (db.row(sql, values) or (0,))[0]
        return rows


def unused_since(core: Core, limit_days: float, scope: str | None) -> Iterator[LastUse]:
    """Subjects whose key was last used longer ago than a limit.

    Raises:
        ClockError: At once: the clock is in doubt, so that everybody would seem long gone.
    """
    core.check_clock()
    core.flush_uses()
    return _used_before(core, _first_day(core, limit_days), scope)


def _first_day(core: Core, limit_days: float) -> int:
    return math.ceil(core.now(core.header()) // DAY - limit_days)


def _used_before(core: Core, first_day: int, scope: str | None) -> Iterator[LastUse]:
    for subject, name, head, _ in _lifecycle.everybody(core, scope):
        if head.purpose == Purpose.SUBJECT and head.used < first_day:
            yield LastUse(subject, name, datetime.fromtimestamp(head.used * DAY, UTC).date())


def check_few_due(core: Core, limit_days: float, scope: str | None) -> None:
    """See that at most half of the subjects fall due by a retention limit.

    Raises:
        ClockError: More do, as after a wrong date or a mistyped limit.
    """
    condition = ""
    day = _first_day(core, limit_days)
    with core.connection() as (db, keys):  # counting a million takes a while
        if scope is not None:
            found = _lifecycle.find_scope(db, keys, checked(scope, "scope"))
            condition = f" AND scope = {0 if found is None else found.id:d}"
        total, due = db.row(
            f"SELECT count(*), total(used < ?) FROM heads WHERE purpose = {Purpose.SUBJECT:d}{condition}",  # noqa: S608
            (day,),
        ) or (0, 0)
    if 2 * due > total:
        raise ClockError(
            f"{due:.0f} of {total} subjects fall due at once, and nobody was forgotten",
            where=str(core.path),
            fix="look at the clock and the limit; if they are right, call forget_unused(accept_most=True)"
            " (on the command line: --accept-most)",
        )


def settle(change: Change) -> None:
    """After a clock that was ahead, bring dates that lie in the future now back to now.

    Otherwise keys that were retired then would serve for as long as the clock was ahead, and people who
    were seen then would be kept as long.
    """
    db, ring, now = change.db, change.keys, change.now
    after: tuple[bytes | int, ...] = (b"",)
    sql = f"{HEADS.select} WHERE used > ? AND tag > ? ORDER BY tag LIMIT {PAGE}"
    while records := db.rows(sql, (now // DAY, *after)):
        heads, _ = HEADS.sift(ring, records)  # a damaged one's dates are not believed anyway
        change.update_all(HEADS, [(head._replace(used=now // DAY), weight) for head, weight in heads])
        after = (records[-1][0],)
    after = (b"", 0)
    sql = f"{KEYS.select} WHERE max(created, ended) > ? AND (tag, version) > (?, ?) ORDER BY tag, version LIMIT {PAGE}"
    while records := db.rows(sql, (now, *after)):
        keys, _ = KEYS.sift(ring, records)
        change.update_all(KEYS, [(_settled(key, now), weight) for key, weight in keys])
        after = records[-1][:2]


def _settled(key: Key, now: int) -> Key:
    ended = min(key.ended, now)
    until = key.until - (key.ended - ended) if key.until else 0  # the grace stays as long as it was
    return key._replace(created=min(key.created, now), ended=ended, until=until)


def expire(core: Core) -> int:
    """Erase the retired keys whose date has passed, batch by batch; returns how many.

    Raises:
        ClockError: The clock is in doubt.
    """
    core.check_clock()
    total, after = 0, (b"", 0)
    while True:
        with core.change() as change:
            page = change.db.rows(
                f"SELECT k.*, h.* FROM keys k JOIN heads h ON h.tag = k.tag WHERE (k.tag, k.version) > (?, ?)"  # noqa: S608
                f" AND k.state = {State.RETIRED:d} AND k.until <= ? ORDER BY k.tag, k.version LIMIT {PAGE}",
                (*after, change.now),
            )
            rows, moves = [], []
            for record in page:
                keys, _ = KEYS.sift(change.keys, [record[: KEYS.width]])
                heads, _ = HEADS.sift(change.keys, [record[KEYS.width :]])
                if keys and heads:  # a damaged one is not believed, and stops nobody else's
                    rows.append(keys[0])
                    moves.append([heads[0][0].alias.hex(), keys[0][0].version, 0])
            if rows:
                _lifecycle.end_all(change, rows, Ending(State.DESTROYED))
                change.note("expire", keys=moves)
        total += len(rows)
        if len(page) < PAGE:
            return total
        after = page[-1][:2]
        core.give_way()


def accept_damage(core: Core, reason: str) -> dict[str, int]:
    """Erase what fails authentication and nothing hangs on, and take the sum over what is left as right."""
    with core.change() as change:
        leaves: tuple[Table[Any], ...] = (ENROLMENTS, ORIGINALS, REFERENCES, REFERENCE_SCOPES, RENEWALS)
        for table in leaves:
            change.erase_damaged(table)
        erased = dict(+change.damaged)
        change.accept_sum(sum(weight for table in TABLES for _, weight in table.every(change.db, change.keys)))
        change.damaged.clear()  # this line tells of them
        change.note(_audit.ACCEPT_DAMAGE, rows=erased, reason=reason)
    return erased


def take_back(change: Change, who: Who) -> bool:
    """Erase a subject who has a first key and nothing else, and the scope if it was made for them."""
    found = _lifecycle.find_head(change.db, change.keys, who)
    if found is None or (found[0].latest, found[0].active) != (1, 1):
        return False
    for sql in (
        "SELECT 1 FROM enrolments WHERE subject = ? OR holder = ? LIMIT 1",
        "SELECT 1 FROM originals WHERE subject IN (?, ?) LIMIT 1",
    ):
        if change.db.row(sql, (who.tag, who.tag)) is not None:
            return False
    head = found[0]
    change.erase(HEADS, "tag = ?", (who.tag,))
    change.erase(KEYS, "tag = ?", (who.tag,))
    change.erase(REFERENCES, "tag = ?", (who.tag,))
    for sql in ("SELECT 1 FROM heads WHERE scope = ? LIMIT 1", "SELECT 1 FROM reference_scopes WHERE scope = ?"):
        if change.db.row(sql, (head.scope,)) is not None:
            break
    else:
        change.erase(SCOPES, "id = ?", (head.scope,))
    change.touched.add(who.tag)
    change.note("take-back", keys=[[head.alias.hex(), 1, 0]])
    return True
