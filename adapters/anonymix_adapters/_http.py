"""How the gateway speaks HTTP as a client: no proxy of the environment, and an end to every exchange."""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import httpcore2
import httpx2

from anonymix_plugin.errors import UsageError

_end: ContextVar[float] = ContextVar("anonymix_http_end", default=float("inf"))


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Whatever connections of a `Transport` do in this block takes at most so long together.

    Time-outs of a client are for each read alone: an answer that drips byte by byte, its headers included, never
    reaches them.
    """
    token = _end.set(min(_end.get(), time.monotonic() + seconds))
    try:
        yield
    finally:
        _end.reset(token)


def _left(timeout: float | None) -> float | None:
    end = _end.get()
    if end == float("inf"):
        return timeout
    left = max(end - time.monotonic(), 0.001)
    return left if timeout is None else min(timeout, left)


class _Stream(httpcore2.NetworkStream):
    def __init__(self, inner: httpcore2.NetworkStream) -> None:
        self._inner = inner

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        if time.monotonic() > _end.get():
            raise httpcore2.ReadTimeout("the exchange took too long")
        return self._inner.read(max_bytes, _left(timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._inner.write(buffer, _left(timeout))

    def close(self) -> None:
        self._inner.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.NetworkStream:
        return _Stream(self._inner.start_tls(ssl_context, server_hostname, _left(timeout)))

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)


class _Backend(httpcore2.SyncBackend):
    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.NetworkStream:
        return _Stream(super().connect_tcp(host, port, _left(timeout), local_address, socket_options))


def trusting(ca: Path | None) -> ssl.SSLContext | None:
    """How certificates of servers are checked: by the issuers in a PEM file; None for the system's.

    Raises:
        UsageError: The file can't be read.
    """
    try:
        return None if ca is None else ssl.create_default_context(cafile=ca)
    except OSError:  # of ssl, too
        raise UsageError("the issuers' certificates can't be read", where=str(ca), fix="give a PEM file") from None


class Transport(httpx2.HTTPTransport):
    """Sends requests as they are: nothing of the environment counts, and `within` holds.

    Args:
        verify: How certificates of servers are checked; the system's issuers by default.
        keep: Connections that stay open for the next request.
    """

    def __init__(self, verify: ssl.SSLContext | None = None, *, keep: int = 20) -> None:
        context = httpx2.create_ssl_context(trust_env=False) if verify is None else verify
        super().__init__(verify=context, trust_env=False)
        self._pool = httpcore2.ConnectionPool(
            ssl_context=context,
            max_connections=100,
            max_keepalive_connections=keep,
            keepalive_expiry=5.0,
            network_backend=_Backend(),
        )
