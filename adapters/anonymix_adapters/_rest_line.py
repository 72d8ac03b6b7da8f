"""Between an HTTP client and its connections: one of httpx2, or of the httpx that a vendor's SDK brings.

What is looked at is what is sent: the body is read to its end, looked at, and handed on as those bytes.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterable, Callable, Iterable
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    import httpx2

Look = Callable[[Any, bytes], None]
"""Is given each request and its body, try by try; raises where it must not be sent."""


class Line:
    """A transport that has each request looked at last.

    Args:
        inner: What sends.
        look: What looks.
    """

    def __init__(self, inner: Any, look: Look) -> None:
        self.inner, self.look = inner, look

    def handle_request(self, request: Any) -> Any:
        """See `httpx2.BaseTransport`."""
        assert isinstance(request.stream, Iterable)  # noqa: S101 - of a blocking client
        body = b"".join(request.stream)
        self.look(request, body)
        return self.inner.handle_request(_with(request, body))

    def close(self) -> None:
        """See `httpx2.BaseTransport`."""
        self.inner.close()

    def __enter__(self) -> Self:
        self.inner.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self.inner.__exit__(*error)


class AsyncLine:
    """The same for async clients."""

    def __init__(self, inner: Any, look: Look) -> None:
        self.inner, self.look = inner, look

    async def handle_async_request(self, request: Any) -> Any:
        """See `httpx2.AsyncBaseTransport`."""
        assert isinstance(request.stream, AsyncIterable)  # noqa: S101 - of an async client
        body = b"".join([part async for part in request.stream])
        self.look(request, body)
        return await self.inner.handle_async_request(_with(request, body))

    async def aclose(self) -> None:
        """See `httpx2.AsyncBaseTransport`."""
        await self.inner.aclose()

    async def __aenter__(self) -> Self:
        await self.inner.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.inner.__aexit__(*error)


def look_at(client: Any, look: Look) -> Callable[[], None]:
    """Put a look in front of all connections of a client, proxies' included; returns what takes it out."""
    kind: Any = AsyncLine if hasattr(client, "aclose") else Line
    plain, mounts = client._transport, dict(client._mounts)
    lines: dict[Any, Any] = {key: inner and kind(inner, look) for key, inner in mounts.items()}
    client._transport, client._mounts = kind(plain, look), lines

    def undo() -> None:
        client._transport, client._mounts = plain, mounts

    return undo


def is_looked_at(client: Any, look: Look) -> bool:
    """Whether all connections of a client still have that look in front."""
    found = [client._transport, *filter(None, client._mounts.values())]
    return all(isinstance(each, Line | AsyncLine) and each.look == look for each in found)


def send(client: httpx2.Client, request: httpx2.Request) -> httpx2.Response:
    """Send a request without redirects, hooks and httpx2's log, which would tell the query."""
    response = client._transport_for_url(request.url).handle_request(request)
    response.request = request
    try:
        response.read()
    finally:
        response.close()
    return response


def _with(request: Any, body: bytes) -> Any:
    library: Any = sys.modules[type(request).__module__.partition(".")[0]]
    return type(request)(
        request.method,
        request.url,
        headers=request.headers,
        stream=library.ByteStream(body),
        extensions=request.extensions,
    )
