"""The HTTP API /v1: tokens and scopes, problem documents, idempotency, streams, and what OpenAPI says of it."""

from __future__ import annotations

import base64
import json
import logging
import socket
import sqlite3
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest
from gateway_rig import served
from patience import PATIENCE
from recording_upstream import QuickMixer, is_problem
from starlette.routing import Mount

from anonymix_adapters.gateway import Callers, Gateway, Limits, Tokens
from anonymix_adapters.gateway.api import Api
from anonymix_keystore import Argon2Cost, Keystore, PassphraseUnlock
from anonymix_plugin import read_marker

PHOTO = base64.b64encode((Path(__file__).parents[1] / "people" / "alex_1.jpg").read_bytes()).decode()
RIGHTS = ("probe", "enrol", "administer", "audit")


class Rig:
    """A gateway without a back end."""

    def __init__(self, keystore: Keystore, tokens: Tokens, gateway: Gateway, url: str) -> None:
        self.keystore, self.tokens, self.gateway, self.url = keystore, tokens, gateway, url

    def client(self, *rights: str, scopes: tuple[str, ...] = ()) -> httpx2.Client:
        secret, self.token = self.tokens.create(rights or RIGHTS, scopes=scopes)
        return httpx2.Client(
            base_url=f"{self.url}/v1/", headers={"authorization": f"Bearer {secret}"}, timeout=PATIENCE
        )


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    folder = tmp_path_factory.mktemp("api")
    cheap = Argon2Cost(memory_kib=8_192, passes=1, lanes=1)
    tokens = Tokens(folder / "tokens.json")
    with Keystore.create(folder / "keystore.db", PassphraseUnlock("swordfish", cost=cheap)) as store:
        gateway = Gateway(
            None,
            Callers(None),
            Limits(body=2_000_000, seconds=60),
            api_callers=Callers(tokens),
            more=lambda it: [Mount("/v1", Api(it, QuickMixer(store)).app())],
        )
        with served(gateway.app) as url:
            yield Rig(store, tokens, gateway, url)


@pytest.fixture
def api(rig: Rig) -> Iterator[httpx2.Client]:
    with rig.client() as client:
        yield client


def refused(answer: httpx2.Response, status: int, code: str = "") -> None:
    assert answer.headers["content-type"] == "application/problem+json"
    document = answer.json()
    assert is_problem(document)
    assert answer.status_code == document["status"] == status
    assert code in {"", document["code"]}


def enrolment(external_id: str, **changes: Any) -> dict[str, Any]:
    return {"image": PHOTO, "subject": "alice", "collection": "door", "external_id": external_id} | changes


def test_a_photo_comes_back_as_a_cancelable_face(api: httpx2.Client) -> None:
    answer = api.post("protect", json={"image": PHOTO})
    assert answer.status_code == 200
    marker = read_marker(base64.b64decode(answer.json()["image"]))
    assert marker is not None
    refused(api.post("protect", json={"image": answer.json()["image"]}), 422, "already_protected")
    refused(api.post("protect", json={"image": PHOTO, "subject": "nobody"}), 404, "unknown_subject")


def test_the_log_names_the_token_and_nobody_else(
    api: httpx2.Client, rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "anonymix.gateway"):
        api.post("subjects/Erika/rotate", json={"reason": "breach"})
        api.get("Erika")
    lines = [json.loads(record.message) for record in caplog.records if record.name == "anonymix.gateway"]
    assert [(line["call"], line["status"], line.get("token")) for line in lines] == [
        ("/v1/subjects/{subject}/rotate", 404, rig.token.id),
        ("/v1/(unknown)", 404, None),
    ]


def test_an_enrolment_is_recorded_once_whatever_is_repeated(api: httpx2.Client, rig: Rig) -> None:
    headers = {"Idempotency-Key": "one"}
    first = api.post("enrol", json=enrolment("e1"), headers=headers)
    again = api.post("enrol", json=enrolment("e1"), headers=headers)
    assert (first.status_code, first.json()) == (again.status_code, again.json()) == (200, first.json())
    refused(api.post("enrol", json=enrolment("e2"), headers=headers), 422, "idempotency")
    assert [item.external_id for item in rig.keystore.enrolments()] == ["e1"]
    assert api.get("due").json() == []
    assert api.post("subjects/alice/rotate", json={"reason": "breach"}).json() == {"version": 2}
    (due,) = api.get("due").json()
    assert (due["subject"], due["external_id"], due["delete"], due["enrol"]) == ("alice", "e1", True, True)
    assert {entry["version"] for entry in api.get("subjects").json() if entry["subject"] == "alice"} == {2}
    assert api.post("subjects/alice/revoke").json() == {"versions": [2]}
    receipt = api.delete("subjects/alice").json()
    assert receipt["entries"] == [{"adapter": "api", "collection": "door", "external_id": "e1"}]
    refused(api.delete("subjects/alice"), 404)
    lines = api.get("audit").json()
    assert any(rig.token.id in json.dumps(line) for line in lines)
    assert api.get("audit", params={"after": len(lines) - 1}).json() == lines[-1:]


_HERS = "SET created = created + ? WHERE tag = (SELECT subject FROM enrolments WHERE entry = ?)"


@pytest.mark.parametrize("table", ["heads", "keys"])
def test_a_list_that_leaves_a_damaged_subject_out_is_a_refusal_that_holds_all_others(rig: Rig, table: str) -> None:
    scope, change = f"damaged {table}", " ".join(("UPDATE", table, _HERS))
    with rig.client() as api:
        for name in ("ann", "ben", "cem"):
            rig.keystore.issue(name, scope)
            assert api.post("enrol", json=enrolment(f"{name} {scope}", subject=name, scope=scope)).status_code == 200
            if name != "cem":
                rig.keystore.rotate(name, scope)
        before = {name: api.get(name, params={"scope": scope}).json() for name in ("subjects", "due")}
        with closing(sqlite3.connect(rig.keystore.path)) as db:
            (entry,) = (it.entry for it in rig.keystore.enrolments(scope) if it.subject == "ben")
            db.execute(change, (1, bytes.fromhex(entry)))
            db.commit()
            time.sleep(0.06)  # after so long a read looks whether the file is still its own
            for name, rows in before.items():
                answer = api.get(name, params={"scope": scope})
                refused(answer, 409, "damaged")
                assert answer.json()["found"] == [row for row in rows if row["subject"] != "ben"]
                assert len(answer.json()["found"]) == len(rows) - 1
                assert "subject 'ben' in scope" in answer.json()["detail"]
                assert api.get(name).status_code == 200  # other scopes
            db.execute(change, (-1, bytes.fromhex(entry)))
            db.commit()
    assert rig.keystore.verify().ok


def test_a_subject_that_has_no_key_is_told_what_to_do(api: httpx2.Client) -> None:
    answer = api.post("protect", json={"image": PHOTO, "subject": "nobody"})
    refused(answer, 404, "unknown_subject")
    assert "enrol" in answer.json()["fix"]


def test_a_token_opens_what_it_is_for_and_no_more(rig: Rig) -> None:
    with httpx2.Client(base_url=f"{rig.url}/v1/") as nobody:
        refused(nobody.get("subjects"), 401)
        refused(nobody.post("protect", json={"image": PHOTO}, headers={"authorization": "Bearer anx_x"}), 401)
        assert nobody.get("livez").json() == {"status": "live"}
        assert nobody.get("readyz").json() == {"status": "ready"}
    with rig.client("probe", scopes=("here",)) as prober:
        refused(prober.get("subjects"), 403, "right")
        refused(prober.post("enrol", json=enrolment("e9")), 403, "right")
        refused(prober.get("audit"), 403, "right")
        refused(prober.post("protect", json={"image": PHOTO}), 403, "scope")
        rig.keystore.gallery("here")
        assert prober.post("protect", json={"image": PHOTO, "scope": "here"}).status_code == 200


def test_photos_in_a_stream_are_answered_line_by_line(api: httpx2.Client) -> None:
    lines = [
        json.dumps({"id": 1, "image": PHOTO}),
        "no JSON",
        json.dumps({"id": 2, "image": "bm90aGluZw=="}),
        json.dumps({"id": 3, "image": PHOTO, "more": 1}),
        json.dumps({"id": 4, "image": PHOTO}),
    ]
    answer = api.post("protect-stream", content="\n".join(lines).encode())
    assert answer.status_code == 200, answer.text
    found = [json.loads(line) for line in answer.content.splitlines()]
    assert [line["id"] for line in found] == [1, None, 2, 3, 4]
    assert [is_problem(line["problem"]) if "problem" in line else "image" in line for line in found] == [True] * 5
    assert ["problem" in line for line in found] == [False, True, True, True, False]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 422),
        (b"{", 400),
        (b"[]", 422),
        (b'{"image": 1}', 422),
        (b'{"image": "%%%%"}', 400),
        (b'{"image": "bm90aGluZw=="}', 422),
        (b'{"image": "bm90aGluZw==", "unknown": 1}', 422),
        (b'{"image": "bm90aGluZw==", "version": 1e400}', 422),
        (b'{"image": "bm90aGluZw==", "subject": "", "scope": ""}', 422),
        (b"[" * 5000, 400),
        (b'"' + b"x" * 2_100_000 + b'"', 413),
    ],
)
def test_bodies_that_make_no_sense_are_problem_documents(body: bytes, status: int, api: httpx2.Client) -> None:
    refused(api.post("protect", content=body, headers={"content-type": "application/json"}), status)


def test_unknown_routes_and_methods_are_problem_documents(api: httpx2.Client, rig: Rig) -> None:
    refused(api.get("nothing"), 404)
    refused(api.put("protect"), 405)
    refused(httpx2.get(f"{rig.url}/api/v1/anything"), 404, "no_upstream")


def test_openapi_says_what_there_is(api: httpx2.Client) -> None:
    document = api.get("openapi.json").json()
    assert document["openapi"].startswith("3.1")
    assert set(document["paths"]) == {
        *("/protect", "/protect-stream", "/enrol", "/verify", "/subjects", "/subjects/{subject}"),
        *("/subjects/{subject}/rotate", "/subjects/{subject}/revoke", "/gallery/rotate", "/due", "/audit"),
        *("/livez", "/readyz"),
    }
    for path, operations in document["paths"].items():
        for operation in operations.values():
            assert operation["summary"].endswith("."), path
            assert {"4XX", "5XX"} <= operation["responses"].keys()
            assert "application/problem+json" in operation["responses"]["4XX"]["content"]
            assert ("security" in operation) == (path not in {"/livez", "/readyz"})


def test_an_audit_trail_of_all_scopes_is_not_for_a_token_of_some(rig: Rig) -> None:
    with rig.client("audit", scopes=("default",)) as client:
        refused(client.get("audit"), 403, "right")


def test_one_idempotency_key_at_the_same_time_makes_one_entry(api: httpx2.Client, monkeypatch: Any) -> None:
    drawn: list[int] = []
    protect = QuickMixer.protect

    def slowly(self: QuickMixer, *args: Any, **how: Any) -> Any:
        drawn.append(1)
        time.sleep(0.2)
        return protect(self, *args, **how)

    monkeypatch.setattr(QuickMixer, "protect", slowly)

    def enrol(name: str) -> int:
        asked = enrolment(name, subject="twice")
        return api.post("enrol", json=asked, headers={"idempotency-key": "at-once"}).status_code

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(enrol, ["t1", "t1", "t1", "t2"])) in ([200, 200, 200, 422], [200, 422, 422, 422])
    assert len(drawn) == 1


def test_a_token_that_is_revoked_ends_its_stream(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = threading.Event()
    protect = QuickMixer.protect
    monkeypatch.setattr(QuickMixer, "protect", lambda *args, **how: (drawn.set(), protect(*args, **how))[1])
    line = json.dumps({"id": 1, "image": PHOTO}).encode() + b"\n"
    rig.keystore.gallery()
    with rig.client("probe") as client:

        def lines() -> Iterator[bytes]:
            yield line
            assert drawn.wait(PATIENCE)
            rig.tokens.revoke(rig.token.id)
            yield line

        answer = client.post("protect-stream", content=lines(), headers={"content-type": "application/x-ndjson"})
    first, second = (json.loads(each) for each in answer.text.splitlines())
    assert "image" in first
    assert second["problem"]["status"] == 401


def test_a_line_that_nests_deep_or_fails_unforeseen_ends_no_stream(api: httpx2.Client, monkeypatch: Any) -> None:
    protect = QuickMixer.protect

    def failing(self: QuickMixer, *args: Any, subject: str | None = None, **how: Any) -> Any:
        if subject == "Erika":
            raise RuntimeError("Erika")
        return protect(self, *args, subject=subject, **how)

    monkeypatch.setattr(QuickMixer, "protect", failing)
    lines = [
        b"[" * 100_000,
        json.dumps({"image": PHOTO, "subject": "Erika"}).encode(),
        b'{"image": "' + PHOTO.encode() + b'"}',
    ]
    answers = [json.loads(each) for each in api.post("protect-stream", content=b"\n".join(lines)).text.splitlines()]
    assert [each.get("problem", {}).get("status") for each in answers] == [400, 500, None]
    assert "Erika" not in str(answers)


def test_a_body_that_is_slow_or_never_ends_is_refused_and_only_read_of_known_callers(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = int(rig.url.rsplit(":", 1)[1])
    secret, _ = rig.tokens.create(["probe"])
    head = "POST /v1/protect HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"

    def status(more: str, body: bytes) -> bytes:
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.settimeout(PATIENCE)
            client.sendall((head + more + "\r\n").encode() + body)
            return client.recv(4096).split(b" ")[1]

    known = f"authorization: Bearer {secret}\r\n"
    assert status("content-length: 5000\r\n", b"{") == b"401"
    with monkeypatch.context() as patch:
        patch.setattr(rig.gateway, "limits", replace(rig.gateway.limits, seconds=0.5))
        assert status(known + "content-length: 5000\r\n", b"{") == b"408"
    assert status(known + "content-length: 50000000\r\n", b"{") == b"413"
    chunk = b"f4240\r\n" + b" " * 1_000_000 + b"\r\n"
    assert status(known + "transfer-encoding: chunked\r\n", chunk * 2 + b"1\r\nx\r\n") == b"413"


def test_an_answer_is_repeated_only_as_long_as_what_it_says_holds(api: httpx2.Client, rig: Rig) -> None:
    def enrol(key: str, external_id: str = "r1", **changes: Any) -> httpx2.Response:
        asked = enrolment(external_id, subject="rita") | changes
        return api.post("enrol", json=asked, headers={"Idempotency-Key": key})

    assert enrol("r").status_code == enrol("r").status_code == 200
    assert api.post("subjects/rita/rotate", json={"reason": "breach"}).status_code == 200
    refused(enrol("r"), 409, "idempotency")  # the face of a key that has ended
    assert enrol("r-2").json()["key_version"] == 2
    assert api.delete("subjects/rita").status_code == 200
    refused(enrol("r-2"), 409, "idempotency")  # nobody would know of this entry
    assert enrol("r-3").json()["key_version"] == 1
    assert enrol("s", subject="other").status_code == 200  # in the place of hers
    refused(enrol("r-3"), 409, "idempotency")


def test_who_may_not_enrol_makes_no_scope(rig: Rig) -> None:
    with rig.client("probe") as client:
        refused(client.post("protect", json={"image": PHOTO, "scope": "new"}), 404, "unknown_subject")
        refused(client.post("verify", json={"image": PHOTO, "other": PHOTO, "scope": "new"}), 404, "unknown_subject")
        line = json.dumps({"image": PHOTO, "scope": "new", "id": 1}) + "\n"
        told = client.post("protect-stream", content=line, headers={"content-type": "application/x-ndjson"})
        assert told.json()["problem"]["code"] == "unknown_subject"
    assert "new" not in rig.keystore.scopes()
    with rig.client("probe", "enrol") as client:
        assert client.post("protect", json={"image": PHOTO, "scope": "new"}).status_code == 200
    with rig.client("probe") as client:
        assert client.post("protect", json={"image": PHOTO, "scope": "new"}).status_code == 200
