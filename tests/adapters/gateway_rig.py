"""A gateway on a real socket of this machine, in front of a local service."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from patience import PATIENCE, eventually
from servers.compreface import CompreFaceService
from servers.facepp import FacePlusPlusService
from servers.luxand import LuxandService

from anonymix_adapters.gateway import Callers, Gateway, Limits, Proxy, load_profile
from anonymix_adapters.gateway.wire import Protocol

SERVICES: dict[str, Callable[..., Any]] = {
    "compreface": CompreFaceService,
    "facepp": FacePlusPlusService,
    "luxand": LuxandService,
}


@contextmanager
def served(app: Any) -> Iterator[str]:
    """Serve an ASGI application; yields its address."""
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, http=Protocol, log_level="critical", lifespan="on", timeout_graceful_shutdown=60)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    assert eventually(lambda: server.started)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(PATIENCE)
        listener.close()


@contextmanager
def gateway(
    profile: str, upstream: str, mixer: Any, *, limits: Limits | None = None, callers: Callers | None = None, **how: Any
) -> Iterator[str]:
    """A gateway with a profile; yields its address."""
    proxy = Proxy(load_profile(profile), upstream, mixer, **how)
    with served(Gateway(proxy, callers or Callers(None), limits).app) as url:
        yield url
