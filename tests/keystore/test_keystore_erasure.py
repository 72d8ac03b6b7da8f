from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from keystore_clock import Clock

from anonymix_keystore import (
    AnchorError,
    AnchorFile,
    InvalidRequestError,
    KeyFileUnlock,
    KeyRevokedError,
    KeyState,
    Keystore,
    StorageError,
    UnknownSubjectError,
)


def wrapped(path: Path) -> set[bytes]:
    """All wrapped keys in a store's file, read behind its back."""
    with sqlite3.connect(path) as db:
        found = {row[0] for row in db.execute("SELECT wrapped FROM keys WHERE wrapped IS NOT NULL")}
    db.close()
    return found


def bytes_on_disk(path: Path) -> bytes:
    return b"".join(file.read_bytes() for file in sorted(path.parent.glob(f"{path.name}*")))


@pytest.mark.parametrize("how", ["revoke", "breach", "no grace", "breach of all", "expire", "forget", "rewrap"])
def test_an_erased_key_leaves_no_byte_in_file_log_or_journal(
    store: Keystore, path: Path, how: str, clock: Clock
) -> None:
    store.issue_many(f"s{number}" for number in range(40))
    store.issue("alice")
    others = wrapped(path)
    if how == "expire":
        store.rotate_all(grace=timedelta(days=1))
        clock.forward(days=1)
    before = wrapped(path)
    assert all(needle in bytes_on_disk(path) for needle in others)
    actions: dict[str, Callable[[], object]] = {
        "revoke": lambda: store.revoke("alice"),
        "breach": lambda: store.rotate("alice", reason="breach"),
        "no grace": lambda: store.rotate("alice", grace=timedelta(0)),
        "breach of all": lambda: store.rotate_all(reason="breach", batch=7),
        "expire": store.expire,
        "forget": lambda: store.forget("alice"),
        "rewrap": store.rewrap_all,
    }
    actions[how]()
    gone = before - wrapped(path)
    assert len(gone) == {"breach of all": 41, "expire": 41, "rewrap": 41}.get(how, 1)
    content = bytes_on_disk(path)  # while the store is open: the log is there, and empty
    assert not any(needle in content for needle in gone)
    assert Path(f"{path}-wal").stat().st_size == 0
    assert not store.unscrubbed


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Somebody else reads the store and stays."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM keys").fetchall()
        yield
        reader.execute("ROLLBACK")


def test_a_reader_in_the_way_delays_erasing_until_it_is_gone(store: Keystore, path: Path) -> None:
    store.issue("alice")
    (key,) = wrapped(path)
    with reading(path):
        store.revoke("alice")
        assert store.unscrubbed
        assert key in bytes_on_disk(path)
    store.issue("bob")  # any later change takes it up
    assert not store.unscrubbed
    assert key not in bytes_on_disk(path)


def test_forgetting_erases_everything_about_a_person(store: Keystore, path: Path, tmp_path: Path) -> None:
    store.originals.enable(KeyFileUnlock.generate(tmp_path / "second.key"))
    for scope in ("a", "b"):
        store.issue("alice", scope)
        store.rotate("alice", scope)
    store.issue("bob", "a")
    store.originals.keep("alice", b"face", scope="a")
    store.references.enable("a")
    store.references.keep(store.current("alice", "a"), b"code", fingerprint="f", subspace="s")
    for entry in ("e1", "e2"):
        store.record_enrolment("alice", "a", adapter="x", collection="c", external_id=entry, version=2, fingerprint="f")
    store.mark_removed(next(item.entry for item in store.enrolments() if item.external_id == "e2"))
    receipt = store.forget("alice", reason="art. 17")
    assert receipt.clean
    assert (receipt.rows_left, receipt.traces_left) == (0, 0)
    assert (receipt.keys, receipt.enrolments, receipt.originals, receipt.references) == (4, 1, 1, 1)
    assert set(receipt.scopes) == {"a", "b"}
    assert [item.external_id for item in receipt.entries] == ["e1"]
    assert len(receipt.aliases) == 2
    line = next(line for line in store.audit() if line["seq"] == receipt.epoch)
    assert line["action"] == "forget"
    assert {move[0] for move in line["keys"]} == set(receipt.aliases)
    assert bytes.fromhex(receipt.code) == store.anchor_state().head
    assert set(store.subjects()) == {"bob"}
    with pytest.raises(UnknownSubjectError):
        store.current("alice", "a")
    content = bytes_on_disk(path)
    assert not any(bytes.fromhex(alias) in content for alias in receipt.aliases)
    assert store.verify().ok


def test_forgetting_one_scope_leaves_the_others(store: Keystore) -> None:
    store.issue("alice", "a")
    kept = store.issue("alice", "b")
    assert store.forget("alice", "a").scopes == ("a",)
    assert store.current("alice", "b") == kept
    with pytest.raises(UnknownSubjectError):
        store.forget("alice", "a")
    with pytest.raises(UnknownSubjectError):
        store.forget("nobody")


def test_one_who_was_known_by_enrolments_alone_is_forgotten_too(store: Keystore) -> None:
    store.gallery("a")
    store.record_enrolment(
        "alice", "a", adapter="x", collection="c", external_id="e", version=1, fingerprint="f", gallery=True
    )
    receipt = store.forget("alice")
    assert [item.external_id for item in receipt.entries] == ["e"]
    assert receipt.keys == 0
    assert list(store.enrolments()) == []
    assert store.gallery("a").version == 1


def test_one_who_comes_back_begins_again(store: Keystore) -> None:
    old = store.issue("alice")
    alias = store.history("alice")[0].alias
    store.forget("alice")
    new = store.current_or_issue("alice")
    assert new.version == 1
    assert new.material != old.material
    assert store.history("alice")[0].alias != alias


def test_what_is_left_of_a_person_stands_in_the_receipt(store: Keystore, path: Path) -> None:
    store.issue_many(["alice", "bob"])
    # A build of SQLite that does not wipe what it deletes: the page keeps the bytes.
    store._core._writer.rows("PRAGMA secure_delete=OFF")
    receipt = store.forget("alice")
    assert receipt.rows_left == 0
    assert receipt.traces_left > 0
    assert not receipt.clean
    assert bytes.fromhex(receipt.aliases[0]) in bytes_on_disk(path)


def test_a_reader_in_the_way_stands_in_the_receipt(store: Keystore, path: Path) -> None:
    store.issue_many(["alice", "bob", "carol"])
    with reading(path):
        receipt = store.forget("alice")
        assert not receipt.clean
        assert store.unscrubbed
    assert store.forget("bob").clean
    assert not store.unscrubbed


def test_keys_unused_for_three_years_are_listed_and_forgotten(
    store: Keystore, clock: Clock, reopen: Callable[..., Keystore]
) -> None:
    store.issue("gone")
    store.issue("still here", "staff")
    store.gallery("staff")
    clock.forward(days=1000)
    store.current("still here", "staff")
    store.close()  # the use is written
    store = reopen()
    clock.forward(days=96)
    assert [(item.subject, item.scope) for item in store.unused_since()] == [("gone", "default")]
    assert list(store.unused_since(scope="staff")) == []
    receipts = list(store.forget_unused())
    assert [receipt.clean for receipt in receipts] == [True]
    assert set(store.subjects()) == {"still here"}
    assert [item.subject for item in store.unused_since(timedelta(days=95))] == ["still here"]
    with pytest.raises(InvalidRequestError):
        store.unused_since(timedelta(hours=23))


def test_a_probe_counts_as_use(store: Keystore, clock: Clock) -> None:
    store.issue("alice")
    clock.forward(days=40)
    store.at("alice", 1)
    assert list(store.unused_since(timedelta(days=30))) == []


def test_uses_are_written_when_many_wait(store: Keystore, clock: Clock, path: Path) -> None:
    store.issue_many(f"s{number}" for number in range(1001))
    clock.forward(days=2)
    for number in range(1001):
        store.current(f"s{number}")
        store.current(f"s{number}")
    with sqlite3.connect(path) as db:
        today = int(clock.now) // 86_400
        assert db.execute("SELECT count(*) FROM heads WHERE used = ?", (today,)).fetchone() == (1000,)
    db.close()
    assert store.verify().ok


def test_a_use_of_one_who_was_forgotten_since_is_dropped(
    store: Keystore, clock: Clock, reopen: Callable[..., Keystore]
) -> None:
    other = reopen()
    store.issue("alice")
    clock.forward(days=2)
    other.current("alice")
    store.forget("alice")
    other.issue("bob")
    assert set(other.subjects()) == {"bob"}
    assert other.verify().ok


def test_a_use_that_another_process_wrote_first_is_not_written_again(
    store: Keystore, clock: Clock, reopen: Callable[..., Keystore]
) -> None:
    other = reopen()
    store.issue("alice")
    clock.forward(days=2)
    store.current("alice")
    other.current("alice")
    store.issue("bob")
    other.issue("carol")
    assert other.verify().ok


def test_expired_keys_are_erased_page_by_page(store: Keystore, clock: Clock) -> None:
    store.issue_many(f"s{number}" for number in range(501))
    store.rotate_all(grace=timedelta(days=1))
    store.rotate("s0", grace=timedelta(days=9))
    assert store.expire() == 0
    clock.forward(days=1)
    assert store.expire() == 501
    assert store.expire() == 0
    assert [info.state for info in store.history("s0")] == [
        KeyState.DESTROYED,
        KeyState.RETIRED,
        KeyState.ACTIVE,
    ]
    with pytest.raises(KeyRevokedError):
        store.at("s1", 1)
    assert store.verify().ok


@pytest.mark.parametrize("listed", [False, True])
def test_no_job_remembers_one_who_was_forgotten(
    store: Keystore, path: Path, listed: bool, reopen: Callable[..., Keystore]
) -> None:
    names = [f"s{number}" for number in range(6)]
    store.issue_many(names)
    subjects = names if listed else None
    by_tag = sorted(names, key=lambda name: store._who(name, "default").tag)

    class StopError(Exception):
        pass

    def stop(_: object) -> None:
        raise StopError

    with pytest.raises(StopError):
        store.rotate_all(subjects=subjects, batch=3, progress=stop)
    for name in (by_tag[2], by_tag[1], by_tag[0], by_tag[4]):  # the one at the cursor first
        assert store.forget(name).clean
    assert store.resume() is not None
    assert {info.subject: info.version for info in store.list()} == {by_tag[3]: 2, by_tag[5]: 2}
    assert store.forget(by_tag[5]).clean
    assert store.verify().ok


def test_a_receipt_is_given_though_the_anchor_or_a_second_look_fails(
    path: Path, unlock: KeyFileUnlock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    anchor = AnchorFile.create(tmp_path / "anchor")
    with Keystore.create(path, unlock, anchor=anchor) as store:
        for name in ("alice", "bob", "carol"):
            store.issue(name)
            store.record_enrolment(
                name, adapter="x", collection="c", external_id=f"of {name}", version=1, fingerprint="f"
            )
        (tmp_path / "anchor").rename(tmp_path / "away")
        with pytest.raises(AnchorError, match="the change was made") as told:
            store.forget("alice")
        receipt = told.value.receipt
        assert receipt is not None
        assert receipt.clean
        assert [entry.external_id for entry in receipt.entries] == ["of alice"]
        with pytest.raises(UnknownSubjectError) as told_unknown:
            store.forget("alice")
        assert told_unknown.value.receipt is None
        (tmp_path / "away").rename(tmp_path / "anchor")

        def refuse(*_: object) -> None:
            raise StorageError("no descriptor left")

        monkeypatch.setattr(store._core, "_another", refuse)
        receipt = store.forget("bob")
        monkeypatch.undo()
        assert [entry.external_id for entry in receipt.entries] == ["of bob"]
        assert not receipt.clean  # nobody could look

        monkeypatch.setattr(store._core._writer, "check_main", refuse)
        with pytest.raises(StorageError) as told_storage:
            store.forget("carol")
        monkeypatch.undo()
        assert told_storage.value.receipt is None  # nothing was changed
        assert store.current("carol").version == 1
        assert store.verify().ok
