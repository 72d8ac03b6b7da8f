"""Things that one thread at a time can use, lent to many, and never more of them than do any good."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import Empty, LifoQueue
from threading import BoundedSemaphore
from typing import Final, Generic, TypeVar

T = TypeVar("T")

MOST: Final = max(2, min(16, os.cpu_count() or 1))
"""How many run at a time: each keeps a core busy, and what more threads would hold is memory alone."""


class Pool(Generic[T]):
    """Makes things when they are needed, keeps them, and lends each to one thread at a time.

    Who comes while all are lent waits. The one that was used last is lent first, so that no more are made
    than were ever in use together. One that fails is not lent again.

    Args:
        make: Makes one; what it raises is passed on.
        most: How many there may be.
    """

    def __init__(self, make: Callable[[], T], most: int = MOST) -> None:
        self._make = make
        self._room = BoundedSemaphore(most)
        self._idle: LifoQueue[T] = LifoQueue()

    @contextmanager
    def lent(self) -> Iterator[T]:
        """One of them, for a block."""
        with self._room:
            try:
                item = self._idle.get_nowait()
            except Empty:
                item = self._make()
            yield item
            self._idle.put(item)
