"""Several processes that serve one socket, and the one that looks after them."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from types import FrameType
from typing import Final

_AT_ONCE: Final = 60.0
"""Seconds within which a worker that ends by itself says that no other would do better."""
_MARGIN: Final = 10


def fork_workers(count: int, grace: int, listener: socket.socket) -> int:
    """Become `count` workers, and a process that looks after them. Call it before threads are started.

    Returns in each worker. The process that looks after them ends inside: a worker that is killed is replaced; one
    that can't start ends all. At SIGTERM and Ctrl-C the workers are asked to end, and killed past their time.
    Workers whose keeper is killed end by themselves.

    Args:
        count: How many.
        grace: Seconds that a worker may take to end.
        listener: What they serve; it is closed at the end, so that nobody waits there for an answer.

    Returns:
        Which worker this is, from 0.
    """
    started: dict[int, tuple[int, float]] = {}
    ending = False

    def end(_: int = 0, __: FrameType | None = None) -> None:
        nonlocal ending
        ending = True
        signal.alarm(grace + _MARGIN)
        listener.close()
        _send(signal.SIGTERM)

    def _send(what: int) -> None:
        for pid in started:
            os.kill(pid, what)

    handlers = {signal.SIGTERM: end, signal.SIGINT: end, signal.SIGALRM: lambda *_: _send(signal.SIGKILL)}
    before = {each: signal.signal(each, handler) for each, handler in handlers.items()}
    keeper, alive = os.pipe()  # workers hold the end for reading, and see it close
    code, missing = 0, list(range(count))
    while True:
        for number in [] if ending else missing:
            signal.pthread_sigmask(signal.SIG_BLOCK, handlers)  # none is lost between a worker and its entry
            pid = os.fork()
            if pid == 0:
                for each, old in before.items():
                    signal.signal(each, old)
                signal.pthread_sigmask(signal.SIG_UNBLOCK, handlers)
                os.close(alive)
                threading.Thread(target=_end_with, args=[keeper], daemon=True).start()
                return number
            started[pid] = (number, time.monotonic())
            signal.pthread_sigmask(signal.SIG_UNBLOCK, handlers)
        missing = []
        try:
            pid, status = os.wait()
        except ChildProcessError:
            raise SystemExit(code) from None
        if pid not in started:
            continue  # somebody else's, whom the first process of a container inherits
        number, since = started.pop(pid)
        ended = os.waitstatus_to_exitcode(status)
        if ending:
            continue
        if ended >= 0 and time.monotonic() - since < _AT_ONCE:
            code = ended or 1
            end()
        else:
            time.sleep(0.5)
            missing = [number]


def _end_with(keeper: int) -> None:
    os.read(keeper, 1)
    os.kill(os.getpid(), signal.SIGTERM)
