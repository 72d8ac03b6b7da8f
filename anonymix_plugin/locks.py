"""Locks between processes, which the system releases when their holder ends, however it ends."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

if sys.platform == "win32":  # pragma: no cover
    import msvcrt

    def try_lock(stream: IO[bytes]) -> bool:
        """Lock an open file until it is closed; whether nobody else has it locked."""
        stream.seek(0)
        try:
            msvcrt.locking(stream.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

else:
    import fcntl

    def try_lock(stream: IO[bytes]) -> bool:
        """Lock an open file until it is closed; whether nobody else has it locked."""
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def renewal_lock(store: Path, adapter: str, collection: str) -> Path:
    """The lock file of whoever renews a collection, beside the keystore."""
    beside = store.resolve()
    place = hashlib.sha256(f"{adapter}\0{collection}".encode(errors="surrogatepass")).hexdigest()[:16]
    return beside.with_name(f".{beside.name}.renewal-{place}")


@contextmanager
def alone(path: Path) -> Iterator[bool]:
    """Hold the lock of a file for the length of a `with` block, unless somebody else does.

    The file stays: removing it would let two processes hold locks on two files of one name.

    Args:
        path: The lock file; it is created, for its owner alone, where it doesn't exist.

    Yields:
        Whether the lock is held.

    Raises:
        OSError: The file can't be made.
    """
    with os.fdopen(os.open(path, os.O_CREAT | os.O_RDWR, 0o600), "r+b") as stream:
        yield try_lock(stream)


@contextmanager
def lock_file(path: Path) -> Iterator[IO[bytes] | None]:
    """Hold the lock of a file that goes with its holder: where nothing is written in it, it is removed at the end.

    What a holder wrote stays for the next one, also where the holder was killed.

    Args:
        path: The lock file; it is created, for its owner alone, where it doesn't exist.

    Yields:
        The file, unbuffered, for the length of the block; None if somebody else holds it.

    Raises:
        OSError: The file can't be made.
    """
    while True:
        with os.fdopen(os.open(path, os.O_CREAT | os.O_RDWR, 0o600), "r+b", buffering=0) as stream:
            if not try_lock(stream):
                yield None
                return
            if not _is_at(stream, path):  # whoever held it before has removed it since it was opened
                continue
            try:
                yield stream
            finally:
                if not os.fstat(stream.fileno()).st_size:
                    with suppress(OSError):  # Windows keeps an open file
                        path.unlink()
            return


def _is_at(stream: IO[bytes], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(stream.fileno()), path.stat())
    except FileNotFoundError:
        return False
