"""For tests that wait: how busy the machine is must not decide what they find."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import Final

PATIENCE: Final = 120.0
"""Seconds that a test waits for what comes in a moment, so that only what never comes fails it."""


def eventually(holds: Callable[[], object]) -> bool:
    """Whether something holds at last."""
    end = time.monotonic() + PATIENCE
    while not holds():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def reserved_port() -> int:
    """A port of 127.0.0.1 that the system gives to nobody else for a minute, and that a server can still listen at.

    A connection that its server closed first keeps the port, except for those who ask for it by its number.
    """
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)), server.accept()[0]:
            pass
    return port
