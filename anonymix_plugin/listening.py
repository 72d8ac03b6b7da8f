"""Sockets that servers of ours listen at, and how the servers end."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager


def listeners(host: str, port: int) -> list[socket.socket]:
    """A socket for each address of a host.

    asyncio sends small answers at once only over sockets that say that they are TCP; those of `socket.create_server`
    do not, and each answer would wait 40 ms for an acknowledgement.

    Raises:
        OSError: There is no such host, or one of its addresses is taken or none of this machine.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    made: list[socket.socket] = []
    try:
        for family, kind, _, _, place in found:
            one = socket.create_server((str(place[0]), port), family=family, backlog=512)
            made.append(socket.socket(family, kind, socket.IPPROTO_TCP, fileno=one.detach()))
    except OSError:
        for one in made:
            one.close()
        raise
    return made


@contextmanager
def ending_well() -> Iterator[None]:
    """Let a server that ended in good order at SIGTERM have succeeded.

    uvicorn raises the signal again when all is answered. The command line would then end with 143, which systemd takes
    for a failure.
    """
    try:
        yield
    except SystemExit as end:
        if end.code != 128 + signal.SIGTERM:
            raise
