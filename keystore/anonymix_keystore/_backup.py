"""Backups: a consistent image of the store, encrypted in chunks, in one self-describing file.

Chunks follow the STREAM construction (Hoang, Reyhanitabar, Rogaway and Vizár, CRYPTO 2015): the
nonce counts them and marks the last, so that none can be dropped, doubled, moved or cut off.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import hashlib
import itertools
import json
import os
import secrets
import shutil
import stat
import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from anonymix_keystore import _header, _slots
from anonymix_keystore._audit import canonical
from anonymix_keystore._core import Core
from anonymix_keystore._crypto import KEY_BYTES, derive
from anonymix_keystore._database import APPLICATION_ID, DRAFT, check_free, check_not_beside, sync_folder
from anonymix_keystore._errors import (
    DamagedError,
    DiskFullError,
    ForeignFileError,
    KeystoreError,
    NewerSchemaError,
    ReadOnlyError,
    StorageError,
    StoreExistsError,
    StoreMissingError,
    TruncatedError,
)
from anonymix_keystore._held import is_live
from anonymix_keystore._slots import Slot
from anonymix_keystore._unlock import Unlock

MAGIC = b"ANMXBAK1"
FORMAT = 1
CHUNK = 1 << 16
BACKUP = "backup"
_TAG = 16
_WRITTEN = "give a file that anonymix keys backup (Keystore.backup) wrote"
_MOST_HEADER = 1 << 16
_SQLITE = b"SQLite format 3\x00"
_APPLICATION_AT = 68  # offset of the application id in an SQLite file
_VERSIONS_AT, _NO_LOG = 18, b"\x01\x01"  # of the file format's write and read version
_DESCRIPTORS = Path("/proc/self/fd")

Draft = tuple[IO[bytes], Callable[[], None]]  # an open file, and how it gets its name


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


def write(core: Core, path: Path, unlock: Unlock) -> BackupInfo:
    """Write a backup of a store to a new file."""
    if os.path.lexists(path):
        raise StoreExistsError("there is already a file here", where=str(path), fix="choose another path")
    check_not_beside(path)
    sweep(path.parent)
    data_key = secrets.token_bytes(KEY_BYTES)
    slot = _slots.lock(core.keys.store_id, BACKUP, data_key, unlock)
    with core.connection() as (db, keys), db.snapshot():
        state, image = _header.load(db, keys), db.image()
    header = {
        "format": FORMAT,
        "store": keys.store_id.hex(),
        "epoch": state.epoch,
        "created": core.now(state),
        "chunk": CHUNK,
        "kind": slot.kind,
        "params": slot.params,
        "sealed": base64.b64encode(slot.sealed).decode(),
    }
    head = canonical(header).encode()
    start = MAGIC + struct.pack(">I", len(head)) + head
    mark = hashlib.sha256(start).digest()
    _put(path, "writing", itertools.chain((start + mark,), _sealed(data_key, mark, image)))
    return _info(header)


def restore(backup: Path, path: Path, unlock: Unlock) -> BackupInfo:
    """Open a backup and put the store in place, where there must be none; all or nothing."""
    check_free(path)
    sweep(path.parent)
    with _reading(backup) as source:
        header, mark = _read_header(source, backup)
        store_id = bytes.fromhex(header["store"])
        slot = Slot(BACKUP, header["kind"], header["params"], base64.b64decode(header["sealed"]))
        data_key = _slots.open_slot(store_id, slot, unlock, str(backup))
        _put(path, "restoring", _checked(_opened(data_key, mark, source, header["chunk"], backup), backup))
    return _info(header)


def inspect(backup: Path) -> BackupInfo:
    """What a backup says of itself."""
    with _reading(backup) as source:
        return _info(_read_header(source, backup)[0])


def _info(header: dict[str, Any]) -> BackupInfo:
    return BackupInfo(header["store"], header["epoch"], datetime.fromtimestamp(header["created"], UTC), header["kind"])


@contextlib.contextmanager
def _reading(backup: Path) -> Iterator[IO[bytes]]:
    if is_live(backup):  # not even opened
        raise ForeignFileError("a keystore in use, not a backup of one", where=str(backup), fix=_WRITTEN)
    try:
        source = backup.open("rb")
    except FileNotFoundError:
        raise StoreMissingError("there is no backup", where=str(backup), fix=_WRITTEN) from None
    except OSError as error:
        raise StorageError(f"can't read the backup: {error.strerror}", where=str(backup)) from None
    with source:
        yield source


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except FileExistsError:
        raise StoreExistsError("there is already a file here", where=str(path), fix="choose another path") from None
    except PermissionError:
        raise ReadOnlyError("the folder can't be written", where=str(path.parent)) from None
    except OSError as error:
        full = error.errno in {errno.ENOSPC, errno.EDQUOT}
        kind: type[KeystoreError] = DiskFullError if full else StorageError
        raise kind(f"can't write: {error.strerror}", where=str(path)) from None


def _put(path: Path, what: str, parts: Iterable[bytes]) -> None:
    """Write a new file (0600) that gets its name when it is whole and on the disk."""
    with _explained(path), contextlib.ExitStack() as stack:
        file, publish = _nameless(path, stack) or _named(path, what, stack)
        for part in parts:
            file.write(part)
        _sync(file)
        check_free(path)
        try:
            publish()
        except FileExistsError:
            raise
        except OSError:  # links are forbidden here, or there are none
            file.seek(0)
            final, publish = _named(path, what, stack, link=False)
            shutil.copyfileobj(file, final)
            _sync(final)
            publish()
        sync_folder(path.absolute().parent)


def _sync(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())


def _nameless(path: Path, stack: contextlib.ExitStack) -> Draft | None:
    """A file that has no name yet, so that nothing is left of it if the process is killed.

    Linux has them, on most file systems; ``None`` where there are none.
    """
    flag = getattr(os, "O_TMPFILE", 0)
    if not flag or not _DESCRIPTORS.is_dir():
        return None
    try:
        folder = os.open(path.parent, os.O_RDONLY)
        stack.callback(os.close, folder)
        file = stack.enter_context(os.fdopen(os.open(path.parent, flag | os.O_RDWR, 0o600), "w+b"))
    except OSError:
        return None
    source = str(_DESCRIPTORS / str(file.fileno()))
    # The folder's descriptor only makes Python take the system call that follows the link.
    return file, lambda: os.link(source, path, src_dir_fd=folder, follow_symlinks=True)


def _named(path: Path, what: str, stack: contextlib.ExitStack, *, link: bool = True) -> Draft:
    """A hidden file beside the target and named after it; ``sweep`` removes what is left of those."""
    name = path.parent / f".{path.name}.{what}-{secrets.token_hex(6)}"
    handle = os.open(name, os.O_CREAT | os.O_EXCL | os.O_RDWR | getattr(os, "O_BINARY", 0), 0o600)
    stack.callback(name.unlink, missing_ok=True)
    file = stack.enter_context(os.fdopen(handle, "w+b"))
    _claim(handle)
    # A link, unlike a rename, never takes another file's place.
    return file, lambda: os.link(name, path) if link else os.rename(name, path)  # noqa: PTH104


def _claim(handle: int) -> bool:
    """Hold an open draft until it is closed; whether nobody else holds it."""
    if os.name != "posix":
        return True  # there a file in use can't be removed anyway
    import fcntl

    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def sweep(folder: Path) -> None:
    """Remove the drafts that killed processes left in a folder."""
    with contextlib.suppress(OSError):
        for name in sorted(folder.iterdir()):
            if DRAFT.fullmatch(name.name):
                with contextlib.suppress(OSError):
                    if _abandoned(name):
                        name.unlink(missing_ok=True)


def _abandoned(draft: Path) -> bool:
    status = draft.lstat()
    if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
        # It was put in place, and a killed process left its first name. It is not opened: by now it
        # may be a live store.
        return stat.S_ISREG(status.st_mode)
    if is_live(draft):
        return False
    with draft.open("r+b") as file:
        return _claim(file.fileno())


def _nonce(number: int, last: bool) -> bytes:
    return struct.pack(">3xQB", number, last)


def _sealed(data_key: bytes, mark: bytes, image: bytes) -> Iterator[bytes]:
    cipher = AESGCM(derive(data_key, mark, "backup"))
    view = memoryview(image)
    for number, start in enumerate(range(0, len(image), CHUNK)):
        chunk: bytes | memoryview = view[start : start + CHUNK]
        if number == 0:
            # The file inside stands alone: its header must not say that it has a log beside it.
            chunk = b"".join((chunk[:_VERSIONS_AT], _NO_LOG, chunk[_VERSIONS_AT + len(_NO_LOG) :]))
        yield cipher.encrypt(_nonce(number, start + CHUNK >= len(image)), chunk, mark)


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


def _bad_chunk(cipher: AESGCM, number: int, chunk: bytes, mark: bytes, *, last: bool, backup: Path) -> DamagedError:
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
        raise ForeignFileError("not a backup of a keystore", where=where, fix=_WRITTEN)
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


def _checked(parts: Iterable[bytes], backup: Path) -> Iterator[bytes]:
    """The parts of an image, the first of which shows whether it is a keystore's."""
    for number, plain in enumerate(parts):
        if number == 0:
            _check_image(plain, backup)
        yield plain


def _check_image(plain: bytes, backup: Path) -> None:
    number = plain[_APPLICATION_AT : _APPLICATION_AT + 4]
    if not plain.startswith(_SQLITE) or number != APPLICATION_ID.to_bytes(4, "big"):
        raise ForeignFileError("the backup holds no keystore", where=str(backup))
