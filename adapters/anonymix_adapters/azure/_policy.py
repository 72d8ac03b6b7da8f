"""The policies themselves, and the last look. This module needs azure-core.

A policy stands before azure-core's retries: each try sends the same cancelable face. Behind all policies, in
front of the transport, each try is held against the face that was made: another policy may have changed it.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

from azure.core.pipeline import PipelineContext, PipelineRequest, PipelineResponse
from azure.core.pipeline.policies import AsyncHTTPPolicy, HTTPPolicy
from azure.core.rest import HttpRequest

from anonymix_adapters._wire import not_ours, sending
from anonymix_adapters.azure._routes import Plan, Routes
from anonymix_adapters.errors import BackEndError
from anonymix_plugin.claims import carried


class MixingPolicy(HTTPPolicy[Any, Any]):
    """Puts cancelable faces in the place of photos, for blocking clients."""

    def __init__(self, routes: Routes) -> None:
        super().__init__()
        self.routes = routes

    def send(self, request: PipelineRequest[Any]) -> PipelineResponse[Any, Any]:
        """See `HTTPPolicy.send`."""
        look_last(self)
        with sending(self.routes.interceptor, _subject(request)):
            plan = _planned(self.routes, request)
            response = self.next.send(_replaced(request, plan))
            http = response.http_response
            if http.status_code < 300:
                content = http.read() if plan.body is not None else b""
                undo = _undo(request, self.next.send)
                self.routes.settle(plan, _parsed(content), undo)
            return response


class AsyncMixingPolicy(AsyncHTTPPolicy[Any, Any]):
    """The same for async clients; faces are made in a thread, so that the event loop goes on."""

    def __init__(self, routes: Routes) -> None:
        super().__init__()
        self.routes = routes

    async def send(self, request: PipelineRequest[Any]) -> PipelineResponse[Any, Any]:
        """See `AsyncHTTPPolicy.send`."""
        look_last(self)
        loop = asyncio.get_running_loop()

        def wait(deletion: PipelineRequest[Any]) -> PipelineResponse[Any, Any]:
            return asyncio.run_coroutine_threadsafe(self._forward(deletion), loop).result()

        with sending(self.routes.interceptor, _subject(request)):
            plan = await asyncio.to_thread(carried(_planned), self.routes, request)
            response = await self.next.send(_replaced(request, plan))
            http = response.http_response
            if http.status_code < 300:
                content = await http.read() if plan.body is not None else b""
                undo = _undo(request, wait)
                await asyncio.to_thread(self.routes.settle, plan, _parsed(content), undo)
            return response

    async def _forward(self, request: PipelineRequest[Any]) -> PipelineResponse[Any, Any]:
        return await self.next.send(request)


class _Last:
    """In the place of a transport: has each request looked at last."""

    def __init__(self, inner: Any, routes: Routes) -> None:
        self.inner, self.routes = inner, routes

    def send(self, request: Any, **options: Any) -> Any:
        """Look at a request as it is now, and send it; what an async transport returns is awaitable."""
        body = request.content
        self.routes.look(request.method, request.url, request.headers.get("content-type", ""), body)
        return self.inner.send(request, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


def look_last(policy: MixingPolicy | AsyncMixingPolicy) -> None:
    """Have each request looked at in front of the transport at the end of a policy's chain."""
    runner = _runner(policy)
    if not hasattr(runner, "_sender"):
        raise not_ours(policy.routes.interceptor, "the pipeline does not end in its transport")
    if not isinstance(runner._sender, _Last) or runner._sender.routes is not policy.routes:
        runner._sender = _Last(runner._sender, policy.routes)


def look_no_longer(policy: MixingPolicy | AsyncMixingPolicy) -> None:
    """Undo `look_last`."""
    runner = _runner(policy)
    if isinstance(getattr(runner, "_sender", None), _Last) and runner._sender.routes is policy.routes:
        runner._sender = runner._sender.inner


def _runner(policy: Any) -> Any:
    """The last of a chain of policies, which holds the transport."""
    while getattr(policy, "next", None) is not None:
        policy = policy.next
    return policy


def _subject(request: PipelineRequest[Any]) -> str | None:
    """Whose face it is; taken out of the options, which go on to the transport."""
    found: str | None = request.context.options.pop("subject", None)
    return found


def _planned(routes: Routes, request: PipelineRequest[Any]) -> Plan:
    http = request.http_request
    return routes.plan(http.method, http.url, http.headers.get("content-type", ""), http.content)


def _parsed(content: bytes) -> Any:
    """What an answer says; None where it is no JSON."""
    try:
        return json.loads(content)
    except ValueError:
        return None


def _replaced(request: PipelineRequest[Any], plan: Plan) -> PipelineRequest[Any]:
    """The request with the new body; the host's own request object stays as it is."""
    if plan.body is None:
        return request
    old = request.http_request
    dropped = {"content-length", "content-type", "transfer-encoding"}
    headers = {name: value for name, value in old.headers.items() if name.lower() not in dropped}
    # A rectangle that names one of several faces is one of the photo's; a cancelable face is alone.
    url = _without(old.url, "targetFace")
    http = HttpRequest(
        old.method, url, headers=headers | {"Content-Type": "application/octet-stream"}, content=plan.body
    )
    return PipelineRequest(http, request.context)


def _without(url: str, name: str) -> str:
    path, mark, query = url.partition("?")
    kept = [part for part in query.split("&") if part.split("=")[0] != name]
    return path + mark + "&".join(kept) if kept != [""] else path


def _undo(request: PipelineRequest[Any], send: Any) -> Any:
    """What deletes the face that a request added, given its entry's id."""

    def undo(names: list[str]) -> None:
        path = request.http_request.url.partition("?")[0]
        http = HttpRequest("DELETE", f"{path}/{names[0].rpartition('/')[2]}")
        answer = send(PipelineRequest(http, PipelineContext(request.context.transport)))
        status = answer.http_response.status_code
        if status >= 300 and status != 404:
            raise BackEndError(f"deleting it failed with status {status}", where="azure")

    return undo
