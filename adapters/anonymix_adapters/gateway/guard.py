"""In front of everything else: what no request may be, and that nothing is left hanging or said aloud."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Final

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from anonymix_adapters.gateway.problems import ProblemError, malformed, problem_response

_HEADERS: Final = 100


class Guard:
    """Refuses requests whose length is open to argument, and callers who do not take their answer.

    Args:
        app: The application.
        seconds: How long a caller may leave a piece of an answer lying.
    """

    def __init__(self, app: ASGIApp, seconds: float = 60.0) -> None:
        self._app, self._seconds = app, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        error = _refusal(scope)
        if error is not None:
            await problem_response(error, close=True)(scope, receive, send)
            return

        async def sent(message: Message) -> None:
            try:
                async with asyncio.timeout(self._seconds):
                    await send(message)
            except TimeoutError:
                raise ClientDisconnect from None  # the server ends the connection

        with suppress(Exception):  # it was answered inside; a server would log its words, maybe names
            await self._app(scope, receive, sent)


def _refusal(scope: Scope) -> ProblemError | None:
    names = [name for name, _ in scope["headers"]]
    if len(names) > _HEADERS:
        return ProblemError(f"a request has at most {_HEADERS} headers", status=431, code="too_large")
    if scope["http_version"] not in {"1.0", "1.1"}:
        return malformed("HTTP/1.1 is spoken here")
    # What stands before the gateway may go by the other of the two, and take the rest for another request.
    chunked = names.count(b"transfer-encoding")
    if chunked and (b"content-length" in names or chunked > 1 or scope["http_version"] == "1.0"):
        return malformed("a request has one length: content-length, or chunks", where="transfer-encoding")
    return None
