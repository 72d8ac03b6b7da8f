from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from keystore_clock import Clock

from anonymix_keystore import (
    DamagedError,
    InvalidRequestError,
    InvalidSubjectError,
    KeyRetiredError,
    KeyRevokedError,
    KeyState,
    Keystore,
    Progress,
    UnfinishedJobError,
)
from anonymix_keystore._database import Database


def names(count: int) -> list[str]:
    return [f"s{number}" for number in range(count)]


class InterruptedByTestError(Exception):
    pass


def stop_after(steps: int) -> Callable[[Progress], None]:
    seen: list[Progress] = []

    def progress(step: Progress) -> None:
        seen.append(step)
        if len(seen) >= steps:
            raise InterruptedByTestError

    return progress


def test_everybody_gets_a_new_key_and_galleries_too(store: Keystore) -> None:
    store.issue_many(names(25))
    old = {name: store.current(name) for name in names(25)}
    gallery = store.gallery("staff")
    steps: list[Progress] = []
    report = store.rotate_all(batch=10, progress=steps.append)
    assert report.job.done == 26
    assert report.job.finished is not None
    for name, key in old.items():
        assert store.current(name).version == 2
        assert store.current(name).material != key.material
        assert store.at(name, 1).material == key.material
    assert store.gallery("staff").version == 2
    assert store.gallery("staff").material != gallery.material
    assert [step.seen for step in steps] == [10, 20, 26]
    assert [step.done for step in steps] == [10, 20, 26]
    assert {step.total for step in steps} == {26}
    assert store.verify().ok


def test_after_a_breach_no_old_key_is_left(store: Keystore) -> None:
    store.issue_many(names(5))
    store.rotate("s0")
    report = store.rotate_all(reason="breach")
    assert report.job.old_state == "compromised"
    for name in names(5):
        history = store.history(name)
        assert [info.state for info in history[:-1]] == [KeyState.COMPROMISED] * (len(history) - 1)
        with pytest.raises(KeyRevokedError):
            store.at(name, 1)
    assert store.verify().ok


def test_revoked_subjects_are_left_alone(store: Keystore) -> None:
    store.issue_many(names(3))
    store.revoke("s1")
    assert store.rotate_all().job.done == 2
    with pytest.raises(KeyRevokedError):
        store.current("s1")


@pytest.mark.parametrize(
    ("states", "rotated"),
    [
        ([KeyState.ACTIVE], {"s0"}),
        ([KeyState.RETIRED], {"s1"}),
        ([KeyState.ACTIVE, KeyState.RETIRED], {"s0", "s1"}),
    ],
)
def test_selection_by_status(store: Keystore, states: list[KeyState], rotated: set[str]) -> None:
    store.issue_many(names(2))
    store.retire("s1")
    store.rotate_all(states=states)
    assert {info.subject for info in store.list() if info.version == 2} == rotated


def test_selection_by_scope_age_and_list(store: Keystore, clock: Clock) -> None:
    store.issue("old", "a")
    store.issue("old", "b")
    clock.forward(days=10)
    store.issue("young", "a")
    store.rotate_all(scope="a", older_than=timedelta(days=10))
    assert {(i.subject, i.scope) for i in store.list() if i.version == 2} == {("old", "a")}
    report = store.rotate_all(scope="a", subjects=["young", "nobody"])
    assert report.job.done == 1
    assert store.current("young", "a").version == 2
    assert store.current("old", "b").version == 1
    store.issue_many(names(12))
    steps: list[Progress] = []
    assert store.rotate_all(subjects=names(7), batch=3, progress=steps.append).job.done == 7
    assert [step.total for step in steps] == [7, 7, 7]
    assert store.rotate_all(scope="nowhere").job.done == 0
    assert store.rotate_all(subjects=[]).job.done == 0


def test_an_interrupted_rotation_is_resumed_and_rotates_each_key_once(
    store: Keystore, reopen: Callable[..., Keystore]
) -> None:
    store.issue_many(names(30))
    with pytest.raises(InterruptedByTestError):
        store.rotate_all(reason="breach", batch=7, progress=stop_after(2))
    store.close()
    store = reopen()
    assert [job.finished for job in store.jobs()] == [None]
    with pytest.raises(UnfinishedJobError):
        store.rotate_all()
    with pytest.raises(UnfinishedJobError):
        store.rewrap_all()
    fresh = store.issue("newcomer")
    by_hand = store.rotate("s3")
    done = store.resume(batch=4)
    assert done is not None
    assert done.finished is not None
    assert store.current("newcomer") == fresh
    assert store.current("s3") == by_hand
    versions = {info.subject: info.version for info in store.list()}
    # Those whom the interrupted part reached before the rotation by hand are at 3, the others at 2.
    assert {versions[name] for name in names(30) if name != "s3"} == {2}
    assert store.resume() is None
    assert store.verify().ok


def test_requests_that_make_no_sense_leave_no_job(store: Keystore) -> None:
    store.issue("alice")
    for request in (
        lambda: store.rotate_all(states=[]),
        lambda: store.rotate_all(states=[KeyState.DESTROYED]),
        lambda: store.rotate_all(batch=0),
        lambda: store.rotate_all(batch=10_001),
        lambda: store.rotate_all(older_than=timedelta(days=-1)),
        lambda: store.rotate_all(reason="breach", grace=timedelta(days=1)),
        lambda: store.rewrap_all(batch=0),
        lambda: store.report(1),
    ):
        with pytest.raises(InvalidRequestError):
            request()
    with pytest.raises(InvalidSubjectError):
        store.rotate_all(scope="")
    assert store.jobs() == ()
    assert store.current("alice").version == 1


def test_a_job_that_vanishes_is_not_run(store: Keystore) -> None:
    from anonymix_keystore._jobs import run

    with pytest.raises(InvalidRequestError):
        run(store._core, 7, 10, None)


def test_rewrapping_keeps_every_key_and_moves_every_row(store: Keystore) -> None:
    store.issue_many(names(12))
    store.rotate("s0")
    store.revoke("s1")
    before = {name: store.current(name) for name in names(12) if name != "s1"}
    first = {name: store.history(name)[0].wrap_version for name in names(12)}
    done = store.rewrap_all(batch=5, reason="yearly")
    assert done.done == 12  # eleven active keys and one retired
    assert done.kind == "rewrap"
    store._core.cache.clear()
    assert {name: store.current(name) for name in before} == before
    assert first["s0"] == 1
    assert {info.wrap_version for info in store.history("s0")} == {2}
    assert {info.wrap_version for info in store.history("s1")} == {0}
    assert store.issue("late").version == 1
    assert store.history("late")[0].wrap_version == 2
    assert store.verify().ok


def test_an_interrupted_rewrapping_is_resumed(store: Keystore, reopen: Callable[..., Keystore]) -> None:
    store.issue_many(names(20))
    before = {name: store.current(name) for name in names(20)}
    with pytest.raises(InterruptedByTestError):
        store.rewrap_all(batch=6, progress=stop_after(1))
    store.close()
    store = reopen()
    assert {name: store.current(name) for name in before} == before
    assert store.resume() is not None
    store._core.cache.clear()
    assert {name: store.current(name) for name in before} == before
    assert {info.wrap_version for info in store.list()} == {2}


def test_a_retired_key_keeps_its_date_through_a_later_rotation(store: Keystore, clock: Clock) -> None:
    store.issue("alice")
    store.rotate("alice", grace=timedelta(days=5))
    clock.forward(days=1)
    store.rotate_all(grace=timedelta(days=30))
    clock.forward(days=4)
    with pytest.raises(KeyRetiredError):
        store.at("alice", 1)
    assert store.at("alice", 2).version == 2


def test_the_report_is_readable_by_people_and_machines(store: Keystore) -> None:
    key = store.issue("alice", "staff")
    store.record_enrolment(
        "alice",
        "staff",
        adapter="rekognition",
        collection="doors",
        external_id="face-1",
        version=key.version,
        fingerprint="f1",
    )
    report = store.rotate_all(reason="breach")
    content = json.loads(report.to_json())
    assert content["job"]["reason"] == "breach"
    assert content["work"] == [{"adapter": "rekognition", "collection": "doors", "delete": 1, "enrol": 1}]
    assert content["head"] == store.anchor_state().head.hex()
    text = report.to_text()
    for words in ("breach", "compromised", "rekognition / doors: delete 1, enrol 1", "keys done        1"):
        assert words in text
    assert "alice" not in text
    rewrap = store.report(store.rewrap_all().job).to_text()
    assert rewrap.startswith("Re-wrapping")
    assert "old keys" not in rewrap
    empty = store.report(2, fingerprint="f1")
    assert empty.work == report.work


def test_rewrapping_passes_over_keys_that_are_wrapped_again_already(store: Keystore) -> None:
    store.issue_many(names(6))
    with pytest.raises(InterruptedByTestError):
        store.rewrap_all(batch=2, progress=stop_after(1))
    for name in names(6):
        store.rotate(name)  # the new keys are under the next wrapping key, the retired ones not yet
    done = store.resume(batch=2)
    assert done is not None
    assert done.done == 6
    assert {info.wrap_version for name in names(6) for info in store.history(name)} == {2}
    assert store.verify().ok


def test_a_finished_job_is_not_run_again(store: Keystore) -> None:
    from anonymix_keystore._jobs import run

    store.issue("alice")
    report = store.rotate_all()
    assert run(store._core, report.job.job, 10, None) == report.job
    assert store.current("alice").version == 2


@pytest.mark.parametrize("column", ["wrapped = zeroblob(129)", "mac = zeroblob(32)", "ended = 7"])
def test_one_changed_row_among_many_stops_nobody_elses_rotation(store: Keystore, path: Path, column: str) -> None:
    store.issue_many(names(30))
    with sqlite3.connect(path) as db:
        db.execute(f"UPDATE keys SET {column} WHERE tag = (SELECT tag FROM keys ORDER BY tag LIMIT 1 OFFSET 17)")  # noqa: S608
    db.close()
    job = store.rotate_all().job
    assert (job.done, job.left, job.finished is not None) == (29, 1, True)
    with sqlite3.connect(path) as db:
        assert db.execute("SELECT count(*) FROM keys WHERE version = 2").fetchone() == (29,)
        once = "SELECT count(*) FROM keys GROUP BY tag HAVING count(*) = 1"
        assert db.execute(once).fetchall() == [(1,)]  # whoever is damaged is as before
    db.close()


def test_a_subject_whose_head_is_missing_is_not_issued_a_first_key_among_many(store: Keystore, path: Path) -> None:
    store.issue_many(names(5))
    with sqlite3.connect(path) as db:
        db.execute("DELETE FROM heads WHERE tag = (SELECT max(tag) FROM heads)")
    db.close()
    with pytest.raises(DamagedError, match="has keys but no head"):
        store.issue_many(names(9))


def test_one_batch_with_every_kind_of_subject(store: Keystore, clock: Clock) -> None:
    store.issue_many(names(12))
    for name in names(4):
        store.rotate(name, grace=timedelta(days=90))  # two living keys
    store.retire("s4")
    store.revoke("s5")
    clock.forward(days=20)
    store.issue_many(["new1", "new2"])
    store.rotate("s6")  # as new as they are
    report = store.rotate_all(reason="breach", older_than=timedelta(days=10))
    assert report.job.done == 9
    for name in ("s0", "s3"):
        assert [info.state for info in store.history(name)] == ["compromised", "compromised", "active"]
    assert store.current("s7").version == 2
    assert store.current("new1").version == 1
    assert [info.state for info in store.history("s6")] == ["retired", "active"]
    assert [info.state for info in store.history("s4")] == ["retired"]
    assert store.verify().ok


@pytest.mark.parametrize("work", ["issue_many", "rotate_all", "rewrap_all"])
def test_a_batch_takes_as_many_queries_however_many_keys_it_holds(
    store: Keystore, monkeypatch: pytest.MonkeyPatch, work: str
) -> None:
    asked: list[str] = []
    rows, many = Database.rows, Database.many

    def counted_rows(db: Database, sql: str, *parameters: Any) -> Any:
        asked.append(sql)
        return rows(db, sql, *parameters)

    def counted_many(db: Database, sql: str, parameters: Any) -> None:
        asked.append(sql)
        many(db, sql, parameters)

    monkeypatch.setattr(Database, "rows", counted_rows)
    monkeypatch.setattr(Database, "many", counted_many)
    counts = []
    for scope, count in (("few", 5), ("many", 80)):
        store.issue("first", scope)
        if work != "issue_many":
            store.issue_many(names(count), scope)
        asked.clear()
        if work == "issue_many":
            store.issue_many(names(count), scope)
        elif work == "rotate_all":
            assert store.rotate_all(scope=scope, reason="breach").job.done == count + 1
        else:
            store.rewrap_all()
        # What is left of an earlier change is looked for now and then, by the clock.
        counts.append(len([sql for sql in asked if "PRAGMA" not in sql]))
    assert abs(counts[0] - counts[1]) <= 3
