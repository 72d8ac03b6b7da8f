"""Backups: a consistent image of the store, encrypted in chunks, in one self-describing file.

Chunks follow the STREAM construction (Hoang, Reyhanitabar, Rogaway and Vizár, CRYPTO 2015): the
nonce counts them and marks the last, so that none can be dropped, doubled, moved or cut off.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import secrets
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from anonymix_keystore import _slots
from anonymix_keystore._audit import canonical
from anonymix_keystore._crypto import KEY_BYTES, derive
from anonymix_keystore._database import APPLICATION_ID, Database, new_private_file, sync_folder
from anonymix_keystore._errors import (
    DamagedError,
    DiskFullError,
    ForeignFileError,
    KeystoreError,
    NewerSchemaError,
    StorageError,
    StoreExistsError,
    StoreMissingError,
    TruncatedError,
)
from anonymix_keystore._slots import Slot
from anonymix_keystore._unlock import Unlock

MAGIC = b"ANMXBAK1"
FORMAT = 1
CHUNK = 1 << 16
BACKUP = "backup"
_TAG = 16
_MOST_HEADER = 1 << 16
_SQLITE = b"SQLite format 3\x00"
_APPLICATION_AT = 68  # offset of the application id in an SQLite file


@dataclass(frozen=True, slots=True)
class BackupInfo:
    """What a backup says of itself in the clear; true only once it was opened.

    Attributes:
        store_id: Id of the store, hex.
        epoch: The store's epoch when the backup was begun.
        created: When (UTC).
        unlock: Kind of unlock that the backup is locked with.
    """

    store_id: str
    epoch: int
    created: datetime
    unlock: str


def write(db: Database, store_id: bytes, path: Path, unlock: Unlock, *, epoch: int, now: int) -> BackupInfo:
    """Write a backup of a store to a new file."""
    if path.exists():
        raise StoreExistsError("there is already a file here", where=str(path))
    data_key = secrets.token_bytes(KEY_BYTES)
    slot = _slots.lock(store_id, BACKUP, data_key, unlock)
    header = {
        "format": FORMAT,
        "store": store_id.hex(),
        "epoch": epoch,
        "created": now,
        "chunk": CHUNK,
        "kind": slot.kind,
        "params": slot.params,
        "sealed": base64.b64encode(slot.sealed).decode(),
    }
    head = canonical(header).encode()
    with _temporary(path, "image") as image, _temporary(path, "writing") as draft:
        db.rows("VACUUM INTO ?", (str(image),))
        with _explained(path), image.open("rb") as source, draft.open("r+b") as target:
            start = MAGIC + struct.pack(">I", len(head)) + head
            mark = hashlib.sha256(start).digest()
            target.write(start + mark)
            for sealed in _sealed(data_key, mark, source):
                target.write(sealed)
            target.flush()
            os.fsync(target.fileno())
        _publish(draft, path)
    return _info(header)


def restore(backup: Path, path: Path, unlock: Unlock) -> BackupInfo:
    """Open a backup and put the store in place, where there must be none; all or nothing."""
    if path.exists():
        raise StoreExistsError("there is already a file here", where=str(path), fix="move it away first")
    with _reading(backup) as source:
        header, mark = _read_header(source, backup)
        store_id = bytes.fromhex(header["store"])
        slot = Slot(BACKUP, header["kind"], header["params"], base64.b64decode(header["sealed"]))
        data_key = _slots.open_slot(store_id, slot, unlock, str(backup))
        with _temporary(path, "restoring") as draft:
            with _explained(path), draft.open("r+b") as target:
                for number, plain in enumerate(_opened(data_key, mark, source, header["chunk"], backup)):
                    if number == 0:
                        _check_image(plain, backup)
                    target.write(plain)
                target.flush()
                os.fsync(target.fileno())
            _publish(draft, path)
    return _info(header)


def inspect(backup: Path) -> BackupInfo:
    """What a backup says of itself."""
    with _reading(backup) as source:
        return _info(_read_header(source, backup)[0])


def _info(header: dict[str, Any]) -> BackupInfo:
    return BackupInfo(
        header["store"], header["epoch"], datetime.fromtimestamp(header["created"], UTC), header["kind"]
    )


@contextlib.contextmanager
def _reading(backup: Path) -> Iterator[IO[bytes]]:
    try:
        source = backup.open("rb")
    except FileNotFoundError:
        raise StoreMissingError("there is no backup", where=str(backup)) from None
    except OSError as error:
        raise StorageError(f"can't read the backup: {error.strerror}", where=str(backup)) from None
    with source:
        yield source


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        kind: type[KeystoreError] = DiskFullError if error.errno in {28, 122} else StorageError
        raise kind(f"can't write: {error.strerror}", where=str(path)) from None


@contextlib.contextmanager
def _temporary(path: Path, what: str) -> Iterator[Path]:
    # Beside the target, so that it can be put in place by a link; hidden, and named after it.
    name = path.parent / f".{path.name}.{what}-{secrets.token_hex(6)}"
    new_private_file(name)
    try:
        yield name
    finally:
        name.unlink(missing_ok=True)


def _publish(draft: Path, path: Path) -> None:
    try:
        os.link(draft, path)  # unlike a rename, this never takes another file's place
    except FileExistsError:
        raise StoreExistsError("there is already a file here", where=str(path)) from None
    except OSError:  # a file system without links
        with _explained(path):
            draft.rename(path)
    sync_folder(path.absolute().parent)


def _nonce(number: int, last: bool) -> bytes:
    return struct.pack(">3xQB", number, last)


def _sealed(data_key: bytes, mark: bytes, source: IO[bytes]) -> Iterator[bytes]:
    cipher = AESGCM(derive(data_key, mark, "backup"))
    number, chunk = 0, source.read(CHUNK)
    while True:
        following = source.read(CHUNK)
        yield cipher.encrypt(_nonce(number, not following), chunk, mark)
        if not following:
            return
        number, chunk = number + 1, following


def _opened(data_key: bytes, mark: bytes, source: IO[bytes], size: int, backup: Path) -> Iterator[bytes]:
    cipher = AESGCM(derive(data_key, mark, "backup"))
    number, chunk = 0, source.read(size + _TAG)
    while True:
        following = source.read(size + _TAG)
        try:
            yield cipher.decrypt(_nonce(number, not following), chunk, mark)
        except InvalidTag:
            raise _bad_chunk(cipher, number, chunk, mark, last=not following, backup=backup) from None
        if not following:
            return
        number, chunk = number + 1, following


def _bad_chunk(
    cipher: AESGCM, number: int, chunk: bytes, mark: bytes, *, last: bool, backup: Path
) -> DamagedError:
    whole = False
    if last:
        with contextlib.suppress(InvalidTag):
            cipher.decrypt(_nonce(number, last=False), chunk, mark)
            whole = True
    if whole or len(chunk) < _TAG:
        return TruncatedError("the backup ends too early", where=str(backup))
    return DamagedError(f"chunk {number} of the backup fails authentication", where=str(backup))


def _read_header(source: IO[bytes], backup: Path) -> tuple[dict[str, Any], bytes]:
    where = str(backup)
    start = source.read(len(MAGIC) + 4)
    if not start.startswith(MAGIC[:7]):
        raise ForeignFileError("not a backup of a keystore", where=where)
    if not start.startswith(MAGIC):
        raise NewerSchemaError("written in a later format", where=where, fix="update anonymix-plugin")
    if len(start) < len(MAGIC) + 4:
        raise TruncatedError("the backup ends too early", where=where)
    length = struct.unpack(">I", start[-4:])[0]
    if length > _MOST_HEADER:
        raise DamagedError("the backup's header is damaged", where=where)
    head = source.read(length)
    mark = source.read(hashlib.sha256().digest_size)
    if len(head) < length or len(mark) < hashlib.sha256().digest_size:
        raise TruncatedError("the backup ends too early", where=where)
    if mark != hashlib.sha256(start + head).digest():
        raise DamagedError("the backup's header is damaged", where=where)
    try:
        header: dict[str, Any] = json.loads(head)
        fits = header["format"] == FORMAT and 0 < header["chunk"] <= 1 << 24
    except (ValueError, KeyError, TypeError):
        fits = False
    if not fits:
        raise DamagedError("the backup's header makes no sense", where=where)
    return header, mark


def _check_image(plain: bytes, backup: Path) -> None:
    number = plain[_APPLICATION_AT : _APPLICATION_AT + 4]
    if not plain.startswith(_SQLITE) or number != APPLICATION_ID.to_bytes(4, "big"):
        raise ForeignFileError("the backup holds no keystore", where=str(backup))
