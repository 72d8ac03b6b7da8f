"""The gateway as an ASGI application: limits, callers, problem documents, figures, and an end in good order."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from typing import Final
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp

from anonymix_adapters.gateway.guard import Guard
from anonymix_adapters.gateway.metrics import Metrics
from anonymix_adapters.gateway.problems import HEADERS, ProblemError, problem, problem_response
from anonymix_adapters.gateway.proxy import Proxy, Rights
from anonymix_adapters.gateway.reading import Received
from anonymix_adapters.gateway.shared import Shared
from anonymix_adapters.gateway.telemetry import Telemetry
from anonymix_adapters.gateway.tokens import PREFIX, Token, Tokens
from anonymix_adapters.gateway.workers import Workers

log: Final = logging.getLogger("anonymix.gateway")


@dataclass(frozen=True)
class Limits:
    """What the gateway takes.

    Attributes:
        body: Bytes of a request.
        seconds: Until a body must have arrived.
        threads: Requests worked on at once.
        waiting: Requests that may wait besides.
        rate: Requests a second and caller, over ten seconds; 0 for any number.
    """

    body: int = 12 * 1024 * 1024
    seconds: float = 20.0
    threads: int = 4
    waiting: int = 16
    rate: float = 0.0


class Rate:
    """How many requests a caller may make, as a bucket that fills again.

    Args:
        rate: Requests a second; 0 for any number.
        shared: Where buckets are.
    """

    def __init__(self, rate: float, shared: Shared) -> None:
        self._rate, self._most, self._shared = rate, max(1.0, rate * 10), shared

    def take(self, who: str) -> None:
        """Count a request.

        Raises:
            ProblemError: It is one too many.
        """
        wait = self._shared.take(who, self._rate, self._most) if self._rate else 0.0
        if wait:
            what = "this caller asks too often"
            raise ProblemError(what, status=429, code="rate", retry_after=max(1, round(wait)))


class Room:
    """The memory that bodies of requests may take together, those that are still arriving included.

    Args:
        most: Bytes.
    """

    def __init__(self, most: int) -> None:
        self._most, self._held = most, 0

    @contextmanager
    def holding(self) -> Iterator[Callable[[int], None]]:
        """Yields what counts more bytes of one body; they are given back at the end.

        Raises:
            ProblemError: There is no room for them.
        """
        mine = 0

        def more(count: int) -> None:
            nonlocal mine
            if self._held + count > self._most:
                raise ProblemError("too many requests wait already", status=503, code="busy", retry_after=2)
            self._held += count
            mine += count

        try:
            yield more
        finally:
            self._held -= mine


async def body_of(request: Request, limits: Limits, count: Callable[[int], None]) -> bytes:
    """The body of a request, within the limits.

    Args:
        request: The request.
        limits: The limits.
        count: Is told of bytes as they arrive; see `Room.holding`.

    Raises:
        ProblemError: It is too large, there is no room for it, or it did not arrive in time.
    """
    too_large = ProblemError(
        status=413, what=f"a request has at most {limits.body} bytes", code="too_large", fix="send a smaller photo"
    )
    length = request.headers.get("content-length", "0")
    if not length.isdecimal() or int(length[:20]) > limits.body:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(limits.seconds):
            async for chunk in request.stream():
                body += chunk
                if len(body) > limits.body:
                    raise too_large
                count(len(chunk))
    except TimeoutError:
        raise ProblemError(status=408, what="the body did not arrive in time", code="slow") from None
    return bytes(body)


class Callers:
    """Who calls, and what they may.

    Args:
        tokens: Where tokens are; None where everybody who reaches the gateway may use the proxy.
    """

    def __init__(self, tokens: Tokens | None) -> None:
        self.tokens = tokens

    def of(self, secret: str) -> Token:
        """The token that was shown.

        Raises:
            ProblemError: There is none, or it is not valid.
        """
        found = self.tokens.find(secret) if self.tokens is not None and secret else None
        if found is None:
            raise ProblemError(
                status=401,
                what="a valid token is needed",
                code="unauthorised",
                fix="make one by `anonymix gateway tokens create`, and send it as Authorization: Bearer ...",
            )
        return found

    def rights(self, proxy: Proxy, request: Received) -> Rights:
        """What a caller may do through the proxy."""
        if self.tokens is None:
            return Rights()
        shown = [request.header("authorization").removeprefix("Bearer ").strip()]
        # A client that can't be changed has one place for a secret: that of the back end's own.
        shown += [request.header(name) for name in proxy.profile.credentials.headers]
        token = self.of(next((each for each in shown if each.startswith(PREFIX)), ""))
        return Rights(token.id, token.may("probe"), token.may("enrol"), token.may("name"), token.scopes)


def _name_in(host: str) -> str:
    """The name in a header `host`, without the port; "" where there is none."""
    try:
        return "" if "@" in host else urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


@dataclass
class Report:
    """What is told of a request: no photo, no name, no token.

    Attributes:
        call: The profile's name of the route.
        status: Of the answer.
        problem: Code of the problem; "" for none.
        who: Id of the caller's token; for the log alone.
    """

    call: str = "unknown"
    status: int = 499
    problem: str = ""
    who: str = ""


class Gateway:
    """The proxy as an ASGI application, with what others add to it.

    Args:
        proxy: The proxy; None for the HTTP API alone.
        callers: Who may.
        limits: What is taken.
        api_callers: Who may use the HTTP API; the same by default.
        shared: What several processes know together.
        telemetry: Is told of requests; nobody is by default.
        hosts: What the gateway may be called by; None for anything. Where no caller is asked for a token, a page
            of another site could else give this machine a name of its own, and use a browser's way here.
        more: Routes before the proxy's: the API, the page.
    """

    def __init__(
        self,
        proxy: Proxy | None,
        callers: Callers,
        limits: Limits | None = None,
        *,
        api_callers: Callers | None = None,
        shared: Shared | None = None,
        telemetry: Telemetry | None = None,
        hosts: frozenset[str] | None = None,
        more: Callable[[Gateway], list[BaseRoute]] = lambda _: [],
    ) -> None:
        self.proxy, self.callers, self.hosts = proxy, callers, hosts
        self.api_callers = api_callers or callers
        self.limits = limits or Limits()
        self.workers = Workers(self.limits.threads, self.limits.waiting)
        self.room = Room(self.limits.body * (self.limits.threads + self.limits.waiting))
        self.shared, self.telemetry = shared or Shared(), telemetry or Telemetry()
        self.metrics, self.rate = Metrics(), Rate(self.limits.rate, self.shared)
        self.workers.watch = self.metrics.recent.inside
        methods = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"]
        routes: list[BaseRoute] = [
            *more(self),
            Route("/{path:path}", self._passed, methods=methods),
        ]
        app = Starlette(
            routes=routes,
            lifespan=self._life,
            exception_handlers={HTTPException: self._no_route, Exception: self._unforeseen},
        )
        self.app: ASGIApp = Guard(app)

    @asynccontextmanager
    async def _life(self, _: Starlette) -> AsyncIterator[None]:
        self.metrics.recent.inside(0)
        yield
        await self.workers.end()
        self.shared.close()
        await asyncio.to_thread(self.telemetry.close)
        if self.proxy is not None:
            self.proxy.close()

    async def _unforeseen(self, _: Request, error: Exception) -> Response:
        log.error(json.dumps({"event": "unforeseen", "error": type(error).__name__}))
        return problem_response(error)

    async def _no_route(self, request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 404
        with self.reporting(request) as report:
            report.status, report.problem = status, "unknown_route"
        return problem_response(
            ProblemError(
                "there is no such route or method", status=status, code="unknown_route", fix="see docs/gateway.md"
            )
        )

    async def _passed(self, request: Request) -> Response:
        """One request through the proxy."""
        with self.room.holding() as count, self.reporting(request) as report:
            return await self._answered(request, count, report)

    async def _answered(self, request: Request, count: Callable[[int], None], report: Report) -> Response:
        try:
            if self.proxy is None:
                raise ProblemError(
                    status=404, what="this gateway has no back end", code="no_upstream", fix="see /v1/openapi.json"
                )
            self.workers.check()
            head = self.head(request)
            if head.header("sec-fetch-site") in {"cross-site", "same-site"}:
                raise ProblemError("a page of another site asks, by a browser", status=403, code="csrf")
            if self.hosts is not None and _name_in(head.header("host")) not in self.hosts:
                raise ProblemError(
                    "the gateway is not called by that name",
                    status=403,
                    where="host",
                    fix="call it localhost or 127.0.0.1, or ask for tokens (--callers tokens)",
                    code="host",
                )
            found = self.proxy.profile.route(head.method, head.path)
            report.call = found[0].call if found else "unknown"
            rights = self.callers.rights(self.proxy, head)  # before a body is read
            report.who = rights.who
            self.rate.take(rights.who or (request.client.host if request.client else ""))
            received = replace(head, body=await body_of(request, self.limits, count))
            proxy = self.proxy
            answer = await self.workers.run(lambda: proxy.answer(received, rights))
        except ClientDisconnect:
            report.status = 499
            return Response(status_code=499)
        except Exception as error:  # noqa: BLE001 - every error becomes a problem document
            response = problem_response(error)
            report.problem = problem(error)["code"]
        else:
            headers = {**HEADERS, **answer.headers}
            response = Response(answer.body, answer.status, headers, answer.media_type)
        report.status = response.status_code
        return response

    @contextmanager
    def reporting(self, request: Request) -> Iterator[Report]:
        """A request, and what is to be told of it at its end: in the log, the figures and the trace."""
        start, report = time.monotonic(), Report()
        with self.telemetry.request(request.method, request.headers) as told:
            try:
                yield report
            finally:
                seconds = time.monotonic() - start
                told(report.call, report.status, report.problem, seconds)
                self.metrics.request(report.call, report.status, report.problem, seconds)
                self.told(report.call, report.status, report.problem, report.who, seconds)

    def told(self, call: str, status: int, code: str, who: str, seconds: float) -> None:
        """One line of the log; it holds no photo, no name, no token."""
        line = {"event": "request", "call": call, "status": status, "ms": round(seconds * 1000)}
        more = {"problem": code, "token": who}
        log.info(json.dumps(line | {name: value for name, value in more.items() if value}))

    @staticmethod
    def head(request: Request) -> Received:
        """A request as the rest of the gateway takes it, without its body."""
        headers = tuple((k.decode("latin-1").lower(), v.decode("latin-1")) for k, v in request.headers.raw)
        path = request.scope.get("raw_path") or request.scope["path"].encode()
        query = request.scope.get("query_string", b"").decode("latin-1")
        return Received(request.method, path.decode("latin-1").split("?")[0], query, headers, b"")
