"""Stores with two names, each with a log of its own, and new files under names that SQLite keeps."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from anonymix_keystore import (
    AnchorFile,
    KeyFileUnlock,
    Keystore,
    KeystoreError,
    StorageError,
    StoreExistsError,
)
from anonymix_keystore import _database as database


@pytest.fixture
def mount_file() -> Iterator[Callable[[Path, Path], None]]:
    mounted: list[Path] = []

    def mount(source: Path, place: Path) -> None:
        place.touch()
        tool = shutil.which("mount")
        if (
            tool is None
            or os.geteuid() != 0
            or subprocess.run([tool, "--bind", str(source), str(place)], check=False).returncode
        ):
            pytest.skip("mounting a file needs root on Linux")
        mounted.append(place)

    yield mount
    for place in mounted:
        subprocess.run(["umount", "-l", str(place)], check=False)


def _nothing_acknowledged_is_lost(names: tuple[Path, Path], unlock: KeyFileUnlock) -> None:
    """Two servers use a store by two names at once; then one looks for all that they were told is done."""
    opened, done = [], []
    for name in names:
        try:
            opened.append(Keystore.open(name, unlock))
        except StorageError:
            continue
    for round_ in range(3):
        for number, store in enumerate(opened):
            try:
                done.append(store.issue(f"s{number}-{round_}"))
            except KeystoreError:  # refused is not lost
                continue
    for store in opened:
        store.close()
    if not done:
        return
    with Keystore.open(names[0], unlock) as store:
        assert all(store.current(key.subject) == key for key in done)


def test_a_hard_link_to_a_store_loses_nothing(path: Path, unlock: KeyFileUnlock, tmp_path: Path) -> None:
    Keystore.create(path, unlock).close()
    other = tmp_path / "other.db"
    other.hardlink_to(path)
    for name in (path, other):
        for use in (lambda name: Keystore.open(name, unlock), Keystore.locked_by):
            with pytest.raises(StorageError, match="another name") as told:
                use(name)
            assert str(path.parent) in told.value.fix
    assert sorted(file.name for file in tmp_path.iterdir()) == ["keystore.db", "other.db", "unlock.key"]
    _nothing_acknowledged_is_lost((path, other), unlock)
    other.unlink()
    Keystore.open(path, unlock).close()


def test_a_hard_link_that_comes_later_stops_no_server(
    store: Keystore, path: Path, unlock: KeyFileUnlock, tmp_path: Path
) -> None:
    store.issue("alice")
    other = tmp_path / "snapshot.db"
    other.hardlink_to(path)
    assert store.forget("alice").clean
    assert store.issue("bob").version == 1
    assert store.verify().ok
    store.backup(tmp_path / "backup", unlock)
    with pytest.raises(StorageError):
        Keystore.open(other, unlock)


def test_a_name_that_a_killed_restore_left_shuts_nobody_out(path: Path, unlock: KeyFileUnlock, tmp_path: Path) -> None:
    Keystore.create(path, unlock).close()
    (tmp_path / f".keystore.db.restoring-{secrets.token_hex(6)}").hardlink_to(path)
    (tmp_path / f".other.db.restoring-{secrets.token_hex(6)}").touch()
    Keystore.open(path, unlock).close()


@pytest.mark.parametrize("name", ["k.db", "a store\\of#\tblanks.db"])
def test_a_file_that_is_mounted_without_its_folder_loses_nothing(
    path: Path,
    unlock: KeyFileUnlock,
    tmp_path: Path,
    mount_file: Callable[[Path, Path], None],
    name: str,
) -> None:
    Keystore.create(path, unlock).close()
    inside = tmp_path / "container" / name
    inside.parent.mkdir()
    mount_file(path, inside)
    with pytest.raises(StorageError, match="mounted by itself") as told:
        Keystore.open(inside, unlock)
    assert "folder" in told.value.fix
    _nothing_acknowledged_is_lost((path, inside), unlock)


def test_a_symbolic_link_is_no_second_name(path: Path, unlock: KeyFileUnlock, tmp_path: Path) -> None:
    with Keystore.create(path, unlock) as store:
        link = tmp_path / "link.db"
        link.symlink_to(path)
        with Keystore.open(link, unlock) as other:
            key = other.issue("alice")
            assert store.current("alice") == key


def test_where_mounts_are_not_told_a_file_is_none(
    path: Path, unlock: KeyFileUnlock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "_MOUNTS", tmp_path / "no such file")
    Keystore.create(path, unlock).close()
    Keystore.open(path, unlock).close()


NEW_FILES: dict[str, Callable[[Path, Keystore, KeyFileUnlock], object]] = {
    "backup": lambda name, store, unlock: store.backup(name, unlock),
    "restore": lambda name, store, unlock: Keystore.restore(store.path.with_name("backup"), name, unlock),
    "create": lambda name, _, unlock: Keystore.create(name, unlock),
    "anchor": lambda name, *_: AnchorFile.create(name),
    "key file": lambda name, *_: KeyFileUnlock.generate(name),
}


@pytest.mark.parametrize("suffix", ["-wal", "-shm", "-journal"])
@pytest.mark.parametrize("what", NEW_FILES)
def test_no_new_file_is_put_where_sqlite_deletes_or_plays_it(
    path: Path, unlock: KeyFileUnlock, tmp_path: Path, what: str, suffix: str
) -> None:
    with Keystore.create(path, unlock) as store:
        store.backup(tmp_path / "backup", unlock)
        Keystore.restore(tmp_path / "backup", tmp_path / "closed.db", unlock)
        for name in (Path(f"{path}{suffix}"), tmp_path / f"closed.db{suffix}"):
            with pytest.raises(StoreExistsError):
                NEW_FILES[what](name, store, unlock)
        assert store.verify().ok
    Keystore.open(tmp_path / "closed.db", unlock).close()


@pytest.mark.parametrize("what", NEW_FILES)
def test_such_a_name_is_free_where_no_file_goes_with_it(
    path: Path, unlock: KeyFileUnlock, tmp_path: Path, what: str
) -> None:
    (tmp_path / "audit").mkdir()
    with Keystore.create(path, unlock) as store:
        store.backup(tmp_path / "backup", unlock)
        for name in ("keys-journal", "audit-journal"):
            NEW_FILES[what](tmp_path / name, store, unlock)
            assert (tmp_path / name).is_file()
