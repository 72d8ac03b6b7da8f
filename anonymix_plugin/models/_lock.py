"""A lock between processes, which the system releases when its holder ends, however it ends."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from anonymix_plugin.errors import DownloadError
from anonymix_plugin.locks import try_lock

_POLL_SECONDS = 0.1


@contextmanager
def exclusive(path: Path, *, waiting: Callable[[], None], timeout: float = 3600.0) -> Iterator[None]:
    """Hold the lock of a file for the length of a `with` block.

    Closing the file releases the lock. The file itself stays: removing it would let two processes hold
    locks on two files of one name.

    Args:
        path: The lock file; it is created where it doesn't exist.
        waiting: Called once if somebody else holds the lock.
        timeout: Seconds to wait for it.

    Raises:
        DownloadError: The lock was not to be had in time.
    """
    with path.open("ab") as stream:
        if not try_lock(stream):
            waiting()
            deadline = time.monotonic() + timeout
            while not try_lock(stream):
                if time.monotonic() > deadline:
                    raise DownloadError(
                        f"another process has been fetching models for {timeout:.0f} s",
                        where=str(path),
                        fix="wait for it or end it, then try again",
                    )
                time.sleep(_POLL_SECONDS)
        yield
