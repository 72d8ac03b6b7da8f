"""Jobs over many keys: rotate or re-wrap them batch by batch, so that a crash costs one batch at most."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from anonymix_keystore import _lifecycle
from anonymix_keystore._audit import canonical
from anonymix_keystore._core import Change, Core
from anonymix_keystore._crypto import Columns, KeyRing, encode, seal, seal_all, unseal
from anonymix_keystore._database import Database
from anonymix_keystore._errors import (
    DamagedError,
    InvalidRequestError,
    UnfinishedJobError,
    WrongKeyError,
)
from anonymix_keystore._lifecycle import Ending, Living, key_context, moment
from anonymix_keystore._rows import HEADS, JOBS, KEYS, Job, Key, State

ROTATE, REWRAP = "rotate", "rewrap"
MOST_PER_BATCH = 10_000
_LIVING = " AND wrapped IS NOT NULL"
_END = b"\xff" * 64  # after every tag


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a job is.

    Attributes:
        job: Number of the job.
        done: Keys done.
        seen: Subjects looked at.
        total: Subjects to look at, as counted when this run began.
    """

    job: int
    done: int
    seen: int
    total: int


@dataclass(frozen=True, slots=True)
class JobInfo:
    """A job over many keys.

    Attributes:
        job: Its number.
        kind: ``"rotate"`` or ``"rewrap"``.
        reason: Why.
        started: When it began (UTC).
        finished: When it ended (UTC), ``None`` while it can be resumed.
        done: Keys done.
        scope: The scope it was limited to, or ``None``.
        old_state: For a rotation, what became of the old keys.
        headless: For a rotation after a breach, how many subjects have a damaged row, so that their keys were erased
            and no new ones issued.
        left: For any other job, how many subjects have a damaged row, so that they were left as they are.
    """

    job: int
    kind: str
    reason: str
    started: datetime | None
    finished: datetime | None
    done: int
    scope: str | None
    old_state: str
    headless: int = 0
    left: int = 0


@dataclass(frozen=True, slots=True)
class Selection:
    """Which keys a rotation is for.

    Attributes:
        scope: One scope, or ``None`` for all.
        before: Only keys created before this Unix time, or 0.
        active: Subjects with an active key.
        retired: Subjects who have a retired key and no active one.
        tags: Only these subjects, or ``None`` for all.
    """

    scope: str | None = None
    before: int = 0
    active: bool = True
    retired: bool = False
    tags: tuple[bytes, ...] | None = None


def _context(keys: KeyRing, number: int) -> bytes:
    return encode(("job", keys.store_id, number))


def _params(keys: KeyRing, job: Job) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(unseal(keys.name, job.params, _context(keys, job.id)))
    except WrongKeyError:
        raise DamagedError("a job's parameters fail authentication") from None
    return content


def _load(db: Database, keys: KeyRing, condition: str, *values: int) -> list[tuple[Job, int]]:
    rows = db.rows(f"{JOBS.select} WHERE {condition} ORDER BY id", values)
    return [JOBS.check(keys, record, db.where) for record in rows]


def unfinished(core: Core) -> Job | None:
    """The job that waits to be resumed, if any.

    Raises:
        DamagedError: There is none but one that is damaged.
    """
    with core.lock:
        return _waiting(core.db, core.keys, strict=True)


def _waiting(db: Database, keys: KeyRing, *, strict: bool) -> Job | None:
    """The first job without an end; one that is damaged is passed over, unless there is no other and it counts."""
    records = db.rows(f"{JOBS.select} WHERE finished = 0 ORDER BY id")
    waiting, damaged = JOBS.sift(keys, records)
    if damaged and strict and not waiting:
        JOBS.check(keys, damaged[0], db.where)
    return waiting[0][0] if waiting else None


def describe(keys: KeyRing, job: Job) -> JobInfo:
    """What may be shown of a job."""
    params = _params(keys, job)
    return JobInfo(
        job=job.id,
        kind=job.kind,
        reason=params["reason"],
        started=moment(job.started),
        finished=moment(job.finished),
        done=job.done,
        scope=params.get("scope"),
        old_state=params.get("state", ""),
        headless=params.get("headless", 0),
        left=params.get("left", 0),
    )


def info(core: Core, number: int) -> JobInfo:
    """One job, whatever the rows of others are like.

    Raises:
        InvalidRequestError: No such job.
    """
    with core.reading() as (db, keys):
        found = _load(db, keys, "id = ?", number)
        if not found:
            raise InvalidRequestError(f"there is no job {number}")
        return describe(keys, found[0][0])


def infos(core: Core) -> list[JobInfo]:
    """All jobs, the first one first."""
    return [describe(core.keys, job) for job, _ in core.pages(JOBS.page, None)]


def _begin(change: Change, kind: str, params: dict[str, Any]) -> Job:
    # Nothing that is damaged keeps a store from ending keys for good.
    job = _waiting(change.db, change.keys, strict=not _breach(params))
    if job is not None:
        raise UnfinishedJobError(
            f"job {job.id} ({job.kind}) was interrupted", where=change.db.where, fix="resume it first"
        )
    last = change.db.row("SELECT coalesce(max(id), 0) FROM jobs") or (0,)
    number = int(last[0]) + 1
    sealed = _seal(change.keys, number, params)
    job = Job(number, kind, sealed, change.now, 0, change.epoch, b"", 0)
    change.insert(JOBS, job)
    return job


def begin_rotation(core: Core, select: Selection, ending: Callable[[int], Ending], reason: str) -> int:
    """Write down that keys are to be rotated; returns the job's number.

    Raises:
        UnfinishedJobError: Another job waits to be resumed.
    """
    with core.change() as change:
        end = ending(change.now)
        params = {
            "scope": select.scope,
            "before": select.before,
            "active": select.active,
            "retired": select.retired,
            "tags": None if select.tags is None else sorted(tag.hex() for tag in select.tags),
            "state": end.state.public.value,
            "until": end.until,
            "reason": reason,
        }
        job = _begin(change, ROTATE, params)
        # Subjects' tags stay out of the trail: it outlives the subjects.
        facts = {name: value for name, value in params.items() if name != "tags"}
        change.note("begin-rotation", job=job.id, listed=select.tags is not None, **facts)
    return job.id


def begin_rewrap(core: Core, reason: str) -> int:
    """Step to the next wrapping key and write down that old rows are to follow.

    Raises:
        UnfinishedJobError: Another job waits to be resumed.
    """
    with core.change() as change:
        change.wrap += 1
        job = _begin(change, REWRAP, {"wrap": change.wrap, "reason": reason})
        change.note("begin-rewrap", job=job.id, wrap=change.wrap, reason=reason)
    return job.id


def run(core: Core, number: int, batch: int, progress: Callable[[Progress], None] | None) -> JobInfo:
    """Carry a job to its end, batch by batch; each batch is one all-or-nothing change.

    Raises:
        InvalidRequestError: No such job.
    """
    with core.connection() as (db, _):  # counting a million takes a while
        total = (db.row("SELECT count(*) FROM heads") or (0,))[0]
    seen = 0
    while True:
        with core.change() as change:
            found = _load(change.db, change.keys, "id = ?", number)
            if not found:
                raise InvalidRequestError(f"there is no job {number}")
            job, weight = found[0]
            if job.finished:
                return describe(change.keys, job)
            params = _params(change.keys, job)
            tags = _page(change.db, job.cursor, batch, params.get("tags"))
            subjects, damaged = _subjects(change, job.cursor, tags, params, last=len(tags) < batch)
            work = _rotate if job.kind == ROTATE else _rewrap
            done = work(change, job, params, subjects)
            if damaged:
                count, what = len(damaged), "left"
                if _breach(params):
                    count, what = _end_headless(change, job, params, damaged), "headless"
                params[what] = params.get(what, 0) + count
                job = job._replace(params=_seal(change.keys, job.id, params))
            job = job._replace(cursor=tags[-1] if tags else job.cursor, done=job.done + done)
            if len(tags) < batch:
                job = _ended(change, job, params)
            change.update_all(JOBS, [(job, weight)])
            if job.finished:
                change.note(f"end-{job.kind}", job=job.id, done=job.done, **_of_those_left(params))
        seen += len(tags)
        if progress is not None:
            progress(Progress(number, job.done, seen, total if params.get("tags") is None else len(params["tags"])))
        if job.finished:
            return describe(core.keys, job)
        core.give_way()


def _of_those_left(params: dict[str, Any]) -> dict[str, int]:
    return {"left": params["left"]} if params.get("left") else {}


def _ended(change: Change, job: Job, params: dict[str, Any]) -> Job:
    """A job at its end keeps no subject's tag: they may be forgotten, it stays."""
    return job._replace(cursor=b"", finished=change.now, params=_seal(change.keys, job.id, {**params, "tags": None}))


def forget_tags(change: Change, tags: Iterable[bytes]) -> None:
    """Take subjects, whose heads are deleted already, out of the jobs that wait to be resumed."""
    gone = set(tags)
    # One that is damaged can't be resumed; what it holds is sealed.
    jobs, _ = JOBS.sift(change.keys, change.db.rows(f"{JOBS.select} WHERE finished = 0"))
    for job, weight in jobs:
        params = _params(change.keys, job)
        if params.get("tags") is not None:
            params["tags"] = [tag for tag in params["tags"] if bytes.fromhex(tag) not in gone]
        cursor = job.cursor
        if cursor in gone:
            before = change.db.row("SELECT max(tag) FROM heads WHERE tag < ?", (cursor,))
            cursor = before[0] if before is not None and before[0] is not None else b""
        change.update_all(JOBS, [(job._replace(cursor=cursor, params=_seal(change.keys, job.id, params)), weight)])


def _seal(keys: KeyRing, number: int, params: dict[str, Any]) -> bytes:
    return seal(keys.name, canonical(params).encode(), _context(keys, number))


def _page(db: Database, cursor: bytes, batch: int, listed: list[str] | None) -> list[bytes]:
    if listed is not None:
        return [tag for tag in map(bytes.fromhex, listed) if tag > cursor][:batch]
    return [row[0] for row in db.rows("SELECT tag FROM heads WHERE tag > ? ORDER BY tag LIMIT ?", (cursor, batch))]


def _subjects(
    change: Change, cursor: bytes, tags: Sequence[bytes], params: dict[str, Any], *, last: bool
) -> tuple[Living, set[bytes]]:
    """The subjects of one page that have living keys; and the tags of those that are damaged.

    After a breach these are those with keys and no head to go by, whose keys end for good whatever they are.
    Otherwise a damaged key counts as well: such a subject stays as it is, so that nothing that may be repaired is lost,
    and stops nobody else's.
    """
    db, ring, scope = change.db, change.keys, ""
    if params.get("scope") is not None:
        row = _lifecycle.find_scope(db, ring, params["scope"])
        scope = f" AND scope = {0 if row is None else row.id:d}"
    if params.get("tags") is None:
        span, ends = "tag > ? AND tag <= ?", (cursor, _END if last else tags[-1])
        heads = db.rows(f"{HEADS.select} WHERE {span}{scope} ORDER BY tag", ends)
        keys = db.rows(f"{KEYS.select} WHERE {span}{_LIVING} ORDER BY tag, version", ends)
    else:
        heads = sorted(db.among(f"{HEADS.select} WHERE true{scope} AND tag IN", tags))
        keys = sorted(db.among(f"{KEYS.select} WHERE true{_LIVING} AND tag IN", tags))
    columns, weights, damaged = _heads_of(change, heads)
    found, holders = set(columns[0]), {record[0] for record in keys}
    if not scope or params.get("tags") is not None:  # of others' scopes there are keys as well
        damaged |= holders - found
    keys = [record for record in keys if record[0] in found]
    if _breach(params):
        subjects = Living(columns, weights, *_keys_to_end(change, keys))
    else:
        damaged &= holders
        living, broken = _keys_of(change, keys)
        subjects = Living(columns, weights, *living)
        there = set(zip(*subjects.keys[:2], strict=True))
        # A head names its active version: one whose row is gone, or says that it was erased, is damage as well.
        broken |= {
            tag for tag, active in zip(columns[0], columns[6], strict=True) if active and (tag, active) not in there
        }
        damaged |= broken
        found -= broken
    with_keys = set(subjects.keys[0]) & found
    return subjects.those([tag in with_keys for tag in subjects.heads[0]]), damaged


def _breach(params: dict[str, Any]) -> bool:
    """Whether keys end for good."""
    return bool(params.get("state") == State.COMPROMISED.public.value)


def _heads_of(change: Change, records: Sequence[Sequence[Any]]) -> tuple[Columns, list[int], set[bytes]]:
    """Heads with their weights, and the tags of those that fail authentication, which are left out."""
    try:
        return *HEADS.check_columns(change.keys, records, change.db.where), set()
    except DamagedError:
        damaged = {record[0] for record in HEADS.sift(change.keys, records)[1]}
    sound = [record for record in records if record[0] not in damaged]
    return *HEADS.check_columns(change.keys, sound, change.db.where), damaged


def _end_headless(change: Change, job: Job, params: dict[str, Any], tags: set[bytes]) -> int:
    """Erase the keys of subjects without a head to go by, unless only old keys are meant; returns how many had any."""
    if params["before"]:
        return 0
    ended = _lifecycle.end_headless(change, sorted(tags), Ending(State.COMPROMISED))
    if ended:
        facts = {"old": params["state"], "reason": params["reason"]}
        change.note("rotate", job=job.id, keys=[], headless=len(ended), **facts)
    return len({key.tag for key in ended})


def _keys_of(change: Change, records: Sequence[Sequence[Any]]) -> tuple[tuple[Columns, list[int]], set[bytes]]:
    """Living keys with their weights, and the tags of those that fail authentication, which are left out."""
    try:
        return KEYS.check_columns(change.keys, records, change.db.where), set()
    except DamagedError:
        damaged = {record[0] for record in KEYS.sift(change.keys, records)[1]}
    sound = [record for record in records if record[0] not in damaged]
    return KEYS.check_columns(change.keys, sound, change.db.where), damaged


def _keys_to_end(change: Change, records: Sequence[Sequence[Any]]) -> tuple[Columns, list[int]]:
    """Living keys that end for good: a damaged one ends with the others."""
    try:
        return KEYS.check_columns(change.keys, records, change.db.where)
    except DamagedError:
        rows, damaged = KEYS.sift(change.keys, records)
    rows = sorted(rows + [(_lifecycle.unknown_key(record[0], record[1]), 0) for record in damaged])
    return list(zip(*(row for row, _ in rows), strict=True)), [weight for _, weight in rows]


def _rotate(change: Change, job: Job, params: dict[str, Any], subjects: Living) -> int:
    key_tags, _, _, created, epochs, *_ = subjects.keys
    newest = dict(zip(key_tags, zip(epochs, created, strict=True), strict=True))  # the last one stays
    active, retired, before = params["active"], params["retired"], params["before"]

    # Keys made after the job began are new enough, whoever made them.
    chosen = subjects.those(
        [
            (active if version else retired) and newest[tag][0] <= job.epoch and (not before or newest[tag][1] < before)
            for tag, version in zip(subjects.heads[0], subjects.heads[6], strict=True)
        ]
    )
    count = len(chosen.head_weights)
    if count:
        ending = Ending(State[params["state"].upper()], params["until"])
        moves, _ = _lifecycle.rotate_all(change, chosen, ending)
        change.note("rotate", job=job.id, keys=moves, old=params["state"], reason=params["reason"], until=ending.until)
    return count


def _rewrap(change: Change, job: Job, params: dict[str, Any], subjects: Living) -> int:
    version, ring = params["wrap"], change.keys
    places = dict(zip(subjects.heads[0], zip(subjects.heads[1], subjects.heads[3], strict=True), strict=True))
    old, contexts, materials = [], [], []
    for record, weight in zip(zip(*subjects.keys, strict=True), subjects.key_weights, strict=True):
        key = Key._make(record)
        if key.wrap < version and key.wrapped is not None:
            scope, purpose = places[key.tag]
            context = key_context(ring, key.tag, scope, key.version, purpose)
            try:
                materials.append(unseal(ring.wrap(key.wrap), key.wrapped, context))
            except WrongKeyError:
                raise DamagedError("a wrapped key fails authentication", where=change.db.where) from None
            contexts.append(context)
            old.append((key, weight))
    sealed = seal_all(ring.wrap(version), materials, contexts)
    rows = [(key._replace(wrap=version, wrapped=box), weight) for (key, weight), box in zip(old, sealed, strict=True)]
    if rows:
        change.update_all(KEYS, rows)
        change.erased = True
        change.note("rewrap", job=job.id, count=len(rows), wrap=version)
    return len(rows)
