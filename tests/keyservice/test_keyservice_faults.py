"""What can go wrong between a mixer and the key service, with a real process: refused, told, and found again."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import ssl
import threading
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from patience import PATIENCE, eventually
from service_rig import ALL, Authority, ServiceRig, unverified

from anonymix_keystore import AnchorError, KeyRevokedError, Keystore, KeystoreError, LockedError, RolledBackError
from anonymix_plugin import UsageError
from anonymix_plugin.cli import main
from anonymix_plugin.errors import ConfigurationError
from anonymix_plugin.keyservice import NotAllowedError, RemoteKeystore, ServiceError
from anonymix_plugin.keyservice.roles import Roles


class Ticks:
    """The clock of keys that are kept, which goes on when it is told to."""

    now = 1_000.0

    def forward(self, seconds: float) -> None:
        self.now = round(self.now + seconds, 6)


@pytest.fixture
def ticks(monkeypatch: pytest.MonkeyPatch) -> Ticks:
    made = Ticks()
    for module in ("memory", "remote"):
        monkeypatch.setattr(f"anonymix_plugin.keyservice.{module}.ticking", lambda: made.now)
    return made


def refused(remote: RemoteKeystore, match: str, kind: type[KeystoreError] = ServiceError) -> None:
    with pytest.raises(kind, match=match) as told:
        remote.current("alice", "staff")
    assert told.value.fix, "an error says what to do"
    assert told.value.where


# --- the service ------------------------------------------------------------------------------------


def test_a_service_that_is_gone_is_found_again_without_a_restart(own: ServiceRig, ticks: Ticks) -> None:
    own.start()
    remote = own.client(cache_age=0.5)
    before = remote.current("alice", "staff")
    own.stop(signal.SIGKILL)
    ticks.forward(0.4)
    assert remote.current("alice", "staff") == before, "a key that is kept is good for its time"
    ticks.forward(0.1)
    refused(remote, "can't be reached")
    own.start()
    assert remote.current("alice", "staff") == before


def test_a_service_that_was_restarted_is_asked_on(own: ServiceRig) -> None:
    own.start()
    remote = own.client(cache_size=0)
    remote.current("alice", "staff")
    assert own.stop() in {0, -signal.SIGTERM, 128 + signal.SIGTERM}
    own.start()
    assert remote.current("alice", "staff").version == 1
    assert remote.issue("bob", "staff").version == 1


def test_a_service_that_is_stuck_is_not_waited_for(rig: ServiceRig) -> None:
    remote, late = rig.client(cache_size=0), rig.client(timeout=0.4)
    remote.current("alice", "staff")
    ((_, connection),) = remote._line._idle  # it was made while there was time
    connection.sock.settimeout(0.4)
    rig.signal(signal.SIGSTOP)
    try:
        refused(remote, "did not answer within")
        refused(late, "did not answer within 0.4 seconds")
    finally:
        rig.signal(signal.SIGCONT)
    assert remote.current("alice", "staff").version == 1


def test_an_older_store_is_noticed_by_who_saw_a_later_one(own: ServiceRig) -> None:
    own.start()
    remote = own.client(cache_age=0)
    remote.current("alice", "staff")
    own.stop()
    shutil.copy(own.store, own.folder / "old")
    own.start()
    remote.issue("bob", "staff")
    remote.revoke("alice", "staff")
    own.stop()
    newer = own.folder / "newer"
    shutil.copy(own.store, newer)
    shutil.copy(own.folder / "old", own.store)
    own.start()
    refused(remote, "an old file", RolledBackError)
    with own.opened_store() as store:  # it goes on, and passes the number of changes that the client saw
        for number in range(6):
            store.issue(f"later {number}")
    refused(remote, "history", RolledBackError)
    with pytest.raises(RolledBackError):
        remote.current_or_issue("carol", "staff")
    own.stop()
    shutil.copy(newer, own.store)
    own.start()
    with pytest.raises(KeyRevokedError):
        remote.current("alice", "staff")
    assert remote.current("bob", "staff").version == 1


def test_another_store_at_the_same_address_is_refused(own: ServiceRig, tmp_path: Path) -> None:
    own.start()
    remote = own.client(cache_age=0)
    remote.current("alice", "staff")
    own.stop()
    for name in own.folder.glob("keystore.db*"):
        name.rename(tmp_path / f"first-{name.name}")
    with Keystore.create(own.store, own.unlock) as store:
        store.issue("alice", "staff")
    own.start()
    with pytest.raises(AnchorError, match="another store"):
        remote.current("alice", "staff")


def test_what_a_client_saw_is_remembered_across_its_restarts(own: ServiceRig) -> None:
    own.start()
    seen = own.folder / "seen.json"
    shutil.copy(own.store, own.folder / "old")
    with RemoteKeystore(own.address, own.ca.issue("gate-1"), seen=seen) as remote:
        remote.issue("bob", "staff")
        remote.revoke("alice", "staff")
    assert seen.stat().st_mode & 0o077 == 0
    own.stop()
    shutil.copy(own.folder / "old", own.store)
    own.start()
    with RemoteKeystore(own.address, own.ca.issue("gate-1"), seen=seen) as again:
        refused(again, "an old file", RolledBackError)
    seen.write_text("{}")
    with pytest.raises(AnchorError, match="damaged"):
        RemoteKeystore(own.address, own.ca.issue("gate-1"), seen=seen)


# --- revocation -------------------------------------------------------------------------------------


def test_a_key_that_was_revoked_while_it_was_kept_is_refused_within_the_bound(rig: ServiceRig, ticks: Ticks) -> None:
    remote = rig.client(cache_age=1.0)
    remote.current_or_issue("victim", "staff")
    with rig.opened_store() as store:
        store.revoke("victim", "staff")
    ticks.forward(0.9)
    assert remote.current("victim", "staff").version == 1
    ticks.forward(0.1)
    with pytest.raises(KeyRevokedError):
        remote.current("victim", "staff")


def test_no_key_is_kept_for_more_than_five_seconds(rig: ServiceRig) -> None:
    with pytest.raises(UsageError, match="0 to 5 seconds"):
        rig.client(cache_age=5.1)


def test_its_own_revocation_counts_at_once(rig: ServiceRig) -> None:
    remote = rig.client(cache_age=5)
    remote.current_or_issue("own", "staff")
    remote.revoke("own", "staff")
    with pytest.raises(KeyRevokedError):
        remote.current("own", "staff")


def test_a_slow_answer_does_not_lengthen_the_bound(
    rig: ServiceRig, ticks: Ticks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key is as old as its question: what the service knew in between is not known."""
    remote = rig.client(cache_age=1.0)
    ask = remote._line.ask

    def slowly(*question: Any, **how: Any) -> bytearray:
        ticks.forward(0.8)
        return ask(*question, **how)

    monkeypatch.setattr(remote._line, "ask", slowly)
    asked = ticks.now
    remote.current("alice", "staff")
    (kept,) = remote._memory._kept.values()
    assert kept.until == asked + 1.0


def test_keys_that_nobody_asks_for_are_wiped_in_their_time(rig: ServiceRig, ticks: Ticks) -> None:
    remote = rig.client(cache_age=0.2)
    remote.current("alice", "staff")
    (kept,) = remote._memory._kept.values()
    assert any(kept.material)
    ticks.forward(0.2)
    assert eventually(lambda: not any(kept.material))
    assert len(remote._memory) == 0


def test_keys_are_wiped_where_there_is_no_room_and_on_closing(rig: ServiceRig) -> None:
    remote = rig.client(cache_age=5, cache_size=1)
    remote.current("alice", "staff")
    (first,) = remote._memory._kept.values()
    remote.current_or_issue("another", "staff")
    (second,) = remote._memory._kept.values()
    assert not any(first.material)
    assert any(second.material)
    remote.close()
    assert not any(second.material)
    with pytest.raises(LockedError, match="closed"):
        remote.current("alice", "staff")


# --- certificates -----------------------------------------------------------------------------------


def test_a_service_of_another_ca_is_not_trusted(rig: ServiceRig, tmp_path: Path) -> None:
    other = Authority(tmp_path / "other")
    refused(rig.client(replace(rig.ca.issue("gate-1"), ca=other.certificate)), "not from the CA that is trusted")


def test_a_service_by_another_name_is_not_trusted(rig: ServiceRig) -> None:
    remote = RemoteKeystore(f"https://127.0.0.2:{rig.port}", rig.ca.issue("gate-1"))
    with pytest.raises(ServiceError):
        remote.current("alice", "staff")


@pytest.mark.parametrize("host", ["no-such-host.invalid", "a..b", "x" * 70])
def test_a_name_that_leads_nowhere_is_told_of(rig: ServiceRig, host: str) -> None:
    refused(RemoteKeystore(f"https://{host}:{rig.port}", rig.ca.issue("gate-1", file="nowhere")), "can't be reached")


def test_a_client_of_another_ca_is_refused(rig: ServiceRig, tmp_path: Path) -> None:
    foreign = Authority(tmp_path / "foreign").issue("gate-1")
    refused(rig.client(replace(foreign, ca=rig.ca.certificate)), "hung up without an answer")


def test_a_client_without_a_certificate_gets_nothing(rig: ServiceRig) -> None:
    def ask() -> int:
        with closing(http.client.HTTPSConnection("127.0.0.1", rig.port, context=unverified())) as line:
            line.request("POST", "/v1/state", b"{}")
            return line.getresponse().status

    with pytest.raises((OSError, http.client.HTTPException)):  # an alert, or the end of the connection
        ask()


def test_an_older_tls_is_refused(rig: ServiceRig) -> None:
    context = rig.ca.issue("gate-1", file="old-tls").context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with socket.create_connection(("127.0.0.1", rig.port)) as plain, pytest.raises(OSError):  # noqa: PT011
        context.wrap_socket(plain, server_hostname="127.0.0.1").version()


def test_an_expired_client_certificate_is_refused_and_a_renewed_one_taken(rig: ServiceRig) -> None:
    credentials = rig.ca.issue("gate-1", ends=-0.5, file="expiring")
    remote = rig.client(credentials)
    refused(remote, "this client's certificate has expired")
    rig.ca.issue("gate-1", file="expiring")
    assert remote.current("alice", "staff").version == 1


def test_a_certificate_that_expires_on_an_open_connection_is_refused(rig: ServiceRig) -> None:
    for seconds in (2, 8, 32):  # until one is good for long enough to be used
        credentials = rig.ca.issue("gate-1", ends=seconds / 86_400, file="short")
        remote = rig.client(credentials, cache_size=0)
        with suppress(KeystoreError):
            remote.current("alice", "staff")
            break
    assert eventually(lambda: credentials.expired)
    refused(remote, "certificate has expired", NotAllowedError)


def test_an_expired_service_certificate_is_refused_and_a_renewed_one_taken(own: ServiceRig) -> None:
    own.ca.issue("service", ends=-0.5)
    own.start()
    remote = own.client()
    refused(remote, "has expired by this machine's clock")
    own.ca.issue("service")
    assert remote.current("alice", "staff").version == 1, "the service goes on with the new files, not restarted"


def test_a_clock_that_is_off_is_told_of(rig: ServiceRig, own: ServiceRig) -> None:
    own.ca.issue("service", begins=1, ends=3)
    own.start()
    with pytest.raises(ServiceError, match="not valid yet by this machine's clock") as told:
        own.client().current("alice", "staff")
    assert "UTC" in told.value.fix


def test_credentials_that_are_missing_or_open_to_others_are_told_of(rig: ServiceRig, tmp_path: Path) -> None:
    good = rig.ca.issue("gate-1", file="good")
    for wrong in ("certificate", "key", "ca"):
        refused(rig.client(replace(good, **{wrong: tmp_path / "none.pem"})), "does not exist")
        refused(rig.client(replace(good, **{wrong: rig.roles_file})), "no PEM|read by others")
    good.key.chmod(0o644)
    refused(rig.client(good), "read by others")


# --- requests ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "status"),
    [
        (b"", 422),
        (b"no json", 422),
        (b"[]", 422),
        (b'{"subject": 7}', 422),
        (b'{"subject": "alice", "other": 1}', 422),
        (b'{"subject": "alice", "scope": "staff", "seen": "x.y"}', 422),
        (b'{"subject": "a\\ud800", "scope": "staff"}', 422),
        (b'{"scope": ' + b"[" * 30_000, 422),
        (b"\xff\xfe\n\x00", 422),
        (b'{"subject": "' + b"x" * 70_000 + b'"}', 413),
    ],
)
def test_malformed_and_huge_requests_are_refused(rig: ServiceRig, message: bytes, status: int) -> None:
    found, problem = rig.raw("current", message)
    assert (found, problem["status"]) == (status, status)
    assert "alice" not in str(problem)


def test_what_is_no_operation_is_refused(rig: ServiceRig) -> None:
    assert rig.raw("backup", b"{}")[0] == 404
    assert rig.raw("current", b"{}", method="GET")[0] == 405
    assert rig.raw("../readyz", b"{}")[0] == 404


def test_a_body_that_does_not_arrive_is_not_waited_for(rig: ServiceRig) -> None:
    context = rig.ca.issue("gate-1", file="slow").context()
    with (
        socket.create_connection(("127.0.0.1", rig.port)) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as line,
    ):
        line.settimeout(PATIENCE)
        line.sendall(b"POST /v1/current HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{")
        assert b"408" in line.recv(4096).split(b"\r\n")[0]


@pytest.mark.parametrize("pause", [0.3, PATIENCE], ids=["slowly", "never"])
def test_a_head_that_does_not_arrive_is_not_waited_for(rig: ServiceRig, pause: float) -> None:
    context = rig.ca.issue("gate-1", file="slow").context()
    with (
        socket.create_connection(("127.0.0.1", rig.port)) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as line,
    ):
        line.settimeout(pause)
        line.sendall(b"POST /v1/current HTTP/1.1\r\n")

        def hung_up() -> bool:
            try:
                line.sendall(b"a: b\r\n")
                return not line.recv(4096)
            except TimeoutError:
                return False
            except OSError:
                return True

        assert eventually(hung_up)


def test_a_reason_that_would_fill_the_audit_trail_is_refused(rig: ServiceRig) -> None:
    asked = json.dumps({"subject": "wordy", "scope": "staff", "reason": "x" * 2_000}).encode()
    assert rig.raw("issue", asked)[0] == 422


def test_more_requests_than_there_is_room_for_are_told_to_come_again(own: ServiceRig) -> None:
    own.options = ("--threads", "1", "--waiting", "0")
    own.start()
    remote, context = own.client(cache_size=0), own.ca.issue("gate-1", file="slow").context()

    def code() -> str:
        try:
            remote.current("alice", "staff")
        except KeystoreError as error:
            return error.code
        return ""

    def busy() -> bool:
        with (
            socket.create_connection(("127.0.0.1", own.port)) as plain,
            context.wrap_socket(plain, server_hostname="127.0.0.1") as line,
        ):  # a request whose end does not come takes the one place
            line.sendall(b"POST /v1/current HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{")
            codes = [code() for _ in range(20)]
        assert set(codes) <= {"", "busy"}
        return "busy" in codes

    assert eventually(busy)
    assert eventually(lambda: code() == "")
    assert remote.current("alice", "staff").version == 1


class _Odd:
    """A TLS server that answers every request with the same bytes."""

    def __init__(self, rig: ServiceRig, answer: bytes) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(rig.server.certificate, rig.server.key)
        self._answer, self._socket = answer, socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                plain, _ = self._socket.accept()
                with self._context.wrap_socket(plain, server_side=True) as line:
                    line.recv(65_536)
                    line.sendall(self._answer)
            except OSError:
                if self._socket.fileno() < 0:
                    return

    def close(self) -> None:
        self._socket.close()


def _answer(body: bytes, head: str = "HTTP/1.1 200 OK") -> bytes:
    return f"{head}\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n".encode() + body


STATE = f"{'00' * 16}.1.{'00' * 32}.{'00' * 32}".encode()
KEY = (
    b'{"key": {"subject": "alice", "scope": "staff", "version": 1, "state": "active"}, "references": false, "state": "'
)


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH\r\n",
        _answer(b"hello"),
        _answer(b"[1]\n"),
        _answer(b"{}\n" + bytes(32)),
        _answer(KEY + b'"}\n' + bytes(32)),
        _answer(KEY + STATE + b'"}\n' + bytes(31)),
        _answer(KEY.replace(b"alice", b"mallory") + STATE + b'"}\n' + bytes(32)),
        _answer(KEY.replace(b"active", b"odd") + STATE + b'"}\n' + bytes(32)),
        _answer(b"[" * 40_000),
        _answer(b"no", "HTTP/1.1 502 Bad Gateway"),
        _answer(b'{"code": 7}', "HTTP/1.1 403 Forbidden"),
        _answer(b"x" * 70_000),
        b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    ],
)
def test_an_answer_that_makes_no_sense_is_an_error(rig: ServiceRig, answer: bytes) -> None:
    odd = _Odd(rig, answer)
    try:
        remote = RemoteKeystore(f"https://127.0.0.1:{odd.port}", rig.ca.issue("gate-1", file="odd"), timeout=2)
        with pytest.raises(ServiceError) as told:
            remote.current("alice", "staff")
        assert told.value.fix
        assert len(remote._memory) == 0
    finally:
        odd.close()


# --- processes, and starting ------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_opens_its_own(rig: ServiceRig) -> None:
    remote = rig.client()
    remote.current("alice", "staff")
    child = os.fork()
    if child == 0:
        try:
            remote.current("alice", "staff")
        except LockedError:
            remote.close()
            os._exit(0)
        os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    assert remote.current("alice", "staff").version == 1


def test_a_service_that_is_set_up_wrongly_does_not_start(
    own: ServiceRig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in own.environment.items():
        monkeypatch.setenv(name, value)
    own.server.key.chmod(0o644)
    assert main(own.command()) == 2
    assert "read by others" in capsys.readouterr().err
    own.server.key.chmod(0o600)
    for option, value, said in [
        ("--certificate", str(own.folder / "none.pem"), "does not exist"),
        ("--certificate", str(own.roles_file), "no PEM file"),
        ("--listen", "everywhere", "HOST:PORT"),
        ("--roles", str(own.folder / "none.toml"), "can't be read"),
        ("--listen", "192.0.2.1:8443", "can't be listened at"),
    ]:
        assert main([*own.command(), option, value]) == 2
        told = capsys.readouterr().err
        assert said in told
        assert "What to do" in told
        assert "listening on" not in told
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for option, value in (("--listen", f"127.0.0.1:{port}"), ("--metrics-port", str(port))):
            assert main([*own.command(), option, value]) == 2
            assert f"{option} {value}: it can't be listened at" in capsys.readouterr().err
    own.roles_file.write_text('[clients.a]\nscopes = ["*"]\noperations = ["rotate"]\n')
    assert main(own.command()) == 2
    assert "needs read beside it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "clients"),
        ("[clients.a", "no TOML"),
        ('[clients.a]\nscopes = []\noperations = ["read"]', "scopes"),
        ('[clients.a]\nscopes = ["*"]\noperations = ["everything"]', "operations"),
        ('[clients.a]\nscopes = ["*"]\noperations = ["read"]\ncertificate = "AB:CD"', "certificate"),
        ('[clients.a]\nscopes = ["*"]\noperations = ["read"]\nrate = -1', "rate"),
        ('[clients.a]\nscopes = ["*"]\noperations = ["read"]\nadmin = true', "admin"),
        ('[clients."a\\nb"]\nscopes = ["*"]\noperations = ["read"]', "clients"),
    ],
)
def test_a_file_of_roles_that_makes_no_sense_is_refused_by_its_field(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "roles.toml"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=said):
        Roles(path)


def test_a_file_of_roles_that_others_can_write_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "roles.toml"
    path.write_text(f'[clients.a]\nscopes = ["*"]\noperations = {ALL}\n')
    path.chmod(0o666)
    with pytest.raises(ConfigurationError, match="written by others"):
        Roles(path)
    path.unlink()
    with pytest.raises(ConfigurationError, match="can't be read"):
        Roles(path)
