"""Getting rid of keys and people works though their rows are damaged; the damage is told, and never believed."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from datetime import timedelta
from pathlib import Path

import pytest
from keystore_clock import Clock

from anonymix_keystore import (
    AnchorFile,
    DamagedError,
    InvalidRequestError,
    KeyFileUnlock,
    KeyInfo,
    KeyRevokedError,
    Keystore,
    RolledBackError,
    UnfinishedJobError,
    UnknownSubjectError,
)
from anonymix_keystore import _jobs as jobs
from anonymix_keystore._lifecycle import Ending, find_keys, need_head
from anonymix_keystore._rows import HEADS, KEYS, State

MIXER = {"fingerprint": "mixer", "subspace": "space"}
ENTRY = {"adapter": "door", "collection": "c"}
TABLES = ("sealed_references", "originals", "enrolments", "keys")
DAMAGE = {
    "references": "UPDATE sealed_references SET sealed = zeroblob(300)",
    "a reference's fingerprint": "UPDATE sealed_references SET fingerprint = 'mixer two'",
    "references, twice as many": "INSERT INTO sealed_references SELECT tag, version + 7, created, fingerprint,"
    " sealed, mac FROM sealed_references",
    "originals": "UPDATE originals SET wrapped = zeroblob(200)",
    "records": "UPDATE enrolments SET fingerprint = 'another', version = 7, created = 9000000000000000",
    "records, what is sealed in them": "UPDATE enrolments SET detail = zeroblob(200)",
    "codes of all": "; ".join(f"UPDATE {table} SET mac = zeroblob(32)" for table in TABLES),  # noqa: S608
    "an old key": "UPDATE keys SET until = 1 WHERE version = 1",
    "all keys": "UPDATE keys SET state = 1, wrapped = zeroblob(100)",
    "an old key, gone": "DELETE FROM keys WHERE version = 1",
}
ENDS: dict[str, Callable[[Keystore], object]] = {
    "revoke": lambda store: store.revoke("alice"),
    "breach": lambda store: store.rotate("alice", reason="breach"),
    "breach of all": lambda store: store.rotate_all(reason="breach"),
    "forget": lambda store: store.forget("alice"),
    "second root ended": lambda store: store.originals.disable(),
    "scope switched off": lambda store: store.references.disable(),
}
OF_KEYS = {"revoke", "breach", "breach of all", "forget"}


@pytest.fixture
def full(store: Keystore, tmp_path: Path) -> Keystore:
    """A store that holds all there can be of Alice, two versions of her key among it."""
    store.originals.enable(KeyFileUnlock.generate(tmp_path / "second.key"))
    store.references.enable()
    for _ in range(2):
        key = store.current_or_issue("alice")
        store.references.keep(key, b"code", **MIXER)
        if key.version == 1:
            store.rotate("alice", grace=timedelta(days=9))
    store.originals.keep("alice", b"face")
    store.record_enrolment("alice", **ENTRY, external_id="a1", version=2, fingerprint="mixer")
    return store


def behind_its_back(path: Path, statements: str) -> None:
    with closing(sqlite3.connect(path)) as db:
        for statement in statements.split("; "):
            db.execute(statement)
        db.commit()


def count(path: Path, table: str) -> int:
    with closing(sqlite3.connect(path)) as db:
        return int(db.execute(f"SELECT count(*) FROM {table}").fetchone()[0])  # noqa: S608


def told(store: Keystore) -> list[str]:
    """What the full check says."""
    assert not store.verify().ok
    return [finding.what for finding in store.verify().findings]


@pytest.mark.parametrize("what", DAMAGE)
@pytest.mark.parametrize("how", ENDS)
def test_damage_keeps_nobody_from_getting_rid_of_what_is_damaged(
    full: Keystore, path: Path, how: str, what: str
) -> None:
    behind_its_back(path, DAMAGE[what])
    ENDS[how](full)
    if how in OF_KEYS:
        with pytest.raises((KeyRevokedError, UnknownSubjectError, DamagedError)):
            full.at("alice", 1)
        with closing(sqlite3.connect(path)) as db:
            old = db.execute("SELECT wrapped FROM keys WHERE version <= 2").fetchall()
        assert all(wrapped is None for (wrapped,) in old)
    if how in OF_KEYS or what != "references, twice as many":  # others' references are not a scope's
        assert count(path, "sealed_references") == 0
    assert told(full)  # however it ended, it is not hidden


@pytest.mark.parametrize("table", TABLES[:3])
def test_what_was_erased_damaged_stands_in_the_trail_and_in_the_full_check(
    full: Keystore, path: Path, table: str
) -> None:
    behind_its_back(path, f"UPDATE {table} SET mac = zeroblob(32)")  # noqa: S608 - names of this file
    receipt = full.forget("alice")
    number = 2 if table == "sealed_references" else 1
    assert (receipt.damaged, receipt.rows_left, receipt.traces_left) == (number, 0, 0)
    (line,) = [line for line in full.audit() if line["action"] == "erase-damaged"]
    assert line["rows"] == {table: number}
    assert f"rows that failed authentication were erased: {number} of {table} (audit line {line['seq']})" in told(full)


def test_a_single_reference_original_or_version_can_be_dropped_though_damaged(full: Keystore, path: Path) -> None:
    behind_its_back(path, DAMAGE["codes of all"])
    assert full.references.drop("alice") == 2
    assert full.originals.drop("alice")
    assert full.revoke("alice", version=2) == (2,)
    assert count(path, "sealed_references") == count(path, "originals") == 0
    with pytest.raises(DamagedError):  # the other one was not asked for, and is not believed
        full.at("alice", 1)
    assert full.revoke("alice") == (1,)


def test_a_switch_that_is_damaged_can_be_taken_away_and_set_again(full: Keystore, path: Path) -> None:
    behind_its_back(path, "UPDATE reference_scopes SET since = 1")
    with pytest.raises(DamagedError):
        full.references.read(full.current("alice"), **MIXER)
    assert full.references.disable() == 2
    assert full.references.enable()
    assert told(full)


@pytest.mark.parametrize("column", ["sealed", "fingerprint", "created", "mac"])
def test_a_damaged_reference_guides_nobody_and_what_is_advised_helps(full: Keystore, path: Path, column: str) -> None:
    value = "'mixer two'" if column == "fingerprint" else "7" if column == "created" else "zeroblob(32)"
    behind_its_back(path, f"UPDATE sealed_references SET {column} = {value}")  # noqa: S608
    key = full.current("alice")
    for ask in (
        lambda: full.references.read(key, **MIXER),
        lambda: full.references.keep(key, b"strangers", **MIXER, replace=False),
    ):
        with pytest.raises(DamagedError, match="drop-reference"):
            ask()
    full.references.drop("alice")
    assert full.references.read(key, **MIXER) is None
    full.references.keep(key, b"code", **MIXER)
    assert full.references.read(key, **MIXER) == b"code"


@pytest.mark.parametrize(
    "silently",
    [
        "DELETE FROM sealed_references WHERE version = 2",
        "UPDATE sealed_references SET version = 9 WHERE version = 2",
        "UPDATE sealed_references SET tag = zeroblob(32)",
        "DELETE FROM reference_scopes",
        "DELETE FROM originals",
        "DELETE FROM enrolments",
    ],
)
def test_nothing_can_be_dropped_without_the_full_check_telling(full: Keystore, path: Path, silently: str) -> None:
    behind_its_back(path, silently)
    assert told(full)
    full.revoke("alice")
    assert told(full)
    full.forget("alice")
    assert told(full)  # erasing what is left does not hide it either


def test_the_receipt_names_entries_of_damaged_records_as_long_as_they_can_be_told(full: Keystore, path: Path) -> None:
    full.record_enrolment("alice", **ENTRY, external_id="a2", version=2, fingerprint="mixer")
    full.issue("bob")
    full.record_enrolment("bob", **ENTRY, external_id="b1", version=1, fingerprint="mixer")
    behind_its_back(path, DAMAGE["records"])
    behind_its_back(path, "UPDATE keys SET mac = zeroblob(32)")
    receipt = full.forget("alice")
    assert sorted((entry.external_id, entry.fingerprint) for entry in receipt.entries) == [("a1", ""), ("a2", "")]
    assert receipt.unlisted == 0
    behind_its_back(path, DAMAGE["records, what is sealed in them"])
    receipt = full.forget("bob")
    assert (receipt.entries, receipt.unlisted) == ((), 1)


def test_anothers_record_in_the_place_of_ones_own_is_not_named(full: Keystore, path: Path) -> None:
    full.issue("bob")
    full.record_enrolment("bob", **ENTRY, external_id="b1", version=1, fingerprint="mixer")
    behind_its_back(path, "UPDATE enrolments SET subject = (SELECT subject FROM originals)")
    receipt = full.forget("alice")
    assert [entry.external_id for entry in receipt.entries] == ["a1"]
    assert receipt.unlisted == 1


def test_a_record_that_was_deleted_in_the_back_end_is_not_named_again(full: Keystore) -> None:
    full.rotate("alice")
    (entry,) = full.due()
    full.mark_removed(entry.entry)
    assert full.forget("alice").entries == ()


def test_a_head_that_is_damaged_is_forgotten_with_its_keys_and_its_alias_is_not_believed(
    full: Keystore, path: Path
) -> None:
    full.issue("bob")
    behind_its_back(path, "UPDATE heads SET alias = zeroblob(16) WHERE tag IN (SELECT subject FROM originals)")
    receipt = full.forget("alice")
    assert (receipt.aliases, receipt.keys, receipt.damaged, receipt.rows_left) == ((), 2, 1, 0)
    assert full.current("bob").version == 1
    behind_its_back(path, "DELETE FROM heads")
    assert full.forget("bob").keys == 1
    with pytest.raises(UnknownSubjectError):
        full.forget("bob")


DAMAGED_HEAD = {
    "damaged": "UPDATE heads SET alias = zeroblob(16) WHERE tag IN (SELECT subject FROM originals)",
    "in another scope": "UPDATE heads SET scope = 7 WHERE tag IN (SELECT subject FROM originals)",
    "gone": "DELETE FROM heads WHERE tag IN (SELECT subject FROM originals)",
    "with its keys": "UPDATE heads SET latest = 9 WHERE tag IN (SELECT subject FROM originals);"
    " UPDATE keys SET created = 5 WHERE tag IN (SELECT subject FROM originals)",
}


@pytest.mark.parametrize("what", DAMAGED_HEAD)
@pytest.mark.parametrize("how", ["revoke", "breach of all", "breach of the scope", "breach of those named"])
def test_keys_without_a_head_to_go_by_are_got_rid_of_and_nobody_elses(
    full: Keystore, path: Path, how: str, what: str
) -> None:
    for name in ("bob", "carol", "zoe"):
        full.issue(name)
    full.issue("alice", "other")
    behind_its_back(path, DAMAGED_HEAD[what])
    if how == "revoke":
        assert full.revoke("alice", version=1) == (1,)
        assert full.revoke("alice") == (2,)
        assert full.revoke("alice") == ()
        lines = [line for line in full.audit() if line["action"] == "revoke"]
        assert [(line["keys"], line["headless"]) for line in lines] == [([], [1]), ([], [2])]
    elif how == "breach of the scope" and what in {"in another scope", "gone"}:  # it can't be told whose it is
        assert full.rotate_all(reason="breach", scope="default").job.headless == 0
        assert full.rotate_all(reason="breach").job.headless == 1
    else:
        asked = {"breach of the scope": {"scope": "default"}, "breach of those named": {"subjects": ["alice", "bob"]}}
        report = full.rotate_all(reason="breach", batch=2, **asked.get(how, {}))  # type: ignore[arg-type]
        assert (report.job.headless, report.job.finished is None) == (1, False)
        assert "1 subjects have a damaged row" in report.to_text()
        assert full.current("bob").version == 2
        assert full.rotate_all(reason="breach").job.headless == 0
    with closing(sqlite3.connect(path)) as db:
        tags = "SELECT subject FROM originals"
        left = db.execute(f"SELECT count(*) FROM keys WHERE wrapped IS NOT NULL AND tag IN ({tags})")  # noqa: S608
        assert left.fetchone() == (0,)
    assert count(path, "sealed_references") == 0
    with pytest.raises(DamagedError):  # nobody gets a key by such a head
        full.current("alice")
    full.current("alice", "other")  # she is somebody else there
    assert told(full)
    assert full.forget("alice", "default").rows_left == 0
    assert full.issue("alice").version == 1


def test_only_keys_that_end_for_good_do_without_a_head(full: Keystore, path: Path) -> None:
    behind_its_back(path, DAMAGED_HEAD["damaged"])
    for refused in (
        lambda: full.retire("alice"),
        lambda: full.rotate("alice"),
        lambda: full.rotate("alice", reason="breach"),
        lambda: full.history("alice"),
        lambda: full.issue_many(["bob", "alice"]),
    ):
        with pytest.raises(DamagedError, match=r"subject 'alice' in scope 'default'.*revoke or forget them"):
            refused()
    full.forget("alice")
    assert full.issue_many(["bob", "alice"]) == 2


DAMAGED_SUBJECT = DAMAGED_HEAD | {
    "an active key": "UPDATE keys SET created = 5 WHERE tag IN (SELECT subject FROM originals) AND version = 2",
    "an old key": "UPDATE keys SET until = 5 WHERE tag IN (SELECT subject FROM originals) AND version = 1",
    "an active key, gone": "DELETE FROM keys WHERE version = 2 AND tag IN (SELECT subject FROM originals)",
    "an active key, as if erased": "UPDATE keys SET wrapped = NULL"
    " WHERE version = 2 AND tag IN (SELECT subject FROM originals)",
}


def rows_of_alice(path: Path) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as db:
        tags = "SELECT subject FROM originals"
        return [
            *db.execute(f"SELECT * FROM heads WHERE tag IN ({tags})"),  # noqa: S608 - names of this file
            *db.execute(f"SELECT * FROM keys WHERE tag IN ({tags}) ORDER BY version"),  # noqa: S608
        ]


@pytest.mark.parametrize("what", DAMAGED_SUBJECT)
@pytest.mark.parametrize("how", ["rotation", "rotation of those named", "rewrap"])
def test_a_job_does_all_others_and_leaves_a_damaged_subject_as_it_is(
    full: Keystore, path: Path, how: str, what: str
) -> None:
    names = ("bob", "carol", "zoe")
    for name in names:
        full.issue(name)
    full.issue("alice", "other")
    behind_its_back(path, DAMAGED_SUBJECT[what])
    before = rows_of_alice(path)
    if how == "rewrap":
        job = full.rewrap_all(batch=2)
        assert {info.subject for info in _as_far(full.list()) if info.wrap_version == 2} == {*names, "alice"}
    else:
        asked = {} if how == "rotation" else {"subjects": ["alice", "bob"]}
        report = full.rotate_all(batch=2, **asked)  # type: ignore[arg-type]
        job = report.job
        assert "1 subjects have a damaged row and were left as they are" in report.to_text()
        assert full.current("bob").version == 2
        assert job.done == (4 if how == "rotation" else 1)
    assert (job.left, job.headless, job.finished is None) == (1, 0, False)
    assert [line["left"] for line in full.audit() if line["action"].startswith("end-")] == [1]
    assert rows_of_alice(path) == before  # not a bit of what may be repaired is lost
    assert full.rotate_all(reason="breach", subjects=["bob"]).job.done == 1  # no job waits for her
    assert full.revoke("alice")


def test_whoever_is_repaired_is_done_by_the_next_job(full: Keystore, path: Path) -> None:
    material = full.current("alice").material
    behind_its_back(path, "UPDATE heads SET created = created + 1")
    assert (full.rewrap_all().left, full.rewrap_all().done) == (1, 0)
    behind_its_back(path, "UPDATE heads SET created = created - 1")
    job = full.rewrap_all()
    assert (job.left, job.done) == (0, 2)
    assert full.current("alice").material == material
    assert full.verify().ok


def test_a_subject_who_is_damaged_and_has_no_living_key_is_no_work_of_a_job(full: Keystore, path: Path) -> None:
    full.revoke("alice")
    behind_its_back(path, DAMAGED_HEAD["damaged"])
    assert full.rotate_all().job.left == 0


@pytest.mark.parametrize("what", DAMAGED_HEAD)
def test_the_work_list_goes_on_and_names_whose_records_it_left_out(full: Keystore, path: Path, what: str) -> None:
    for name in ("bob", "carol"):
        full.issue(name)
        full.record_enrolment(name, **ENTRY, external_id=name, version=1, fingerprint="mixer")
    full.record_enrolment("alice", **ENTRY, external_id="a2", version=2, fingerprint="mixer")
    full.issue("dave", "other")
    full.record_enrolment("dave", "other", **ENTRY, external_id="d", version=1, fingerprint="mixer")
    full.rotate("bob")
    behind_its_back(path, DAMAGED_HEAD[what])
    for scope in (None, "default"):
        if scope is not None and what == "in another scope":
            continue  # nobody can tell but the full check
        seen: list[str] = []
        with pytest.raises(DamagedError, match=r"records of subject 'alice' in scope 'default', or.*forget them"):
            seen.extend(item.external_id for item in full.due(scope, fingerprint="another"))
        assert sorted(seen) == ["bob", "carol"] + (["d"] if scope is None else [])
    assert [item.external_id for item in full.due("other", fingerprint="another")] == ["d"]  # hers are not of it
    passed: list[DamagedError] = []
    assert sorted(item.subject for item in full.enrolments("default", damaged=passed.append)) == ["bob", "carol"]
    assert len(passed) == (0 if what == "in another scope" else 2)
    (hers,) = [item for item in full.forget("alice").entries if item.external_id == "a1"]
    assert not full.mark_removed(hers.entry)


def test_an_entry_of_a_damaged_subject_can_be_marked_as_removed(full: Keystore, path: Path) -> None:
    (entry,) = full.enrolments()
    behind_its_back(path, DAMAGED_HEAD["damaged"])
    assert full.mark_removed(entry.entry)
    assert count(path, "enrolments") == 0


def test_many_who_were_left_out_are_counted(store: Keystore, path: Path) -> None:
    store.issue_many(f"p{number}" for number in range(25))
    behind_its_back(path, "UPDATE heads SET created = 5")
    with pytest.raises(DamagedError, match="and 5 more fail authentication"):
        list(store.subjects())
    behind_its_back(path, "UPDATE heads SET name = zeroblob(60)")
    with pytest.raises(DamagedError, match="rows of somebody whose name can't be read and 24 more fail"):
        list(store.subjects())


def test_a_clock_is_accepted_though_a_subject_is_damaged(
    full: Keystore, path: Path, clock: Clock, reopen: Callable[..., Keystore]
) -> None:
    full.issue("bob")
    clock.forward(days=400)
    full.rotate("bob", grace=timedelta(days=1))
    full.current("alice")
    full.close()
    behind_its_back(path, "UPDATE heads SET alias = zeroblob(16) WHERE tag IN (SELECT subject FROM originals)")
    behind_its_back(path, "UPDATE keys SET until = 5 WHERE tag IN (SELECT subject FROM originals)")
    clock.forward(days=-400)
    assert reopen(clock=clock, accept_clock=True).at("bob", 1).version == 1


def _as_far(infos: Iterator[KeyInfo]) -> list[KeyInfo]:
    found: list[KeyInfo] = []
    with suppress(DamagedError):
        found.extend(infos)
    return found


def test_old_keys_alone_are_told_by_a_head_that_is_sound(full: Keystore, path: Path, clock: Clock) -> None:
    clock.forward(days=20)
    behind_its_back(path, DAMAGED_HEAD["damaged"])
    report = full.rotate_all(reason="breach", older_than=timedelta(days=10))
    assert (report.job.done, report.job.headless) == (0, 0)


def test_one_subjects_damage_hides_nobody_else_and_is_named(full: Keystore, path: Path, clock: Clock) -> None:
    for name in ("bob", "carol"):
        full.issue(name)
    full.gallery()
    clock.forward(days=40)
    full.current("carol")
    behind_its_back(path, "UPDATE heads SET alias = zeroblob(16) WHERE tag IN (SELECT subject FROM originals)")
    seen: list[str] = []
    with pytest.raises(DamagedError, match="rows of subject 'alice' in scope 'default' fail authentication"):
        seen.extend(full.subjects())
    assert sorted(seen) == ["bob", "carol"]
    receipts = []
    with pytest.raises(DamagedError, match="alice"):  # her date is not believed
        receipts.extend(full.forget_unused(timedelta(days=30), accept_most=True))
    assert [receipt.keys for receipt in receipts] == [1]
    behind_its_back(path, "UPDATE heads SET alias = zeroblob(16)")
    with pytest.raises(DamagedError, match="the gallery in scope 'default'"):
        list(full.list("default"))
    behind_its_back(path, "UPDATE heads SET name = zeroblob(60)")
    with pytest.raises(DamagedError, match="somebody whose name can't be read"):
        list(full.list())


@pytest.mark.parametrize("value", ["7", "NULL", "1.5", "'text'"])
def test_a_name_that_is_no_bytes_any_more_hides_nobody_else(full: Keystore, path: Path, value: str) -> None:
    for name in ("bob", "carol"):
        full.issue(name)
    allowed = (
        "PRAGMA writable_schema = ON; UPDATE sqlite_master SET sql = replace(sql, '{}', '{}') WHERE name = 'heads'"
    )
    for old, new in (("name BLOB NOT NULL", "name BLOB"), ("STRICT, ", "")):
        behind_its_back(path, allowed.format(old, new))
    behind_its_back(path, f"UPDATE heads SET name = {value} WHERE tag IN (SELECT subject FROM originals)")  # noqa: S608
    seen: list[str] = []
    with pytest.raises(DamagedError, match="somebody whose name can't be read"):
        seen.extend(full.subjects())
    assert sorted(seen) == ["bob", "carol"]


def test_one_subjects_damage_stops_no_other_subjects_changes(
    full: Keystore, path: Path, clock: Clock, reopen: Callable[..., Keystore]
) -> None:
    full.issue("bob")
    full.rotate("bob", grace=timedelta(days=1))
    full.close()
    store = reopen(clock=clock)
    clock.forward(days=1)
    store.current("alice")  # its use waits to be written
    behind_its_back(path, "UPDATE heads SET alias = zeroblob(16) WHERE tag IN (SELECT subject FROM originals)")
    behind_its_back(path, "UPDATE keys SET until = 5 WHERE tag IN (SELECT subject FROM originals)")
    assert store.expire() == 1
    assert store.revoke("bob") == (2,)


def test_a_rotation_after_a_breach_says_how_many_records_it_could_not_read(full: Keystore, path: Path) -> None:
    behind_its_back(path, DAMAGE["records"])
    report = full.rotate_all(reason="breach")
    assert (report.job.done, report.work, report.damaged) == (1, (), 1)
    assert "1 enrolment records are damaged" in report.to_text()
    with pytest.raises(DamagedError):  # the work list itself leaves nothing out
        list(full.due())


def test_a_job_that_is_damaged_keeps_nobody_from_being_forgotten(full: Keystore, path: Path) -> None:
    full.rotate_all()
    behind_its_back(path, "UPDATE jobs SET finished = 0, cursor = zeroblob(32)")
    assert full.forget("alice").clean


@pytest.mark.parametrize("finished", [0, 5])
def test_a_job_that_is_damaged_stops_no_rotation_after_a_breach(full: Keystore, path: Path, finished: int) -> None:
    full.rotate_all()
    behind_its_back(path, f"UPDATE jobs SET finished = {finished}")  # noqa: S608
    if finished:
        assert full.rotate_all().job.done == 1  # it ended, and is nobody's business any more
    else:
        for routine in (full.rotate_all, full.rewrap_all, full.resume):
            with pytest.raises(DamagedError, match="a row of jobs"):
                routine()
    stopped = jobs.begin_rotation(full._core, jobs.Selection(), lambda _: Ending(State.COMPROMISED), "breach")
    with pytest.raises(UnfinishedJobError):
        full.rotate_all(reason="breach")
    job = full.resume()
    assert job is not None
    assert (job.job, job.done) == (stopped, 1)
    report = full.rotate_all(reason="breach")
    assert (report.job.done, report.job.old_state) == (1, "compromised")
    assert {info.state.value for info in full.history("alice")[:-1]} <= {"compromised", "destroyed"}
    with pytest.raises(InvalidRequestError, match="no job 99"):
        full.report(99)


SCOPES_LOST = {
    "a row": ("UPDATE scopes SET mac = zeroblob(32) WHERE id = 1", "subject 'alice' in scope 'default'"),
    "a name": ("UPDATE scopes SET name = zeroblob(60) WHERE id = 1", "somebody whose name can't be read"),
    "gone": ("DELETE FROM scopes WHERE id = 1", "in a scope that is missing"),
}


@pytest.mark.parametrize("what", SCOPES_LOST)
def test_a_scope_that_is_damaged_hides_no_other_and_nobody_is_said_to_be_unknown(
    full: Keystore, path: Path, what: str
) -> None:
    full.issue("bob", "other")
    full.issue("carol", "other")
    statements, named = SCOPES_LOST[what]
    behind_its_back(path, statements)
    heard: list[tuple[str, str]] = []
    with pytest.raises(DamagedError, match="rows of") as told:
        heard.extend((info.subject, info.scope) for info in full.list())
    assert sorted(heard) == [("bob", "other"), ("carol", "other")]
    assert named in str(told.value)
    assert [info.subject for info in _as_far(full.list("other"))] == [it for it, _ in heard]
    with pytest.raises(DamagedError, match="nothing was erased") as told:
        full.forget("alice", scope=None)
    assert "--scope" in told.value.fix
    assert full.forget("alice", scope="default").clean
    assert full.forget("bob", scope="other").clean
    assert full.current("carol", "other").version == 1


def test_a_version_whose_row_was_taken_away_stays_revoked_in_an_older_file(
    tmp_path: Path, unlock: KeyFileUnlock, clock: Clock
) -> None:
    anchor = AnchorFile.create(tmp_path / "anchor")
    with Keystore.create(tmp_path / "a.db", unlock, anchor=anchor, clock=clock) as store:
        store.issue("alice")
        store.rotate("alice", grace=timedelta(days=9))
        store.backup(tmp_path / "backup", unlock)
        behind_its_back(tmp_path / "a.db", "DELETE FROM keys WHERE version = 1")
        assert store.revoke("alice") == (1, 2)
    Keystore.restore(tmp_path / "backup", tmp_path / "b.db", unlock)
    with pytest.raises(RolledBackError):
        Keystore.open(tmp_path / "b.db", unlock, anchor=anchor, clock=clock)
    with Keystore.open(tmp_path / "b.db", unlock, anchor=anchor, clock=clock, accept_rollback="lost") as store:
        for version in (1, 2):
            with pytest.raises(KeyRevokedError):
                store.at("alice", version)


@pytest.mark.parametrize("statement", ["UPDATE heads SET used = 5", "UPDATE keys SET until = 5", "DELETE FROM heads"])
def test_an_older_file_that_is_damaged_as_well_can_be_accepted_and_revives_nobody(
    tmp_path: Path, unlock: KeyFileUnlock, clock: Clock, statement: str
) -> None:
    anchor = AnchorFile.create(tmp_path / "anchor")
    with Keystore.create(tmp_path / "a.db", unlock, anchor=anchor, clock=clock) as store:
        for name in ("alice", "bob"):
            store.issue(name)
        store.backup(tmp_path / "backup", unlock)
        store.revoke("alice")
    Keystore.restore(tmp_path / "backup", tmp_path / "b.db", unlock)
    with closing(sqlite3.connect(tmp_path / "b.db")) as db:
        db.execute(statement)
        db.commit()
    with Keystore.open(tmp_path / "b.db", unlock, anchor=anchor, clock=clock, accept_rollback="lost") as store:
        with closing(sqlite3.connect(tmp_path / "b.db")) as db:
            living = db.execute("SELECT count(*) FROM keys WHERE wrapped IS NOT NULL").fetchone()[0]
        assert living == (1 if "keys" in statement else 0)  # of whom nothing is known, all keys are gone
        with pytest.raises((KeyRevokedError, DamagedError)):
            store.current("alice")
        assert told(store)
        for name in ("alice", "bob"):
            store.forget(name)


def test_damage_can_be_accepted_knowingly(full: Keystore, path: Path) -> None:
    full.issue("bob")
    behind_its_back(path, "; ".join(DAMAGE[what] for what in ("references", "originals", "records")))
    behind_its_back(path, "UPDATE reference_scopes SET since = 1")
    assert len(told(full)) > 0
    erased = full.accept_damage("disk fault of 3 May")
    assert erased == {"sealed_references": 2, "originals": 1, "enrolments": 1, "reference_scopes": 1}
    assert full.verify().ok
    last = list(full.audit())[-1]
    assert (last["action"], last["rows"], last["reason"]) == ("accept-damage", erased, "disk fault of 3 May")
    assert full.current("alice").version == 2


def test_what_was_erased_before_damage_was_accepted_is_told_no_more(full: Keystore, path: Path) -> None:
    behind_its_back(path, DAMAGE["references"])
    full.references.drop("alice")
    assert len(told(full)) == 2
    assert full.accept_damage("looked into") == {}
    assert full.verify().ok
    behind_its_back(path, DAMAGE["originals"])
    full.originals.drop("alice")
    assert any("1 of originals" in what for what in told(full))


def test_damage_of_keys_is_not_accepted(full: Keystore, path: Path) -> None:
    behind_its_back(path, DAMAGE["an old key"])
    with pytest.raises(DamagedError, match="keys"):
        full.accept_damage("never mind")
    full.revoke("alice")
    full.accept_damage("the key was revoked")
    assert full.verify().ok


def test_rows_that_are_genuine_and_do_not_fit_together_are_told(full: Keystore) -> None:
    """As a fault of the store's own would write them: with codes that are right."""
    core, who = full._core, full._who("alice", "default")
    with core.change() as change:
        head, weight = need_head(change.db, change.keys, who)
        (retired, old), _ = find_keys(change.db, change.keys, head)
        change.update_all(KEYS, [(retired._replace(state=State.COMPROMISED), old)])
    assert [what.partition(": ")[2] for what in told(full)] == ["a key's material does not fit its state"]
    with core.change() as change:
        change.delete_all(HEADS, [(head, weight)])
        change.insert(HEADS, head._replace(scope=99))
    assert [what.partition(": ")[2] for what in told(full)] == ["a subject's scope is missing"]
    with pytest.raises(DamagedError, match="in a scope that is missing"):
        list(full.list())
    full.issue("bob", scope="elsewhere")
    elsewhere, _ = need_head(core.db, core.keys, full._who("bob", "elsewhere"))
    with core.change() as change:
        change.delete_all(HEADS, [need_head(change.db, change.keys, who)])
        change.insert(HEADS, head._replace(scope=elsewhere.scope))
    assert "a subject's name is not its own" in [what.partition(": ")[2] for what in told(full)]
