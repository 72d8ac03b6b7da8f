"""Figures for Prometheus, on a listener of their own."""

from __future__ import annotations

from typing import Final

_SECONDS: Final = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)


class Metrics:
    """Counts requests by call, status and problem; times them. Labels come from profiles, never from requests."""

    def __init__(self) -> None:
        from prometheus_client import CollectorRegistry, Counter, Histogram

        self.registry = CollectorRegistry()
        self._requests = Counter(
            "anonymix_gateway_requests_total",
            "Requests by call, status and problem.",
            ("call", "status", "problem"),
            registry=self.registry,
        )
        self._seconds = Histogram(
            "anonymix_gateway_request_seconds",
            "Seconds from the first byte of a request to its answer.",
            ("call",),
            buckets=_SECONDS,
            registry=self.registry,
        )

    def request(self, call: str, status: int, problem: str, seconds: float) -> None:
        """Count a request."""
        self._requests.labels(call, str(status), problem).inc()
        self._seconds.labels(call).observe(seconds)

    def text(self) -> bytes:
        """All figures in Prometheus's format."""
        from prometheus_client import generate_latest

        return generate_latest(self.registry)
