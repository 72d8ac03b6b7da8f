"""Locks between processes, which the system releases when their holder ends, however it ends."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
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
    place = hashlib.sha256(f"{adapter}\0{collection}".encode()).hexdigest()[:16]
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
