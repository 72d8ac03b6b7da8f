"""Addresses of photos: refused without a policy, and fetched within it and no further."""

from __future__ import annotations

import base64
import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from certificates import Issuer
from recording_upstream import QuickMixer, Recording, request_for

from anonymix_adapters.gateway import Fetcher, FetchPolicy, ProblemError, Proxy, Received, Rights, load_profile
from anonymix_keystore import Argon2Cost, Keystore, PassphraseUnlock
from anonymix_plugin import read_marker
from anonymix_plugin.errors import UsageError

PHOTO = (Path(__file__).parents[1] / "people" / "alex_1.jpg").read_bytes()
HERE = ["127.0.0.0/8", "::1/128"]


class Photos(BaseHTTPRequestHandler):
    """A host of photos that answers as its path says."""

    asked: list[tuple[str, str]]

    def do_GET(self) -> None:
        kind = self.path.split("?")[0].strip("/")
        self.asked.append((self.path, self.headers["host"]))
        if kind == "drip":
            self.wfile.write(b"HTTP/1.1 200 OK\r\n")
            with suppress(OSError):
                while True:  # until the gateway gives up
                    self.wfile.write(b"x-slow: 1\r\n")
                    time.sleep(0.05)
            return
        self.send_response({"redirect": 302, "loop": 302, "gone": 404, "away": 302, "plain": 307}.get(kind, 200))
        port = self.server.server_address[1]
        to = {
            "redirect": "/photo",
            "loop": "/loop",
            "away": "https://169.254.169.254/latest/meta-data/",
            "plain": f"http://localhost:{port}/photo",
        }
        if kind in to:
            self.send_header("location", to[kind])
        if kind == "zipped":
            self.send_header("content-encoding", "gzip")
        self.end_headers()
        body = {"large": b"x" * 300_000, "text": b"no picture"}.get(kind, PHOTO)
        for at in range(0, len(body), 10_000):
            self.wfile.write(body[at : at + 10_000])

    def do_POST(self) -> None:
        self.asked.append((self.path, self.headers["host"]))
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the library's name
        pass


class Host:
    """A host of photos over TLS on this machine."""

    def __init__(self, folder: Path) -> None:
        issuer = Issuer(folder, "issuer")
        made = issuer.issue("host")
        self.ca = issuer.own.certificate
        self.asked: list[tuple[str, str]] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Here", (Photos,), {"asked": self.asked}))
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(made.certificate, made.key)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._server.daemon_threads = True
        self._server.handle_error = lambda *_: None  # type: ignore[method-assign]
        threading.Thread(target=self._server.serve_forever, args=[0.05], daemon=True).start()
        self.name = f"localhost:{self._server.server_address[1]}"

    def policy(self, **how: Any) -> FetchPolicy:
        return FetchPolicy.of(**{"hosts": [self.name], "networks": HERE, "ca": self.ca, "seconds": 5.0} | how)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    made = Host(tmp_path_factory.mktemp("host"))
    yield made
    made.close()


@pytest.fixture
def keystore(tmp_path: Path) -> Iterator[Keystore]:
    cheap = Argon2Cost(memory_kib=8_192, passes=1, lanes=1)
    with Keystore.create(tmp_path / "keystore.db", PassphraseUnlock("swordfish", cost=cheap)) as made:
        yield made


def by_address(name: str, call: str, address: str) -> Received:
    """A request of a route that names the address of its photo."""
    profile = load_profile(name)
    route = next(each for each in profile.routes if each.call == call)
    fields = {places.url: address for places in route.pictures.values()}
    if "json" in route.bodies:
        made = request_for(profile, call, "json")
        return replace(made, body=json.dumps(json.loads(made.body) | fields).encode())
    made = request_for(profile, call, "multipart", fields=fields, files={"x": ("x", b"")})
    boundary = made.header("content-type").partition("boundary=")[2].encode()
    kept = [part for part in made.body.split(b"--" + boundary) if b"filename=" not in part]
    return replace(made, body=(b"--" + boundary).join(kept))


ADDRESSED = [("facepp", "detect"), ("facepp", "compare"), ("luxand", "search"), ("luxand", "similarity")]
ADDRESSED += [("deepface-api", "represent"), ("deepface-api", "verify")]


@pytest.mark.parametrize(("name", "call"), ADDRESSED)
def test_a_photo_behind_an_address_goes_up_as_a_cancelable_face(
    name: str, call: str, host: Host, keystore: Keystore
) -> None:
    upstream = Recording(load_profile(name))
    made = Proxy(upstream.profile, "http://127.0.0.1:1", QuickMixer(keystore), transport=upstream, fetch=host.policy())
    assert made.answer(by_address(name, call, f"https://{host.name}/photo?signature=secret"), Rights()).status == 200
    assert b"localhost" not in upstream.bodies()
    assert b"signature" not in upstream.bodies()
    sent = upstream.received[-1]
    if sent.headers["content-type"] == "application/json":
        pictures = [base64.b64decode(v) for k, v in json.loads(sent.content).items() if k.startswith("img")]
    else:
        pictures = [part.partition(b"\r\n\r\n")[2] for part in sent.content.split(b"--" + sent.content[2:34])]
        pictures = [part for part in pictures if part.startswith(b"\xff\xd8\xff")]
    route = next(each for each in upstream.profile.routes if each.call == call)
    assert len(pictures) == len(route.pictures)
    assert all(read_marker(picture) is not None for picture in pictures)
    assert host.asked[-1] == ("/photo?signature=secret", host.name)


@pytest.mark.parametrize(("name", "call"), ADDRESSED)
def test_without_a_policy_nothing_is_asked_and_nothing_sent(
    name: str, call: str, host: Host, keystore: Keystore
) -> None:
    upstream, before = Recording(load_profile(name)), len(host.asked)
    made = Proxy(upstream.profile, "http://127.0.0.1:1", QuickMixer(keystore), transport=upstream)
    with pytest.raises(ProblemError) as caught:
        made.answer(by_address(name, call, f"https://{host.name}/photo"), Rights())
    assert (caught.value.status, caught.value.code) == (403, "fetch_refused")
    assert "--fetch-host" in caught.value.fix
    assert (upstream.received, len(host.asked)) == ([], before)


def code_of(policy: FetchPolicy, address: str) -> str:
    fetcher = Fetcher(policy)
    try:
        with pytest.raises(ProblemError) as caught:
            fetcher(address)
    finally:
        fetcher.close()
    for secret in ("signature", "169.254", "meta-data", "/photo"):
        assert secret not in f"{caught.value} {caught.value.where} {caught.value.fix}"
    return caught.value.code


def test_redirects_are_followed_within_the_policy_alone(host: Host) -> None:
    policy = host.policy()
    assert Fetcher(policy)(f"https://{host.name}/redirect") == PHOTO
    assert code_of(policy, f"https://{host.name}/away") == "fetch_refused"
    assert code_of(policy, f"https://{host.name}/plain") == "fetch_refused"
    before = len(host.asked)
    assert code_of(policy, f"https://{host.name}/loop") == "fetch"
    assert len(host.asked) == before + 4
    assert code_of(host.policy(redirects=0), f"https://{host.name}/redirect") == "fetch"


def test_what_is_too_large_too_slow_compressed_or_gone_is_not_taken(host: Host) -> None:
    assert code_of(host.policy(max_bytes=100_000), f"https://{host.name}/large") == "fetch"
    assert code_of(host.policy(), f"https://{host.name}/zipped") == "fetch"
    assert code_of(host.policy(), f"https://{host.name}/gone") == "fetch"
    assert code_of(host.policy(seconds=0.5), f"https://{host.name}/drip") == "fetch"  # each byte alone is in time


@pytest.mark.parametrize(
    "address",
    [
        "http://localhost/photo",
        "https://localhost/photo",
        "https://user:signature@{host}/photo",
        "https://evil.example#@{host}/photo",
        "https://{host}.evil.example/photo",
        "https://evil.example\\@{host}/photo",
        "file:///photo",
        "https://",
        "https://[::1",
        "https://{host}:bad/",
    ],
)
def test_other_hosts_ports_and_schemes_are_refused(address: str, host: Host) -> None:
    before = len(host.asked)
    assert code_of(host.policy(), address.replace("{host}", host.name)) == "fetch_refused"
    assert len(host.asked) == before


@pytest.mark.parametrize(
    "found",
    [
        ["127.0.0.1"],
        ["10.0.0.1"],
        ["169.254.169.254"],
        ["100.64.0.1"],
        ["0.0.0.0"],  # noqa: S104
        ["224.0.0.1"],
        ["240.0.0.1"],
        ["::1"],
        ["::"],
        ["fe80::1"],
        ["fd00::1"],
        ["::ffff:127.0.0.1"],
        ["64:ff9b::7f00:1"],
        ["2002:7f00:1::"],
        ["::127.0.0.1"],
        ["93.184.216.34", "192.168.0.1"],
    ],
    ids=",".join,
)
def test_a_name_that_leads_into_a_private_network_is_refused(found: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def resolved(*_: Any, **__: Any) -> list[Any]:
        return [(None, None, None, "", (each, 443)) for each in found]

    monkeypatch.setattr(socket, "getaddrinfo", resolved)
    monkeypatch.setattr(socket, "create_connection", lambda *_, **__: pytest.fail("a connection was made"))
    assert code_of(FetchPolicy.of(["photos.example"]), "https://photos.example/photo") == "fetch_refused"


def test_the_connection_goes_to_the_address_that_was_looked_at(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    real, names = socket.getaddrinfo, []

    def changing(name: Any, *rest: Any, **how: Any) -> Any:
        names.append(name)
        # A name server that answers otherwise the second time.
        return real("127.0.0.1" if names.count(name) == 1 else "127.0.0.2", *rest, **how)

    monkeypatch.setattr(socket, "getaddrinfo", changing)
    assert Fetcher(host.policy())(f"https://{host.name}/photo") == PHOTO
    assert names.count("localhost") == 1


def test_a_host_whose_certificate_nobody_vouches_for_is_not_asked(host: Host, tmp_path: Path) -> None:
    before = len(host.asked)
    assert code_of(host.policy(ca=Issuer(tmp_path, "other").own.certificate), f"https://{host.name}/photo") == "fetch"
    assert len(host.asked) == before


def test_a_back_end_is_sent_to_only_if_its_certificate_is_vouched_for(host: Host, keystore: Keystore) -> None:
    profile = load_profile("compreface")
    request = request_for(profile, "recognize", photo=PHOTO)
    good = Proxy(profile, f"https://{host.name}", QuickMixer(keystore), ca=host.ca)
    assert good.answer(request, Rights()).status == 200
    before = len(host.asked)
    unknown = Proxy(profile, f"https://{host.name}", QuickMixer(keystore))
    with pytest.raises(ProblemError) as caught:
        unknown.answer(request, Rights())
    assert caught.value.status == 502
    good.close()
    unknown.close()
    assert len(host.asked) == before


def test_a_policy_that_makes_no_sense_is_refused(tmp_path: Path) -> None:
    for hosts, networks in ((["https://x"], []), (["x y"], []), (["*"], []), (["x"], ["10.0.0.1/8"])):
        with pytest.raises(UsageError):
            FetchPolicy.of(hosts, networks)
    with pytest.raises(UsageError, match="certificates"):
        Fetcher(FetchPolicy.of(["x"], ca=tmp_path / "none.pem"))
