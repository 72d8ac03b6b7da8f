"""Nobody but SQLite opens a live store's files, so the locks of the process stay where they are."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from keystore_calls import CALLS, Scene, own, public

from anonymix_keystore import (
    ForeignFileError,
    KeyFileUnlock,
    Keystore,
    KeystoreError,
    LockedError,
    UnlockUnavailableError,
    is_live,
)
from anonymix_keystore import _held as held

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
needs_proc = pytest.mark.skipif(not Path("/proc/locks").exists(), reason="needs /proc/locks")


def test_every_public_method_is_called() -> None:
    assert set(CALLS) == public()


def locks(path: Path) -> set[tuple[str, ...]]:
    """The locks that this process has on a store's files: kind, file, range."""
    inodes = {str(name.stat().st_ino): name.name for name in own(path) if name.exists()}
    found = set()
    for line in Path("/proc/locks").read_text().splitlines():
        if "->" in line:  # somebody who waits for a lock
            continue
        _, style, _, kind, pid, place, *span = line.split()
        inode = place.rsplit(":", 1)[1]
        if style == "POSIX" and int(pid) == os.getpid() and inode in inodes:
            found.add((kind, inodes[inode], *span))
    return found


@needs_proc
def test_every_public_method_leaves_the_locks_of_the_process_alone(tmp_path: Path) -> None:
    scene = Scene.make(tmp_path)
    held_before = locks(scene.store.path)
    # A shared lock on the file and one on the log's index say that somebody is there.
    assert {name for _, name, *_ in held_before} == {"store.db", "store.db-shm"}
    for name, call in CALLS.items():
        if name != "close":
            call(scene)
            assert locks(scene.store.path) == held_before, name
    CALLS["close"](scene)
    assert locks(scene.store.path) == set()


WORKER = """
import sys
from anonymix_keystore import Keystore, KeyFileUnlock
path, key, who = sys.argv[1:]
with Keystore.open(path, KeyFileUnlock(key)) as store:
    print("open", flush=True)
    for line in sys.stdin:
        for number in range(60):
            store.issue(f"{who}{number}")
        print("done", flush=True)
"""


def test_nothing_is_lost_when_one_forgets_another_leaves_and_both_write(
    path: Path, unlock: KeyFileUnlock, tmp_path: Path
) -> None:
    with Keystore.create(path, unlock) as store:
        store.issue_many(f"old{number}" for number in range(200))
        store.forget("old0")
        with Keystore.open(path, unlock):  # in this process
            pass
        script = (
            "import sys; from anonymix_keystore import *\n"
            "Keystore.open(sys.argv[1], KeyFileUnlock(sys.argv[2])).close()"
        )
        key = str(tmp_path / "unlock.key")
        subprocess.run([sys.executable, "-c", script, str(path), key], check=True)  # and in a foreign one
        with subprocess.Popen(
            [sys.executable, "-c", WORKER, str(path), key, "w"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as other:
            assert other.stdin is not None
            assert other.stdout is not None
            assert other.stdout.readline() == "open\n"
            other.stdin.write("go\n")
            other.stdin.close()
            for number in range(60):
                store.issue(f"a{number}")
            assert other.stdout.readline() == "done\n"
    with Keystore.open(path, unlock) as store:
        expected = {f"old{number}" for number in range(1, 200)}
        expected |= {f"{who}{number}" for who in "aw" for number in range(60)}
        assert set(store.subjects()) == expected
        assert all(store.current(name).version == 1 for name in expected)
        assert store.verify().ok


def test_the_files_of_an_open_store_are_known_as_such(path: Path, unlock: KeyFileUnlock, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(path)
    with Keystore.create(path, unlock) as store:
        store.issue("alice")
        for name in (*own(path), tmp_path / "link"):
            assert is_live(name)
            with pytest.raises(ForeignFileError):
                Keystore.inspect_backup(name)
            with pytest.raises(UnlockUnavailableError):
                Keystore.open(path, KeyFileUnlock(name))
        assert not is_live(tmp_path / "unlock.key")
        assert not is_live(tmp_path / "none")
    assert not is_live(path)


# --- forks ------------------------------------------------------------------------------------------


def in_child(act) -> int:
    """Run something in a forked child; its exit code."""
    child = os.fork()
    if child == 0:  # pragma: no cover - another process
        code = 99
        try:
            code = act()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@needs_fork
def test_a_child_that_opens_the_store_again_loses_nothing_when_its_parent_closes(
    path: Path, unlock: KeyFileUnlock
) -> None:
    store = Keystore.create(path, unlock)
    store.issue_many(f"s{number}" for number in range(20))
    to_child, from_parent = os.pipe()
    to_parent, from_child = os.pipe()
    child = os.fork()
    if child == 0:  # pragma: no cover - another process
        code = 1
        try:
            with Keystore.open(path, unlock) as own_store:
                for number in range(20):
                    own_store.issue(f"c{number}")
                os.write(from_child, b"x")
                os.read(to_child, 1)
                for number in range(20, 40):
                    own_store.issue(f"c{number}")
                os.write(from_child, b"x")
                os.read(to_child, 1)
            code = 0
        finally:
            os._exit(code)
    os.read(to_parent, 1)
    store.issue("p")
    store.close()  # takes itself for the last one, unless the child has locks of its own
    os.write(from_parent, b"x")
    os.read(to_parent, 1)
    with Keystore.open(path, unlock) as again:
        assert sum(name.startswith("c") for name in again.subjects()) == 40
        assert again.verify().ok
    os.write(from_parent, b"x")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    for descriptor in (to_child, from_parent, to_parent, from_child):
        os.close(descriptor)


class Holder(threading.Thread):
    """A thread that holds the locks of a store."""

    def __init__(self, store: Keystore) -> None:
        super().__init__()
        self._store, self._begun, self._end = store, threading.Event(), threading.Event()

    def run(self) -> None:
        with self._store._core._writer.lock, self._store._core.lock:
            self._begun.set()
            self._end.wait(60)

    def __enter__(self) -> None:
        self.start()
        self._begun.wait(60)

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self.join()


OWN_FILES = {"create", "inspect_backup", "restore", "backup", "locked_by", "open"}


@needs_fork
@pytest.mark.parametrize("busy", [False, True])
@pytest.mark.parametrize("hooked", [True, False])
def test_no_method_hangs_in_a_forked_child(
    tmp_path: Path, busy: bool, hooked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(held, "FORK_PATIENCE", 0.1)
    scene = Scene.make(tmp_path)
    if not hooked:  # some servers fork without telling Python
        monkeypatch.setattr(held, "opened", list)

    def child() -> int:  # pragma: no cover - another process
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        failed = []
        for name, call in CALLS.items():
            signal.alarm(120)
            try:
                call(scene)
                if name not in {*OWN_FILES, "path", "close", "forget_unused", "originals.lock"}:
                    failed.append(f"{name} was done")
            except KeystoreError:
                pass
            except BaseException as error:  # noqa: BLE001 - told to the parent
                if name not in OWN_FILES:
                    failed.append(f"{name}: {error!r}")
        with scene.store:  # as servers leave their blocks in the child
            signal.alarm(120)
        (tmp_path / "failed").write_text("\n".join(failed))
        return 0

    with Holder(scene.store) if busy else contextlib.nullcontext():
        assert in_child(child) == 0
    assert (tmp_path / "failed").read_text() == ""
    assert scene.store.issue("after").version == 1
    assert scene.store.verify().ok
    scene.store.close()


@needs_fork
def test_a_child_of_a_busy_moment_can_not_open_the_store(
    path: Path, unlock: KeyFileUnlock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(held, "FORK_PATIENCE", 0.1)

    def opened() -> int:  # pragma: no cover - another process
        try:
            Keystore.open(path, unlock)
        except LockedError as error:
            return 0 if "forked while" in str(error) else 1
        return 2

    with Keystore.create(path, unlock) as store:
        with Holder(store):
            assert in_child(opened) == 0
        with store._core.change() as change:  # this very thread is in the middle of a change
            assert in_child(opened) == 0
            change.note("nothing")
        assert store.verify().ok


@needs_fork
def test_a_fork_waits_for_a_change_under_way(path: Path, unlock: KeyFileUnlock) -> None:
    with Keystore.create(path, unlock) as store:
        begun = threading.Event()

        def slow() -> None:
            with store._core.change() as change:
                begun.set()
                time.sleep(0.2)
                change.note("slow")

        thread = threading.Thread(target=slow)
        thread.start()
        begun.wait()

        def opened() -> int:  # pragma: no cover - another process
            with Keystore.open(path, unlock) as own_store:
                own_store.issue("child")
            return 0

        assert in_child(opened) == 0
        thread.join()
        assert [line["action"] for line in store.audit()][-2:] == ["slow", "issue"]
        assert store.verify().ok


def test_an_interrupted_opening_in_a_child_is_a_locked_one(
    path: Path, unlock: KeyFileUnlock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a child does, in this process, so that it is seen to be done."""
    store = Keystore.create(path, unlock)
    store.issue("alice")
    database = store._core._db
    with monkeypatch.context() as patch:
        patch.setattr(held, "_torn", set())
        patch.setattr(held, "_taken", [(database, database.lock, False), (store._core._writer, None, True)])
        patch.setattr(held, "_open", {})
        patch.setattr(held, "_gate", held._gate)
        held._after_in_child()
        assert held._torn == database.identities
        with pytest.raises(LockedError, match="forked while"):
            Keystore.open(path, unlock)
        with pytest.raises(LockedError, match="before this process forked"):
            raise database._told(KeystoreError("closed"))
    assert not database.inherit(idle=False)
    database.close()  # nothing is closed twice, and nothing of the parent's
    database._db.close()


def test_a_file_that_vanishes_while_its_identity_is_asked_has_none(path: Path) -> None:
    assert held.identity(path) is None


def test_platforms_without_forks_have_no_hooks(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    monkeypatch.delattr(os, "register_at_fork", raising=False)
    spec = importlib.util.find_spec("anonymix_keystore._held")
    assert spec is not None
    assert spec.loader is not None
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
