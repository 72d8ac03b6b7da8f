"""Nobody waits for readers or for whoever holds a page; what was erased leaves the log as soon as it can."""

from __future__ import annotations

import contextlib
import inspect
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from keystore_calls import Scene
from keystore_clock import Clock
from patience import PATIENCE, eventually

from anonymix_keystore import (
    BusyError,
    DamagedError,
    KeyFileUnlock,
    Keystore,
    ReadOnlyError,
    RenewalInfo,
    RenewalState,
    StorageError,
    StoreExistsError,
)
from anonymix_keystore import _backup as backups


@contextlib.contextmanager
def reader(path: Path) -> Iterator[None]:
    """Another program that reads and stays, as a replication tool does."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("BEGIN")
        db.execute("SELECT count(*) FROM keys").fetchall()
        yield
        db.execute("ROLLBACK")


def wrapped(path: Path) -> set[bytes]:
    with contextlib.closing(sqlite3.connect(path)) as db:
        return {row[0] for row in db.execute("SELECT wrapped FROM keys WHERE wrapped IS NOT NULL")}


def on_disk(path: Path) -> bytes:
    return b"".join(name.read_bytes() for name in sorted(path.parent.glob(f"{path.name}*")))


def looked_up(store: Keystore, act: Callable[[], object]) -> None:
    """Let another thread look up keys while something is done; each lookup comes to its end."""
    begun, stop, failed = threading.Event(), threading.Event(), []

    def probes() -> None:
        while not stop.is_set():
            try:
                store.current("probe")
            except BusyError as error:
                failed.append(error)
            begun.set()

    thread = threading.Thread(target=probes, name="lookups")
    thread.start()
    begun.wait()
    act()
    stop.set()
    thread.join()
    assert failed == []


def sleeps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that changes make, which the load of the machine can't lengthen."""
    made: list[float] = []
    genuine = time.sleep

    def sleep(seconds: float) -> None:
        if threading.current_thread().name != "lookups":
            made.append(seconds)
        genuine(seconds)

    for module in ("_core", "_database"):
        monkeypatch.setattr(f"anonymix_keystore.{module}.time", SimpleNamespace(sleep=sleep, monotonic=time.monotonic))
    return made


def test_no_change_and_no_lookup_waits_for_a_reader_that_stays(
    path: Path, unlock: KeyFileUnlock, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Keystore.create(path, unlock, cache_age=0) as store:
        store.issue_many(["alice", "bob", "probe"])
        with reader(path):
            pauses = sleeps(monkeypatch)
            looked_up(store, lambda: store.rotate("alice", reason="breach"))
            assert sum(pauses) <= 0.1  # once, between the turns of others
            pauses.clear()
            for later in (
                lambda: store.current_or_issue("new"),
                lambda: store.rotate("bob", reason="breach"),
                lambda: store.revoke("alice"),
                lambda: store.current("bob"),
            ):
                looked_up(store, later)
                assert pauses == []
            assert store.unscrubbed
        store.issue("later")
        assert not store.unscrubbed


def test_lookups_go_on_while_somebody_else_holds_the_write_lock(
    path: Path, unlock: KeyFileUnlock, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Keystore.create(path, unlock, cache_age=0, busy_timeout=600) as store:
        store.issue("probe")
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            pauses = sleeps(monkeypatch)
            change = threading.Thread(target=store.issue, args=["alice"])
            change.start()
            assert eventually(lambda: pauses), "the change waits"
            for _ in range(20):
                store.current("probe")
            assert change.is_alive()
            other.execute("ROLLBACK")
            change.join()
        assert store.current("alice").version == 1


def test_a_change_waits_for_another_threads_no_longer_than_the_busy_timeout(path: Path, unlock: KeyFileUnlock) -> None:
    with Keystore.create(path, unlock, busy_timeout=0.1) as store:
        with store._core.change() as change:
            errors: list[BaseException] = []

            def late() -> None:
                try:
                    store.issue("alice")
                except BusyError as error:
                    errors.append(error)

            thread = threading.Thread(target=late)
            thread.start()
            thread.join()
            change.note("nothing")
        assert len(errors) == 1
        assert "other threads" in str(errors[0])


KILLED = """
import os, signal, sys
from anonymix_keystore import Keystore, KeyFileUnlock, _database
with Keystore.open(sys.argv[1], KeyFileUnlock(sys.argv[2])) as store:
    store.issue("alice")
    print("issued", flush=True)
    sys.stdin.readline()
    # Killed between the commit and the emptying of the log.
    _database.Database.scrub = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
    store.revoke("alice")
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
@pytest.mark.parametrize("by", ["the next opening", "the next change of another process"])
def test_erased_bytes_leave_the_log_though_the_process_was_killed(
    path: Path, unlock: KeyFileUnlock, tmp_path: Path, by: str
) -> None:
    with Keystore.create(path, unlock) as other:
        other.issue("bob")
        before = wrapped(path)
        with subprocess.Popen(
            [sys.executable, "-c", KILLED, str(path), str(tmp_path / "unlock.key")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout is not None
            assert process.stdin is not None
            assert process.stdout.readline() == "issued\n"
            (key,) = wrapped(path) - before
            process.stdin.write("go\n")
            process.stdin.close()
        assert process.returncode == -signal.SIGKILL
        assert other.unscrubbed
        assert key in on_disk(path)
        if by == "the next opening":
            with Keystore.open(path, unlock) as opened:
                assert not opened.unscrubbed
        else:
            other.issue("carol")
        assert not other.unscrubbed
        assert key not in on_disk(path)


def test_the_mark_stays_until_the_log_was_emptied(path: Path, unlock: KeyFileUnlock) -> None:
    with Keystore.create(path, unlock) as store:
        store.issue_many(["alice", "bob"])
        with reader(path):
            store.revoke("alice")
            for _ in range(2):
                with Keystore.open(path, unlock) as other:  # another process would see it as well
                    assert other.unscrubbed
                    other.issue_many(["carol"])
        assert store.unscrubbed
        assert store.verify().ok  # and what takes long tries again at its end
        assert not store.unscrubbed
        store.issue("dave")
        assert not store._core.header().unscrubbed


def test_a_failing_disk_does_not_undo_what_was_revoked(
    path: Path, unlock: KeyFileUnlock, monkeypatch: pytest.MonkeyPatch
) -> None:
    from anonymix_keystore import DiskFullError
    from anonymix_keystore import _database as database

    genuine = database.Database.rows

    def full(self: database.Database, sql: str, *arguments: object) -> object:
        if "checkpoint" in sql:
            raise DiskFullError("no room left")
        return genuine(self, sql, *arguments)

    with Keystore.create(path, unlock) as store:
        store.issue("alice")
        with monkeypatch.context() as patch:
            patch.setattr(database.Database, "rows", full)
            assert store.revoke("alice") == (1,)
        assert store.unscrubbed


# --- iterators and long operations ------------------------------------------------------------------


def iterators() -> list[str]:
    return sorted(
        name
        for name, method in inspect.getmembers(Keystore, inspect.isfunction)
        if not name.startswith("_") and "Iterator" in str(inspect.signature(method).return_annotation)
    )


def free(store: Keystore, act: Callable[[], object]) -> bool:
    """Whether another thread can do something now."""
    done = threading.Event()
    thread = threading.Thread(target=lambda: (act(), done.set()), daemon=True)
    thread.start()
    return done.wait(PATIENCE)


@pytest.mark.parametrize("name", iterators())
def test_an_open_iterator_holds_nobody_up(tmp_path: Path, name: str, clock: Clock) -> None:
    scene = Scene.make(tmp_path, clock=clock, cache_size=0)
    scene.enrolled()
    scene.store.issue_many(f"new{number}" for number in range(600))
    clock.forward(days=100)
    scene.store.issue_many(f"y{number}" for number in range(700))
    clock.forward(days=100)
    scene.store.issue("today")
    options: dict[str, object] = {}
    if name in {"enrolments_of", "gallery_enrolments", "renewals"}:
        scene.store.gallery()
        entry = {"adapter": "a", "collection": "c", "version": 1, "fingerprint": "f", "gallery": True}
        scene.store.record_enrolment("today", external_id="today", **entry)  # type: ignore[arg-type]
        options |= {"subject": "today"} if name == "enrolments_of" else {}
    if name in {"unused_since", "forget_unused"}:
        from datetime import timedelta

        options = {"limit": timedelta(days=150)}
    if name == "due":
        options = {"fingerprint": "other"}
    if name == "renewals":
        begun = RenewalInfo("today", "default", "a", "c", 1, "f", RenewalState.BEGUN)
        scene.store.write_renewals([begun])
        options = {"adapter": "a", "collection": "c"}
    iterator = getattr(scene.store, name)(**options)
    next(iterator)
    assert free(scene.store, lambda: scene.store.current("today"))
    assert free(scene.store, lambda: scene.store.issue("meanwhile"))
    for _ in iterator if name != "forget_unused" else ():
        pass
    scene.store.close()


def test_the_iterators_are_those_known() -> None:
    assert iterators() == [
        *("audit", "due", "enrolments", "enrolments_of", "forget_unused", "gallery_enrolments", "list"),
        *("renewals", "subjects", "unused_since"),
    ]


@pytest.mark.parametrize("what", ["export", "backup", "check of an export", "jobs"])
def test_what_takes_long_holds_nobody_up(
    tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch, unlock: KeyFileUnlock
) -> None:
    (tmp_path / "scene").mkdir()
    scene = Scene.make(tmp_path / "scene", cache_size=0)
    store, free_meanwhile = scene.store, []

    def look() -> None:
        free_meanwhile.append(free(store, lambda: store.current("s1")))
        free_meanwhile.append(free(store, lambda: store.issue(scene.fresh)))

    class SlowFile:
        def write(self, _: str) -> None:
            if not free_meanwhile:
                look()

    if what == "export":
        store.export_audit(SlowFile())  # type: ignore[arg-type]
    elif what == "backup":
        genuine = backups._sealed

        def slow(*arguments: object) -> Iterator[bytes]:
            look()
            return genuine(*arguments)  # type: ignore[arg-type]

        monkeypatch.setattr(backups, "_sealed", slow)
        store.backup(tmp_path / "b", unlock)
    elif what == "jobs":
        store.rotate_all(batch=4, progress=lambda _: None if free_meanwhile else look())
    else:
        import io

        file = io.StringIO()
        store.export_audit(file)

        def lines() -> Iterator[str]:
            look()
            yield from file.getvalue().splitlines()

        store.check_audit_export(lines())
    assert free_meanwhile == [True, True]
    assert store.verify().ok
    store.close()


# --- backups that are killed ------------------------------------------------------------------------

KILLED_BACKUP = """
import os, signal, sys
from pathlib import Path
from anonymix_keystore import Keystore, KeyFileUnlock, _backup
store, key, what, named = sys.argv[1:]
if named == "named":
    _backup._nameless = lambda *_: None
genuine = os.fsync
def killed(handle):
    genuine(handle)
    os.kill(os.getpid(), signal.SIGKILL)
if what == "put in place":
    link = os.link
    os.link = lambda *a, **k: (link(*a, **k), os.kill(os.getpid(), signal.SIGKILL))
else:
    _backup.os.fsync = killed
unlock = KeyFileUnlock(key)
folder = Path(store).parent
if what == "backup":
    with Keystore.open(store, unlock) as opened:
        opened.backup(folder / "second", unlock)
else:
    Keystore.restore(folder / "backup", folder / "restored.db", unlock)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
@pytest.mark.parametrize("named", ["nameless", "named"])
@pytest.mark.parametrize("what", ["backup", "restore", "put in place"])
def test_a_killed_backup_or_restore_leaves_no_image(
    path: Path, unlock: KeyFileUnlock, tmp_path: Path, what: str, named: str
) -> None:
    with Keystore.create(path, unlock) as store:
        store.issue_many(f"s{number}" for number in range(50))
        keys = wrapped(path)
        store.backup(tmp_path / "backup", unlock)
    before = {file.name for file in tmp_path.iterdir()}
    done = subprocess.run(
        [sys.executable, "-c", KILLED_BACKUP, str(path), str(tmp_path / "unlock.key"), what, named],
        check=False,
    )
    assert done.returncode == -signal.SIGKILL

    def drafts() -> list[Path]:
        known = {*before, "restored.db", "keystore.db-wal", "keystore.db-shm"}
        return [file for file in tmp_path.iterdir() if file.name not in known]

    if named == "named" or not hasattr(os, "O_TMPFILE"):
        assert len(drafts()) == 1
        if what == "backup":  # never the bare store
            assert not any(key in drafts()[0].read_bytes() for key in keys)
    else:
        assert drafts() == []
    if what == "put in place":
        with Keystore.open(tmp_path / "restored.db", unlock) as restored:  # sweeping leaves its locks alone
            restored.backup(tmp_path / "third", unlock)
            assert restored.issue("after").version == 1
            assert restored.verify().ok
        (tmp_path / "third").unlink()
    else:
        assert not (tmp_path / "restored.db").exists()
        with Keystore.open(path, unlock) as store:
            store.backup(tmp_path / "third", unlock)
        (tmp_path / "third").unlink()
    assert drafts() == []


def test_drafts_in_use_and_other_files_are_not_swept(
    path: Path, unlock: KeyFileUnlock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    strangers = [".x.writing-1234", ".notes.image-0123456789ab.txt", "x.writing-0123456789ab"]
    for name in strangers:
        (tmp_path / name).touch()
    (tmp_path / ".x.writing-0123456789ab").mkdir()
    (tmp_path / ".x.image-0123456789ab").touch()
    monkeypatch.setattr(backups, "_nameless", lambda *_: None)
    genuine = backups._sealed

    def meanwhile(*arguments: object) -> Iterator[bytes]:
        backups.sweep(tmp_path)  # as another backup into the same folder would
        yield from genuine(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(backups, "_sealed", meanwhile)
    with Keystore.create(path, unlock) as store:
        store.issue("alice")
        store.backup(tmp_path / "backup", unlock)
        assert all((tmp_path / name).exists() for name in strangers)
        assert (tmp_path / ".x.writing-0123456789ab").is_dir()
        assert not (tmp_path / ".x.image-0123456789ab").exists()
        # A draft that somebody opened as a store is none any more.
        draft = tmp_path / ".restored.db.restoring-0123456789ab"
        Keystore.restore(tmp_path / "backup", draft, unlock)
        with Keystore.open(draft, unlock):
            backups.sweep(tmp_path)
            assert draft.exists()
        backups.sweep(tmp_path)
        assert not draft.exists()
    backups.sweep(tmp_path / "none")


def test_drafts_are_swept_where_files_in_use_can_not_be_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".x.image-0123456789ab").touch()
    with (tmp_path / "file").open("w") as file:
        monkeypatch.setattr(backups.os, "name", "nt")
        claimed = backups._claim(file.fileno())
        monkeypatch.undo()
    assert claimed


@pytest.mark.parametrize("gone", ["O_TMPFILE", "descriptors"])
def test_systems_without_nameless_files_are_served(
    path: Path, unlock: KeyFileUnlock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gone: str
) -> None:
    with Keystore.create(path, unlock) as store:
        store.issue("alice")
        if gone == "O_TMPFILE":
            monkeypatch.delattr(os, "O_TMPFILE", raising=False)
        else:
            monkeypatch.setattr(backups, "_DESCRIPTORS", tmp_path / "none")
        store.backup(tmp_path / "backup", unlock)
        Keystore.restore(tmp_path / "backup", tmp_path / "restored.db", unlock)
    with Keystore.open(tmp_path / "restored.db", unlock) as restored:
        assert restored.current("alice").version == 1
    assert [file.name for file in tmp_path.iterdir() if file.name.startswith(".")] == []


def test_a_folder_that_can_not_be_written_and_a_file_that_appears_at_last_are_told(
    path: Path, unlock: KeyFileUnlock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "no")

    with Keystore.create(path, unlock) as store:
        store.backup(tmp_path / "backup", unlock)
        with monkeypatch.context() as patch:
            patch.setattr(backups, "_nameless", refuse)
            with pytest.raises(ReadOnlyError):
                store.backup(tmp_path / "second", unlock)
        with monkeypatch.context() as patch:
            patch.setattr(backups, "check_free", lambda _: None)
            (tmp_path / "taken.db").write_text("mine")
            with pytest.raises(StoreExistsError):
                Keystore.restore(tmp_path / "backup", tmp_path / "taken.db", unlock)
        assert (tmp_path / "taken.db").read_text() == "mine"


def test_an_image_that_memory_has_no_room_for_is_told(path: Path, unlock: KeyFileUnlock) -> None:
    class Full:
        def serialize(self) -> bytes:
            raise MemoryError

    class Damaged:
        def serialize(self) -> bytes:
            raise sqlite3.DatabaseError("malformed")

    with Keystore.create(path, unlock) as store:
        database = store._core._db
        genuine = database._db
        for connection, kind in ((Full(), StorageError), (Damaged(), DamagedError)):
            database._db = SimpleNamespace(conn=connection)  # type: ignore[assignment]
            with pytest.raises(kind):
                database.image()
        database._db = genuine


def test_a_store_that_can_not_be_opened_once_made_leaves_no_file(
    path: Path, unlock: KeyFileUnlock, monkeypatch: pytest.MonkeyPatch
) -> None:
    from anonymix_keystore import _keystore

    def refuse(*_: object, **__: object) -> None:
        raise StorageError("can't be opened")

    monkeypatch.setattr(_keystore, "Database", refuse)
    with pytest.raises(StorageError):
        Keystore.create(path, unlock)
    assert not path.exists()
