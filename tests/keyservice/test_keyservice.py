"""The keys of one store for mixers of other machines: who gets what, and what is told of it."""

from __future__ import annotations

import json
import pickle
import sqlite3
import ssl
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from unittest.mock import Mock
from urllib.request import urlopen

import pytest
from patience import PATIENCE, reserved_port
from service_rig import ServiceRig

from anonymix_adapters.interceptor import EnrolmentRegistry
from anonymix_keystore import (
    DamagedError,
    EnrolmentInfo,
    InvalidRequestError,
    InvalidSubjectError,
    KeyRevokedError,
    Keystore,
    KeystoreError,
    LockedError,
    NewEnrolment,
    OutdatedReferenceError,
    RenewalInfo,
    RenewalState,
    UnknownSubjectError,
    UnknownVersionError,
)
from anonymix_plugin import Anonymixer, UsageError
from anonymix_plugin.cli import main
from anonymix_plugin.guiding import KeepsReferences
from anonymix_plugin.keyservice import NotAllowedError, NotOfferedError, RemoteKeystore, service_address
from anonymix_plugin.keyservice.errors import RateError
from anonymix_plugin.keyservice.memory import Memory
from anonymix_plugin.keyservice.roles import Peer

BOUND = {"fingerprint": "f" * 32, "subspace": "s" * 32}


# --- keys -------------------------------------------------------------------------------------------


def test_a_mixer_gets_the_keys_that_the_store_has(rig: ServiceRig) -> None:
    remote = rig.client()
    made = remote.current_or_issue("bob", "staff")
    gallery = remote.gallery("staff")
    with rig.opened_store() as store:
        assert made == store.current("bob", "staff") == remote.at("bob", 1, "staff")
        assert gallery == store.gallery("staff")
        assert remote.epoch == store.epoch
    assert remote.current_or_issue("bob", "staff") == made
    assert remote.current("alice", "staff") != made


def test_composed_and_decomposed_names_are_one_subject(rig: ServiceRig) -> None:
    remote = rig.client()
    assert remote.current_or_issue("Zoe\u0308") == remote.current("Zo\u00eb")


def test_what_a_store_refuses_is_refused_by_the_same_errors(rig: ServiceRig) -> None:
    remote = rig.client()
    with pytest.raises(UnknownSubjectError, match="nobody"):
        remote.current("nobody", "staff")
    with pytest.raises(UnknownVersionError):
        remote.at("alice", 9, "staff")
    for odd in ("", " alice", "a\u200bb", "x" * 2_000, "\ud800"):
        with pytest.raises((InvalidSubjectError, InvalidRequestError)):
            remote.current_or_issue(odd, "staff")
    with pytest.raises(InvalidRequestError, match="65536 bytes"):
        remote.current_or_issue("x" * 70_000, "staff")
    with pytest.raises(UsageError):
        remote.current(7, "staff")  # type: ignore[arg-type]


def test_keys_are_rotated_and_revoked_by_whoever_may(rig: ServiceRig) -> None:
    remote = rig.client()
    first = remote.issue("carol", "staff", reason="new")
    assert remote.current("carol", "staff") == first
    second = remote.rotate("carol", "staff", grace=timedelta(days=2))
    assert (second.version, remote.current("carol", "staff")) == (2, second)
    assert remote.at("carol", 1, "staff").material == first.material
    assert remote.revoke("carol", "staff", version=1) == (1,)
    assert remote.revoke("carol", "staff") == (2,)
    with pytest.raises(KeyRevokedError):
        remote.current("carol", "staff")
    assert remote.gallery("guests").version == 1
    assert remote.rotate_gallery("guests", reason="breach").version == 2
    assert remote.revoke_gallery("guests") == (2,)
    with pytest.raises(KeyRevokedError):
        remote.gallery("guests")


def test_the_trail_names_the_client_and_its_certificate(rig: ServiceRig) -> None:
    remote = rig.client("gate-2")
    remote.issue("dave", "staff")
    with rig.opened_store() as store:
        last = list(store.audit())[-1]
    assert last["action"] == "issue"
    name, _, certificate = last["actor"].partition(" (certificate ")
    assert name == "gate-2"
    assert len(bytes.fromhex(certificate.rstrip(")"))) == 8


def test_many_threads_ask_at_once(rig: ServiceRig) -> None:
    remote = rig.client(cache_size=0)
    names = [f"t{number % 5}" for number in range(60)]
    with ThreadPoolExecutor(8) as pool:
        keys = list(pool.map(lambda name: remote.current_or_issue(name, "threads"), names))
    assert len({key.material for key in keys}) == 5
    assert [key.subject for key in keys] == names


# --- rights -----------------------------------------------------------------------------------------


def test_a_client_does_what_its_role_says_and_nothing_else(rig: ServiceRig) -> None:
    reader, clerk = rig.client("reader"), rig.client("clerk")
    assert reader.current("alice", "staff") == rig.client().current("alice", "staff")
    refused: list[Callable[[], object]] = [
        lambda: reader.current_or_issue("newcomer", "staff"),
        lambda: reader.gallery("default"),
        lambda: reader.issue("newcomer", "staff"),
        lambda: reader.rotate("alice", "staff"),
        lambda: reader.rotate_gallery("staff"),
        lambda: reader.revoke("alice", "staff"),
        lambda: reader.revoke_gallery("staff"),
        lambda: reader.enrolment(adapter="a", collection="c", external_id="1"),
        lambda: reader.mark_removed("00" * 32),
        lambda: (
            reader.references.read(reader.current("alice", "staff"), **BOUND)
            or reader.record_enrolment(
                "alice", "staff", adapter="a", collection="c", external_id="1", version=1, fingerprint="f"
            )
        ),
        lambda: clerk.current("alice", "staff"),
        lambda: clerk.current_or_issue("alice", "staff"),
    ]
    for call in refused:
        with pytest.raises(NotAllowedError) as told:
            call()
        assert told.value.fix
    with rig.opened_store() as store, pytest.raises(UnknownSubjectError):
        store.current("newcomer", "staff")


def test_a_scope_of_others_is_closed(rig: ServiceRig) -> None:
    rig.client().current_or_issue("eve", "secret")
    reader = rig.client("reader")
    for call in (lambda: reader.current("eve", "secret"), lambda: reader.gallery("secret")):
        with pytest.raises(NotAllowedError, match="scope"):
            call()


def test_a_client_that_is_struck_off_is_refused_at_its_next_request(rig: ServiceRig) -> None:
    reader, before = rig.client("reader", cache_age=0), rig.roles_file.read_text()
    reader.current("alice", "staff")
    try:
        rig.roles_file.write_text(before.replace("clients.reader", "clients.somebody-else"))
        with pytest.raises(NotAllowedError, match="no client that is known"):
            reader.current("alice", "staff")
        rig.roles_file.write_text("[clients.reader]\nscopes = 7\n")
        with pytest.raises(KeystoreError, match="roles of the key service can't be read"):
            reader.current("alice", "staff")
    finally:
        rig.roles_file.write_text(before)
    assert reader.current("alice", "staff").version == 1


def test_one_certificate_alone_can_be_meant(rig: ServiceRig) -> None:
    before = rig.roles_file.read_text()
    meant, other = rig.ca.issue("pinned", file="meant"), rig.ca.issue("pinned", file="other")
    der = ssl.PEM_cert_to_DER_cert(meant.certificate.read_text())
    try:
        rig.roles_file.write_text(
            f'{before}\n[clients.pinned]\nscopes = ["*"]\noperations = ["read"]\n'
            f'certificate = "{Peer.of(der).fingerprint}"\n'
        )
        assert rig.client(meant).current("alice", "staff").version == 1
        with pytest.raises(NotAllowedError, match="no client that is known"):
            rig.client(other).current("alice", "staff")
    finally:
        rig.roles_file.write_text(before)


def test_who_asks_too_often_is_told_so(rig: ServiceRig) -> None:
    remote = rig.client("often", cache_size=0)
    remote.current("alice", "staff")
    with pytest.raises(RateError, match="too often"):
        remote.current("alice", "staff")


# --- records and references -------------------------------------------------------------------------


def test_records_are_written_and_found(rig: ServiceRig) -> None:
    remote = rig.client()
    key = remote.current_or_issue("frank", "staff")
    place = {"adapter": "a", "collection": "c", "external_id": "77"}
    entry = remote.record_enrolment("frank", "staff", **place, version=key.version, fingerprint="f")
    with rig.opened_store() as store:
        assert remote.enrolment(**place) == store.enrolment(**place)
    assert remote.enrolment(**place | {"external_id": "78"}) is None
    assert remote.mark_removed(entry)
    assert not remote.mark_removed(entry)


def test_records_of_other_scopes_are_neither_shown_nor_touched(rig: ServiceRig) -> None:
    remote, clerk = rig.client(), rig.client("clerk")
    place = {"adapter": "a", "collection": "c", "external_id": "88"}
    key = remote.current_or_issue("grace", "secret")
    entry = remote.record_enrolment("grace", "secret", **place, version=key.version, fingerprint="f")
    assert clerk.enrolment(**place) is None
    with pytest.raises(NotAllowedError):
        clerk.mark_removed(entry)
    with pytest.raises(NotAllowedError):
        clerk.record_enrolment("alice", "staff", **place, version=1, fingerprint="f")
    assert remote.enrolment(**place) is not None


def test_records_are_listed_page_by_page_in_the_scopes_of_the_client(own: ServiceRig) -> None:
    with own.opened_store() as store:
        for scope, count in (("staff", 150), ("secret", 3)):
            version = store.current_or_issue("alice", scope).version
            for number in range(count):
                how = {"adapter": "a", "collection": "c" * 400, "external_id": f"{scope} {number}"}
                store.record_enrolment("alice", scope, **how, version=version, fingerprint="f")
        store.rotate("alice", "secret")
    own.start()
    remote, clerk = own.client(), own.client("clerk")
    assert isinstance(remote, EnrolmentRegistry)
    with own.opened_store() as store:
        assert list(remote.enrolments()) == list(store.enrolments())
        assert list(remote.enrolments("secret")) == list(store.enrolments("secret"))
        assert list(clerk.enrolments()) == list(store.enrolments("staff"))
        assert list(remote.due(fingerprint="f")) == list(store.due(fingerprint="f"))
        assert len(list(clerk.due("staff", fingerprint="other"))) == 150
    assert list(clerk.due()) == list(clerk.enrolments("secret")) == []


def test_records_that_are_damaged_hide_no_others_and_are_told_whatever_page_they_are_on(own: ServiceRig) -> None:
    with own.opened_store() as store:
        store.issue_many(["alice", "bob"], "staff")
        store.record_enrolments(NewEnrolment("alice", "staff", "a", "c" * 400, f"e{n}", 1, "f") for n in range(150))
        first = next(store.enrolments()).entry
        path = store.path
    with closing(sqlite3.connect(path)) as db:
        db.execute("UPDATE enrolments SET created = 5 WHERE entry = ?", (bytes.fromhex(first),))
        db.commit()
    own.start()
    for client in (own.client(), own.client("clerk")):
        seen: list[EnrolmentInfo] = []
        with pytest.raises(DamagedError, match="anonymix keys due"):
            seen.extend(client.enrolments())
        assert len(seen) == 149
    with pytest.raises(DamagedError):
        list(own.client().due(fingerprint="f"))


def test_many_records_and_renewals_are_written_in_the_scopes_of_the_client(own: ServiceRig) -> None:
    with own.opened_store() as store:
        for scope in ("staff", "secret"):
            store.issue_many([f"p{number}" for number in range(150)], scope)
    own.start()
    remote, clerk = own.client(), own.client("clerk")
    place = {"adapter": "a", "collection": "c" * 400}
    entries = [NewEnrolment(f"p{n}", "staff", *place.values(), f"staff {n}", 1, "f") for n in range(150)]
    secret = NewEnrolment("p0", "secret", *place.values(), "secret 0", 1, "f")
    names = clerk.record_enrolments(entries)
    assert len(names) == 150
    (hidden,) = remote.record_enrolments([secret])
    begun = [RenewalInfo(f"p{n}", "staff", *place.values(), 1, "f", RenewalState.BEGUN) for n in range(150)]
    done = replace(begun[0], state=RenewalState.DONE, entry="staff 0")
    remote.write_renewals([replace(begun[0], scope="secret")])
    clerk.write_renewals(begun)
    clerk.write_renewals([done], removed=[names[1], "00" * 32])
    with own.opened_store() as store:
        assert len(list(store.enrolments())) == 150
        assert list(remote.renewals(**place)) == list(store.renewals(**place))
        mine = [it for it in store.renewals(**place) if it.scope == "staff"]
        assert list(clerk.renewals(**place)) == mine
        assert list(clerk.renewals(**place, beyond=mine[60].name)) == mine[61:]
        assert list(remote.renewals(only=RenewalState.DONE, **place)) == [done]
    assert clerk.renewal("p0", "staff", **place) == done
    assert remote.renewal("p1", "secret", **place) is None
    for call in (
        lambda: clerk.renewal("p0", "secret", **place),
        lambda: clerk.write_renewals([replace(done, scope="secret")]),
        lambda: clerk.write_renewals([], removed=[hidden]),
        lambda: clerk.record_enrolments([entries[0], secret]),
        lambda: clerk.record_enrolments([replace(entries[0], external_id="secret 0")]),
        lambda: own.client("reader").record_enrolments(entries[:1]),
        lambda: list(own.client("reader").renewals(**place)),
    ):
        with pytest.raises(NotAllowedError):
            call()
    assert remote.enrolment(**place, external_id="secret 0") is not None
    with closing(sqlite3.connect(own.store)) as db:
        db.execute("UPDATE renewals SET version = 7 WHERE subject = ?", (bytes.fromhex(mine[60].name),))
        db.commit()
    heard = []
    with pytest.raises(DamagedError, match="some renewals"):
        heard.extend(clerk.renewals(**place))
    assert heard == mine[:60] + mine[61:]


def test_references_are_made_and_opened_by_whoever_may(own: ServiceRig) -> None:
    with own.opened_store() as store:
        store.originals.enable(own.second)
        store.references.enable("staff")
    own.start()
    remote, reader = own.client(), own.client("reader")
    key = remote.current("alice", "staff")
    assert isinstance(remote, KeepsReferences)
    assert remote.references.enabled("staff")
    assert remote.references.read(key, **BOUND) is None
    assert remote.references.keep(key, bytes(range(256)), **BOUND)
    assert not remote.references.keep(key, b"other", **BOUND, replace=False)
    assert remote.references.read(key, **BOUND) == bytes(range(256))
    with pytest.raises(OutdatedReferenceError):
        remote.references.read(key, fingerprint="g", subspace="s")
    with pytest.raises(NotAllowedError, match="references"):
        reader.references.read(reader.current("alice", "staff"), **BOUND)
    elsewhere = remote.current_or_issue("alice", "plain")
    assert remote.references.read(elsewhere, **BOUND) is None
    assert remote.references.read(remote.gallery("staff"), **BOUND) is None


# --- what is not told, and not offered --------------------------------------------------------------


def test_logs_and_figures_hold_no_subject_scope_or_key(own: ServiceRig) -> None:
    own.options = ("--metrics-port", str(reserved_port()))
    own.start()
    remote = own.client()
    key = remote.current_or_issue("Erika-Mustermann", "Geheim")
    with pytest.raises(KeystoreError):
        remote.current("Max-Mustermann", "Geheim")
    with pytest.raises(KeystoreError):
        remote.at("Erika-Mustermann", 9, "Geheim")
    assert own.raw("current", {"subject": "Erika-Mustermann", "scope": 3})[0] == 422
    figures = urlopen(f"http://127.0.0.1:{own.options[1]}/metrics", timeout=PATIENCE).read().decode()
    assert 'anonymix_keys_requests_total{client="gate-1",operation="current",problem="unknown_subject"' in figures
    assert "anonymix_keys_ready 1.0" in figures
    said = own.log.read_text() + figures
    for secret in ("Mustermann", "Geheim", key.material.hex(), own.store.name):
        assert secret not in said
    lines = [json.loads(line) for line in own.log.read_text().splitlines() if line.startswith("{")]
    assert [(line["operation"], line["client"], line["status"]) for line in lines[:2]] == [
        ("current-or-issue", "gate-1", 200),
        ("current", "gate-1", 404),
    ]


def test_what_only_the_machine_of_the_store_does_says_where(rig: ServiceRig) -> None:
    remote = rig.client()
    for name in ("backup", "audit", "forget", "rotate_all", "originals", "list", "verify"):
        assert not hasattr(remote, name)
        with pytest.raises(NotOfferedError, match="machine of the store"):
            getattr(remote, name)
    with pytest.raises(AttributeError):
        remote.no_such_thing  # noqa: B018


def test_every_public_method_of_a_store_is_there_or_says_where(rig: ServiceRig) -> None:
    remote = rig.client()
    for name in vars(Keystore).keys() | {name for base in Keystore.__mro__[1:-1] for name in vars(base)}:
        if not name.startswith("_"):
            try:
                getattr(remote, name)
            except NotOfferedError as error:
                assert error.fix  # noqa: PT017


def test_a_remote_keystore_shows_and_hands_on_no_secret(rig: ServiceRig) -> None:
    remote = rig.client()
    remote.current("alice", "staff")
    assert "alice" not in repr(remote)
    with pytest.raises(TypeError):
        pickle.dumps(remote)


# --- who uses it ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("https://keys.example:9000", ("keys.example", 9000)),
        ("https://keys.example/", ("keys.example", 8443)),
        (Path("https://10.0.0.1:9000"), ("10.0.0.1", 9000)),
        ("https://[::1]:9000", ("::1", 9000)),
        ("keystore.db", None),
        ("/var/lib/https/keystore.db", None),
    ],
)
def test_an_address_is_told_from_a_path(text: str | Path, place: tuple[str, int] | None) -> None:
    assert service_address(text) == place


@pytest.mark.parametrize(
    "text", ["http://keys:80", "https://", "https://a:b", "https://u@keys", "https://keys/v1", "https://keys?x"]
)
def test_an_address_of_another_kind_is_refused(text: str) -> None:
    for place in (text, Path(text)):
        with pytest.raises(UsageError, match="TLS"):
            service_address(place)


def test_the_address_of_a_service_opens_a_mixer(rig: ServiceRig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("anonymix_plugin.anonymixer.assemble", lambda _: Mock(guide=None))  # no weights are needed
    with Anonymixer.open(rig.address, credentials=rig.ca.issue("gate-1", file="mixer")) as mixer:
        keys = mixer.keystore
        assert isinstance(keys, RemoteKeystore)
        assert keys.current("alice", "staff").version == 1
    with pytest.raises(LockedError):
        keys.current("alice", "staff")


def test_options_of_stores_and_of_services_do_not_mix(rig: ServiceRig, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="opens its store itself"):
        Anonymixer.open(rig.address, passphrase="secret")
    with pytest.raises(UsageError, match="credentials are for a key service"):
        Anonymixer.open(tmp_path / "keystore.db", credentials=rig.ca.issue("gate-1", file="mixed"))


def test_the_command_line_asks_the_service(
    rig: ServiceRig,
    portraits: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    credentials = rig.ca.issue("reader", file="command")
    photo = str(portraits / "001_neutral.jpg")
    monkeypatch.setenv("ANONYMIX_KEYSTORE", rig.address)
    command = ["protect", photo, "--subject", "nobody", "-o", str(tmp_path / "out"), "--json"]
    assert main(command) == 2
    assert "ANONYMIX_CLIENT_CERTIFICATE" in capsys.readouterr().out
    monkeypatch.setenv("ANONYMIX_CLIENT_CERTIFICATE", str(credentials.certificate))
    monkeypatch.setenv("ANONYMIX_CLIENT_KEY", str(credentials.key))
    monkeypatch.setenv("ANONYMIX_SERVICE_CA", str(credentials.ca))
    assert main(command) == 4
    assert "unknown_subject" in capsys.readouterr().out
    assert main(["keys", "list", "--json"]) == 2
    assert "machine of the store" in capsys.readouterr().out


def test_memory_of_no_size_keeps_nothing() -> None:
    assert len(Memory(0)) == 0
