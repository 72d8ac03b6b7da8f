"""Figures for Prometheus, on a listener of their own."""

from __future__ import annotations

import atexit
import os
import shutil
import socket
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any, Final

from anonymix_adapters.gateway.recent import Recent
from anonymix_plugin.errors import UsageError

_REQUESTS: Final = "anonymix_gateway_requests_total"
_TIMES: Final = "anonymix_gateway_request_seconds"
_HOST: Final = "127.0.0.1"
_FOLDER: Final = "PROMETHEUS_MULTIPROC_DIR"
_SECONDS: Final = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)


class Metrics:
    """Counts requests by call, status and problem; times them. Labels come from profiles, never from requests.

    Where several processes serve (`share` was called), the figures are those of all.
    """

    def __init__(self) -> None:
        from prometheus_client import CollectorRegistry, Counter, Histogram
        from prometheus_client.multiprocess import MultiProcessCollector

        self.registry = CollectorRegistry()
        shared = _FOLDER in os.environ
        own = None if shared else self.registry
        if shared:
            MultiProcessCollector(self.registry)  # type: ignore[no-untyped-call]
        self.recent = Recent(Path(os.environ[_FOLDER]) if shared else None)
        self._requests = Counter(
            _REQUESTS, "Requests by call, status and problem.", ("call", "status", "problem"), registry=own
        )
        self._seconds = Histogram(
            _TIMES, "Seconds from the first byte of a request to its answer.", ("call",), buckets=_SECONDS, registry=own
        )

    def request(self, call: str, status: int, problem: str, seconds: float) -> None:
        """Count a request."""
        self._requests.labels(call, str(status), problem).inc()
        self._seconds.labels(call).observe(seconds)
        self.recent.request(seconds, problem)

    def figures(self) -> dict[str, Any]:
        """The same for a person: requests, those answered in full, milliseconds, refusals by their code."""
        requests, answered, seconds, refusals = 0, 0, 0.0, Counter[str]()
        for sample in (each for family in self.registry.collect() for each in family.samples):
            if sample.name == _REQUESTS:
                requests += int(sample.value)
                code = sample.labels["problem"]
                refusals[code] += int(sample.value) if code else 0
                answered += int(sample.value) if sample.labels["status"] in {"200", "201"} else 0
            seconds += sample.value if sample.name == f"{_TIMES}_sum" else 0.0
        mean = round(seconds / requests * 1000) if requests else 0
        return {"requests": requests, "answered": answered, "milliseconds": mean, "refusals": refusals.most_common()}

    def text(self) -> bytes:
        """All figures in Prometheus's format."""
        from prometheus_client import generate_latest

        return generate_latest(self.registry)


def share() -> None:
    """Have the processes that are forked from now on count together, in files of a folder."""
    folder, owner = tempfile.mkdtemp(prefix="anonymix-metrics-"), os.getpid()
    os.environ[_FOLDER] = folder

    def remove() -> None:
        if os.getpid() == owner:
            shutil.rmtree(folder, ignore_errors=True)

    atexit.register(remove)


def check(port: int) -> None:
    """See that figures can be served at a port of this machine; 0 stands for none.

    Raises:
        UsageError: They can't.
    """
    try:
        if port:
            socket.create_server((_HOST, port)).close()
    except OSError as error:
        where = f"--metrics-port {port}"
        raise UsageError(f"can't serve figures: {error.strerror}", where=where, fix="choose another port") from None


def start(port: int, figures: Metrics) -> None:
    """Serve figures on this machine, in a thread; raises what `check` does."""
    check(port)
    from prometheus_client import start_http_server

    start_http_server(port, _HOST, figures.registry)
