"""The gateway on a socket: limits, callers, an end in good order, and what its log says."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest
from certificates import Issuer
from cryptography.hazmat.primitives import serialization
from gateway_rig import served
from patience import PATIENCE, eventually
from recording_upstream import QuickMixer, Recording
from starlette.routing import Route
from typer.testing import CliRunner

from anonymix_adapters.gateway import Callers, Gateway, Limits, Proxy, Tokens, load_profile
from anonymix_adapters.gateway.command import app as command
from anonymix_adapters.gateway.serving import LOCAL, Listening, listen
from anonymix_keystore import Argon2Cost, Keystore, PassphraseUnlock
from anonymix_plugin.cli import main
from anonymix_plugin.errors import ConfigurationError, UsageError

PHOTO = Path(__file__).parents[1] / "people" / "alex_1.jpg"
PATH = "/api/v1/recognition/recognize"


class Slow(QuickMixer):
    """Takes its time, until it may go on."""

    def __init__(self, keystore: Keystore) -> None:
        super().__init__(keystore)
        self.begun, self.go_on = threading.Event(), threading.Event()
        self.go_on.set()

    def protect(self, image: Any, **how: Any) -> Any:
        self.begun.set()
        self.go_on.wait(PATIENCE)
        return super().protect(image, **how)


class Rig:
    """A gateway in front of a recording upstream."""

    def __init__(self, keystore: Keystore, stack: ExitStack) -> None:
        self.mixer, self.upstream = Slow(keystore), Recording(load_profile("compreface"))
        self._stack = stack

    def start(self, callers: Callers | None = None, **limits: Any) -> httpx2.Client:
        self.proxy = Proxy(self.upstream.profile, "http://127.0.0.1:1", self.mixer, transport=self.upstream)
        self.gateway = Gateway(self.proxy, callers or Callers(None), Limits(**limits))
        url = self._stack.enter_context(served(self.gateway.app))
        self.port = int(url.rsplit(":", 1)[1])
        headers = {"x-api-key": "key-not-real"}
        return self._stack.enter_context(httpx2.Client(base_url=url, headers=headers, timeout=PATIENCE))


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    cheap = Argon2Cost(memory_kib=8_192, passes=1, lanes=1)
    with (
        Keystore.create(tmp_path / "keystore.db", PassphraseUnlock("swordfish", cost=cheap)) as store,
        ExitStack() as stack,
    ):
        yield Rig(store, stack)


def ask(client: httpx2.Client, **how: Any) -> httpx2.Response:
    return client.post(PATH, files={"file": ("a.jpg", PHOTO.read_bytes())}, **how)


def test_what_is_too_large_or_never_ends_is_refused(rig: Rig) -> None:
    client = rig.start(body=100_000, seconds=0.5)
    large = client.post(PATH, content=b"x" * 200_000, headers={"content-type": "image/jpeg"})
    assert (large.status_code, large.json()["code"]) == (413, "too_large")

    def endless() -> Iterator[bytes]:
        while True:
            yield b"x" * 10_000

    try:
        answer = client.post(PATH, content=endless(), headers={"content-type": "image/jpeg"})
        assert answer.status_code == 413
    except httpx2.HTTPError:
        pass  # the gateway hung up while the client was still writing
    with socket.create_connection(("127.0.0.1", rig.port)) as slow:
        head = f"POST {PATH} HTTP/1.1\r\nhost: x\r\ncontent-type: image/jpeg\r\ncontent-length: 5000\r\n\r\nabc"
        slow.sendall(head.encode())
        slow.settimeout(PATIENCE)
        assert b"408" in slow.recv(4096).split(b"\r\n")[0]
    with socket.create_connection(("127.0.0.1", rig.port)) as gone:
        gone.sendall(head.encode())
    assert rig.upstream.received == []
    assert eventually(lambda: ask(client).status_code == 200)
    assert len(rig.upstream.received) == 1


def test_beyond_the_queue_callers_are_told_when_to_come_again(rig: Rig) -> None:
    client = rig.start(threads=1, waiting=1)
    rig.mixer.go_on.clear()
    with ThreadPoolExecutor(6) as pool:
        asked = [pool.submit(ask, client) for _ in range(6)]
        assert eventually(lambda: sum(each.done() for each in asked) == 4)
        refused = [each.result() for each in asked if each.done()]
        rig.mixer.go_on.set()
    assert {answer.status_code for answer in refused} == {503}
    assert all(int(answer.headers["retry-after"]) > 0 and answer.json()["code"] == "busy" for answer in refused)
    assert sorted(each.result().status_code for each in asked) == [200] * 2 + [503] * 4
    assert len(rig.upstream.received) == 2


def test_what_was_accepted_is_answered_when_the_gateway_ends(rig: Rig) -> None:
    rig.start()
    rig.mixer.go_on.clear()
    with ExitStack() as inner:
        url = inner.enter_context(served(Gateway(rig.proxy, Callers(None)).app))
        answers: list[int] = []

        def call() -> None:
            with httpx2.Client(base_url=url, headers={"x-api-key": "k"}, timeout=PATIENCE) as client:
                answers.append(ask(client).status_code)

        thread = threading.Thread(target=call)
        thread.start()
        assert rig.mixer.begun.wait(PATIENCE)
        threading.Timer(0.25, rig.mixer.go_on.set).start()  # when the gateway has been told to end
    thread.join()
    assert answers == [200]


def test_a_caller_who_asks_too_often_is_told_so(rig: Rig) -> None:
    client = rig.start(rate=0.001)
    assert [ask(client).status_code for _ in range(2)] == [200, 429]


def test_logs_and_figures_hold_no_photo_name_or_token(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    client = rig.start()
    with caplog.at_level(logging.INFO):
        client.post(
            "/api/v1/recognition/faces",
            params={"subject": "Erika-Mustermann"},
            files={"file": ("Erika.jpg", PHOTO.read_bytes())},
        )
        client.get("/api/v1/recognition/Erika-Mustermann")
    lines = [json.loads(record.message) for record in caplog.records if record.name == "anonymix.gateway"]
    assert [(line["call"], line["status"]) for line in lines] == [("add_face", 200), ("unknown", 403)]
    figures = rig.gateway.metrics.text().decode()
    assert 'call="add_face"' in figures
    said = "".join(record.getMessage() for record in caplog.records if f":{rig.port}" not in record.getMessage())
    for text in (said, figures):
        assert "Erika" not in text
        assert "key-not-real" not in text


def test_tokens_open_what_they_are_for(rig: Rig, tmp_path: Path) -> None:
    tokens = Tokens(tmp_path / "tokens.json")
    client = rig.start(Callers(tokens))
    assert ask(client).status_code == 401
    reader, made = tokens.create(["probe"], note="door")
    secret, writer = tokens.create(["probe", "enrol"], scopes=["default"])
    elsewhere, _ = tokens.create(["probe", "enrol"], scopes=["other"])
    late, _ = tokens.create(["probe"], lifetime=timedelta(0))
    assert ask(client, headers={"authorization": f"Bearer {reader}"}).status_code == 200
    assert ask(client, headers={"x-api-key": reader}).status_code == 200  # in the place of the API's own key
    for bad in (elsewhere, late, "anx_wrong", "none"):
        assert ask(client, headers={"authorization": f"Bearer {bad}"}).status_code in {401, 403}
    enrol = {"params": {"subject": "alice"}, "files": {"file": ("a.jpg", PHOTO.read_bytes())}}
    path = "/api/v1/recognition/faces"
    assert client.post(path, headers={"authorization": f"Bearer {reader}"}, **enrol).status_code == 403
    assert client.post(path, headers={"authorization": f"Bearer {secret}"}, **enrol).status_code == 200
    tokens.revoke(made.id)
    assert ask(client, headers={"authorization": f"Bearer {reader}"}).status_code == 401
    kept = (tmp_path / "tokens.json").read_text()
    assert secret not in kept
    assert writer.digest in kept
    assert (tmp_path / "tokens.json").stat().st_mode & 0o077 == 0


def test_a_file_of_tokens_that_others_read_or_that_is_damaged_opens_nothing(tmp_path: Path) -> None:
    tokens = Tokens(tmp_path / "tokens.json")
    secret, _ = tokens.create(["probe"])
    (tmp_path / "tokens.json").chmod(0o644)
    with pytest.raises(ConfigurationError, match="read by others"):
        Tokens(tmp_path / "tokens.json").find(secret)
    (tmp_path / "tokens.json").chmod(0o600)
    (tmp_path / "tokens.json").write_text('{"tokens": [{}]}')
    with pytest.raises(ConfigurationError, match="damaged"):
        tokens.find(secret)
    with pytest.raises(UsageError, match="no such right"):
        tokens.create(["everything"])


@pytest.mark.parametrize(
    ("listening", "tokens"),
    [
        (Listening("192.0.2.1"), True),
        (Listening("10.0.0.1", certificate=Path("c.pem"), key=Path("k.pem")), False),
        (Listening("example.org"), True),
        (Listening(certificate=Path("c.pem")), True),
        (Listening(client_ca=Path("ca.pem")), True),
    ],
)
def test_it_does_not_listen_where_it_is_not_safe(listening: Listening, tokens: bool) -> None:
    with pytest.raises(UsageError):
        listening.check(tokens=tokens)


def test_it_listens_where_it_is_safe() -> None:
    Listening("::1").check(tokens=False)
    Listening("localhost").check(tokens=False)
    Listening("192.0.2.1", certificate=Path("c.pem"), key=Path("k.pem")).check(tokens=True)
    Listening("192.0.2.1", insecure=True).check(tokens=True)


def test_certificates_that_can_not_be_used_are_told_before_anything_is_loaded(tmp_path: Path) -> None:
    one, other = Issuer(tmp_path, "one").own, Issuer(tmp_path, "other").own
    locked = tmp_path / "locked.pem"
    key = serialization.load_pem_private_key(one.key.read_bytes(), None)
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8)
    locked.write_bytes(key.private_bytes(*form, serialization.BestAvailableEncryption(b"x")))
    for certificate, private, ca in (
        (tmp_path / "none.pem", one.key, None),
        (one.certificate, other.key, None),
        (one.key, one.key, None),
        (one.certificate, locked, None),
        (one.certificate, one.key, tmp_path / "none.pem"),
        (one.certificate, one.key, one.key),
    ):
        with pytest.raises(UsageError):
            listen(Listening(port=0, certificate=certificate, key=private, client_ca=ca))
    listen(Listening(port=0, certificate=one.certificate, key=one.key, client_ca=other.certificate)).close()
    with pytest.raises(UsageError, match="listen"):
        listen(Listening("192.0.2.1", port=0))


def test_tokens_are_made_listed_and_revoked_by_command(tmp_path: Path) -> None:
    file = str(tmp_path / "tokens.json")
    run = CliRunner()
    made = run.invoke(command, ["tokens", "create", "--right", "probe", "--note", "door", "--tokens", file])
    assert made.exit_code == 0
    token = made.stdout.strip().splitlines()[0]
    found = Tokens(Path(file)).find(token)
    assert found is not None
    listed = run.invoke(command, ["tokens", "list", "--tokens", file]).stdout
    assert found.id in listed
    assert token not in listed
    assert run.invoke(command, ["tokens", "revoke", found.id, "--tokens", file]).exit_code == 0
    assert Tokens(Path(file)).find(token) is None


def test_tokens_that_would_not_be_what_they_seem_are_not_made(tmp_path: Path) -> None:
    file, run = str(tmp_path / "tokens.json"), CliRunner()
    assert "no tokens" in run.invoke(command, ["tokens", "list", "--tokens", file]).stderr
    for scope in ("", " ", "a\nb", "staff "):  # an empty variable of a script, say
        made = run.invoke(command, ["tokens", "create", "--right", "probe", "--scope", scope, "--tokens", file])
        assert isinstance(made.exception, UsageError)
    audit = run.invoke(command, ["tokens", "create", "--right", "audit", "--scope", "staff", "--tokens", file])
    assert isinstance(audit.exception, UsageError)
    assert Tokens(Path(file)).all() == []
    Tokens(Path(file)).create(["probe"], note="door\n00000000  administer")
    assert len(run.invoke(command, ["tokens", "list", "--tokens", file]).stdout.splitlines()) == 1


def test_options_come_from_a_file_and_unknown_ones_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text('host = "192.0.2.1"\n')
    refused = CliRunner().invoke(command, ["--config", str(file)])
    assert isinstance(refused.exception, UsageError)
    assert "192.0.2.1" in refused.exception.where
    file.write_text('host = "192.0.2.1"\nfetch_host = ["not a host"]\ncallers = "tokens"\ninsecure_http = true\n')
    refused = CliRunner().invoke(command, ["--config", str(file)])
    assert isinstance(refused.exception, UsageError)
    assert refused.exception.where == "not a host"
    file.write_text("nonsense = 1\n")
    refused = CliRunner().invoke(command, ["--config", str(file)])
    assert isinstance(refused.exception, ConfigurationError)


def test_routes_and_methods_that_nobody_knows_are_problem_documents(rig: Rig) -> None:
    client = rig.start()
    for method, path in (("BREW", PATH), ("TRACE", PATH), ("GET", "/a%0Ab"), ("GET", "//"), ("OPTIONS", PATH)):
        answer = client.request(method, path)
        assert answer.headers["content-type"] == "application/problem+json", (method, path)
        assert answer.json()["status"] == answer.status_code


def test_a_body_is_read_only_of_known_callers_and_only_as_far_as_there_is_room(rig: Rig, tmp_path: Path) -> None:
    tokens = Tokens(tmp_path / "tokens.json")
    secret, _ = tokens.create(["probe"])
    rig.start(Callers(tokens), body=100_000, threads=1, waiting=1, seconds=60)

    def begin(more: str, stack: ExitStack) -> socket.socket:
        client = stack.enter_context(socket.create_connection(("127.0.0.1", rig.port)))
        client.settimeout(PATIENCE)
        head = f"POST {PATH} HTTP/1.1\r\nhost: x\r\ncontent-type: image/jpeg\r\ncontent-length: 90000\r\n{more}\r\n"
        client.sendall(head.encode() + b"x" * 80_000)
        return client

    with ExitStack() as stack:
        assert begin("", stack).recv(4096).split(b" ")[1] == b"401"
        known = f"x-api-key: {secret}\r\n"
        waiting = [begin(known, stack) for _ in range(2)]
        assert eventually(lambda: rig.gateway.room._held >= 160_000)
        assert begin(known, stack).recv(4096).split(b" ")[1] == b"503"
        for each in waiting:
            each.sendall(b"x" * 10_000)
            assert each.recv(4096).split(b" ")[1] == b"415"
        each = begin(known, stack)
        each.sendall(b"x" * 10_000)
        assert each.recv(4096).split(b" ")[1] == b"415"


def test_what_nobody_foresaw_leaves_no_traceback(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    def failing(_: Any) -> Any:
        raise RuntimeError("Erika")

    made = Gateway(None, Callers(None), more=lambda _: [Route("/fails", failing)])

    async def call() -> httpx2.Response:
        transport = httpx2.ASGITransport(app=made.app)  # raises what the application raises; a server would log it
        async with httpx2.AsyncClient(transport=transport, base_url="http://gateway") as client:
            return await client.get("/fails")

    with caplog.at_level(logging.INFO):
        answer = asyncio.run(call())
    assert (answer.status_code, answer.json()["code"]) == (500, "internal")
    assert "Erika" not in caplog.text


def test_a_page_of_another_site_can_not_use_a_browsers_way_to_the_gateway(rig: Rig) -> None:
    client = rig.start()
    answer = ask(client, headers={"sec-fetch-site": "cross-site"})
    assert (answer.status_code, answer.json()["code"]) == (403, "csrf")
    assert rig.upstream.received == []


def test_where_nobody_shows_a_token_a_name_from_elsewhere_does_not_lead_here(rig: Rig) -> None:
    client = rig.start()
    rig.gateway.hosts = LOCAL
    for name in ("localhost", "127.0.0.1:8081", "[::1]:8081", "LOCALHOST"):
        assert ask(client, headers={"host": name}).status_code == 200
    for name in (
        "evil.example",
        "evil.example:8081",
        "localhost.evil.example",
        "127.0.0.1.nip.example",
        "[::1",
        "evil@localhost.",
        "",
    ):
        answer = ask(client, headers={"host": name})
        assert (answer.status_code, answer.json()["code"]) == (403, "host")
    assert len(rig.upstream.received) == 4


def test_with_the_apis_own_credential_in_the_gateway_callers_show_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []

    def check(_: Listening, *, tokens: bool) -> None:
        asked.append(tokens)
        raise UsageError("enough")

    monkeypatch.setattr(Listening, "check", check)
    secret = ["--upstream-secret", "x-api-key=KEY"]
    for options in ([], secret, [*secret, "--callers", "anyone"], ["--host", "192.0.2.1"]):
        CliRunner().invoke(command, options)
    assert asked == [False, True, False, True]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--scope", "{colection}"], "braces"),
        (["--scope", "team {"], "braces"),
        (["--drill-photos", "nowhere"], "no such folder"),
        (["--upstream", "ftp://127.0.0.1"], "no http"),
        (["--upstream", "http://back.example"], "plain http"),
        (["--metrics-port", "TAKEN", "--workers", "2"], "can't serve figures"),
    ],
)
def test_options_that_make_no_sense_are_told_before_anything_is_loaded(
    options: list[str], said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("anonymix_plugin.cli.keys.open_keys", lambda *_, **__: pytest.fail("it was opened"))
    with socket.create_server(("127.0.0.1", 0)) as taken, socket.create_server(("127.0.0.1", 0)) as free:
        port, own = str(taken.getsockname()[1]), str(free.getsockname()[1])
        free.close()
        assert main(["gateway", "--port", own, *(port if each == "TAKEN" else each for each in options)]) in {2, 8}
    told = capsys.readouterr()
    assert said in told.err
    assert "listening" not in told.err
