"""The files that this process holds open, and what an ``open()`` or a fork would do to their locks.

SQLite locks a file by POSIX locks, which belong to a process. They are all dropped when the process
closes *any* descriptor of the file, and a forked child has none of them though SQLite's memory in it
says that it has. In both cases the next process takes itself for the last one, folds the log into the
file and deletes it under those who still write to it. So nobody here opens a live store's files but
SQLite, and a child gives up the connections that it inherits before it can open its own.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable
from typing import Protocol

from anonymix_keystore._errors import LockedError

Identity = tuple[int, int]  # device and inode
FORK_PATIENCE = 2.0  # seconds that a fork waits for connections in use


class Held(Protocol):
    """A connection as a fork sees it."""

    lock: threading.RLock
    rank: int  # locks are taken in this order

    @property
    def identities(self) -> frozenset[Identity]:
        """Device and inode of each of its files."""
        ...

    def inherit(self, *, idle: bool) -> bool:
        """In a forked child: give the connection up; returns whether that could be done."""
        ...


_open: dict[int, weakref.ref[Held]] = {}
_torn: set[Identity] = set()  # files that a child inherited in the middle of something
_gate = threading.RLock()  # held while a connection is made, and by a fork
_taken: list[tuple[Held, threading.RLock, bool]] = []


def opened() -> list[Held]:
    """The connections open in this process."""
    return [held for held in (reference() for reference in list(_open.values())) if held is not None]


def register(make: Callable[[], Held]) -> None:
    """Make a connection and keep it in view, so that no fork can come in between."""
    with _gate:
        held = make()
        number = id(held)
        _open[number] = weakref.ref(held, lambda _: _open.pop(number, None))


def release(held: Held) -> None:
    """A connection was closed."""
    _open.pop(id(held), None)


def identity(path: str | os.PathLike[str]) -> Identity | None:
    """Device and inode of a file, or ``None`` where there is none to be seen."""
    try:
        status = os.stat(path)  # noqa: PTH116 - asked at every read, and a Path costs as much again
    except OSError:
        return None
    return status.st_dev, status.st_ino


def is_live(path: str | os.PathLike[str]) -> bool:
    """Whether a path leads to a file of a store that is open in this process.

    Such a file must not be opened by anything but SQLite: closing it again would drop the locks that
    keep other processes from deleting the store's log, and with it acknowledged changes.
    """
    found = identity(path)
    return found is not None and any(found in held.identities for held in opened())


def check_inherited(found: Identity | None, where: str) -> None:
    """Refuse a file that a forked child can't open safely.

    Raises:
        LockedError: The process was forked in the middle of a change.
    """
    if found in _torn:
        raise LockedError(
            "this process was forked while another thread was using the store",
            where=where,
            fix="start it before the store is opened, or by 'spawn'",
        )


def _before_fork() -> None:
    _gate.acquire()
    deadline = time.monotonic() + FORK_PATIENCE
    for held in sorted(opened(), key=lambda held: held.rank):
        lock = held.lock
        _taken.append((held, lock, lock.acquire(timeout=max(0.0, deadline - time.monotonic()))))


def _after_in_parent() -> None:
    for _, lock, taken in _taken:
        if taken:
            lock.release()
    _taken.clear()
    _gate.release()


def _after_in_child() -> None:
    global _gate  # noqa: PLW0603 - a lock made before the fork is of no use after it
    _gate = threading.RLock()
    for held, _, taken in _taken:
        if not held.inherit(idle=taken):
            _torn.update(held.identities)
    _taken.clear()
    _open.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_in_parent, after_in_child=_after_in_child)
