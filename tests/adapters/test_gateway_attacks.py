"""What an attacker tries, from the client's side and from the back end's."""

from __future__ import annotations

import base64
import gzip
import json
import random
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest
from recording_upstream import ID, QuickMixer, Recording, request_for

from anonymix_adapters.errors import AdapterError
from anonymix_adapters.gateway import Proxy, Received, Rights, load_profile, problem
from anonymix_keystore import Argon2Cost, Keystore, PassphraseUnlock

PHOTO = (Path(__file__).parents[1] / "people" / "alex_1.jpg").read_bytes()
PROFILE = load_profile("compreface")
TEXT = base64.b64encode(PHOTO).decode()


@pytest.fixture
def keystore(tmp_path: Path) -> Iterator[Keystore]:
    cheap = Argon2Cost(memory_kib=8_192, passes=1, lanes=1)
    with Keystore.create(tmp_path / "keystore.db", PassphraseUnlock("swordfish", cost=cheap)) as made:
        yield made


def proxy(keystore: Keystore, upstream: Any, **how: Any) -> Proxy:
    return Proxy(PROFILE, "http://127.0.0.1:1", QuickMixer(keystore), transport=upstream, **how)


def refusal(made: Proxy, request: Received, rights: Rights | None = None) -> dict[str, Any]:
    """The problem document of a request that must be refused."""
    with pytest.raises(Exception) as caught:  # noqa: PT011 - each becomes a document
        made.answer(request, rights or Rights(name=True))
    document = problem(caught.value)
    assert document["code"] != "internal", caught.value
    return document


def test_a_token_of_the_gateway_never_goes_up(keystore: Keystore) -> None:
    upstream = Recording(PROFILE)
    made = proxy(keystore, upstream)
    made.answer(request_for(PROFILE, "recognize", photo=PHOTO, headers={"x-api-key": "anx_secret"}), Rights())
    assert "x-api-key" not in upstream.received[0].headers
    assert b"anx_secret" not in upstream.bodies()


def test_the_backs_ends_own_credential_goes_up_whether_or_not_a_caller_shows_one(keystore: Keystore) -> None:
    upstream = Recording(PROFILE)
    request = request_for(PROFILE, "recognize", photo=PHOTO)
    bare = replace(request, headers=tuple(each for each in request.headers if each[0] != "x-api-key"))
    proxy(keystore, upstream, secrets={"X-API-Key": "the real one"}).answer(bare, Rights())
    assert upstream.received[0].headers["x-api-key"] == "the real one"
    with pytest.raises(Exception, match="no such credential"):
        proxy(keystore, upstream, secrets={"password": "x"})


@pytest.mark.parametrize(
    "name",
    [
        *("..%2f..%2fadmin", "a%5cb", "a%2Fb", "%2e%2e", ".%2e"),
        *("%252e%252e", "%25252e.", "%25252fadmin", "..;", "..%3Bx", "%252e%252e%253b", "a%25255Cb"),
        "%" + "25" * 8 + "41",  # who knows how often it is decoded
    ],
)
@pytest.mark.parametrize("call", ["verify_face", "delete_subject", "rename_subject"])
def test_a_name_in_a_path_leads_to_no_other_route(name: str, call: str, keystore: Keystore) -> None:
    upstream = Recording(PROFILE)
    request = request_for(PROFILE, call, photo=PHOTO)
    assert refusal(proxy(keystore, upstream), replace(request, path=request.path.replace(ID, name)))["status"] == 403
    assert upstream.received == []


def test_a_picture_cut_into_ids_is_refused(keystore: Keystore) -> None:
    upstream = Recording(PROFILE)
    pieces = [TEXT[at : at + 16] for at in range(0, 4800, 16)]
    request = request_for(PROFILE, "delete_many", raw=json.dumps(pieces).encode())
    assert refusal(proxy(keystore, upstream), request)["code"] == "picture"
    assert upstream.received == []


def test_a_subject_in_the_header_is_read_as_utf_8_and_contradicts_nothing(keystore: Keystore) -> None:
    upstream = Recording(PROFILE)
    made = proxy(keystore, upstream, keys="own")
    keystore.issue("Jörg")
    wire = "Jörg".encode().decode("latin-1")
    assert made.answer(request_for(PROFILE, "recognize", photo=PHOTO, subject=wire), Rights(name=True)).status == 200
    request = request_for(PROFILE, "add_face", photo=PHOTO, subject="bob", query={"subject": "alice"})
    assert refusal(made, request)["status"] in {400, 403, 422}
    assert len(upstream.received) == 1


@pytest.mark.parametrize(
    "answer",
    [
        json.dumps({TEXT: 1}).encode(),
        json.dumps({"x": f" data:image/jpeg;base64,{TEXT}"}).encode(),
        json.dumps({"x": f"<img src='data:image/jpeg;base64,{TEXT}'>"}).encode(),
        json.dumps({"x": json.dumps({"y": TEXT})}).encode(),
        f'{{"x": "{TEXT}", "x": 1}}'.encode(),
        json.dumps({"x": TEXT}).encode("utf-16"),
        json.dumps({"x": f"face{TEXT}"}).encode(),
        json.dumps({"x": f"img_1-{TEXT.replace('+', '-').replace('/', '_')}"}).encode(),
    ],
    ids=["name", "space", "page", "nested", "twice", "utf-16", "behind", "url-safe"],
)
@pytest.mark.parametrize("status", [200, 400])
def test_an_original_in_an_answer_is_found_wherever_it_stands(answer: bytes, status: int, keystore: Keystore) -> None:
    upstream = Recording(PROFILE)
    upstream.next = [httpx2.Response(status, content=answer)]
    made, request = proxy(keystore, upstream), request_for(PROFILE, "recognize", photo=PHOTO)
    if status == 400 and answer.count(b'"x"') == 2:  # the gateway says it in its own words
        assert made.answer(request, Rights()).body == b'{"message": "the back end answered with status 400"}'
        return
    assert refusal(made, request)["status"] == 502


def test_an_answer_that_is_compressed_is_not_unpacked(keystore: Keystore) -> None:
    upstream = Recording(PROFILE)
    bomb = gzip.compress(b" " * 50_000_000)
    upstream.next = [httpx2.Response(200, headers={"content-encoding": "gzip"}, stream=httpx2.ByteStream(bomb))]
    assert refusal(proxy(keystore, upstream), request_for(PROFILE, "recognize", photo=PHOTO))["status"] == 502
    assert upstream.received[0].headers["accept-encoding"] == "identity"


def test_embeddings_in_base64_are_no_pictures(keystore: Keystore) -> None:
    upstream = Recording(PROFILE)
    numbers = [base64.b64encode(random.Random(seed).randbytes(2048)).decode() for seed in range(300)]
    upstream.next = [httpx2.Response(200, json={"embeddings": numbers})]
    assert proxy(keystore, upstream).answer(request_for(PROFILE, "recognize", photo=PHOTO), Rights()).status == 200


def test_an_answer_that_nests_deep_or_has_no_status_of_http_is_a_problem_document(keystore: Keystore) -> None:
    upstream = Recording(PROFILE)
    deep = [b"[" * depth + b"]" * depth for depth in (900, 5000)]
    upstream.next = [httpx2.Response(200, content=each) for each in deep] + [httpx2.Response(700, json={})]
    made = proxy(keystore, upstream)
    for _ in range(3):
        assert refusal(made, request_for(PROFILE, "recognize", photo=PHOTO))["status"] == 502


@pytest.mark.parametrize("drip", [b"x: y\r\n", b" "], ids=["headers", "body"])
def test_an_answer_that_never_ends_is_given_up(drip: bytes, keystore: Keystore) -> None:
    def dripping() -> None:
        connection, _ = server.accept()
        with connection, suppress(OSError):
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\n" + (b"\r\n" if drip == b" " else b""))
            while True:  # each byte alone is in time
                connection.sendall(drip)
                time.sleep(0.02)

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=dripping, daemon=True).start()
        made = Proxy(PROFILE, f"http://127.0.0.1:{server.getsockname()[1]}", QuickMixer(keystore), timeout=0.2)
        assert refusal(made, request_for(PROFILE, "recognize", photo=PHOTO))["status"] == 504
        made.close()


def test_a_token_of_one_scope_opens_no_other_where_scopes_are_collections(keystore: Keystore, tmp_path: Path) -> None:
    profile = tmp_path / "halls.toml"
    profile.write_text(
        """
name = "halls"
title = "An API with collections"
[[routes]]
call = "enrol"
method = "POST"
path = "{hall}/faces"
purpose = "enrol"
bodies = ["multipart"]
pictures.file = { file = "file" }
fields = { name = "name" }
subject = "fields.name"
collection = "path.hall"
entry = "{answer}"
answer_entry = "id"
undo = "DELETE {hall}/faces/{answer}"
[[routes]]
call = "forget"
method = "DELETE"
path = "{hall}/faces/{face}"
purpose = "delete"
collection = "path.hall"
entry = "{face}"
"""
    )
    halls = load_profile(profile)
    upstream = Recording(halls)
    rule = lambda name: f"hall-{name}"  # noqa: E731
    made = Proxy(halls, "http://127.0.0.1:1", QuickMixer(keystore), transport=upstream, scope=rule, keys="own")
    mine = Rights(scopes=("hall-east",))

    def asked(call: str, hall: str) -> Received:
        request = request_for(halls, call, photo=PHOTO, fields={"name": "alice"} if call == "enrol" else {})
        first, _, rest = request.path.partition(ID)
        return replace(request, path=f"{first}{hall}{rest}")

    for call in ("enrol", "forget"):
        assert refusal(made, asked(call, "west"), mine)["code"] == "scope"
    assert upstream.received == []
    upstream.next = [httpx2.Response(200, json={"id": "e1"}), httpx2.Response(200, json={})]
    assert made.answer(asked("enrol", "east"), mine).status == 200
    assert [item.scope for item in keystore.enrolments()] == ["hall-east"]
    assert made.answer(asked("forget", "east"), mine).status == 200
    with pytest.raises(AdapterError, match="face set"):
        Proxy(load_profile("facepp"), "http://127.0.0.1:1", QuickMixer(keystore), scope=rule)


def test_where_scopes_are_collections_a_search_makes_none(keystore: Keystore) -> None:
    upstream = Recording(PROFILE)
    made = proxy(keystore, upstream, scope=lambda name: f"hall-{name}")
    search, reading = request_for(PROFILE, "recognize", photo=PHOTO), Rights(enrol=False)
    assert refusal(made, search, reading)["code"] == "unknown_subject"
    assert (keystore.scopes(), upstream.received) == ((), [])
    assert made.answer(search, Rights()).status == 200
    assert made.answer(search, reading).status == 200
