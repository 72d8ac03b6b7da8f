"""The life of a key: issue, look up, rotate, retire, revoke."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

from anonymix_keystore._clock import DAY
from anonymix_keystore._core import Change, Core
from anonymix_keystore._crypto import KEY_BYTES, KeyRing, encode, seal, unseal
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
        name = "the gallery" if self.purpose is Purpose.GALLERY else f"subject {self.subject!r}"
        return f"{name} in scope {self.scope!r}"


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


def open_name(keys: KeyRing, tag: bytes, sealed: bytes, where: str) -> str:
    """Open a sealed name."""
    try:
        return unseal(keys.name, sealed, name_context(keys, tag)).decode()
    except WrongKeyError:
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
    return HEADS.check(keys, record, db.where)


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
    return UnknownSubjectError("no key was ever issued", where=who.where, fix="issue one first")


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
                head, _ = HEADS.check(keys, record[:_HEAD_WIDTH], db.where)
                if not head.active:
                    raise _no_active(db, keys, who, head)
        head, _ = HEADS.check(keys, record[:_HEAD_WIDTH], db.where)
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
    """All subjects and galleries: subject, scope, head, latest key, page by page by tag."""
    names = all_scopes(core)
    with core.lock:
        wanted = None if scope is None else find_scope(core.db, core.keys, checked(scope, "scope"))
    if scope is not None and wanted is None:
        return
    condition = "" if wanted is None else f" AND h.scope = {wanted.id:d}"

    def page(db: Database, keys: KeyRing, after: tuple[Head, Key] | None) -> list[tuple[Head, Key]]:
        tag = b"" if after is None else after[0].tag
        records = db.rows(f"{_LATEST} WHERE h.tag > ?{condition} ORDER BY h.tag LIMIT ?", (tag, PAGE))
        return [
            (
                HEADS.check(keys, record[:_HEAD_WIDTH], db.where)[0],
                KEYS.check(keys, record[_HEAD_WIDTH:], db.where)[0],
            )
            for record in records
        ]

    for head, key in core.pages(page, None):
        if head.scope not in names:
            names = all_scopes(core)  # a new one, committed together with the head
        if head.scope not in names:
            raise DamagedError("a subject's scope is missing", where=str(core.path), fix=RESTORE)
        gallery = head.purpose == Purpose.GALLERY
        subject = "" if gallery else open_name(core.keys, head.tag, head.name, str(core.path))
        yield subject, names[head.scope], head, key


# --- changes --------------------------------------------------------------------------------------


def new_key(change: Change, head: Head, version: int, material: bytes) -> Key:
    """A new key row, wrapped."""
    context = key_context(change.keys, head.tag, head.scope, version, head.purpose)
    wrapped = seal(change.keys.wrap(change.wrap), material, context)
    return Key(head.tag, version, State.ACTIVE, change.now, change.epoch, 0, 0, change.wrap, wrapped)


def issue_all(change: Change, whos: Sequence[Who], reason: str) -> list[SubjectKey]:
    """Issue a key to each; those who had keys before get the next version."""
    new_heads, old_heads, rows, made, moves = [], [], [], [], []
    scopes: dict[str, int] = {}
    for who in whos:
        if who.scope not in scopes:
            scopes[who.scope] = need_scope(change, who.scope).id
        found = find_head(change.db, change.keys, who)
        if found is None:
            check_visible(who.subject, "subject")
            sealed = seal(change.keys.name, who.subject.encode(), name_context(change.keys, who.tag))
            head = Head(
                who.tag,
                scopes[who.scope],
                secrets.token_bytes(ALIAS_BYTES),
                who.purpose,
                sealed,
                1,
                1,
                change.now,
                change.now // DAY,
            )
            new_heads.append(head)
        else:
            old, weight = found
            if old.active:
                raise KeyExistsError("there is already an active key", where=who.where, fix="rotate it instead")
            head = old._replace(latest=old.latest + 1, active=old.latest + 1)
            old_heads.append((head, weight))
        material = secrets.token_bytes(KEY_BYTES)
        rows.append(new_key(change, head, head.latest, material))
        moves.append([head.alias.hex(), head.latest - 1, head.latest])
        made.append(SubjectKey(who.subject, who.scope, head.latest, State.ACTIVE.public, material))
    change.insert_all(HEADS, new_heads)
    change.update_all(HEADS, old_heads)
    change.insert_all(KEYS, rows)
    change.touched.update(who.tag for who in whos)
    change.note("issue", keys=moves, reason=reason)
    return made


@dataclass(frozen=True, slots=True)
class Ending:
    """What becomes of keys that are replaced or withdrawn.

    Attributes:
        state: The state they go to.
        until: For ``RETIRED``, the Unix time until which probes may use them.
    """

    state: State
    until: int = 0


def end(change: Change, key: Key, ending: Ending) -> Key:
    """The row of a key that ends; unless it is only retired, its material and its reference are erased."""
    if ending.state is State.RETIRED:
        return key._replace(state=State.RETIRED, until=ending.until, ended=change.now)
    change.erased = True
    erase_references(change, key.tag, key.version)
    return key._replace(state=ending.state, until=0, ended=change.now, wrap=0, wrapped=None)


def erase_references(change: Change, tag: bytes, version: int | None = None) -> int:
    """Erase the reference of one version of a key, or of all; returns how many there were."""
    condition, values = "tag = ?", (tag,) if version is None else (tag, version)
    if version is not None:
        condition += " AND version = ?"
    rows = [
        REFERENCES.check(change.keys, record, change.db.where)
        for record in change.db.rows(f"{REFERENCES.select} WHERE {condition}", values)
    ]
    if rows:
        change.delete_all(REFERENCES, rows)
        change.erased = True
    return len(rows)


def not_active(change: Change, who: Who, head: Head, version: int) -> KeystoreError:
    """Why nothing may be enrolled with a version."""
    if not 1 <= version <= head.latest:
        return UnknownVersionError(f"there is no version {version}", where=who.where)
    state = State(find_keys(change.db, change.keys, head)[version - 1][0].state).public.value
    return KeyRevokedError(
        f"version {version} is {state}: nothing may be enrolled with it", where=who.where, fix="protect again"
    )


def rotate_all(
    change: Change, subjects: Iterable[tuple[Head, int, list[tuple[Key, int]]]], ending: Ending
) -> tuple[list[Any], dict[bytes, bytes]]:
    """Give each subject a new active key and end the living ones.

    Args:
        change: The step.
        subjects: Head, its weight, and the living (not erased) keys with their weights.
        ending: For the key that was active; if it is not ``RETIRED``, for all living ones.

    Returns:
        For the audit trail [alias, version before, new version], and the new materials by tag.
    """
    new_heads, ended, rows, moves = [], [], [], []
    materials: dict[bytes, bytes] = {}
    for head, weight, living in subjects:
        version = head.latest + 1
        head_now = head._replace(latest=version, active=version)
        for key, key_weight in living:
            if ending.state is State.RETIRED and key.state == State.RETIRED:
                continue  # already retired, with a date of its own
            ended.append((end(change, key, ending), key_weight))
        material = materials[head.tag] = secrets.token_bytes(KEY_BYTES)
        rows.append(new_key(change, head_now, version, material))
        new_heads.append((head_now, weight))
        moves.append([head.alias.hex(), head.active, version])
    change.update_all(HEADS, new_heads)
    change.update_all(KEYS, ended)
    change.insert_all(KEYS, rows)
    change.touched.update(materials)
    return moves, materials


def rotate(change: Change, who: Who, ending: Ending, reason: str) -> SubjectKey:
    """Replace the key of one subject."""
    head, weight = need_head(change.db, change.keys, who)
    keys = find_keys(change.db, change.keys, head)
    living = [(key, weight) for key, weight in keys if key.wrapped is not None]
    if not living:
        raise KeyRevokedError("there is no living key to rotate", where=who.where, fix="issue a new one")
    moves, materials = rotate_all(change, [(head, weight, living)], ending)
    change.note("rotate", keys=moves, old=ending.state.public.value, until=ending.until, reason=reason)
    return SubjectKey(who.subject, who.scope, head.latest + 1, State.ACTIVE.public, materials[head.tag])


def withdraw(
    change: Change, who: Who, ending: Ending, *, version: int | None = None, action: str, reason: str
) -> list[int]:
    """Retire the active key, or erase some or all living ones; returns the versions concerned."""
    head, weight = need_head(change.db, change.keys, who)
    keys = find_keys(change.db, change.keys, head)
    if version is not None and not 1 <= version <= head.latest:
        raise UnknownVersionError(f"there is no version {version}", where=who.where)
    if ending.state is State.RETIRED:
        chosen = [item for item in keys if item[0].version == head.active]
        if not chosen:
            raise _no_active(change.db, change.keys, who, head)
    else:
        chosen = [item for item in keys if item[0].wrapped is not None and version in {None, item[0].version}]
    versions = [key.version for key, _ in chosen]
    if versions:
        change.update_all(KEYS, [(end(change, key, ending), key_weight) for key, key_weight in chosen])
        if head.active in versions:
            change.update_all(HEADS, [(head._replace(active=0), weight)])
        change.touched.add(head.tag)
        moves = [[head.alias.hex(), number, 0] for number in versions]
        change.note(action, keys=moves, old=ending.state.public.value, until=ending.until, reason=reason)
    return versions
