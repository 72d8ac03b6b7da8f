"""Sockets that servers of ours listen at."""

from __future__ import annotations

import socket


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
