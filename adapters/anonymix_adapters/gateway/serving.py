"""The gateway as a process: where it listens, over what, and how it ends."""

from __future__ import annotations

import ipaddress
import logging
import ssl
import sys
from dataclasses import dataclass
from pathlib import Path

from anonymix_adapters.gateway.app import Gateway
from anonymix_plugin.errors import UsageError


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
        metrics_port: Port of the figures, on this machine alone; 0 for none.
        grace: Seconds that requests under way have when the gateway ends.
    """

    host: str = "127.0.0.1"
    port: int = 8081
    certificate: Path | None = None
    key: Path | None = None
    client_ca: Path | None = None
    insecure: bool = False
    metrics_port: int = 0
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


def serve(gateway: Gateway, listening: Listening) -> None:
    """Serve until SIGTERM or Ctrl-C; what was accepted by then is answered."""
    import uvicorn
    from prometheus_client import start_http_server

    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    log = logging.getLogger("anonymix.gateway")
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
    if listening.metrics_port:
        start_http_server(listening.metrics_port, "127.0.0.1", gateway.metrics.registry)
    config = uvicorn.Config(
        gateway.app,
        host=listening.host,
        port=listening.port,
        ssl_certfile=listening.certificate,
        ssl_keyfile=listening.key,
        ssl_ca_certs=None if listening.client_ca is None else str(listening.client_ca),
        ssl_cert_reqs=ssl.CERT_NONE if listening.client_ca is None else ssl.CERT_REQUIRED,
        access_log=False,  # it would tell the queries, and with them names
        log_level="warning",
        server_header=False,
        proxy_headers=False,
        ws="none",
        lifespan="on",
        limit_concurrency=1024,
        timeout_keep_alive=10,
        timeout_graceful_shutdown=listening.grace,
        h11_max_incomplete_event_size=32_768,
    )
    uvicorn.Server(config).run()
