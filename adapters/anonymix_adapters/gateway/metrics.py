"""Figures for Prometheus, on a listener of their own."""

from __future__ import annotations

from collections import Counter
from typing import Any, Final

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

    def figures(self) -> dict[str, Any]:
        """The same for a person: requests, those answered in full, milliseconds, refusals by their code."""
        requests, answered, refusals = 0, 0, Counter[str]()
        for sample in (each for family in self._requests.collect() for each in family.samples):
            if sample.name.endswith("_total"):
                requests += int(sample.value)
                code = sample.labels["problem"]
                refusals[code] += int(sample.value) if code else 0
                answered += int(sample.value) if sample.labels["status"] in {"200", "201"} else 0
        spent = [each for family in self._seconds.collect() for each in family.samples]
        seconds = sum(each.value for each in spent if each.name.endswith("_sum"))
        mean = round(seconds / requests * 1000) if requests else 0
        return {"requests": requests, "answered": answered, "milliseconds": mean, "refusals": refusals.most_common()}

    def text(self) -> bytes:
        """All figures in Prometheus's format."""
        from prometheus_client import generate_latest

        return generate_latest(self.registry)
