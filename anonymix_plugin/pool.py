"""What threads share: things that one at a time can use, and memory that all of them together may take."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Condition, Lock
from typing import Final, Generic, TypeVar

import cv2

T = TypeVar("T")

CORES: Final[int] = cv2.getNumberOfCPUs()
"""Cores that this process may use: of the machine's those that it is held to, and no more than its container's share
of their time (cgroup v1 and v2) makes up, rounded down; at least 1."""

ENGINE_THREADS: Final = CORES if (os.cpu_count() or 1) > CORES else 0
"""Threads of an engine that would take every core it sees. 0 leaves the number to it: it tells cores from threads of
a core, and knows nothing of a container's share."""

MOST: Final = max(2, min(16, CORES))
"""How many run at a time: each keeps a core busy, and what more threads would hold is memory alone."""


class Pool(Generic[T]):
    """Makes things when they are needed, keeps them, and lends each to one thread at a time.

    Who comes while all are lent waits, and gets the next one that comes back: before whoever comes later, and before
    the thread that gave it back. The one that was used last is lent first, so that no more are made than were ever in
    use together. One that fails is not lent again.

    Args:
        make: Makes one; what it raises is passed on.
        most: How many there may be.
    """

    def __init__(self, make: Callable[[], T], most: int = MOST) -> None:
        self._make, self._room = make, most
        self._idle: list[T] = []
        self._waiting: deque[Lock] = deque()
        self._guard = Lock()

    @property
    def idle(self) -> int:
        """How many are there that nobody uses."""
        return len(self._idle)

    @contextmanager
    def lent(self) -> Iterator[T]:
        """One of them, for a block."""
        self._enter()
        try:
            with self._guard:
                item = self._idle.pop() if self._idle else None
            if item is None:
                item = self._make()
            yield item
            with self._guard:
                self._idle.append(item)
        finally:
            self._leave()

    def _enter(self) -> None:
        with self._guard:
            if self._room:  # while others wait, there is none
                self._room -= 1
                return
            turn = Lock()
            turn.acquire()
            self._waiting.append(turn)
        try:
            turn.acquire()  # until somebody leaves
        except BaseException:  # interrupted: the place, if it was ours already, is the next one's
            with self._guard:
                ours = turn not in self._waiting
                if not ours:
                    self._waiting.remove(turn)
            if ours:
                self._leave()
            raise

    def _leave(self) -> None:
        with self._guard:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._room += 1


class Budget:
    """An amount of something that all threads together may hold at a time.

    Who asks for more than is left waits, and who comes later waits behind. Who asks for more than there is
    gets it as soon as nobody else holds any.

    Args:
        amount: How much there is.
    """

    def __init__(self, amount: int) -> None:
        self._amount = amount
        self._anew()
        if hasattr(os, "register_at_fork"):  # who held a part of it is not there in a child
            os.register_at_fork(after_in_child=self._anew)

    def _anew(self) -> None:
        self._held, self._turn, self._changed = 0, Lock(), Condition()

    @contextmanager
    def taken(self, amount: int) -> Iterator[None]:
        """A part of it, for a block."""
        with self._turn, self._changed:
            self._changed.wait_for(lambda: not self._held or self._held + amount <= self._amount)
            self._held += amount
        try:
            yield
        finally:
            with self._changed:
                self._held -= amount
                self._changed.notify_all()


DECODING: Final = Budget(100_000_000)
"""Pixels that are decoded at a time in the whole process. Each takes up to 18 bytes meanwhile."""
