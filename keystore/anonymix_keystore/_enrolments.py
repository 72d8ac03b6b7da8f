"""Enrolment records: which entry of which back end was made from which key, and what is due."""

from __future__ import annotations

import json
from collections.abc import Callable, Container, Iterator
from datetime import UTC, datetime
from typing import Any

from anonymix_keystore._audit import canonical
from anonymix_keystore._core import Change, Core
from anonymix_keystore._crypto import KeyRing, encode, seal, unseal
from anonymix_keystore._damage import NAMELESS, LeftOut, words
from anonymix_keystore._database import Database
from anonymix_keystore._errors import (
    RESTORE,
    DamagedError,
    InvalidRequestError,
    WrongKeyError,
)
from anonymix_keystore._lifecycle import Who, find_scope, need_head, not_active, unknown_key
from anonymix_keystore._names import checked
from anonymix_keystore._rows import ENROLMENTS, HEADS, KEYS, PAGE, Enrolment, Head, Key, Purpose, State
from anonymix_keystore._values import EnrolmentInfo

RECORDS = (
    "restore a backup with the store's anchor; or give the damaged records up (anonymix keys accept-damage,"
    " store.accept_damage) and look through the back ends"
)
_ANEW = f"forget them, delete the entries that the receipt names, and enrol them anew; or {RECORDS}"
_WIDTH = ENROLMENTS.width
_HEAD_END = _WIDTH + HEADS.width
_JOINED = (
    "SELECT e.*, h.*, k.* FROM enrolments e LEFT JOIN heads h ON h.tag = e.holder"
    " LEFT JOIN keys k ON k.tag = e.holder AND k.version = e.version WHERE e.entry"
)


def _context(keys: KeyRing, entry: bytes) -> bytes:
    return encode(("enrolment", keys.store_id, entry))


def entry_tag(keys: KeyRing, adapter: str, collection: str, external_id: str) -> bytes:
    """The tag of a back end's entry."""
    return keys.tag("entry", adapter, collection, external_id)


def record(
    change: Change,
    who: Who,
    holder: Who,
    *,
    adapter: str,
    collection: str,
    external_id: str,
    version: int,
    fingerprint: str,
) -> str:
    """Write down an entry; older entries of the subject there are thereby replaced."""
    keys = change.keys
    head, _ = need_head(change.db, keys, holder)
    if version != head.active:
        raise not_active(change, holder, head, version)
    entry = entry_tag(keys, adapter, collection, external_id)
    detail = canonical(
        {
            "adapter": adapter,
            "collection": collection,
            "id": external_id,
            "scope": who.scope,
            "subject": who.subject,
        }
    )
    row = Enrolment(
        entry,
        who.tag,
        holder.tag,
        version,
        fingerprint,
        seal(keys.name, detail.encode(), _context(keys, entry)),
        change.now,
        0,
        0,
    )
    found = change.db.row(f"{ENROLMENTS.select} WHERE entry = ?", (entry,))
    if found is None:
        change.insert(ENROLMENTS, row)
    else:
        change.update_all(ENROLMENTS, [(row, ENROLMENTS.check(keys, found, change.db.where)[1])])
    _replace_older(change, row, adapter, collection)
    change.note("enrol", entry=entry.hex(), fingerprint=fingerprint, keys=[[head.alias.hex(), version, version]])
    return entry.hex()


def _replace_older(change: Change, new: Enrolment, adapter: str, collection: str) -> None:
    updated, gone = [], []
    for raw in change.db.rows(f"{ENROLMENTS.select} WHERE subject = ? AND entry != ?", (new.subject, new.entry)):
        row, weight = ENROLMENTS.check(change.keys, raw, change.db.where)
        outdated = (row.holder, row.version, row.fingerprint) != (new.holder, new.version, new.fingerprint)
        place = _detail(change.keys, row, change.db.where)
        if outdated and (place["adapter"], place["collection"]) == (adapter, collection):
            if row.removed:
                gone.append((row, weight))
            elif not row.replaced:
                updated.append((row._replace(replaced=change.now), weight))
    change.update_all(ENROLMENTS, updated)
    change.delete_all(ENROLMENTS, gone)


def _detail(keys: KeyRing, row: Enrolment, where: str) -> dict[str, str]:
    try:
        content: dict[str, str] = json.loads(unseal(keys.name, row.detail, _context(keys, row.entry)))
    except WrongKeyError:
        raise DamagedError("an enrolment fails authentication", where=where) from None
    return content


def mark_removed(change: Change, entry: str, name: str = "entry") -> bool:
    """The entry was deleted from the back end; returns whether there was a record of it."""
    tag = tag_named(entry, name)
    found = change.db.row(f"{ENROLMENTS.select} WHERE entry = ?", (tag,))
    if found is None:
        return False
    row, weight = ENROLMENTS.check(change.keys, found, change.db.where)
    # By a head that is damaged or gone nobody can be enrolled, whatever it says.
    heads, _ = HEADS.sift(change.keys, change.db.rows(f"{HEADS.select} WHERE tag = ?", (row.holder,)))
    active = heads[0][0].active if heads else 0
    # A record stays while the subject still has to be enrolled again under another key.
    if row.replaced or active in {0, row.version}:
        change.delete_all(ENROLMENTS, [(row, weight)])
    elif not row.removed:
        change.update_all(ENROLMENTS, [(row._replace(removed=change.now), weight)])
    change.note("unenrol", entry=row.entry.hex())
    return True


def tag_named(entry: str, name: str = "entry") -> bytes:
    """The tag of a row's name.

    Raises:
        InvalidRequestError: It is none.
    """
    try:
        return bytes.fromhex(entry)
    except ValueError:
        raise InvalidRequestError(f"{name} must be 64 hex digits", where=name) from None


def walk(
    core: Core,
    *,
    scope: str | None,
    fingerprints: Container[str] | None,
    due: bool,
    of: Who | None = None,
    beyond: str = "",
    damaged: Callable[[DamagedError], object] | None = None,
) -> Iterator[EnrolmentInfo]:
    """All records, those of a subject or of a gallery key, or those that are due; from one of them on.

    They come page by page; each page is read afresh.

    Raises:
        DamagedError: At the end: some records, or the keys that they were made with, fail authentication and were
            passed over, and nobody wanted to be told at once.
    """
    first = tag_named(beyond, "beyond")
    with core.lock:
        wanted = None if scope is None else find_scope(core.db, core.keys, checked(scope, "scope"))
    if scope is not None and wanted is None:
        return
    # Where the head is gone, the record itself tells the scope.
    condition = "" if wanted is None else f" AND (h.scope = {wanted.id:d} OR h.scope IS NULL)"
    values: tuple[bytes, ...] = ()
    if of is not None:  # both columns have an index
        column = "holder" if of.purpose is Purpose.GALLERY else "subject"
        condition, values = f" AND e.{column} = ?", (of.tag,)

    def page(
        db: Database, keys: KeyRing, after: tuple[bytes, EnrolmentInfo | None]
    ) -> list[tuple[bytes, EnrolmentInfo | None]]:
        records = db.rows(f"{_JOINED} > ?{condition} ORDER BY e.entry LIMIT ?", (after[0], *values, PAGE))
        return [(raw[0], looked_at(keys, raw, db.where)) for raw in records]

    def looked_at(keys: KeyRing, raw: tuple[Any, ...], where: str) -> EnrolmentInfo | None:
        try:
            return _info(keys, raw, fingerprints, where)
        except DamagedError as error:
            whose = _whose(keys, raw)
            if raw[_WIDTH] is None and whose is not None and scope not in {None, whose[1]}:
                return None
            if damaged is None:
                left.add(NAMELESS if whose is None else words(*whose))
            else:
                damaged(error)
            return None

    left = LeftOut()
    for _, item in core.pages(page, (first, None)):
        if item is None:
            continue
        if item.delete or item.enrol or not due:
            yield item
    left.tell("records of {}, or the keys that they were made with, fail authentication", str(core.path), _ANEW)


def _whose(keys: KeyRing, raw: tuple[Any, ...]) -> tuple[str, str] | None:
    """Subject and scope of a record that may be damaged: only what is sealed is believed."""
    try:
        detail = _detail(keys, Enrolment._make(raw[: _WIDTH - 1]), "")
    except DamagedError:
        return None
    return detail["subject"], detail["scope"]


def find(core: Core, adapter: str, collection: str, external_id: str) -> EnrolmentInfo | None:
    """The record of one entry, found by its primary key."""
    return _at(core, entry_tag(core.keys, adapter, collection, external_id))


def named(core: Core, entry: str) -> EnrolmentInfo | None:
    """The record of one name."""
    return _at(core, tag_named(entry))


def _at(core: Core, tag: bytes) -> EnrolmentInfo | None:
    with core.reading() as (db, keys):
        raw = db.row(f"{_JOINED} = ?", (tag,))
        return None if raw is None else _info(keys, raw, None, db.where)


def _info(keys: KeyRing, raw: tuple[Any, ...], fingerprints: Container[str] | None, where: str) -> EnrolmentInfo:
    row, _ = ENROLMENTS.check(keys, raw[:_WIDTH], where)
    head, key = _holder(keys, raw, where)
    return info(keys, row, head, key, fingerprints=fingerprints, where=where)


def last_info(keys: KeyRing, db: Database, record: tuple[Any, ...], holder: Who) -> EnrolmentInfo | None:
    """A record of which this is the last that is heard, though it or its key may be damaged.

    Of a damaged one only what is sealed is believed: whose entry it is, and where.

    Returns:
        The entry that is still in a back end; None where it was deleted there.

    Raises:
        KeystoreError: It can't be told which entry it is.
    """
    rows, _ = ENROLMENTS.sift(keys, [record])
    row = rows[0][0] if rows else Enrolment(record[0], holder.tag, holder.tag, 0, "", record[5], 0, 0, 0)
    if row.removed:
        return None
    heads, _ = HEADS.sift(keys, db.rows(f"{HEADS.select} WHERE tag = ?", (row.holder,)))
    found, _ = KEYS.sift(keys, db.rows(f"{KEYS.select} WHERE tag = ? AND version = ?", (row.holder, row.version)))
    key = found[0][0] if found else unknown_key(row.holder, row.version)
    head = heads[0][0] if heads else Head(row.holder, 0, b"", 0, b"", row.version, row.version, 0, 0)
    item = info(keys, row, head, key, fingerprints=None, where=db.where)
    if (item.subject, item.scope) != (holder.subject, holder.scope):
        raise DamagedError("an enrolment is another subject's", where=db.where)
    return item


def _holder(keys: KeyRing, raw: tuple[Any, ...], where: str) -> tuple[Head, Key]:
    if raw[_WIDTH] is None or raw[_HEAD_END] is None:
        raise DamagedError("an enrolment's key is missing", where=where, fix=RESTORE)
    head, _ = HEADS.check(keys, raw[_WIDTH:_HEAD_END], where)
    key, _ = KEYS.check(keys, raw[_HEAD_END:], where)
    return head, key


def info(
    keys: KeyRing, row: Enrolment, head: Head, key: Key, *, fingerprints: Container[str] | None, where: str
) -> EnrolmentInfo:
    """What may be shown of a record, and what is due."""
    detail = _detail(keys, row, where)
    why = ""
    if head.active != row.version:
        why = State(key.state).public.value
    elif fingerprints is not None and row.fingerprint not in fingerprints:
        why = "mixer"
    return EnrolmentInfo(
        entry=row.entry.hex(),
        subject=detail["subject"],
        scope=detail["scope"],
        adapter=detail["adapter"],
        collection=detail["collection"],
        external_id=detail["id"],
        version=row.version,
        fingerprint=row.fingerprint,
        gallery=row.holder != row.subject,
        created=datetime.fromtimestamp(row.created, UTC),
        current_version=head.active,
        delete=bool(why) and not row.removed,
        enrol=bool(why) and not row.replaced and bool(head.active),
        why=why,
    )
