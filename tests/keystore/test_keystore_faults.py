from __future__ import annotations

import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from keystore_clock import Clock

from anonymix_keystore import (
    BusyError,
    ClockError,
    DamagedError,
    DiskFullError,
    ForeignFileError,
    KeyFileUnlock,
    KeyRetiredError,
    Keystore,
    KeystoreError,
    NewerSchemaError,
    ReadOnlyError,
    StorageError,
    StoreExistsError,
    StoreMissingError,
)
from anonymix_keystore import _database as database
from anonymix_keystore import _schema as schema

# --- foreign, older and newer files -----------------------------------------------------------------


def test_other_files_are_not_taken_for_a_store(path: Path, unlock: KeyFileUnlock) -> None:
    path.write_bytes(b"hello " * 1000)
    with pytest.raises(ForeignFileError):
        Keystore.open(path, unlock)
    path.unlink()
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE photos (id)")
    db.close()
    before = path.read_bytes()
    with pytest.raises(ForeignFileError):
        Keystore.open(path, unlock)
    with pytest.raises(ForeignFileError):
        Keystore.locked_by(path)
    with sqlite3.connect(path) as db:
        assert db.execute("SELECT name FROM sqlite_master").fetchall() == [("photos",)]
    db.close()
    assert path.read_bytes() == before
    path.write_bytes(b"")
    with pytest.raises(ForeignFileError):
        Keystore.open(path, unlock)
    assert path.read_bytes() == b""


def test_a_newer_schema_is_refused_and_left_alone(store: Keystore, path: Path, unlock: KeyFileUnlock) -> None:
    store.close()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(NewerSchemaError, match="99"):
        Keystore.open(path, unlock)
    with sqlite3.connect(path) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (99,)
    db.close()


@pytest.mark.parametrize("old", [1, 2, 3])
def test_an_older_store_is_brought_forward_with_its_keys(
    path: Path, unlock: KeyFileUnlock, old: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [migration.name for migration in schema.migrations._migrations]

    def advance(db: database.Database) -> None:
        schema.migrations.apply(db.raw, stop_before=names[old])
        db.rows(f"PRAGMA user_version={old:d}")

    monkeypatch.setattr(schema, "SCHEMA", old)
    monkeypatch.setattr(schema, "advance", advance)
    with Keystore.create(path, unlock) as store:
        key = store.issue("alice")
        assert "sealed_references" not in store._core.db.raw.table_names()
    monkeypatch.undo()
    with Keystore.open(path, unlock) as store:
        assert store.current("alice") == key
        store.record_enrolment("alice", adapter="x", collection="c", external_id="e", version=1, fingerprint="f")
        assert store.rotate_all().job.done == 1
        assert store.verify().ok
        assert store._core.db.row("PRAGMA user_version") == (schema.SCHEMA,)


def test_two_processes_that_bring_a_store_forward_do_it_once(
    path: Path, unlock: KeyFileUnlock, monkeypatch: pytest.MonkeyPatch
) -> None:
    from anonymix_keystore import _keystore

    Keystore.create(path, unlock).close()
    real = _keystore._migrate
    monkeypatch.setattr(schema, "found", lambda _: 1)  # as seen just before the other one was done
    called: list[object] = []

    def late(db: object, keys: object) -> None:
        called.append(db)
        monkeypatch.undo()
        real(db, keys)

    monkeypatch.setattr(_keystore, "_migrate", late)
    Keystore.open(path, unlock).close()
    assert len(called) == 1


def test_a_failed_creation_leaves_no_file(path: Path, unlock: KeyFileUnlock, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> None:
        raise RuntimeError("in the middle")

    monkeypatch.setattr(schema, "prepare", fail)
    with pytest.raises(RuntimeError):
        Keystore.create(path, unlock)
    assert [file.name for file in path.parent.iterdir()] == ["unlock.key"]


def test_a_dangling_link_is_not_followed(path: Path, unlock: KeyFileUnlock, tmp_path: Path) -> None:
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreExistsError):
        Keystore.create(path, unlock)
    assert not (tmp_path / "elsewhere").exists()


# --- the clock --------------------------------------------------------------------------------------


def test_a_clock_set_back_revives_no_retired_key(store: Keystore, clock: Clock) -> None:
    from datetime import timedelta

    store.issue("alice")
    store.rotate("alice", grace=timedelta(days=1))
    clock.forward(days=2)
    store.issue("bob")
    clock.forward(days=-2)
    with pytest.raises(KeyRetiredError):
        store.at("alice", 1)


def test_changes_wait_for_a_clock_that_is_far_behind(
    store: Keystore, clock: Clock, reopen: Callable[..., Keystore]
) -> None:
    key = store.issue("alice")
    epoch = store.epoch
    clock.forward(seconds=-3600)
    store.issue("bob")  # an hour is tolerated, and the trail's times never run back
    assert [line["time"] for line in store.audit()][-2:] == [1_800_000_000, 1_800_000_000]
    clock.forward(seconds=-1)
    with pytest.raises(ClockError):
        store.issue("carol")
    assert store.current("alice") == key
    assert store.epoch == epoch + 1
    store.close()
    accepted = reopen(accept_clock=True)
    assert accepted.issue("carol").version == 1
    assert [line["action"] for line in accepted.audit()][-2:] == ["accept-clock", "issue"]
    assert accepted.verify().ok


# --- disks ------------------------------------------------------------------------------------------


def test_a_full_disk_changes_nothing(store: Keystore, path: Path, unlock: KeyFileUnlock, tmp_path: Path) -> None:
    store.issue("alice")
    store.close()
    size = path.stat().st_size
    script = (
        "import sys\n"
        "from anonymix_keystore import *\n"
        "with Keystore.open(sys.argv[1], KeyFileUnlock(sys.argv[2]), clock=lambda: 1.8e9) as store:\n"
        "    try:\n"
        "        store.issue_many((f'x{n}' for n in range(5000)), batch=5000)\n"
        "    except (DiskFullError, StorageError) as error:\n"
        "        print(error.code)\n"
        "        print(store.current('alice').version, len(list(store.subjects())), store.verify().ok)\n"
    )

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 200_000, size + 200_000))

    done = subprocess.run(
        [sys.executable, "-c", script, str(path), str(tmp_path / "unlock.key")],
        capture_output=True,
        text=True,
        check=True,
        preexec_fn=limit,
    )
    assert done.stdout.splitlines() in [["storage", "1 1 True"], ["disk_full", "1 1 True"]]
    with Keystore.open(path, unlock, clock=Clock()) as again:
        assert list(again.subjects()) == ["alice"]
        assert again.verify().ok


def test_sqlites_own_full_is_told(store: Keystore) -> None:
    store.issue("alice")
    store._core._writer.rows("PRAGMA max_page_count = 17")
    with pytest.raises(DiskFullError):
        store.issue_many((f"x{number}" for number in range(500)), batch=500)
    assert list(store.subjects()) == ["alice"]
    assert store.verify().ok


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="changes to another user")
def test_a_read_only_folder_is_told(tmp_path: Path) -> None:
    folder = Path("/tmp") / f"read-only-{os.getpid()}"  # noqa: S108 - the other user has to get there
    folder.mkdir()
    try:
        unlock = KeyFileUnlock.generate(folder / "key")
        Keystore.create(folder / "store.db", unlock).close()
        for file in folder.iterdir():
            os.chown(file, 65534, 65534)
            file.chmod(0o400)
        folder.chmod(0o555)
        child = os.fork()
        if child == 0:  # pragma: no cover - another process
            code = 1
            try:
                os.setgid(65534)
                os.setuid(65534)
                codes = []
                for attempt in (
                    lambda: Keystore.open(folder / "store.db", unlock),
                    lambda: Keystore.create(folder / "new.db", unlock),
                ):
                    try:
                        attempt()
                    except StorageError as error:
                        codes.append(error.code)
                code = 0 if len(codes) == 2 and codes[1] == "read_only" else 3
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    finally:
        folder.chmod(0o755)
        shutil.rmtree(folder)


def test_a_missing_folder_is_told(tmp_path: Path, unlock: KeyFileUnlock) -> None:
    with pytest.raises(StorageError):
        Keystore.create(tmp_path / "none" / "store.db", unlock)


def test_a_name_with_no_room_for_the_log_is_told_and_leaves_no_file(tmp_path: Path, unlock: KeyFileUnlock) -> None:
    before = sorted(tmp_path.iterdir())
    with pytest.raises(StorageError):
        Keystore.create(tmp_path / ("x" * 253), unlock)
    assert sorted(tmp_path.iterdir()) == before


def test_a_folder_is_told_as_no_keystore(tmp_path: Path, unlock: KeyFileUnlock) -> None:
    with pytest.raises(StoreMissingError):
        Keystore.open(tmp_path, unlock)


def test_a_refusing_folder_is_told(path: Path, unlock: KeyFileUnlock, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise PermissionError

    monkeypatch.setattr(database.os, "open", refuse)
    with pytest.raises(ReadOnlyError):
        database.new_private_file(path)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (sqlite3.SQLITE_BUSY_SNAPSHOT, BusyError),
        (sqlite3.SQLITE_LOCKED, BusyError),
        (sqlite3.SQLITE_READONLY_DBMOVED, ReadOnlyError),
        (sqlite3.SQLITE_FULL, DiskFullError),
        (sqlite3.SQLITE_IOERR_FSYNC, StorageError),
        (sqlite3.SQLITE_CANTOPEN, StorageError),
        (sqlite3.SQLITE_NOTADB, ForeignFileError),
        (sqlite3.SQLITE_CORRUPT, DamagedError),
        (None, DamagedError),
    ],
)
def test_errors_of_sqlite_become_ours_without_their_words(code: int | None, kind: type[KeystoreError]) -> None:
    error = sqlite3.OperationalError("near 'secret'")
    if code is not None:
        error.sqlite_errorcode = code
    ours = database.translate(error, "store.db")
    assert type(ours) is kind
    assert "secret" not in str(ours)
    assert ours.where == "store.db"


def test_folders_are_not_synced_where_that_does_not_exist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database.os, "name", "nt")
    opened: list[object] = []
    monkeypatch.setattr(database.os, "open", lambda *a: opened.append(a))
    database.sync_folder(tmp_path)
    monkeypatch.undo()
    assert opened == []


def test_an_actor_without_a_name_is_named_by_number(monkeypatch: pytest.MonkeyPatch) -> None:
    from anonymix_keystore import _keystore

    def unknown() -> str:
        raise OSError

    monkeypatch.setattr(_keystore.getpass, "getuser", unknown)
    assert _keystore._actor() == f"uid {os.getuid()}"
    monkeypatch.delattr(_keystore.os, "getuid")
    assert _keystore._actor() == "unknown"
    monkeypatch.undo()
    monkeypatch.setattr(_keystore.getpass, "getuser", lambda: "alice")
    assert _keystore._actor() == "alice"


def test_no_error_ever_holds_a_secret(store: Keystore, path: Path, tmp_path: Path) -> None:
    key = store.issue("alice")
    secret = (tmp_path / "unlock.key").read_text().strip()
    messages = []
    for attempt in (
        lambda: store.issue("alice"),
        lambda: store.at("alice", 9),
        lambda: store.record_enrolment(
            "alice", adapter="x", collection="c", external_id="e", version=9, fingerprint="f"
        ),
        lambda: store.forget("bob"),
    ):
        with pytest.raises(KeystoreError) as caught:
            attempt()
        messages.append(str(caught.value) + repr(caught.value) + repr(vars(caught.value)))
    with sqlite3.connect(path) as db:
        db.execute("UPDATE keys SET wrapped = zeroblob(129)")
    db.close()
    store._core.cache.clear()
    with pytest.raises(DamagedError) as damaged:
        store.current("alice")
    messages.append(str(damaged.value))
    for message in messages:
        assert key.material.hex() not in message
        assert secret not in message
    assert "KeyRing(...)" in repr(store._core.keys)


def test_a_file_that_sqlite_can_not_open_is_told(
    path: Path, unlock: KeyFileUnlock, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.write_bytes(b"")

    def refuse(*_: object, **__: object) -> None:
        error = sqlite3.OperationalError("unable to open")
        error.sqlite_errorcode = sqlite3.SQLITE_CANTOPEN
        raise error

    monkeypatch.setattr(database.sqlite3, "connect", refuse)
    with pytest.raises(StorageError):
        Keystore.open(path, unlock)
