"""Work in threads, never more at once than was allowed, and never more waiting."""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from anonymix_adapters.gateway.problems import ProblemError
from anonymix_adapters.gateway.telemetry import step

T = TypeVar("T")


class Workers:
    """A bounded queue in front of threads.

    Args:
        threads: How many requests are worked on at once.
        waiting: How many more may wait.
    """

    def __init__(self, threads: int, waiting: int) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="anonymix-gateway")
        self._most = threads + waiting
        self.inside = 0
        self.closing = False
        self.watch: Callable[[int], None] = lambda _: None  # is told how many are inside

    def check(self) -> None:
        """Say whether there is room, before a body is read.

        Raises:
            ProblemError: The queue is full, or the gateway is about to end.
        """
        if self.closing or self.inside >= self._most:
            raise ProblemError(
                status=503,
                what="the gateway is about to end" if self.closing else "too many requests wait already",
                code="busy",
                fix="try again after the seconds that Retry-After says",
                retry_after=2,
            )

    async def place(self, seconds: float) -> None:
        """Wait for room, for those who can: whoever sends many photos is slowed down before refused.

        Args:
            seconds: For how long at most; `run` refuses what came too late.
        """
        end = time.monotonic() + seconds
        while self.inside >= self._most and not self.closing and time.monotonic() < end:
            await asyncio.sleep(0.02)

    async def run(self, work: Callable[[], T]) -> T:
        """Do work in a thread. What was taken is finished, whether or not its caller still waits.

        Raises:
            ProblemError: The queue is full, or the gateway is about to end.
        """
        self.check()
        self.inside += 1
        self.watch(self.inside)
        context = contextvars.copy_context()
        future = asyncio.get_running_loop().run_in_executor(self._pool, lambda: context.run(_stepped, work))
        future.add_done_callback(self._left)
        return await asyncio.shield(future)

    def _left(self, done: asyncio.Future[T]) -> None:
        self.inside -= 1
        self.watch(self.inside)
        if not done.cancelled():
            done.exception()  # it was told to the caller; if the caller is gone, nobody else is to be alarmed

    async def end(self) -> None:
        """Take nothing more, and finish what was taken."""
        self.closing = True
        await asyncio.to_thread(self._pool.shutdown, wait=True)


def _stepped(work: Callable[[], T]) -> T:
    with step("work"):
        return work()
