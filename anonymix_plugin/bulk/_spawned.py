"""The workers of a bulk job on this machine: spawned processes, each at one end of a pipe."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from multiprocessing.resource_tracker import ensure_running
from typing import Final

from anonymix_plugin.bulk._pool import Hand, Message, Pool
from anonymix_plugin.bulk._values import Mixer
from anonymix_plugin.bulk._worker import Worker, get, put, work
from anonymix_plugin.images import ImageFormat
from anonymix_plugin.options import MixerOptions

_LAST_WORD: Final = 2.0  # seconds that a worker has to end by itself


@dataclass(eq=False)
class _Spawned(Hand):
    process: SpawnProcess
    connection: Connection


class Processes(Pool[_Spawned]):
    """Spawned processes.

    Args:
        count: As for `Pool`.
        make: Makes a worker in its process.
        options: What their mixers are to be like.
        patience: As for `Pool`.
        ready: As for `Pool`.
    """

    def __init__(
        self,
        count: int,
        make: Callable[[MixerOptions], Worker],
        options: MixerOptions,
        patience: float,
        ready: Callable[[Mixer], None],
    ) -> None:
        super().__init__(count, patience, ready)
        self._told, self._spawn = (make, options), multiprocessing.get_context("spawn")

    def _start(self) -> _Spawned:
        mine, theirs = self._spawn.Pipe()
        process = self._spawn.Process(target=work, args=(theirs, *self._told), daemon=True)
        with _without_interrupts():
            process.start()
        theirs.close()  # or its end would never be seen
        return _Spawned(process, mine, pid=process.pid or 0)

    def _send(self, hand: _Spawned, format_: ImageFormat, sealed: bytes) -> None:
        with suppress(OSError):
            put(hand.connection, {"format": format_}, sealed)

    def _heard(self, seconds: float) -> Iterator[tuple[_Spawned, Message | None]]:
        by_connection = {hand.connection: hand for hand in self._hands}
        for connection in wait(list(by_connection), seconds):
            hand = by_connection[connection]  # type: ignore[index]
            try:
                message = get(hand.connection)
            except (EOFError, OSError):
                yield hand, None
            else:
                yield hand, message

    def _end(self, hand: _Spawned) -> None:
        hand.connection.close()
        hand.process.kill()
        hand.process.join()

    def close(self) -> None:
        """End all of them."""
        for hand in self._hands:
            hand.connection.close()
            hand.process.terminate()
        for hand in self._hands:
            hand.process.join(_LAST_WORD)
            if hand.process.is_alive():
                hand.process.kill()
                hand.process.join()
        self._hands.clear()


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """A process that is started here never sees Ctrl-C, not even while it loads: the driver ends its workers."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    ensure_running()  # where it starts, it unblocks the signal
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
