"""What OpenTelemetry is told: what became of requests, and of nobody."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from gateway_rig import served
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from recording_upstream import QuickMixer, Recording
from starlette.routing import Mount

from anonymix_adapters.gateway import Callers, Gateway, Proxy, Tokens, load_profile
from anonymix_adapters.gateway.api import Api
from anonymix_adapters.gateway.telemetry import Telemetry
from anonymix_keystore import Argon2Cost, Keystore, PassphraseUnlock

PHOTO = (Path(__file__).parents[1] / "people" / "alex_1.jpg").read_bytes()
TEXT = base64.b64encode(PHOTO).decode()
TRACE = "0af7651916cd43dd8448eb211c80319c"


@pytest.fixture
def keystore(tmp_path: Path) -> Iterator[Keystore]:
    cheap = Argon2Cost(memory_kib=8_192, passes=1, lanes=1)
    with Keystore.create(tmp_path / "keystore.db", PassphraseUnlock("swordfish", cost=cheap)) as made:
        yield made


def test_traces_and_figures_tell_what_became_of_requests_and_of_nobody(keystore: Keystore, tmp_path: Path) -> None:
    spans, reader = InMemorySpanExporter(), InMemoryMetricReader()
    traces = TracerProvider()
    traces.add_span_processor(SimpleSpanProcessor(spans))
    upstream, mixer = Recording(load_profile("compreface")), QuickMixer(keystore)
    upstream.next = [httpx2.ConnectError("Erika is not there")]
    tokens = Tokens(tmp_path / "tokens.json")
    secret, token = tokens.create(["probe"])
    gateway = Gateway(
        Proxy(upstream.profile, "http://127.0.0.1:1", mixer, transport=upstream),
        Callers(None),
        api_callers=Callers(tokens),
        telemetry=Telemetry(traces, MeterProvider([reader])),
        more=lambda it: [Mount("/v1", Api(it, mixer).app())],
    )
    headers = {
        "x-api-key": "key-not-real",
        "traceparent": f"00-{TRACE}-b7ad6b7169203331-01",
        "baggage": "name=Erika",
        "user-agent": "Erika",
    }
    with served(gateway.app) as url, httpx2.Client(base_url=url, headers=headers, trust_env=False) as client:
        enrol = {"params": {"subject": "Erika"}, "files": {"file": ("Erika.jpg", PHOTO)}}
        path = "/api/v1/recognition/faces"
        assert [client.post(path, **enrol).status_code for _ in range(2)] == [502, 200]
        assert client.get("/api/v1/recognition/Erika").status_code == 403
        shown = {"authorization": f"Bearer {secret}"}
        assert client.post("/v1/protect", json={"image": TEXT, "subject": "Erika"}, headers=shown).status_code == 404
        figures = json.loads(reader.get_metrics_data().to_json())  # type: ignore[union-attr]
    found = spans.get_finished_spans()
    whole = {span.context.span_id: span for span in found if span.parent is not None and span.parent.is_remote}
    told = [(span.name, dict(span.attributes or {})) for span in whole.values()]
    at = "http.response.status_code"
    assert [(name, about[at], about.get("anonymix.problem")) for name, about in told] == [
        ("add_face", 502, "back_end"),
        ("add_face", 200, None),
        ("unknown", 403, "unknown_route"),
        ("/v1/protect", 404, "unknown_subject"),
    ]
    assert {f"{span.context.trace_id:032x}" for span in found} == {TRACE}
    assert under(found) >= {("add_face", "work"), ("work", "mix"), ("work", "upstream"), ("/v1/protect", "work")}
    (figure,) = figures["resource_metrics"][0]["scope_metrics"][0]["metrics"]
    assert sum(point["count"] for point in figure["data"]["data_points"]) == 4
    said = json.dumps(figures) + "".join(span.to_json() for span in found)
    for text in ("Erika", "key-not-real", secret, token.id, "127.0.0.1", TEXT[1000:1040]):
        assert text not in said


def under(found: tuple[ReadableSpan, ...]) -> set[tuple[str, str]]:
    names = {span.context.span_id: span.name for span in found}
    return {(names[span.parent.span_id], span.name) for span in found if span.parent and span.parent.span_id in names}


def test_without_being_asked_nothing_is_told(keystore: Keystore) -> None:
    gateway = Gateway(None, Callers(None))
    with served(gateway.app) as url, httpx2.Client(base_url=url, trust_env=False) as client:
        assert client.get("/x").status_code == 404
    assert gateway.telemetry._providers == []


def test_the_exporters_of_the_extra_are_made_as_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.1")
    made = Telemetry.of_environment()
    assert len(made._providers) == 2
    made.close()
