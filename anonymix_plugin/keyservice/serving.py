"""The key service as a process: where it listens, by which certificate, and how it ends."""

from __future__ import annotations

import asyncio
import logging
import ssl
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import uvicorn
from prometheus_client import start_http_server
from uvicorn.protocols.http.h11_impl import H11Protocol

from anonymix_plugin.errors import ConfigurationError
from anonymix_plugin.keyservice.pem import UnusableFileError, load_own, reading
from anonymix_plugin.keyservice.roles import Peer
from anonymix_plugin.keyservice.service import PEER, KeyService, log


@dataclass(frozen=True)
class Listening:
    """Where the key service listens.

    Attributes:
        host: Address.
        port: Port.
        certificate: Its certificate, PEM; with those in between, if there are any.
        key: The private key of it, PEM, readable by its owner alone.
        clients: Certificates of the CAs that issue clients' certificates, PEM.
        metrics_port: Port of the figures, on this machine alone; 0 for none.
        grace: Seconds that requests under way have when the service ends.
    """

    host: str
    port: int
    certificate: Path
    key: Path
    clients: tuple[Path, ...]
    metrics_port: int = 0
    grace: int = 10

    def context(self) -> ssl.SSLContext:
        """TLS 1.3 alone, with clients' certificates, and no session that could be taken up again without one.

        Raises:
            ConfigurationError: A file is missing, damaged, or the key can be read by others.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.verify_mode = ssl.CERT_REQUIRED
        context.num_tickets = 0
        try:
            load_own(context, self.certificate, self.key)
            for place in self.clients:
                with reading(place):
                    context.load_verify_locations(place)
        except UnusableFileError as error:
            what = error.why if error.fix else f"a file of the key service can't be used: {error.why}"
            make = "make certificates as docs/key-service.md says; the private key has no passphrase"
            raise ConfigurationError(what, where=str(error.place), fix=error.fix or make) from None
        return context

    def stamp(self) -> tuple[float, ...]:
        """Changes when one of the files does."""
        return tuple(path.stat().st_mtime_ns for path in (self.certificate, self.key, *self.clients))


class _Renewing:
    """A TLS context whose certificate is exchanged when its files are: a renewal needs no restart."""

    def __init__(self, listening: Listening) -> None:
        self._listening, self._stamp, self._newest = listening, listening.stamp(), listening.context()
        self.context = self._newest
        self.context.sni_callback = self._look

    def _look(self, connection: ssl.SSLObject, _: str | None, __: ssl.SSLContext) -> None:
        try:
            stamp = self._listening.stamp()
            if stamp != self._stamp:
                self._newest, self._stamp = self._listening.context(), stamp
        except (OSError, ConfigurationError):
            pass  # half a renewal: the certificate that was there goes on
        if self._newest is not self.context:
            connection.context = self._newest


class _Protocol(H11Protocol):
    """Tells the application whose certificate was shown."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Read the certificate, once for the connection."""
        super().connection_made(transport)
        der = cast("ssl.SSLObject", transport.get_extra_info("ssl_object")).getpeercert(binary_form=True)
        try:
            peer = Peer.of(der or b"")
        except ValueError:
            peer = None
        self.app_state: dict[str, Any] = {**self.app_state, PEER: peer}

    def shutdown(self) -> None:
        """End; a connection on which nothing is asked is not kept waiting for its client's farewell."""
        idle = self.cycle is None or self.cycle.response_complete
        super().shutdown()
        if idle:
            self.transport.abort()


def serve(service: KeyService, listening: Listening) -> None:
    """Serve until SIGTERM or Ctrl-C; what was accepted by then is answered."""
    renewing = _Renewing(listening)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
    if listening.metrics_port:
        start_http_server(listening.metrics_port, "127.0.0.1", service.figures.registry)
    config = uvicorn.Config(
        service.app,
        host=listening.host,
        port=listening.port,
        http=_Protocol,
        ssl_context_factory=lambda _, __: renewing.context,
        access_log=False,
        log_level="warning",
        server_header=False,
        proxy_headers=False,
        ws="none",
        lifespan="on",
        limit_concurrency=1024,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=listening.grace,
        h11_max_incomplete_event_size=16_384,
    )
    uvicorn.Server(config).run()
