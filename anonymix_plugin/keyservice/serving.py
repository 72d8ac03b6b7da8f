"""The key service as a process: where it listens, by which certificate, and how it ends."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import h11
import uvicorn
from prometheus_client import start_http_server
from uvicorn.protocols.http.h11_impl import H11Protocol

from anonymix_plugin.errors import ConfigurationError
from anonymix_plugin.keyservice.pem import UnusableFileError, load_own, reading
from anonymix_plugin.keyservice.roles import Peer
from anonymix_plugin.keyservice.service import PEER, KeyService, log
from anonymix_plugin.listening import ending_well, listeners

_IDLE_SECONDS: Final = 30
_HEAD_SECONDS: Final = 2.0


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

    @property
    def place(self) -> str:
        """Address and port, in words."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

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
    """Tells the application whose certificate was shown; the head of a request has its time to arrive."""

    _late: asyncio.TimerHandle | None = None
    _begun = False

    def data_received(self, data: bytes) -> None:
        """Take some bytes; from the first one of a head on, the rest has its time."""
        if self.conn.their_state is h11.IDLE and not self._begun:
            self._begun = True
            self._wait(_HEAD_SECONDS)
        super().data_received(data)

    def handle_events(self) -> None:
        """See `H11Protocol`."""
        super().handle_events()
        if self.cycle is not None and not self.cycle.response_complete:
            self._wait(None)

    def on_response_complete(self) -> None:
        """See `H11Protocol`, which has a timer of its own for what comes next."""
        self._begun = False
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """See `H11Protocol`."""
        self._wait(None)
        super().connection_lost(exc)

    def _wait(self, seconds: float | None) -> None:
        if self._late is not None:
            self._late.cancel()
        self._late = None if seconds is None else self.loop.call_later(seconds, self.transport.abort)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Read the certificate, once for the connection."""
        super().connection_made(transport)
        der = cast("ssl.SSLObject", transport.get_extra_info("ssl_object")).getpeercert(binary_form=True)
        try:
            peer = Peer.of(der or b"")
        except ValueError:
            peer = None
        self.app_state: dict[str, Any] = {**self.app_state, PEER: peer}
        self._wait(_IDLE_SECONDS)

    def shutdown(self) -> None:
        """End; a connection on which nothing is asked is not kept waiting for its client's farewell."""
        idle = self.cycle is None or self.cycle.response_complete
        super().shutdown()
        if idle:
            self.transport.abort()


def serve(service: KeyService, listening: Listening) -> None:
    """Serve until SIGTERM or Ctrl-C; what was accepted by then is answered.

    Raises:
        ConfigurationError: An address or a port can't be listened at.
    """
    renewing = _Renewing(listening)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
    config = uvicorn.Config(
        service.app,
        http=_Protocol,
        ssl_context_factory=lambda _, __: renewing.context,
        access_log=False,
        log_level="warning",
        server_header=False,
        proxy_headers=False,
        ws="none",
        lifespan="on",
        limit_concurrency=1024,
        timeout_keep_alive=_IDLE_SECONDS,
        timeout_graceful_shutdown=listening.grace,
        h11_max_incomplete_event_size=16_384,
    )
    with ExitStack() as open_:
        listeners = [open_.enter_context(one) for one in _listeners(listening)]
        if listening.metrics_port:
            try:
                start_http_server(listening.metrics_port, "127.0.0.1", service.figures.registry)
            except OSError as error:
                raise _taken(error, f"--metrics-port {listening.metrics_port}") from None
        sys.stderr.write(f"listening on https://{listening.place}\n")
        sys.stderr.flush()
        open_.enter_context(ending_well())
        uvicorn.Server(config).run(listeners)


def _listeners(listening: Listening) -> list[socket.socket]:
    try:
        return listeners(listening.host, listening.port)
    except OSError as error:
        raise _taken(error, f"--listen {listening.place}") from None


def _taken(error: OSError, where: str) -> ConfigurationError:
    what = f"it can't be listened at: {error.strerror or type(error).__name__}"
    return ConfigurationError(what, where=where, fix="choose an address of this machine, and a port that is free")
