"""A store's files that are moved, removed or exchanged under a running process; and files left behind."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from keystore_calls import own
from keystore_clock import Clock

from anonymix_keystore import (
    KeyFileUnlock,
    Keystore,
    RotationReason,
    StorageError,
    StoreExistsError,
)
from anonymix_keystore import _database as database


@pytest.fixture
def server(path: Path, unlock: KeyFileUnlock, clock: Clock, tmp_path: Path) -> Keystore:
    """A running server with a key for alice, and a backup of its store."""
    store = Keystore.create(path, unlock, clock=clock, cache_age=0)
    store.issue("alice")
    store.backup(tmp_path / "backup", unlock)
    return store


def _restored(path: Path, unlock: KeyFileUnlock) -> None:
    Keystore.restore(path.parent / "backup", path, unlock)


def _moved(path: Path) -> None:
    for name in own(path):
        name.rename(name.with_name(f"old-{name.name}"))


def by_the_book(path: Path, unlock: KeyFileUnlock) -> None:
    _moved(path)
    _restored(path, unlock)


def replaced(path: Path, unlock: KeyFileUnlock) -> None:
    Keystore.restore(path.parent / "backup", path.parent / "new.db", unlock)
    (path.parent / "new.db").replace(path)


def removed(path: Path, _: KeyFileUnlock) -> None:
    path.unlink()


def renamed(path: Path, _: KeyFileUnlock) -> None:
    path.rename(path.with_name("elsewhere.db"))


def folder_renamed(path: Path, _: KeyFileUnlock) -> None:
    path.parent.rename(path.parent.with_name("elsewhere"))


def log_removed(path: Path, _: KeyFileUnlock) -> None:
    Path(f"{path}-wal").unlink()


def log_exchanged(path: Path, _: KeyFileUnlock) -> None:
    log = Path(f"{path}-wal")
    shutil.copy(log, log.with_name("copy"))
    log.with_name("copy").replace(log)


def index_renamed(path: Path, _: KeyFileUnlock) -> None:
    Path(f"{path}-shm").rename(path.with_name("index"))


EVENTS = [
    by_the_book,
    replaced,
    removed,
    renamed,
    folder_renamed,
    log_removed,
    log_exchanged,
    index_renamed,
]
USES: dict[str, Callable[[Keystore], object]] = {
    "a breach rotation": lambda store: store.rotate("alice", reason=RotationReason.BREACH),
    "an enrolment": lambda store: store.current_or_issue("carol"),
    "a lookup": lambda store: store.current("alice"),
    "a list": lambda store: list(store.list()),
    "a check": lambda store: store.verify(),
    "a backup": lambda store: store.backup(store.path.with_name("second"), KeyFileUnlock("none")),
    "a rotation of all": lambda store: store.rotate_all(reason="breach"),
}


@pytest.mark.parametrize("event", EVENTS)
def test_nothing_is_claimed_as_done_once_the_files_were_exchanged(
    server: Keystore, path: Path, unlock: KeyFileUnlock, event: Callable[[Path, KeyFileUnlock], None]
) -> None:
    event(path, unlock)
    time.sleep(0.06)  # reads look after the log 20 times a second
    for what, use in USES.items():
        if what != "a backup":
            with pytest.raises(StorageError, match=r"under way") as told:
                use(server)
            assert told.value.fix, what
    server.close()


def test_a_store_that_was_put_back_serves_again(server: Keystore, path: Path) -> None:
    key = server.current("alice")
    _moved(path)
    with pytest.raises(StorageError):
        server.rotate("alice")
    for name in own(path):
        name.with_name(f"old-{name.name}").rename(name)
    assert server.current("alice") == key
    assert server.rotate("alice").version == 2
    server.close()


def test_an_exchange_in_the_middle_of_a_change_is_told(
    server: Keystore, path: Path, unlock: KeyFileUnlock, monkeypatch: pytest.MonkeyPatch
) -> None:
    genuine = database.Database.rows

    def meanwhile(self: database.Database, sql: str, *arguments: object) -> object:
        result = genuine(self, sql, *arguments)
        if sql == "COMMIT":
            monkeypatch.undo()
            by_the_book(path, unlock)
        return result

    monkeypatch.setattr(database.Database, "rows", meanwhile)
    with pytest.raises(StorageError, match="the change is not made"):
        server.rotate("alice", reason="breach")
    server.close()
    with Keystore.open(path, unlock, clock=Clock()) as restored:
        assert restored.current("alice").version == 1


def test_a_link_that_is_turned_to_another_store_is_noticed(
    server: Keystore, path: Path, unlock: KeyFileUnlock, clock: Clock, tmp_path: Path
) -> None:
    link = tmp_path / "link.db"
    link.symlink_to(path)
    with Keystore.open(link, unlock, clock=clock, cache_age=0) as linked:
        linked.issue("bob")
        Keystore.restore(tmp_path / "backup", tmp_path / "other.db", unlock)
        link.unlink()
        link.symlink_to(tmp_path / "other.db")
        for use in (lambda: linked.issue("carol"), lambda: linked.current("bob")):
            with pytest.raises(StorageError, match="exchanged"):
                use()
    assert set(server.subjects()) == {"alice", "bob"}
    server.close()


def test_a_cached_key_is_not_given_once_the_exchange_is_known(
    path: Path, unlock: KeyFileUnlock, tmp_path: Path
) -> None:
    with Keystore.create(path, unlock, cache_age=3600) as store:
        store.issue_many(["alice", "bob"])
        store.current("alice")
        _moved(path)
        with pytest.raises(StorageError):
            store.current("bob")
        with pytest.raises(StorageError):
            store.current("alice")


def test_another_working_directory_is_no_exchange(
    unlock: KeyFileUnlock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with Keystore.create("here.db", unlock) as store:
        monkeypatch.chdir("/")
        assert store.issue("alice").version == 1
        assert store.current("alice").version == 1


def test_an_exchange_while_a_store_is_opened_is_told(
    server: Keystore, path: Path, unlock: KeyFileUnlock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.close()
    genuine = database.Database._configure
    spare = iter(range(10))

    def exchanged(self: database.Database) -> None:
        genuine(self)
        copy = tmp_path / f"copy{next(spare)}"
        shutil.copy(path, copy)
        copy.replace(path)

    with monkeypatch.context() as patch:
        patch.setattr(database.Database, "_configure", exchanged)
        with pytest.raises(StorageError, match="again and again"):
            Keystore.open(path, unlock, clock=Clock())

    def once(self: database.Database) -> None:
        genuine(self)
        if self.rank < 0:  # the second connection
            monkeypatch.undo()
            Keystore.restore(tmp_path / "backup", tmp_path / "new.db", unlock)
            (tmp_path / "new.db").replace(path)

    monkeypatch.setattr(database.Database, "_configure", once)
    with pytest.raises(StorageError):
        Keystore.open(path, unlock, clock=Clock())


# --- files left behind ------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["-wal", "-shm", "-journal"])
def test_a_store_is_not_put_beside_the_files_of_another(
    server: Keystore, path: Path, unlock: KeyFileUnlock, tmp_path: Path, suffix: str
) -> None:
    server.close()
    shutil.move(path, tmp_path / "old.db")
    left = Path(f"{path}{suffix}")
    left.write_bytes(b"of the old store")
    for attempt in (
        lambda: Keystore.restore(tmp_path / "backup", path, unlock),
        lambda: Keystore.create(path, unlock),
    ):
        with pytest.raises(StoreExistsError) as told:
            attempt()
        assert str(left) in str(told.value)
        for name in own(path):
            assert str(name) in told.value.fix
    assert left.read_bytes() == b"of the old store"
    assert not path.exists()
    left.unlink()
    assert Keystore.restore(tmp_path / "backup", path, unlock).epoch > 0


def test_files_that_appear_while_a_store_is_restored_are_seen(
    server: Keystore, path: Path, unlock: KeyFileUnlock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "restored.db"
    genuine = os.fsync

    def meanwhile(handle: int) -> None:
        genuine(handle)
        Path(f"{target}-wal").touch()

    monkeypatch.setattr(os, "fsync", meanwhile)
    with pytest.raises(StoreExistsError):
        Keystore.restore(tmp_path / "backup", target, unlock)
    assert not target.exists()
    server.close()


def test_a_file_that_appears_while_one_is_made_is_left_alone(
    path: Path, unlock: KeyFileUnlock, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.write_text("mine")
    monkeypatch.setattr(database, "check_free", lambda _: None)
    with pytest.raises(StoreExistsError):
        Keystore.create(path, unlock)
    assert path.read_text() == "mine"
