"""The ledger of renewals: how far each subject's new enrolment is, beside the records that it is about."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from anonymix_keystore._audit import canonical
from anonymix_keystore._core import Change, Core
from anonymix_keystore._crypto import KeyRing, encode, seal, unseal
from anonymix_keystore._damage import NAMELESS, LeftOut, words
from anonymix_keystore._database import Database
from anonymix_keystore._enrolments import RECORDS, tag_named
from anonymix_keystore._errors import DamagedError, WrongKeyError
from anonymix_keystore._lifecycle import subject_in
from anonymix_keystore._rows import PAGE, RENEWALS, Renewal


class RenewalState(StrEnum):
    """How far a renewal is.

    BEGUN: the back end may hold a new entry that nothing is written down about. DONE: the new entry was verified
    and the old ones are deleted. FAILED: the old entries stay, and the work list names them again.
    """

    BEGUN = "begun"
    DONE = "done"
    FAILED = "failed"


_NUMBERS = {RenewalState.BEGUN: 1, RenewalState.DONE: 2, RenewalState.FAILED: 3}
_STATES = {number: state for state, number in _NUMBERS.items()}


@dataclass(frozen=True, slots=True)
class RenewalInfo:
    """How far a subject's new enrolment in one collection of a back end is.

    Attributes:
        subject: The subject's id.
        scope: The scope of the key.
        adapter: Name of the adapter.
        collection: The back end's collection.
        version: Version of the key that the new entry is made with.
        fingerprint: Mixer fingerprint that it is made with.
        state: How far it is.
        entry: The new entry's id in the back end, once it is known.
        error: Code of what went wrong, or "".
        what: What went wrong, in words.
        fix: What to do.
        changed: When this was written down (UTC); None until it is.
        name: Stable name of what was written down, 64 hex digits; "" until it is.
    """

    subject: str
    scope: str
    adapter: str
    collection: str
    version: int
    fingerprint: str
    state: RenewalState
    entry: str = ""
    error: str = ""
    what: str = ""
    fix: str = ""
    changed: datetime | None = field(default=None, compare=False)
    name: str = field(default="", compare=False)


_DAMAGED = "what was noted of the renewal of {} fails authentication"
_SEALED = ("subject", "scope", "adapter", "collection", "entry", "error", "what", "fix")


def _place(keys: KeyRing, adapter: str, collection: str) -> bytes:
    return keys.tag("collection", adapter, collection)


def _context(keys: KeyRing, subject: bytes, place: bytes) -> bytes:
    return encode(("renewal", keys.store_id, subject, place))


def write(change: Change, renewals: Iterable[RenewalInfo]) -> None:
    """Write down how far renewals are, each over what was known of the same subject and collection.

    Of somebody without an enrolment record, who was forgotten meanwhile, nothing is written.
    """
    keys, counts, rows = change.keys, dict.fromkeys(RenewalState, 0), {}
    for item in renewals:
        who = subject_in(keys, item.subject, item.scope)
        if change.db.row("SELECT 1 FROM enrolments WHERE subject = ?", (who.tag,)) is None:
            continue
        place = _place(keys, item.adapter, item.collection)
        told = asdict(item)
        detail = canonical({name: told[name] for name in _SEALED}).encode()
        rows[who.tag, place] = Renewal(
            who.tag,
            place,
            item.version,
            item.fingerprint,
            _NUMBERS[item.state],
            change.now,
            seal(keys.name, detail, _context(keys, who.tag, place)),
        )
        counts[item.state] += 1
    new, known = [], []
    for primary, row in rows.items():
        found = change.db.row(f"{RENEWALS.select} WHERE subject = ? AND place = ?", primary)
        if found is None:
            new.append(row)
        else:
            known.append((row, RENEWALS.check(keys, found, change.db.where)[1]))
    change.insert_all(RENEWALS, new)
    change.update_all(RENEWALS, known)
    if rows:
        change.note("renew", **{state.value: count for state, count in counts.items() if count})


def find(core: Core, subject: str, scope: str, adapter: str, collection: str) -> RenewalInfo | None:
    """How far the renewal of one subject is."""
    with core.reading() as (db, keys):
        who, place = subject_in(keys, subject, scope), _place(keys, adapter, collection)
        raw = db.row(f"{RENEWALS.select} WHERE subject = ? AND place = ?", (who.tag, place))
        try:
            return None if raw is None else _info(keys, raw, db.where)
        except DamagedError:
            raise DamagedError(_DAMAGED.format(words(subject, scope)), where=db.where, fix=RECORDS) from None


def walk(
    core: Core,
    adapter: str,
    collection: str,
    state: RenewalState | None,
    beyond: str,
    damaged: Callable[[DamagedError], object] | None = None,
) -> Iterator[RenewalInfo]:
    """All renewals in a collection, or those in one state, page by page, from one of them on.

    Raises:
        DamagedError: At the end: some fail authentication and were passed over, and nobody wanted to be told at once.
    """
    first = tag_named(beyond, "beyond")
    states = tuple(_NUMBERS.values()) if state is None else (_NUMBERS[state],)
    marks = ", ".join("?" * len(states))
    sql = f"{RENEWALS.select} WHERE place = ? AND state IN ({marks}) AND subject > ? ORDER BY subject LIMIT {PAGE}"

    def page(
        db: Database, keys: KeyRing, after: tuple[bytes, RenewalInfo | None]
    ) -> list[tuple[bytes, RenewalInfo | None]]:
        found = db.rows(sql, (_place(keys, adapter, collection), *states, after[0]))
        return [(raw[0], looked_at(keys, raw, db.where)) for raw in found]

    def looked_at(keys: KeyRing, raw: Sequence[Any], where: str) -> RenewalInfo | None:
        try:
            return _info(keys, raw, where)
        except DamagedError as error:
            if damaged is None:
                left.add(_whose(keys, raw))
            else:
                damaged(error)
            return None

    left = LeftOut()
    for _, item in core.pages(page, (first, None)):
        if item is not None:
            yield item
    left.tell(_DAMAGED, str(core.path), RECORDS)


def _whose(keys: KeyRing, raw: Sequence[Any]) -> str:
    """Words for whose renewal a row that is damaged is about: only what is sealed is believed."""
    row = Renewal._make(raw[: len(Renewal._fields)])
    try:
        detail = _detail(keys, row, "")
    except DamagedError:
        return NAMELESS
    return words(detail["subject"], detail["scope"])


def _detail(keys: KeyRing, row: Renewal, where: str) -> dict[str, str]:
    try:
        content: dict[str, str] = json.loads(unseal(keys.name, row.detail, _context(keys, row.subject, row.place)))
    except (TypeError, WrongKeyError):  # a damaged record can hold another type
        raise DamagedError("a renewal fails authentication", where=where) from None
    return content


def _info(keys: KeyRing, raw: Sequence[Any], where: str) -> RenewalInfo:
    row, _ = RENEWALS.check(keys, raw, where)
    return RenewalInfo(
        version=row.version,
        fingerprint=row.fingerprint,
        state=_STATES[row.state],
        changed=datetime.fromtimestamp(row.changed, UTC),
        name=row.subject.hex(),
        **_detail(keys, row, where),
    )
