"""The gateway as a process: where it listens, over what, and how it ends."""

from __future__ import annotations

import ipaddress
import json
import logging
import socket
import ssl
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from anonymix_adapters.gateway.app import Gateway
from anonymix_plugin.errors import UsageError
from anonymix_plugin.listening import ending_well, listeners

LOCAL: Final = frozenset({"localhost", "127.0.0.1", "::1"})
"""What programs of this machine call it."""


@dataclass(frozen=True)
class Listening:
    """Where a gateway listens.

    Attributes:
        host: Address.
        port: Port.
        certificate: Chain of certificates, PEM; None for plain http.
        key: Its private key, PEM.
        client_ca: Certificates of those who issue clients' certificates, PEM; None asks for none.
        insecure: Listen beyond this machine without TLS.
        grace: Seconds that requests under way have when the gateway ends.
    """

    host: str = "127.0.0.1"
    port: int = 8081
    certificate: Path | None = None
    key: Path | None = None
    client_ca: Path | None = None
    insecure: bool = False
    grace: int = 30

    def check(self, *, tokens: bool) -> None:
        """Refuse to listen where others could read along, or call without a token.

        Raises:
            UsageError: It is not safe, or contradicts itself.
        """
        if (self.certificate is None) != (self.key is None):
            raise UsageError("a certificate and its key belong together", where="--tls-certificate")
        if self.client_ca is not None and self.certificate is None:
            raise UsageError("client certificates need TLS", where="--client-ca", fix="add --tls-certificate")
        if self.local:
            return
        if self.certificate is None and not self.insecure:
            raise UsageError(
                "without TLS the gateway listens on this machine alone: photos would cross the network in the clear",
                where=f"--host {self.host}",
                fix="give --tls-certificate and --tls-key, or --insecure-http behind a proxy that does TLS",
            )
        if not tokens and self.client_ca is None:
            raise UsageError(
                "whoever reaches the gateway could enrol and delete",
                where=f"--host {self.host}",
                fix="add --callers tokens, or --client-ca FILE",
            )

    @property
    def local(self) -> bool:
        """Whether only this machine reaches it."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


def listen(listening: Listening) -> socket.socket:
    """The socket that is served.

    Raises:
        UsageError: The address is taken, or is none of this machine; or a certificate can't be used.
    """
    try:
        tried = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)  # before anything else is loaded
        if listening.certificate is not None:
            tried.load_cert_chain(listening.certificate, listening.key, password=_no_password)
        if listening.client_ca is not None:
            tried.load_verify_locations(listening.client_ca)
    except OSError as error:  # of ssl, too
        raise UsageError(
            f"a certificate or its key can't be used: {error.strerror or type(error).__name__}",
            where="--tls-certificate, --tls-key, --client-ca",
            fix="give PEM files that belong together and that this user may read; the key without a passphrase",
        ) from None
    try:
        first, *others = listeners(listening.host, listening.port)
        for one in others:
            one.close()
        return first
    except OSError as error:
        raise UsageError(
            f"can't listen: {error.strerror}", where=f"{listening.host}:{listening.port}", fix="--host, --port"
        ) from None


def serve(gateway: Gateway, listening: Listening, listener: socket.socket, *, tell: bool = False) -> None:
    """Serve until SIGTERM or Ctrl-C; what was accepted by then is answered. With `tell`, it says where."""
    import uvicorn

    from anonymix_adapters.gateway.wire import Protocol

    _log_lines()
    config = uvicorn.Config(
        gateway.app,
        http=Protocol,
        ssl_certfile=listening.certificate,
        ssl_keyfile=listening.key,
        ssl_ca_certs=None if listening.client_ca is None else str(listening.client_ca),
        ssl_cert_reqs=ssl.CERT_NONE if listening.client_ca is None else ssl.CERT_REQUIRED,
        access_log=False,  # it would tell the queries, and with them names
        log_config=None,
        server_header=False,
        proxy_headers=False,
        ws="none",
        lifespan="on",
        timeout_keep_alive=10,
        timeout_graceful_shutdown=listening.grace,
        h11_max_incomplete_event_size=32_768,
    )
    if tell:
        scheme = "http" if listening.certificate is None else "https"
        sys.stderr.write(f"listening on {scheme}://{listening.host}:{listening.port}\n")
        sys.stderr.flush()
    with ending_well():
        uvicorn.Server(config).run([listener])


def _no_password() -> str:
    raise UsageError(
        "the TLS key has a passphrase", where="--tls-key", fix="give one without, that only this user may read"
    )


class _AsJson(logging.Formatter):
    """The server's own lines, in the form of ours."""

    def format(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter`; what an exception holds is left out."""
        return json.dumps({"event": "server", "level": record.levelname.lower(), "said": record.getMessage()})


def _log_lines() -> None:
    """Send lines of JSON to the standard error stream."""
    for name, form, level in (
        ("anonymix.gateway", logging.Formatter("%(message)s"), logging.INFO),
        ("uvicorn", _AsJson(), logging.WARNING),
    ):
        log, handler = logging.getLogger(name), logging.StreamHandler(sys.stderr)
        handler.setFormatter(form)
        log.handlers, log.propagate = [handler], False
        log.setLevel(level)
