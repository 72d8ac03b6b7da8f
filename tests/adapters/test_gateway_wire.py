"""What a client does with its connection: nothing hangs, nothing is smuggled, and every answer is a document."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx2
import pytest
from gateway_rig import served
from patience import PATIENCE, eventually
from recording_upstream import QuickMixer, Recording
from starlette.routing import Mount

from anonymix_adapters.gateway import Callers, Gateway, Limits, Proxy, Tokens, load_profile, streams, wire
from anonymix_adapters.gateway.api import Api
from anonymix_adapters.gateway.guard import Guard
from anonymix_keystore import Argon2Cost, Keystore, PassphraseUnlock
from anonymix_plugin import read_marker

PHOTO = (Path(__file__).parents[1] / "people" / "alex_1.jpg").read_bytes()
TEXT = base64.b64encode(PHOTO).decode()
PATH = "/api/v1/recognition/recognize"


class Rig:
    """A gateway with a proxy and the HTTP API."""

    def __init__(self, folder: Path, keystore: Keystore) -> None:
        self.keystore, self.upstream = keystore, Recording(load_profile("compreface"))
        self.tokens = Tokens(folder / "tokens.json")
        self.token, _ = self.tokens.create(["probe", "enrol", "administer"])
        mixer = QuickMixer(keystore)
        proxy = Proxy(self.upstream.profile, "http://127.0.0.1:1", mixer, transport=self.upstream)
        limits = Limits(body=400_000, seconds=60, threads=1, waiting=2)
        more = lambda it: [Mount("/v1", Api(it, mixer).app())]  # noqa: E731
        self.gateway = Gateway(proxy, Callers(None), limits, api_callers=Callers(self.tokens), more=more)

    def client(self, token: str = "") -> httpx2.Client:
        headers = {"authorization": f"Bearer {token or self.token}", "x-api-key": "key-not-real"}
        return httpx2.Client(base_url=self.url, headers=headers, timeout=PATIENCE, trust_env=False)

    def raw(self, sent: bytes, *more: tuple[float, bytes], timeout: float = PATIENCE) -> bytes:
        """All that comes back for bytes, until the gateway hangs up; more bytes follow after seconds."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=timeout) as connection:
            connection.sendall(sent)
            for seconds, rest in more:
                time.sleep(seconds)
                try:
                    connection.sendall(rest)
                except OSError:
                    break
            found = b""
            try:
                while piece := connection.recv(65536):
                    found += piece
            except ConnectionResetError:
                pass
            return found


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    folder = tmp_path_factory.mktemp("wire")
    cheap = Argon2Cost(memory_kib=8_192, passes=1, lanes=1)
    with Keystore.create(folder / "keystore.db", PassphraseUnlock("swordfish", cost=cheap)) as store:
        made = Rig(folder, store)
        with served(made.gateway.app) as url:
            made.url, made.port = url, int(url.rsplit(":", 1)[1])
            yield made


def refused(answer: bytes, status: int) -> dict[str, Any]:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(f"HTTP/1.1 {status} ".encode()), answer[:300]
    assert b"application/problem+json" in head
    assert b"connection: close" in head.lower()
    document: dict[str, Any] = json.loads(body)  # one document, and nothing after it
    assert document["status"] == status
    return document


@pytest.mark.parametrize("path", [PATH, "/v1/protect", "/v1/protect-stream", "/page/in", "/nothing"])
@pytest.mark.parametrize(
    "framing",
    [
        "content-length: 4\r\ntransfer-encoding: chunked",
        "transfer-encoding: chunked\r\ncontent-length: 400",
        "transfer-encoding: chunked\r\ntransfer-encoding: chunked",
        "content-length: 4\r\ncontent-length: 5",
        "transfer-encoding: gzip, chunked",
        "transfer-encoding: xchunked",
        "content-length: +4",
    ],
)
def test_a_request_whose_length_is_open_to_argument_is_refused_and_the_rest_not_read(
    path: str, framing: str, rig: Rig
) -> None:
    inner = b"DELETE /api/v1/recognition/subjects/alice HTTP/1.1\r\nhost: x\r\nx-api-key: k\r\n\r\n"
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: image/jpeg\r\n{framing}\r\n\r\n".encode()
    refused(rig.raw(head + b"0\r\n\r\n" + inner), 400)
    assert rig.upstream.received == []


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a handshake of TLS \r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /" + b"a" * 40_000,
        b"GET / HTTP/1.1\r\nhost: x\r\n" + b"".join(b"a%d: b\r\n" % at for at in range(5000)) + b"\r\n",
        b"GET / HTTP/1.1\r\nhost: x\r\n bad: folded\r\nx\x00y: z\r\n\r\n",
    ],
    ids=["tls", "version", "long", "headers", "folded"],
)
def test_what_is_no_http_is_answered_with_a_document(garbage: bytes, rig: Rig) -> None:
    refused(rig.raw(garbage), 431 if b"a4999" in garbage else 400)


def test_the_head_of_a_request_has_its_time_and_connections_have_their_number(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "_SECONDS", 0.5)
    drip = itertools.repeat((0.1, b"a: b\r\n"))
    assert rig.raw(b"GET /v1/livez HTTP/1.1\r\n", *itertools.islice(drip, 3000)) == b""
    monkeypatch.setattr(wire, "_SECONDS", 60)
    monkeypatch.setattr(wire, "_CONNECTIONS", 2)
    opened = [socket.create_connection(("127.0.0.1", rig.port)) for _ in range(2)]

    def busy() -> bool:
        with suppress(TimeoutError):
            return refused(rig.raw(b"", timeout=0.5), 503)["code"] == "busy"
        return False

    assert eventually(busy)
    for each in opened:
        each.close()
    with rig.client() as client:
        assert eventually(lambda: client.get("/v1/livez").status_code == 200)


def hurried(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is sent has a second to arrive."""
    monkeypatch.setattr(rig.gateway, "limits", replace(rig.gateway.limits, seconds=1))


def test_bodies_with_a_thousand_parts_or_that_never_end_are_refused(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = b"".join(b'--b\r\ncontent-disposition: form-data; name="f%d"\r\n\r\nx\r\n' % at for at in range(1000))
    head = f"POST {PATH} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: multipart/form-data; boundary=b\r\n"
    assert refused(rig.raw(f"{head}content-length: {len(parts) + 5}\r\n\r\n".encode() + parts + b"--b--"), 400)
    chunk = b"1\r\nx\r\n"
    hurried(rig, monkeypatch)
    slow = rig.raw(f"{head}transfer-encoding: chunked\r\n\r\n".encode(), *[(0.1, chunk)] * 15)
    assert refused(slow, 408)["code"] == "slow"
    assert rig.upstream.received == []


def test_a_caller_who_does_not_take_its_answer_is_left() -> None:
    ended: list[str] = []

    async def app(_: Any, __: Any, send: Any) -> None:
        try:
            await send({"type": "http.response.start", "status": 200, "headers": []})
        finally:
            ended.append("app")

    async def stuck(_: Any) -> None:
        await asyncio.sleep(60)

    asyncio.run(Guard(app, seconds=0.05)({"type": "http", "http_version": "1.1", "headers": []}, stuck, stuck))
    assert ended == ["app"]


def test_a_field_that_stands_there_twice_is_refused_in_the_api_too(rig: Rig) -> None:
    with rig.client() as client:
        twice = f'{{"image": "{TEXT}", "subject": "alice", "subject": "bob"}}'
        answer = client.post("/v1/protect", content=twice, headers={"content-type": "application/json"})
        assert (answer.status_code, answer.json()["code"]) == (400, "malformed")
        lines = client.post("/v1/protect-stream", content=twice).json()
        assert lines["problem"]["code"] == "malformed"
        many = '{"image": "' + TEXT + '", "x": ' + "[" * 200 + "]" * 200 + "}"
        answer = client.post("/v1/protect", content=many, headers={"content-type": "application/json"})
        assert (answer.status_code, answer.json()["code"]) == (400, "malformed")


@pytest.mark.parametrize("name", ["a/b", "/a", "a/rotate", "..", "a?b", "a#b", "a%2Fb", "Jörg ß", "a b", "a\\b", "%"])
def test_subjects_of_any_name_can_be_administered(name: str, rig: Rig) -> None:
    rig.keystore.issue(name)
    with rig.client() as client:
        path = f"/v1/subjects/{quote(name, safe='').replace('.', '%2E')}"
        assert client.post(f"{path}/rotate", json={}).json() == {"version": 2}
        assert 2 in client.post(f"{path}/revoke").json()["versions"]
        assert client.delete(path).status_code == 200
        assert name not in {entry["subject"] for entry in client.get("/v1/subjects").json()}


# --- streams --------------------------------------------------------------------------------------------


def part(name: str, content: bytes, *headers: str) -> bytes:
    head = "".join(f"{each}\r\n" for each in headers)
    return (
        f'--b\r\ncontent-disposition: form-data; name="{name}"; filename="x"\r\n{head}\r\n'.encode() + content + b"\r\n"
    )


def parts_of(answer: httpx2.Response) -> list[tuple[dict[str, str], bytes]]:
    boundary = answer.headers["content-type"].partition("boundary=")[2].encode()
    found = []
    pieces = answer.content.split(b"--" + boundary)
    assert pieces[-1] == b"--\r\n"
    for piece in pieces[1:-1]:
        head, _, body = piece.strip(b"\r\n").partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
        found.append((headers, body))
    return found


def test_photos_as_parts_come_back_as_parts(rig: Rig) -> None:
    rig.keystore.issue("Jörg")
    body = [
        part("one", PHOTO),
        part("two", PHOTO, "anonymix-subject: Jörg"),
        part("three", b"no picture"),
        part("four", PHOTO, "x-unknown: 1"),
        part("fi ve", PHOTO),
        part("six", PHOTO, "anonymix-subject: nobody"),
        part("seven", PHOTO),
        b"--b--",
    ]
    with rig.client() as client:
        media = {"content-type": "multipart/form-data; boundary=b"}
        answer = client.post("/v1/protect-stream", content=iter(body), headers=media)
        assert answer.status_code == 200
        found = parts_of(answer)
        names = [headers["content-disposition"].partition('name="')[2].strip('"') for headers, _ in found]
        assert names == ["one", "two", "three", "four", "", "six", "seven"]
        status = [
            json.loads(each)["status"] if headers["content-type"] != "image/jpeg" else 200 for headers, each in found
        ]
        assert status == [200, 200, 422, 400, 400, 404, 200]
        for headers, picture in found:
            if headers["content-type"] == "image/jpeg":
                assert read_marker(picture) is not None
                assert (headers["anonymix-key-version"], headers["anonymix-box"]) == ("1", "10,20,110,140")
        broken = client.post("/v1/protect-stream", content=part("one", PHOTO) + b"--b\r\nbad", headers=media)
        assert json.loads(parts_of(broken)[-1][1])["code"] == "malformed"
        large = client.post("/v1/protect-stream", content=part("one", PHOTO * 20) + b"--b--", headers=media)
        assert json.loads(parts_of(large)[-1][1])["code"] == "malformed"
        other = client.post("/v1/protect-stream", content=b"x", headers={"content-type": "text/plain"})
        assert other.status_code == 415


@pytest.mark.parametrize("media", ["application/x-ndjson", "multipart/form-data; boundary=b"])
def test_the_next_photo_is_read_when_one_is_answered(media: str, rig: Rig) -> None:
    one = json.dumps({"id": 1, "image": TEXT}).encode() + b"\n" if "json" in media else part("one", PHOTO)
    head = f"POST /v1/protect-stream HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {rig.token}\r\n"
    head += f"content-type: {media}\r\ntransfer-encoding: chunked\r\n\r\n"
    chunk = f"{len(one):x}\r\n".encode() + one + b"\r\n"
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(PATIENCE)
        connection.connect(("127.0.0.1", rig.port))
        connection.sendall(head.encode() + chunk * 2)
        first = connection.recv(4096)
        assert first.startswith(b"HTTP/1.1 200")  # answered while the request goes on
        connection.settimeout(0.6)
        sent = len(chunk)
        try:
            while sent < 200_000_000:  # nothing is read back: in the end nothing more is taken
                sent += connection.send(chunk)
        except TimeoutError:
            pass
        assert sent < 100_000_000


def test_lines_without_end_and_streams_that_fall_silent_are_ended(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    head = f"POST /v1/protect-stream HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer {rig.token}\r\n"
    lines, parts = (
        f"{head}content-type: {media}\r\ntransfer-encoding: chunked\r\n\r\n".encode()
        for media in ("application/x-ndjson", "multipart/form-data; boundary=b")
    )
    long = b"20000\r\n" + b"x" * 0x20000 + b"\r\n"
    assert b"too long" in rig.raw(lines + long * 8)
    assert b"too large" in rig.raw(parts + b"%x\r\n" % len(part("a", b"")) + part("a", b"") + b"\r\n" + long * 8)
    drip = [(0.1, b"1\r\nx\r\n")] * 15
    hurried(rig, monkeypatch)
    assert b"408" in rig.raw(lines, *drip)
    monkeypatch.setattr(streams, "_IDLE", 0.3)
    for each in (lines, parts):
        assert b"silent for too long" in rig.raw(each)
    assert rig.gateway.room._held == 0
