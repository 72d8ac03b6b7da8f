"""Between an httpx client and its connections. This module needs httpx.

What is looked at is what is sent: the body is read to its end, looked at, and handed on as those bytes.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Iterable
from typing import Any

import httpx

Look = Callable[[httpx.Request, bytes], None]
"""Is given each request and its body, try by try; raises where it must not be sent."""


class Line(httpx.BaseTransport):
    """A transport that has each request looked at last.

    Args:
        inner: What sends.
        look: What looks.
    """

    def __init__(self, inner: httpx.BaseTransport, look: Look) -> None:
        self.inner, self.look = inner, look

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """See `httpx.BaseTransport`."""
        assert isinstance(request.stream, Iterable)  # noqa: S101 - of a blocking client
        body = b"".join(request.stream)
        self.look(request, body)
        return self.inner.handle_request(_with(request, body))

    def close(self) -> None:
        """See `httpx.BaseTransport`."""
        self.inner.close()


class AsyncLine(httpx.AsyncBaseTransport):
    """The same for async clients."""

    def __init__(self, inner: httpx.AsyncBaseTransport, look: Look) -> None:
        self.inner, self.look = inner, look

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """See `httpx.AsyncBaseTransport`."""
        assert isinstance(request.stream, AsyncIterable)  # noqa: S101 - of an async client
        body = b"".join([part async for part in request.stream])
        self.look(request, body)
        return await self.inner.handle_async_request(_with(request, body))

    async def aclose(self) -> None:
        """See `httpx.AsyncBaseTransport`."""
        await self.inner.aclose()


def look_at(client: httpx.Client | httpx.AsyncClient, look: Look) -> Callable[[], None]:
    """Put a look in front of all connections of a client, proxies' included; returns what takes it out."""
    kind: Any = AsyncLine if isinstance(client, httpx.AsyncClient) else Line
    plain, mounts = client._transport, dict(client._mounts)
    lines: dict[Any, Any] = {key: inner and kind(inner, look) for key, inner in mounts.items()}
    client._transport, client._mounts = kind(plain, look), lines

    def undo() -> None:
        client._transport, client._mounts = plain, mounts  # type: ignore[assignment]

    return undo


def is_looked_at(client: httpx.Client | httpx.AsyncClient, look: Look) -> bool:
    """Whether all connections of a client still have that look in front."""
    found = [client._transport, *filter(None, client._mounts.values())]
    return all(isinstance(each, Line | AsyncLine) and each.look == look for each in found)


def send(client: httpx.Client, request: httpx.Request) -> httpx.Response:
    """Send a request without redirects, hooks and httpx's log, which would tell the query."""
    response = client._transport_for_url(request.url).handle_request(request)
    response.request = request
    try:
        response.read()
    finally:
        response.close()
    return response


def _with(request: httpx.Request, body: bytes) -> httpx.Request:
    return httpx.Request(
        request.method,
        request.url,
        headers=request.headers,
        stream=httpx.ByteStream(body),
        extensions=request.extensions,
    )
