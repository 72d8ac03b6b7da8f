"""Traces and figures by OpenTelemetry, for those who ask for them: no photo, name, address or token is in any."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, Self

from anonymix_plugin.errors import naming_extras

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.trace import TracerProvider

_tracer: ContextVar[Any] = ContextVar("anonymix_gateway_tracer", default=None)
# What an error says, and where it came from, is no attribute: it may hold what a caller sent.
_SILENT: Final[Any] = {"record_exception": False, "set_status_on_exception": False}

_DURATION: Final = "anonymix.gateway.request.duration"

Told = Callable[[str, int, str, float], None]
"""Says what became of a request: call, status, code of the problem, seconds."""


def step(name: str) -> AbstractContextManager[Any]:
    """A part of the request at hand, as a span of its trace; nothing where nobody asked for traces."""
    tracer = _tracer.get()
    return nullcontext() if tracer is None else tracer.start_as_current_span(name, **_SILENT)


class Telemetry:
    """What a gateway tells of its requests.

    Args:
        traces: Makes spans; None makes none.
        figures: Makes a counter and a histogram; None makes none.
    """

    def __init__(self, traces: TracerProvider | None = None, figures: MeterProvider | None = None) -> None:
        self._providers = [each for each in (traces, figures) if each is not None]
        self._traces = None if traces is None else traces.get_tracer("anonymix.gateway")
        meter = None if figures is None else figures.get_meter("anonymix.gateway")
        told = "Seconds from the first byte of a request to its answer."
        self._seconds = None if meter is None else meter.create_histogram(_DURATION, "s", told)

    @classmethod
    def of_environment(cls) -> Self:
        """What the variables of OpenTelemetry say: OTEL_EXPORTER_OTLP_ENDPOINT and the like.

        Raises:
            MissingPackageError: The extra is not installed.
        """
        with naming_extras():
            from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.metrics import MeterProvider
            from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
        resource = Resource.create({"service.name": "anonymix-gateway"})
        traces = TracerProvider(resource=resource)
        traces.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        reader = PeriodicExportingMetricReader(OTLPMetricExporter())
        return cls(traces, MeterProvider([reader], resource=resource))

    @contextmanager
    def request(self, method: str, headers: Mapping[str, str]) -> Iterator[Told]:
        """One request, as a span; it goes on the trace that its header `traceparent` names.

        Args:
            method: HTTP method.
            headers: Of the request; `traceparent` alone is read.

        Yields:
            What is to be told at the end.
        """
        if self._traces is None:
            yield self._counted
            return
        from opentelemetry.trace import SpanKind
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        given = {"traceparent": headers.get("traceparent", "")}
        around = TraceContextTextMapPropagator().extract(given)
        token = _tracer.set(self._traces)
        try:
            with self._traces.start_as_current_span("request", around, kind=SpanKind.SERVER, **_SILENT) as span:

                def told(call: str, status: int, code: str, seconds: float) -> None:
                    span.update_name(call)
                    span.set_attributes({"anonymix.call": call, "http.response.status_code": status})
                    span.set_attributes({"http.request.method": method} if method.isalpha() and len(method) < 8 else {})
                    span.set_attributes({"anonymix.problem": code} if code else {})
                    self._counted(call, status, code, seconds)

                yield told
        finally:
            _tracer.reset(token)

    def close(self) -> None:
        """Send what was not sent yet."""
        for each in self._providers:
            each.shutdown()

    def _counted(self, call: str, status: int, code: str, seconds: float) -> None:
        if self._seconds is not None:
            about: dict[str, Any] = {
                "anonymix.call": call,
                "http.response.status_code": status,
                "anonymix.problem": code,
            }
            self._seconds.record(seconds, about)
