from __future__ import annotations

import io
import json
import shutil
import sqlite3
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from keystore_clock import Clock

from anonymix_keystore import (
    AnchorError,
    AnchorFile,
    AnchorState,
    CallbackAnchor,
    DamagedError,
    KeyFileUnlock,
    KeyRevokedError,
    Keystore,
    RolledBackError,
    StoreExistsError,
    UnknownSubjectError,
)


@pytest.fixture
def anchor(tmp_path: Path) -> AnchorFile:
    return AnchorFile.create(tmp_path / "anchor.db")


@pytest.fixture
def tied(path: Path, unlock: KeyFileUnlock, clock: Clock, anchor: AnchorFile):
    with Keystore.create(path, unlock, clock=clock, anchor=anchor, actor="tester") as made:
        yield made


def tamper(path: Path, *statements: tuple[str, tuple[object, ...]]) -> None:
    db = sqlite3.connect(path)
    with db:
        for sql, values in statements:
            db.execute(sql, values)
    db.close()


def test_every_change_leaves_a_line(store: Keystore, clock: Clock) -> None:
    store.issue("alice", reason="hired")
    clock.forward(seconds=5)
    store.rotate("alice")
    store.retire("alice", reason="on leave")
    store.revoke("alice", reason="left")
    lines = list(store.audit())
    assert [line["action"] for line in lines] == ["create", "issue", "rotate", "retire", "revoke"]
    assert [line["seq"] for line in lines] == [1, 2, 3, 4, 5]
    assert store.epoch == 5
    alias = store.history("alice")[0].alias
    assert [line["keys"] for line in lines[1:]] == [
        [[alias, 0, 1]],
        [[alias, 1, 2]],
        [[alias, 2, 0]],
        [[alias, 1, 0], [alias, 2, 0]],
    ]
    assert {line["actor"] for line in lines} == {"tester"}
    assert lines[1]["reason"] == "hired"
    assert lines[2]["time"] == lines[1]["time"] + 5
    assert [line["seq"] for line in store.audit(after=3)] == [4, 5]
    assert "alice" not in json.dumps(lines)


def test_reading_leaves_no_line(store: Keystore) -> None:
    store.issue("alice")
    epoch = store.epoch
    store.current("alice")
    store.at("alice", 1)
    list(store.list())
    store.verify()
    with pytest.raises(UnknownSubjectError):
        store.rotate("bob")
    assert store.revoke("alice")
    assert store.revoke("alice") == ()
    assert store.epoch == epoch + 1


def test_an_exported_trail_is_checked_against_the_store(store: Keystore) -> None:
    store.issue_many((f"s{number}" for number in range(5)), batch=1)
    file = io.StringIO()
    assert store.export_audit(file) == 6
    rows = file.getvalue().splitlines()
    line = json.loads(json.loads(rows[1])["line"])
    assert json.loads(rows[1])["line"] == json.dumps(line, sort_keys=True, separators=(",", ":"))
    store.issue("later")
    assert store.check_audit_export(rows) == 6
    assert store.check_audit_export(rows[:3]) == 3
    assert store.check_audit_export([]) == 0
    changed = json.loads(rows[2])
    changed["line"] = changed["line"].replace("tester", "nobody")
    for bad in (
        rows[1:],
        [rows[0], *rows[2:]],
        [*rows[:2], json.dumps(changed), *rows[3:]],
        [rows[1], rows[0]],
        ["no json"],
        ["{}"],
    ):
        with pytest.raises(DamagedError):
            store.check_audit_export(bad)


def test_an_export_of_another_store_is_refused(store: Keystore, tmp_path: Path, unlock: KeyFileUnlock) -> None:
    file = io.StringIO()
    with Keystore.create(tmp_path / "other.db", unlock) as other:
        other.export_audit(file)
    with pytest.raises(DamagedError):
        store.check_audit_export(file.getvalue().splitlines())


def test_an_export_that_ends_beyond_the_store_is_refused(store: Keystore, path: Path, tmp_path: Path, reopen) -> None:
    store.close()
    shutil.copy(path, tmp_path / "old.db")
    later = reopen()
    later.issue("alice")
    file = io.StringIO()
    later.export_audit(file)
    later.close()
    shutil.copy(tmp_path / "old.db", path)
    with pytest.raises(DamagedError):
        reopen().check_audit_export(file.getvalue().splitlines())


def test_a_full_check_of_a_sound_store_finds_nothing(tied: Keystore) -> None:
    tied.issue_many(f"s{number}" for number in range(20))
    tied.rotate_all(batch=6)
    tied.revoke("s3")
    tied.gallery("staff")
    found = tied.verify()
    assert found.ok
    assert found.anchored
    assert found.epoch == found.lines == tied.epoch
    assert found.keys == 39
    assert found.rows > 60


@pytest.mark.parametrize(
    ("sql", "words"),
    [
        ("UPDATE keys SET state = 1 WHERE version = 1", "keys"),
        ("UPDATE keys SET until = until + 1", "keys"),
        ("DELETE FROM keys WHERE version = 1", "removed"),
        ("DELETE FROM heads", "removed"),
        ("DELETE FROM enrolments", "removed"),
        ("UPDATE heads SET active = 1", "heads"),
        ("DELETE FROM audit WHERE seq = 3", "chain"),
        ("DELETE FROM audit WHERE seq = (SELECT max(seq) FROM audit)", "end"),
        ("UPDATE audit SET mac = zeroblob(32) WHERE seq = 2", "chain"),
        ("UPDATE audit SET sealed = zeroblob(200) WHERE seq = 2", "line 2"),
        ("UPDATE audit SET sealed = (SELECT sealed FROM audit WHERE seq = 3) WHERE seq = 2", "line 2"),
        ("DELETE FROM slots", "slot"),
        ("DELETE FROM header", "header"),
        ("UPDATE header SET sealed = zeroblob(300)", "header"),
        ("UPDATE scopes SET name = zeroblob(100)", "scopes"),
    ],
)
def test_a_full_check_finds_what_was_changed_behind_its_back(store: Keystore, path: Path, sql: str, words: str) -> None:
    store.issue("alice")
    store.rotate("alice")
    store.record_enrolment("alice", adapter="x", collection="c", external_id="e", version=2, fingerprint="f")
    assert store.verify().ok
    tamper(path, (sql, ()))
    found = store.verify()
    assert not found.ok
    assert any(words in finding.what for finding in found.findings)


def test_a_row_put_back_to_its_older_self_is_found(store: Keystore, path: Path) -> None:
    store.issue("alice")
    db = sqlite3.connect(path)
    head = db.execute("SELECT * FROM heads").fetchone()
    key = db.execute("SELECT * FROM keys").fetchone()
    db.close()
    store.revoke("alice")
    tamper(
        path,
        ("DELETE FROM heads", ()),
        ("DELETE FROM keys", ()),
        ("INSERT INTO heads VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", head),
        ("INSERT INTO keys VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", key),
    )
    assert [finding.code for finding in store.verify().findings] == ["damaged"]


def test_a_cut_trail_stops_changes_at_once(store: Keystore, path: Path, reopen) -> None:
    store.issue("alice")
    tamper(path, ("DELETE FROM audit WHERE seq = 2", ()))
    with pytest.raises(RolledBackError):
        store.issue("bob")
    with pytest.raises(RolledBackError):
        reopen()


# --- anchors ----------------------------------------------------------------------------------------


def test_the_anchor_follows_every_change(tied: Keystore, anchor: AnchorFile, tmp_path: Path) -> None:
    tied.issue("alice")
    assert anchor.read() == tied.anchor_state()
    tied.revoke("alice")
    assert anchor.read() == tied.anchor_state()
    assert list(anchor.revoked()) == [(bytes.fromhex(tied.history("alice")[0].alias), 1)]
    assert stat.S_IMODE((tmp_path / "anchor.db").stat().st_mode) == 0o600
    with pytest.raises(StoreExistsError):
        AnchorFile.create(tmp_path / "anchor.db")


def test_an_old_file_is_refused(tied: Keystore, path: Path, tmp_path: Path, reopen, anchor: AnchorFile) -> None:
    tied.issue("alice")
    tied.close()
    shutil.copy(path, tmp_path / "old.db")
    again = reopen(anchor=anchor)
    again.revoke("alice")
    again.close()
    shutil.copy(tmp_path / "old.db", path)
    with pytest.raises(RolledBackError):
        reopen(anchor=anchor)
    # without its anchor nothing tells that the file is old
    assert reopen().current("alice").version == 1


def test_a_rollback_knowingly_accepted_keeps_revoked_keys_dead(
    tied: Keystore, path: Path, tmp_path: Path, reopen, anchor: AnchorFile
) -> None:
    for name in ("revoked", "forgotten", "breached", "kept"):
        tied.issue(name)
    kept = tied.current("kept")
    tied.close()
    shutil.copy(path, tmp_path / "old.db")
    again = reopen(anchor=anchor)
    again.revoke("revoked")
    again.forget("forgotten")
    again.rotate("breached", reason="breach")
    lost = again.issue("issued since")
    before = again.epoch
    again.close()
    shutil.copy(tmp_path / "old.db", path)
    restored = reopen(anchor=anchor, accept_rollback="disk died")
    for name in ("revoked", "forgotten", "breached"):
        with pytest.raises(KeyRevokedError):
            restored.current(name)
        with pytest.raises(KeyRevokedError):
            restored.at(name, 1)
    assert restored.current("kept") == kept
    with pytest.raises(UnknownSubjectError):
        restored.current(lost.subject)
    assert restored.epoch == before + 1
    assert list(restored.audit())[-1]["reason"] == "disk died"
    assert restored.verify().ok
    restored.close()
    assert reopen(anchor=anchor).verify().ok


def test_another_history_at_a_later_epoch_is_refused(
    tied: Keystore, path: Path, tmp_path: Path, reopen, anchor: AnchorFile
) -> None:
    tied.close()
    shutil.copy(path, tmp_path / "old.db")
    with reopen(anchor=anchor) as again:
        again.issue("alice")
    shutil.copy(tmp_path / "old.db", path)
    with reopen() as forked:
        for number in range(4):
            forked.issue(f"s{number}")
    with pytest.raises(RolledBackError):
        reopen(anchor=anchor)
    restored = reopen(anchor=anchor, accept_rollback="known")
    assert restored.current("s3").version == 1
    assert restored.verify().ok


def test_an_anchor_that_lags_behind_a_crash_is_no_alarm(tied: Keystore, reopen, anchor: AnchorFile) -> None:
    tied.close()
    with reopen() as unanchored:  # changes that the anchor did not see
        unanchored.issue("alice")
    assert reopen(anchor=anchor).current("alice").version == 1


def test_anchors_that_do_not_fit_are_refused(
    tied: Keystore, tmp_path: Path, reopen, unlock: KeyFileUnlock, anchor: AnchorFile
) -> None:
    tied.close()
    empty = AnchorFile.create(tmp_path / "empty.db")
    foreign = AnchorFile.create(tmp_path / "foreign.db")
    Keystore.create(tmp_path / "other.db", unlock, anchor=foreign).close()
    damaged = tmp_path / "damaged.db"
    damaged.write_bytes(b"nonsense" * 1000)
    forged = AnchorFile.create(tmp_path / "forged.db")
    state = anchor.read()
    assert state is not None
    forged.advance(AnchorState(state.store_id, 1, state.head, bytes(32)), [])
    for bad in (AnchorFile(tmp_path / "missing.db"), empty, foreign, AnchorFile(damaged), forged):
        with pytest.raises(AnchorError):
            reopen(anchor=bad)
    tamper(tmp_path / "anchor.db", ("UPDATE state SET head = zeroblob(32)", ()))
    with pytest.raises(AnchorError):
        reopen(anchor=anchor)
    with pytest.raises(AnchorError):
        reopen(anchor=None).tie_anchor(foreign)


def test_a_store_can_be_tied_to_an_anchor_later(store: Keystore, reopen, anchor: AnchorFile) -> None:
    store.issue("alice")
    store.tie_anchor(anchor)
    assert anchor.read() == store.anchor_state()
    store.close()
    again = reopen(anchor=anchor)
    again.tie_anchor(anchor)
    assert again.verify().anchored


def test_an_anchor_that_can_not_be_moved_is_told_though_the_change_stands(
    tied: Keystore, tmp_path: Path, anchor: AnchorFile
) -> None:
    (tmp_path / "anchor.db").unlink()
    with pytest.raises(AnchorError, match="the change was made"):
        tied.issue("alice")
    assert tied.current("alice").version == 1
    assert [finding.code for finding in tied.verify().findings] == ["anchor"]


def test_a_callback_anchor_tells_a_rollback(store: Keystore, path: Path, tmp_path: Path, reopen) -> None:
    kept: list[AnchorState] = []
    anchor = CallbackAnchor(lambda: kept[-1] if kept else None, kept.append)
    store.tie_anchor(anchor)
    store.issue("alice")
    store.close()
    shutil.copy(path, tmp_path / "old.db")
    with reopen(anchor=anchor) as again:
        again.revoke("alice")
    shutil.copy(tmp_path / "old.db", path)
    with pytest.raises(RolledBackError):
        reopen(anchor=anchor)
    # it does not remember what was revoked
    assert reopen(anchor=anchor, accept_rollback="known").current("alice").version == 1


def test_an_older_state_never_replaces_a_later_one_in_an_anchor(tied: Keystore, anchor: AnchorFile) -> None:
    old = tied.anchor_state()
    tied.issue("alice")
    new = tied.anchor_state()
    anchor.advance(old, [])
    assert anchor.read() == new


def test_accepting_a_rollback_takes_an_anchor(store: Keystore) -> None:
    from anonymix_keystore import _rollback

    with pytest.raises(AnchorError):
        _rollback.accept(store._core, "why")


def test_a_damaged_state_in_the_anchor_is_refused(tied: Keystore, tmp_path: Path, reopen, anchor: AnchorFile) -> None:
    tied.close()
    tamper(
        tmp_path / "anchor.db",
        ("DROP TABLE state", ()),
        ("CREATE TABLE state (id, store_id, epoch, head, mac)", ()),
        ("INSERT INTO state VALUES (1, 'text', 1, 'text', 'text')", ()),
    )
    with pytest.raises(AnchorError):
        reopen(anchor=anchor)


def test_concurrent_reading_sees_a_whole_trail(tied: Keystore) -> None:
    tied.issue("alice")
    lines: list[Callable[[], object]] = []
    for line in tied.audit():
        lines.append(lambda line=line: line)
        if len(lines) == 1:
            tied.issue("bob")
    assert len(lines) in {2, 3}
