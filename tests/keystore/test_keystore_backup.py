from __future__ import annotations

import shutil
import stat
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from anonymix_keystore import (
    AnchorFile,
    DamagedError,
    DiskFullError,
    ForeignFileError,
    KeyFileUnlock,
    KeyRevokedError,
    Keystore,
    KeystoreError,
    LockedError,
    NewerSchemaError,
    PassphraseUnlock,
    RolledBackError,
    StorageError,
    StoreExistsError,
    StoreMissingError,
    TruncatedError,
    WrongKeyError,
)
from anonymix_keystore._database import Database


@pytest.fixture
def lock(tmp_path: Path) -> KeyFileUnlock:
    return KeyFileUnlock.generate(tmp_path / "backup.key")


@pytest.fixture
def backup(store: Keystore, tmp_path: Path, lock: KeyFileUnlock) -> Path:
    store.issue_many(f"s{number}" for number in range(60))
    store.rotate("s0")
    store.backup(tmp_path / "backup", lock)
    return tmp_path / "backup"


def leftovers(folder: Path) -> list[str]:
    return [file.name for file in folder.iterdir() if file.name.startswith(".")]


def test_a_restored_store_is_the_same_store(
    store: Keystore, backup: Path, lock: KeyFileUnlock, unlock: KeyFileUnlock, tmp_path: Path, clock
) -> None:
    assert stat.S_IMODE(backup.stat().st_mode) == 0o600
    info = Keystore.restore(backup, tmp_path / "restored.db", lock)
    assert info == Keystore.inspect_backup(backup)
    assert info.epoch == store.epoch
    assert info.unlock == "key-file"
    assert stat.S_IMODE((tmp_path / "restored.db").stat().st_mode) == 0o600
    with Keystore.open(tmp_path / "restored.db", unlock, clock=clock) as restored:
        assert restored.verify().ok
        assert set(restored.subjects()) == set(store.subjects())
        for number in range(60):
            assert restored.current(f"s{number}") == store.current(f"s{number}")
        assert restored.at("s0", 1).material == store.at("s0", 1).material
        assert list(restored.audit()) == list(store.audit())
        restored.issue("more")
    assert leftovers(tmp_path) == []


def test_a_backup_shows_nothing_of_the_store(backup: Path, store: Keystore) -> None:
    content = backup.read_bytes()
    assert b"SQLite" not in content
    (wrapped,) = store._core.db.row("SELECT wrapped FROM keys WHERE wrapped IS NOT NULL LIMIT 1") or (b"",)
    assert wrapped not in content


def test_it_opens_with_its_own_secret_alone(backup: Path, unlock: KeyFileUnlock, tmp_path: Path) -> None:
    with pytest.raises(WrongKeyError):
        Keystore.restore(backup, tmp_path / "restored.db", unlock)
    with pytest.raises(LockedError):
        Keystore.restore(backup, tmp_path / "restored.db", PassphraseUnlock("x"))
    assert not (tmp_path / "restored.db").exists()
    assert leftovers(tmp_path) == []


def test_neither_writing_nor_restoring_takes_a_files_place(
    store: Keystore, backup: Path, lock: KeyFileUnlock, tmp_path: Path, monkeypatch
) -> None:
    before = backup.read_bytes()
    with pytest.raises(StoreExistsError):
        store.backup(backup, lock)
    (tmp_path / "taken").write_text("mine")
    with pytest.raises(StoreExistsError):
        Keystore.restore(backup, tmp_path / "taken", lock)
    # even when the file appears in the middle
    monkeypatch.setattr(Path, "exists", lambda _: False)
    with pytest.raises(StoreExistsError):
        Keystore.restore(backup, tmp_path / "taken", lock)
    monkeypatch.undo()
    assert (tmp_path / "taken").read_text() == "mine"
    assert backup.read_bytes() == before
    assert leftovers(tmp_path) == []


def test_file_systems_without_links_are_served(backup: Path, lock: KeyFileUnlock, tmp_path: Path, monkeypatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError

    monkeypatch.setattr("anonymix_keystore._backup.os.link", refuse)
    Keystore.restore(backup, tmp_path / "restored.db", lock)
    assert (tmp_path / "restored.db").stat().st_size > 0
    assert leftovers(tmp_path) == []


def test_a_truncated_backup_is_refused(backup: Path, lock: KeyFileUnlock, tmp_path: Path) -> None:
    content = backup.read_bytes()
    header = 12 + struct.unpack(">I", content[8:12])[0] + 32
    chunk = (1 << 16) + 16
    assert len(content) > header + chunk
    for length in (0, 4, 8, 10, 12, 40, header - 1, header, header + 5, header + chunk, header + chunk + 5):
        backup.write_bytes(content[:length])
        with pytest.raises(KeystoreError) as caught:
            Keystore.restore(backup, tmp_path / "restored.db", lock)
        expected = (ForeignFileError,) if length < 7 else (TruncatedError, DamagedError)
        assert isinstance(caught.value, expected)
        if length in {8, 10, 12, 40, header - 1, header, header + 5, header + chunk}:
            assert type(caught.value) is TruncatedError
        assert not (tmp_path / "restored.db").exists()
    assert leftovers(tmp_path) == []


def test_every_changed_byte_of_a_backup_is_noticed(backup: Path, lock: KeyFileUnlock, tmp_path: Path) -> None:
    content = backup.read_bytes()
    header = 12 + struct.unpack(">I", content[8:12])[0] + 32
    for position in [*range(header + 40), *range(header + 40, len(content), 1009), len(content) - 1]:
        changed = bytearray(content)
        changed[position] ^= 1
        backup.write_bytes(changed)
        with pytest.raises((DamagedError, ForeignFileError, NewerSchemaError)):
            Keystore.restore(backup, tmp_path / "restored.db", lock)
    backup.write_bytes(content + b"\x00")
    with pytest.raises(DamagedError):
        Keystore.restore(backup, tmp_path / "restored.db", lock)
    assert not (tmp_path / "restored.db").exists()


def test_chunks_can_not_be_exchanged(backup: Path, lock: KeyFileUnlock, tmp_path: Path) -> None:
    content = backup.read_bytes()
    start = 12 + struct.unpack(">I", content[8:12])[0] + 32
    chunk = (1 << 16) + 16
    first, second = content[start : start + chunk], content[start + chunk : start + 2 * chunk]
    backup.write_bytes(content[:start] + second + first + content[start + 2 * chunk :])
    with pytest.raises(DamagedError):
        Keystore.restore(backup, tmp_path / "restored.db", lock)


def test_other_files_are_no_backups(backup: Path, path: Path, lock: KeyFileUnlock, tmp_path: Path) -> None:
    with pytest.raises(ForeignFileError):
        Keystore.inspect_backup(path)
    with pytest.raises(StoreMissingError):
        Keystore.inspect_backup(tmp_path / "none")
    with pytest.raises(StorageError):
        Keystore.inspect_backup(tmp_path)
    content = backup.read_bytes()
    backup.write_bytes(b"ANMXBAK2" + content[8:])
    with pytest.raises(NewerSchemaError):
        Keystore.inspect_backup(backup)


@pytest.mark.parametrize("header", [b"[]", b"{}", b'{"format":2,"chunk":65536}', b'{"format":1,"chunk":0}'])
def test_a_header_that_makes_no_sense_is_refused(tmp_path: Path, header: bytes) -> None:
    import hashlib

    start = b"ANMXBAK1" + struct.pack(">I", len(header)) + header
    (tmp_path / "b").write_bytes(start + hashlib.sha256(start).digest())
    with pytest.raises(DamagedError):
        Keystore.inspect_backup(tmp_path / "b")
    (tmp_path / "b").write_bytes(b"ANMXBAK1" + struct.pack(">I", 1 << 30))
    with pytest.raises(DamagedError):
        Keystore.inspect_backup(tmp_path / "b")


def test_a_backup_of_something_else_is_not_put_in_place(
    store: Keystore, lock: KeyFileUnlock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Database, "image", lambda _: b"not a keystore" * 100)
        store.backup(tmp_path / "b", lock)
    with pytest.raises(ForeignFileError):
        Keystore.restore(tmp_path / "b", tmp_path / "restored.db", lock)
    assert not (tmp_path / "restored.db").exists()


def test_a_full_disk_leaves_nothing_half_written(
    store: Keystore, backup: Path, lock: KeyFileUnlock, tmp_path: Path, monkeypatch
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("anonymix_keystore._backup.os.fsync", full)
    with pytest.raises(DiskFullError):
        Keystore.restore(backup, tmp_path / "restored.db", lock)
    with pytest.raises(DiskFullError):
        store.backup(tmp_path / "second", lock)
    assert not (tmp_path / "restored.db").exists()
    assert not (tmp_path / "second").exists()
    assert leftovers(tmp_path) == []


def test_missing_folders_are_told(store: Keystore, backup: Path, lock: KeyFileUnlock, tmp_path: Path) -> None:
    with pytest.raises(StorageError):
        store.backup(tmp_path / "none" / "b", lock)
    with pytest.raises(StorageError):
        Keystore.restore(backup, tmp_path / "none" / "r", lock)


def test_a_restored_backup_does_not_revive_revoked_keys(
    store: Keystore,
    backup: Path,
    lock: KeyFileUnlock,
    path: Path,
    tmp_path: Path,
    reopen: Callable[..., Keystore],
) -> None:
    anchor = AnchorFile.create(tmp_path / "anchor.db")
    store.tie_anchor(anchor)
    store.revoke("s1")
    store.close()
    shutil.move(path, tmp_path / "broken.db")
    Keystore.restore(backup, path, lock)
    with pytest.raises(RolledBackError):
        reopen(anchor=anchor)
    restored = reopen(anchor=anchor, accept_rollback="restored a backup")
    with pytest.raises(KeyRevokedError):
        restored.current("s1")
    assert restored.current("s2").version == 1
    assert restored.verify().ok
