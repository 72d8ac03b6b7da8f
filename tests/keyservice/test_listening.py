"""Sockets that are listened at."""

from __future__ import annotations

import asyncio
import socket

import pytest

from anonymix_plugin.listening import ending_well, listeners


def test_small_answers_are_sent_at_once() -> None:
    async def accepted() -> int:
        found: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        class Peer(asyncio.Protocol):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                own = transport.get_extra_info("socket")
                found.set_result(own.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))

        (listener,) = listeners("127.0.0.1", 0)
        server = await asyncio.get_running_loop().create_server(Peer, sock=listener)
        async with server:
            _, writer = await asyncio.open_connection(*listener.getsockname())
            told = await found
            writer.close()
        return told

    assert asyncio.run(accepted())


def test_of_several_addresses_none_stays_open_where_one_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        asked = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port)) for host in ("127.0.0.2", "127.0.0.1")]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: asked)
        with pytest.raises(OSError, match="in use"):
            listeners("both", port)
        socket.create_server(("127.0.0.2", port)).close()


def test_an_end_that_was_asked_for_is_no_failure_and_any_other_is_one() -> None:
    with ending_well():
        raise SystemExit(143)
    with pytest.raises(SystemExit), ending_well():
        raise SystemExit(3)
