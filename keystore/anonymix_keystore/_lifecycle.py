"""The life of a key: issue, look up, rotate, retire, revoke."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

from anonymix_keystore._clock import DAY
from anonymix_keystore._core import Change, Core
from anonymix_keystore._crypto import (
    KEY_BYTES,
    Columns,
    KeyRing,
    encode,
    encode_all,
    random_values,
    seal,
    seal_all,
    unseal,
)
from anonymix_keystore._damage import NAMELESS, LeftOut, words
from anonymix_keystore._database import Database
from anonymix_keystore._errors import (
    RESTORE,
    DamagedError,
    KeyExistsError,
    KeyRetiredError,
    KeyRevokedError,
    KeystoreError,
    UnknownSubjectError,
    UnknownVersionError,
    WrongKeyError,
)
from anonymix_keystore._names import check_visible, checked
from anonymix_keystore._rows import HEADS, KEYS, REFERENCES, SCOPES, Head, Key, Purpose, Scope, State
from anonymix_keystore._values import KeyInfo, SubjectKey

ALIAS_BYTES = 16
PAGE = 500
ANEW = f"revoke or forget them, and enrol them anew; or {RESTORE}"
_ENROL = "enrol the person (enrol=True, --enrol), or issue a key: anonymix keys issue SUBJECT"
_UNKNOWN = b""  # in place of the material of a key whose row fails authentication
_HEAD_WIDTH = HEADS.width
_HEAD_ACTIVE = Head._fields.index("active")
_CURRENT = "SELECT h.*, k.* FROM heads h LEFT JOIN keys k ON k.tag = h.tag AND k.version = h.active WHERE h.tag = ?"
_LATEST = "SELECT h.*, k.* FROM heads h LEFT JOIN keys k ON k.tag = h.tag AND k.version = h.latest"


class Who(NamedTuple):
    """Whose key is meant: a subject in a scope, or the gallery of a scope."""

    subject: str
    scope: str
    purpose: Purpose
    tag: bytes

    @property
    def where(self) -> str:
        """Words for messages."""
        return words("" if self.purpose is Purpose.GALLERY else self.subject, self.scope)


def subject_in(keys: KeyRing, subject: str, scope: str) -> Who:
    """A subject in a scope, names checked."""
    subject, scope = checked(subject, "subject"), checked(scope, "scope")
    return Who(subject, scope, Purpose.SUBJECT, keys.tag("subject", scope, subject))


def gallery_of(keys: KeyRing, scope: str) -> Who:
    """The gallery of a scope, name checked."""
    scope = checked(scope, "scope")
    return Who("", scope, Purpose.GALLERY, keys.tag("gallery", scope))


def key_context(keys: KeyRing, tag: bytes, scope: int, version: int, purpose: int) -> bytes:
    """What a wrapped key is bound to."""
    return encode(("key", keys.store_id, tag, scope, version, purpose))


def name_context(keys: KeyRing, tag: bytes) -> bytes:
    """What a sealed name is bound to."""
    return encode(("name", keys.store_id, tag))


def moment(seconds: int) -> datetime | None:
    """A stored time as a value; 0 stands for none."""
    return datetime.fromtimestamp(seconds, UTC) if seconds else None


# --- scopes ---------------------------------------------------------------------------------------


def find_scope(db: Database, keys: KeyRing, name: str) -> Scope | None:
    """The row of a scope, or ``None``."""
    record = db.row(f"{SCOPES.select} WHERE tag = ?", (keys.tag("scope", name),))
    return None if record is None else SCOPES.check(keys, record, db.where)[0]


def need_scope(change: Change, name: str) -> Scope:
    """The row of a scope, made now if it is new."""
    found = find_scope(change.db, change.keys, name)
    if found is not None:
        return found
    check_visible(name, "scope")
    top = change.db.row("SELECT coalesce(max(id), 0) FROM scopes") or (0,)
    tag = change.keys.tag("scope", name)
    made = Scope(int(top[0]) + 1, tag, seal(change.keys.name, name.encode(), name_context(change.keys, tag)))
    change.insert(SCOPES, made)
    return made


def scope_names(rows: Iterable[tuple[Scope, int]], keys: KeyRing, where: str) -> dict[int, str]:
    """Names of scopes by id, from their rows."""
    return {row.id: open_name(keys, row.tag, row.name, where) for row, _ in rows}


def all_scopes(core: Core) -> dict[int, str]:
    """All scopes: id to name."""
    return scope_names(core.pages(SCOPES.page, None), core.keys, str(core.path))


def _scopes_to_list(core: Core) -> tuple[dict[int, str], list[str]]:
    """Scopes whose rows are sound, id to name; and of the others the names that are sealed for their tags, or ""."""
    with core.lock:
        rows, damaged = SCOPES.sift(core.keys, core.db.rows(f"{SCOPES.select} ORDER BY id"))
        names = scope_names(rows, core.keys, core.db.where)
    doubtful = []
    for record in damaged:
        try:
            doubtful.append(open_name(core.keys, record[1], record[2], ""))
        except DamagedError:
            doubtful.append("")
    return names, doubtful


def open_name(keys: KeyRing, tag: bytes, sealed: bytes, where: str) -> str:
    """Open a sealed name."""
    try:
        return unseal(keys.name, sealed, name_context(keys, tag)).decode()
    except (TypeError, WrongKeyError):  # a damaged record can hold another type
        raise DamagedError("a sealed name fails authentication", where=where) from None


# --- reading --------------------------------------------------------------------------------------


def find_head(db: Database, keys: KeyRing, who: Who) -> tuple[Head, int] | None:
    """The subject's head row and weight, or ``None`` where no key was ever issued.

    Raises:
        DamagedError: The head is missing though keys are there: two b-trees have to agree that a
            subject is unknown, so that a damaged page never makes a known one look new.
    """
    record = db.row(f"{HEADS.select} WHERE tag = ?", (who.tag,))
    if record is None:
        _absent(db, who)
        return None
    return _checked(db, keys, who, record)


def _checked(db: Database, keys: KeyRing, who: Who, record: Sequence[Any]) -> tuple[Head, int]:
    """A head that was looked up, and its weight; an error says whose it is."""
    try:
        return HEADS.check(keys, record, db.where)
    except DamagedError:
        raise DamagedError(f"the row of {who.where} fails authentication", where=db.where, fix=ANEW) from None


def find_heads(db: Database, keys: KeyRing, whos: Sequence[Who]) -> dict[bytes, tuple[Head, int]]:
    """What ``find_head`` finds for many subjects, by tag; unknown ones are left out."""
    records = db.among(f"{HEADS.select} WHERE tag IN", [who.tag for who in whos])
    rows, damaged = HEADS.sift(keys, records)
    if damaged:
        known = {who.tag: who for who in whos}
        left = LeftOut()
        for record in damaged:
            left.add(known[record[0]].where)
        left.tell("rows of {} fail authentication", db.where, ANEW)
    found = {head.tag: (head, weight) for head, weight in rows}
    absent = {who.tag: who for who in whos if who.tag not in found}
    for (tag,) in db.among("SELECT tag FROM keys WHERE tag IN", list(absent)):
        _absent(db, absent[tag])
    return found


def _absent(db: Database, who: Who) -> None:
    if db.row("SELECT 1 FROM keys WHERE tag = ? LIMIT 1", (who.tag,)) is not None:
        raise DamagedError(f"{who.where} has keys but no head", where=db.where, fix=RESTORE)


def need_head(db: Database, keys: KeyRing, who: Who) -> tuple[Head, int]:
    """The subject's head row and weight.

    Raises:
        UnknownSubjectError: No key was ever issued.
    """
    found = find_head(db, keys, who)
    if found is None:
        raise _unknown(who)
    return found


def _unknown(who: Who) -> UnknownSubjectError:
    check_visible(who.subject, "subject")  # issuing one would be refused
    check_visible(who.scope, "scope")
    return UnknownSubjectError("no key was ever issued", where=who.where, fix=_ENROL)


def find_keys(db: Database, keys: KeyRing, head: Head) -> list[tuple[Key, int]]:
    """All versions of a subject's key, ascending, with weights.

    Raises:
        DamagedError: The versions are not 1 to the latest without a gap.
    """
    records = db.rows(f"{KEYS.select} WHERE tag = ? ORDER BY version", (head.tag,))
    found = [KEYS.check(keys, record, db.where) for record in records]
    if [row.version for row, _ in found] != list(range(1, head.latest + 1)):
        raise DamagedError("versions of a key are missing", where=db.where, fix=RESTORE)
    return found


def keys_to_end(change: Change, tags: Sequence[bytes]) -> list[tuple[Key, int]]:
    """All versions of subjects' keys that are there, ascending, with weights: for getting rid of them.

    A damaged one stands as a living one of which nothing is known but its number, with the weight 0: it is
    replaced, and what it had added to the sum over all rows stays in it.
    """
    found, damaged = KEYS.sift(change.keys, change.db.among(f"{KEYS.select} WHERE tag IN", tags))
    return sorted(found + [(unknown_key(record[0], record[1]), 0) for record in damaged])


def unknown_key(tag: bytes, version: int) -> Key:
    """What stands for a key whose row fails authentication while it is got rid of."""
    return Key(tag, version, State.ACTIVE, 0, 0, 0, 0, 0, _UNKNOWN)


def unwrap(db: Database, keys: KeyRing, who: Who, head: Head, key: Key) -> SubjectKey:
    """Open a living key."""
    if key.wrapped is None:
        raise DamagedError("a living key has no material", where=db.where, fix=RESTORE)
    context = key_context(keys, head.tag, head.scope, key.version, head.purpose)
    try:
        material = unseal(keys.wrap(key.wrap), key.wrapped, context)
    except WrongKeyError:
        raise DamagedError("a wrapped key fails authentication", where=db.where) from None
    return SubjectKey(who.subject, who.scope, key.version, State(key.state).public, material)


def current(core: Core, who: Who) -> SubjectKey:
    """The active key, from the cache if it is there."""
    with core.lock:
        cached = core.cache.get(who.tag)
        if cached is not None:
            return cached
        db, keys = core.db, core.keys
        record = db.row(_CURRENT, (who.tag,))
        if record is None or not record[_HEAD_ACTIVE]:
            # The rare ways read more than once, and those reads have to fit together.
            with core.reading():
                record = db.row(_CURRENT, (who.tag,))
                if record is None:
                    _absent(db, who)
                    raise _unknown(who)
                head, _ = _checked(db, keys, who, record[:_HEAD_WIDTH])
                if not head.active:
                    raise _no_active(db, keys, who, head)
        head, _ = _checked(db, keys, who, record[:_HEAD_WIDTH])
        row, _ = KEYS.check(keys, record[_HEAD_WIDTH:], db.where)
        found = unwrap(db, keys, who, head, row)
        core.cache.put(who.tag, found)
    core.used(head)  # after the lock: it may write
    return found


def _no_active(db: Database, keys: KeyRing, who: Who, head: Head) -> KeyRevokedError:
    latest, _ = find_keys(db, keys, head)[-1]
    if latest.state == State.RETIRED:
        return KeyRetiredError("the key is retired", where=who.where, fix="issue a new one, or use at() for probes")
    word = State(latest.state).public.value
    return KeyRevokedError(f"the key is {word}", where=who.where, fix="issue a new one")


def at(core: Core, who: Who, version: int) -> SubjectKey:
    """A version of the key that may be used for probes."""
    with core.reading() as (db, keys):
        head, _ = need_head(db, keys, who)
        record = db.row(f"{KEYS.select} WHERE tag = ? AND version = ?", (head.tag, version))
        if record is None:
            if 1 <= version <= head.latest:
                raise DamagedError("a version of a key is missing", where=db.where, fix=RESTORE)
            raise UnknownVersionError(f"there is no version {version}", where=who.where)
        row, _ = KEYS.check(keys, record, db.where)
        if row.state == State.RETIRED:
            if core.now(core.header()) >= row.until:
                raise KeyRetiredError(f"version {version} was retired and its date has passed", where=who.where)
        elif row.state != State.ACTIVE:
            raise KeyRevokedError(f"version {version} is {State(row.state).public.value}", where=who.where)
        found = unwrap(db, keys, who, head, row)
    core.used(head)  # after the snapshot: it may write
    return found


def info(who_subject: str, scope: str, head: Head, key: Key) -> KeyInfo:
    """What may be shown of a key."""
    created = moment(key.created) or datetime.fromtimestamp(0, UTC)
    return KeyInfo(
        subject=who_subject,
        scope=scope,
        version=key.version,
        state=State(key.state).public,
        created=created,
        until=moment(key.until),
        ended=moment(key.ended),
        alias=head.alias.hex(),
        wrap_version=key.wrap,
    )


def history(core: Core, who: Who) -> list[KeyInfo]:
    """All versions of a subject's key, ascending."""
    with core.reading() as (db, keys):
        head, _ = need_head(db, keys, who)
        return [info(who.subject, who.scope, head, key) for key, _ in find_keys(db, keys, head)]


def everybody(core: Core, scope: str | None) -> Iterator[tuple[str, str, Head, Key]]:
    """All subjects and galleries: subject, scope, head, latest key, page by page by tag.

    Raises:
        DamagedError: At the end: some rows fail authentication, and were passed over.
    """
    names, doubtful = _scopes_to_list(core)
    missing: set[int] = set()
    with core.lock:
        wanted = None if scope is None else find_scope(core.db, core.keys, checked(scope, "scope"))
    if scope is not None and wanted is None:
        return
    condition = "" if wanted is None else f" AND h.scope = {wanted.id:d}"

    def page(db: Database, _: KeyRing, after: Sequence[Any] | None) -> list[tuple[Any, ...]]:
        tag = b"" if after is None else after[0]
        return db.rows(f"{_LATEST} WHERE h.tag > ?{condition} ORDER BY h.tag LIMIT ?", (tag, PAGE))

    left = LeftOut()
    if scope is None and doubtful:
        left.add("a scope")
    for record in core.pages(page, None):
        try:
            head, _ = HEADS.check(core.keys, record[:_HEAD_WIDTH], str(core.path))
            key, _ = KEYS.check(core.keys, record[_HEAD_WIDTH:], str(core.path))
        except DamagedError:  # one subject's damage hides nobody else
            left.add(whose_head(core.keys, record, [*names.values(), *doubtful] if scope is None else [scope]))
            continue
        if head.scope not in names and head.scope not in missing:
            names, doubtful = _scopes_to_list(core)  # a new one, committed together with the head
        if head.scope not in names:
            missing.add(head.scope)
            whose = whose_head(core.keys, record, doubtful)
            left.add(f"{NAMELESS}, in a scope that is missing" if whose == NAMELESS else whose)
            continue
        gallery = head.purpose == Purpose.GALLERY
        subject = "" if gallery else open_name(core.keys, head.tag, head.name, str(core.path))
        yield subject, names[head.scope], head, key
    left.tell("rows of {} fail authentication", str(core.path), ANEW)


def whose_head(keys: KeyRing, record: Sequence[Any], scopes: Iterable[str]) -> str:
    """Words for whom a damaged head is of: the name in it is sealed for its tag, which tells the scope as well."""
    tag, sealed = record[0], record[Head._fields.index("name")]
    try:
        name = open_name(keys, tag, sealed, "")
    except DamagedError:
        name = ""
    for scope in scopes:
        if tag == keys.tag("gallery", scope):
            return words("", scope)
        if name and tag == keys.tag("subject", scope, name):
            return words(name, scope)
    return NAMELESS


# --- changes --------------------------------------------------------------------------------------


def insert_keys(
    change: Change, tags: Sequence[bytes], scopes: Sequence[int], purposes: Sequence[int], versions: Sequence[int]
) -> list[bytes]:
    """Add the rows of new keys, each the active one of its subject; returns the materials."""
    count, wrap = len(tags), change.wrap
    materials = random_values(count, KEY_BYTES)
    begin = encode(("key", change.keys.store_id))  # the encoding of a list is that of its parts, put together
    contexts = [begin + place for place in encode_all((tags, scopes, versions, purposes))]
    sealed = seal_all(change.keys.wrap(wrap), materials, contexts)
    facts = (State.ACTIVE.value, change.now, change.epoch, 0, 0, wrap)
    change.insert_columns(KEYS, (tags, versions, *([fact] * count for fact in facts), sealed))
    return materials


def issue_all(
    change: Change, whos: Sequence[Who], reason: str, known: Mapping[bytes, tuple[Head, int]] | None = None
) -> list[SubjectKey]:
    """Issue a key to each; those who had keys before get the next version.

    Args:
        change: The step.
        whos: The subjects, each once.
        reason: For the audit trail.
        known: What ``find_heads`` found for them, if that was asked before.
    """
    if known is None:
        known = find_heads(change.db, change.keys, whos)
    scopes = {scope: need_scope(change, scope).id for scope in dict.fromkeys(who.scope for who in whos)}
    new = [who for who in whos if who.tag not in known]
    for who in new:
        check_visible(who.subject, "subject")
    contexts = [name_context(change.keys, who.tag) for who in new]
    names = seal_all(change.keys.name, [who.subject.encode() for who in new], contexts)
    aliases = random_values(len(new), ALIAS_BYTES)
    new_heads = {
        who.tag: Head(who.tag, scopes[who.scope], alias, who.purpose.value, name, 1, 1, change.now, change.now // DAY)
        for who, alias, name in zip(new, aliases, names, strict=True)
    }
    old_heads: dict[bytes, tuple[Head, int]] = {}
    for who in whos:
        if who.tag in known:
            old, weight = known[who.tag]
            if old.active:
                raise KeyExistsError("there is already an active key", where=who.where, fix="rotate it instead")
            old_heads[who.tag] = old._replace(latest=old.latest + 1, active=old.latest + 1), weight
    change.insert_all(HEADS, new_heads.values())
    change.update_all(HEADS, old_heads.values())
    heads = [new_heads[who.tag] if who.tag in new_heads else old_heads[who.tag][0] for who in whos]
    tags, places, _, purposes, _, versions, *_ = zip(*heads, strict=True)
    materials = insert_keys(change, tags, places, purposes, versions)
    change.touched.update(who.tag for who in whos)
    change.note("issue", keys=[[head.alias.hex(), head.latest - 1, head.latest] for head in heads], reason=reason)
    return [
        SubjectKey(who.subject, who.scope, head.latest, State.ACTIVE.public, material)
        for who, head, material in zip(whos, heads, materials, strict=True)
    ]


@dataclass(frozen=True, slots=True)
class Ending:
    """What becomes of keys that are replaced or withdrawn.

    Attributes:
        state: The state they go to.
        until: For ``RETIRED``, the Unix time until which probes may use them.
    """

    state: State
    until: int = 0


def end_all(change: Change, keys: Sequence[tuple[Key, int]], ending: Ending) -> None:
    """End keys, which come with their weights."""
    columns = tuple(zip(*(key for key, _ in keys), strict=True))
    if columns:
        end_columns(change, columns, [weight for _, weight in keys], ending)


def end_columns(change: Change, keys: Columns, weights: Sequence[int], ending: Ending) -> None:
    """End keys, given column by column; unless they are only retired, material and references are erased."""
    tags, versions, _, created, epochs, _, _, wraps, sealed = keys
    count = len(tags)
    until = 0
    if ending.state is State.RETIRED:
        until = ending.until
    else:
        change.erased = True
        change.damaged[KEYS.name] += sum(one == _UNKNOWN for one in sealed)
        erase_references(change, tags, versions)
        wraps, sealed = [0] * count, [None] * count
    state, untils, ended = ([fact] * count for fact in (ending.state.value, until, change.now))
    change.update_columns(KEYS, (tags, versions, state, created, epochs, untils, ended, wraps, sealed), weights)


def erase_references(change: Change, tags: Sequence[bytes], versions: Sequence[int] | None = None) -> int:
    """Erase the references of some versions of keys, or of all, damaged ones as well; returns how many there were."""
    if change.db.row("SELECT 1 FROM sealed_references LIMIT 1") is None:
        return 0
    records = change.db.among(f"{REFERENCES.select} WHERE tag IN", list(set(tags)))
    if versions is not None:
        places = set(zip(tags, versions, strict=True))
        records = [record for record in records if tuple(record[:2]) in places]
    return change.erase_records(REFERENCES, records).count


def end_headless(change: Change, tags: Sequence[bytes], ending: Ending, version: int | None = None) -> list[Key]:
    """Erase living keys of subjects whose head is damaged or gone; returns them.

    Nobody gets a key by such a head, but an older file may hold a sound one. The head stays as it is: nothing of it is
    believed, so that the full check goes on telling of it until the subject is forgotten.
    """
    keys = keys_to_end(change, tags)
    chosen = [item for item in keys if item[0].wrapped is not None and version in {None, item[0].version}]
    if version is None:
        erase_references(change, tags)  # those of a version whose row is gone as well
    end_all(change, chosen, ending)
    change.touched.update(tags)
    return [key for key, _ in chosen]


def not_active(change: Change, who: Who, head: Head, version: int) -> KeystoreError:
    """Why nothing may be enrolled with a version."""
    if not 1 <= version <= head.latest:
        return UnknownVersionError(f"there is no version {version}", where=who.where)
    state = State(find_keys(change.db, change.keys, head)[version - 1][0].state).public.value
    return KeyRevokedError(
        f"version {version} is {state}: nothing may be enrolled with it", where=who.where, fix="protect again"
    )


class Living(NamedTuple):
    """Subjects and their living (not erased) keys, column by column, with the weights of the rows."""

    heads: Columns
    head_weights: Sequence[int]
    keys: Columns
    key_weights: Sequence[int]

    def those(self, heads: Sequence[bool]) -> Living:
        """Some of the subjects, with their keys."""
        if all(heads):
            return self
        chosen = set(itertools.compress(self.heads[0], heads))
        keys = [tag in chosen for tag in self.keys[0]]
        return Living(*_compressed(heads, *self[:2]), *_compressed(keys, *self[2:]))


def _compressed(chosen: Sequence[bool], columns: Columns, weights: Sequence[int]) -> tuple[Columns, Sequence[int]]:
    pick = [list(itertools.compress(column, chosen)) for column in (*columns, weights)]
    return pick[:-1], pick[-1]


def rotate_all(change: Change, subjects: Living, ending: Ending) -> tuple[list[Any], list[bytes]]:
    """Give each subject a new active key and end the living ones.

    Args:
        change: The step.
        subjects: Whose.
        ending: For the key that was active; if it is not ``RETIRED``, for all living ones.

    Returns:
        For the audit trail [alias, version before, new version], and the new materials.
    """
    tags, scopes, aliases, purposes, names, latest, active, created, used = subjects.heads
    versions = [version + 1 for version in latest]
    heads = (tags, scopes, aliases, purposes, names, versions, versions, created, used)
    change.update_columns(HEADS, heads, subjects.head_weights)
    keys, weights = subjects[2:]
    if ending.state is State.RETIRED:  # one that is retired already has a date of its own
        keys, weights = _compressed([state != State.RETIRED for state in keys[2]], keys, weights)
    end_columns(change, keys, weights, ending)
    if ending.state is not State.RETIRED:
        erase_references(change, tags)  # those of a version whose row is gone as well
    materials = insert_keys(change, tags, scopes, purposes, versions)
    change.touched.update(tags)
    return list(zip(map(bytes.hex, aliases), active, versions, strict=True)), materials


def rotate(change: Change, who: Who, ending: Ending, reason: str) -> SubjectKey:
    """Replace the key of one subject."""
    head, weight = need_head(change.db, change.keys, who)
    breach = ending.state is State.COMPROMISED
    keys = keys_to_end(change, [head.tag]) if breach else find_keys(change.db, change.keys, head)
    living = [(key, weight) for key, weight in keys if key.wrapped is not None]
    if not living:
        raise KeyRevokedError("there is no living key to rotate", where=who.where, fix="issue a new one")
    columns = tuple(zip(*(key for key, _ in living), strict=True))
    alone = Living(tuple(zip(head, strict=True)), [weight], columns, [weight for _, weight in living])
    moves, (material,) = rotate_all(change, alone, ending)
    change.note("rotate", keys=moves, old=ending.state.public.value, until=ending.until, reason=reason)
    return SubjectKey(who.subject, who.scope, head.latest + 1, State.ACTIVE.public, material)


def withdraw(
    change: Change, who: Who, ending: Ending, *, version: int | None = None, action: str, reason: str
) -> list[int]:
    """Retire the active key, or erase some or all living ones; returns the versions concerned."""
    try:
        head, weight = need_head(change.db, change.keys, who)
    except DamagedError:
        if ending.state is State.RETIRED:
            raise
        ended = [key.version for key in end_headless(change, [who.tag], ending, version)]
        if ended:
            change.note(action, keys=[], headless=ended, old=ending.state.public.value, reason=reason)
        return ended
    if version is not None and not 1 <= version <= head.latest:
        raise UnknownVersionError(f"there is no version {version}", where=who.where)
    if ending.state is State.RETIRED:
        keys = find_keys(change.db, change.keys, head)
        chosen = [item for item in keys if item[0].version == head.active]
        if not chosen:
            raise _no_active(change.db, change.keys, who, head)
    else:
        keys = keys_to_end(change, [head.tag])
        chosen = [item for item in keys if item[0].wrapped is not None and version in {None, item[0].version}]
    # A version whose row was taken away can't be erased, but an older file may hold it: it counts, too.
    lost = set(range(1, head.latest + 1)) - {key.version for key, _ in keys}
    versions = sorted({key.version for key, _ in chosen} | {one for one in lost if version in {None, one}})
    if ending.state is not State.RETIRED and version is None:
        erase_references(change, [head.tag])  # those of a version whose row is gone as well
    if versions:
        end_all(change, chosen, ending)
        if head.active in versions:
            change.update_all(HEADS, [(head._replace(active=0), weight)])
        change.touched.add(head.tag)
        moves = [[head.alias.hex(), number, 0] for number in versions]
        change.note(action, keys=moves, old=ending.state.public.value, until=ending.until, reason=reason)
    return versions
