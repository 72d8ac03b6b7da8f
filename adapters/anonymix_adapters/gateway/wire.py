"""HTTP/1.1 on the wire, as uvicorn speaks it, with problem documents where it would answer in plain text."""

from __future__ import annotations

import asyncio
import json
import resource
from typing import Any, Final

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from anonymix_adapters.gateway.problems import MEDIA_TYPE, ProblemError, malformed, problem

_CONNECTIONS: Final = min(1024, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2)
_SECONDS: Final = 20.0
"""For the head of a request, from the connection or from the answer before on."""

_LAST: Final = 1.0
"""The same, once the gateway is about to end; and for the rest of a request that was answered early."""


class Protocol(H11Protocol):
    """A connection: there is an end to how many, and to how long the head of a request may take."""

    def __init__(self, *args: Any, **how: Any) -> None:
        super().__init__(*args, **how)
        self._waiting: asyncio.TimerHandle | None = None
        self._ending = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See `asyncio.Protocol`."""
        super().connection_made(transport)
        if len(self.connections) > _CONNECTIONS:
            self._refuse(ProblemError("too many connections are open", status=503, code="busy", retry_after=2))
            return
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self._waited()
        super().connection_lost(exc)

    def handle_events(self) -> None:
        """See `H11Protocol`."""
        super().handle_events()
        if self.cycle is not None and not self.cycle.response_complete:
            self._waited()
            self.cycle.keep_alive = self.cycle.keep_alive and not self._ending

    def on_response_complete(self) -> None:
        """See `H11Protocol`."""
        # What still comes of a request that was answered early is thrown away, for a moment: a connection that is
        # closed over it takes the answer with it.
        self._wait(_LAST if self.conn.their_state is h11.SEND_BODY else None)
        super().on_response_complete()

    def shutdown(self) -> None:
        """See `H11Protocol`; a request that is on its way over a new connection is waited for."""
        if self.cycle is None:
            self._ending = True
            self._wait(_LAST)
        else:
            super().shutdown()

    def send_400_response(self, msg: str) -> None:
        """See `H11Protocol`; `msg` says no more than that it is no HTTP."""
        del msg
        self._refuse(malformed("this is no HTTP/1.1 request, or its head is too large"))

    def _wait(self, seconds: float | None = None) -> None:
        self._waited()
        self._waiting = self.loop.call_later(_SECONDS if seconds is None else seconds, self.transport.close)

    def _waited(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    def _refuse(self, error: ProblemError) -> None:
        """Answer without the application, unless an answer is under way, and hang up."""
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
            if self.cycle.response_started:
                self.transport.abort()
                return
        body = json.dumps(problem(error)).encode()
        head = [f"HTTP/1.1 {error.status} Refused", f"content-type: {MEDIA_TYPE}", f"content-length: {len(body)}"]
        head += [f"retry-after: {error.retry_after}"] if error.retry_after else []
        self.transport.write("\r\n".join([*head, "connection: close", "", ""]).encode() + body)
        self.transport.close()
