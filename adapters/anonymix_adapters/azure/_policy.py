"""The policies themselves. This module needs azure-core.

Both stand before azure-core's retries: each try sends the same cancelable face.
"""

from __future__ import annotations

import asyncio
from typing import Any

from azure.core.pipeline import PipelineContext, PipelineRequest, PipelineResponse
from azure.core.pipeline.policies import AsyncHTTPPolicy, HTTPPolicy
from azure.core.rest import HttpRequest

from anonymix_adapters.azure._routes import Plan, Routes
from anonymix_adapters.errors import BackEndError, EnrolmentError


class MixingPolicy(HTTPPolicy[Any, Any]):
    """Puts cancelable faces in the place of photos, for blocking clients."""

    def __init__(self, routes: Routes) -> None:
        super().__init__()
        self.routes = routes

    def send(self, request: PipelineRequest[Any]) -> PipelineResponse[Any, Any]:
        """See `HTTPPolicy.send`."""
        plan = _planned(self.routes, request)
        response = self.next.send(_replaced(request, plan))
        if response.http_response.status_code >= 300:
            return response
        answer = None
        if plan.body is not None:
            response.http_response.read()
            answer = response.http_response.json()
        try:
            self.routes.settle(plan, answer)
        except Exception as error:
            if plan.enrols:
                self.routes.gate.take_back(lambda: _gone(self.next.send(_deletion(request, answer))), error)
            raise
        return response


class AsyncMixingPolicy(AsyncHTTPPolicy[Any, Any]):
    """The same for async clients; faces are made in a thread, so that the event loop goes on."""

    def __init__(self, routes: Routes) -> None:
        super().__init__()
        self.routes = routes

    async def send(self, request: PipelineRequest[Any]) -> PipelineResponse[Any, Any]:
        """See `AsyncHTTPPolicy.send`."""
        plan = await asyncio.to_thread(_planned, self.routes, request)
        response = await self.next.send(_replaced(request, plan))
        if response.http_response.status_code >= 300:
            return response
        answer = None
        if plan.body is not None:
            await response.http_response.read()
            answer = response.http_response.json()
        try:
            await asyncio.to_thread(self.routes.settle, plan, answer)
        except Exception as error:
            if plan.enrols:
                try:
                    _gone(await self.next.send(_deletion(request, answer)))
                except Exception as worse:
                    raise EnrolmentError(
                        f"an entry was made, not recorded ({error}) and not deleted again ({worse})",
                        where=self.routes.gate.adapter,
                        fix="delete it in the back end by hand",
                    ) from worse
            raise
        return response


def _planned(routes: Routes, request: PipelineRequest[Any]) -> Plan:
    http = request.http_request
    return routes.plan(http.method, http.url, http.headers.get("content-type", ""), http.content)


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


def _deletion(request: PipelineRequest[Any], answer: Any) -> PipelineRequest[Any]:
    path = request.http_request.url.partition("?")[0]
    http = HttpRequest("DELETE", f"{path}/{answer['persistedFaceId']}")
    return PipelineRequest(http, PipelineContext(request.context.transport))


def _gone(response: PipelineResponse[Any, Any]) -> None:
    status = response.http_response.status_code
    if status >= 300 and status != 404:
        raise BackEndError(f"deleting it failed with status {status}", where="azure")
