"""Luxand's client and adapter over a socket, judged by what comes back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from servers import (
    ALICE,
    BOB,
    SessionMixer,
    blank,
    photo,
    pictures,
    recognition,
    session_mixer,
    witness,
)
from servers.luxand import TOKEN, LuxandService

from anonymix_adapters import BypassError, SubjectNeededError, interceptor_of
from anonymix_adapters import luxand as adapter
from anonymix_adapters.luxand import ApiError, Luxand, RetryPolicy, Url
from anonymix_plugin import AlreadyProtectedError, NoFaceError, UsageError

SOON = RetryPolicy(timeout=60.0, pause=0.01)


@pytest.fixture
def mixer(tmp_path: Path, model: Callable[[str], Path]) -> Iterator[SessionMixer]:
    with session_mixer(tmp_path, model) as made:
        yield made


@pytest.fixture
def service(mixer: SessionMixer) -> Iterator[LuxandService]:
    with LuxandService(recognition()) as running:
        yield running


def connect(service: LuxandService) -> Luxand:
    return Luxand(TOKEN, url=service.url, retry=SOON)


@pytest.fixture
def client(service: LuxandService, mixer: SessionMixer) -> Iterator[Luxand]:
    with connect(service) as made:
        yield adapter.protect(made, mixer)


def test_a_person_with_two_faces_is_verified_rotated_and_deleted(
    client: Luxand, mixer: SessionMixer, service: LuxandService
) -> None:
    interceptor = interceptor_of(client)
    assert interceptor is not None
    alice = client.add_person("alice", photo(ALICE), collections=["staff"]).uuid
    with mixer.subject("alice"):
        second = client.add_face(alice, photo(ALICE, "smiling")).uuid
        assert client.verify(alice, photo(ALICE, "smiling")).verified
        assert not client.verify(alice, photo(BOB)).verified
        assert client.similarity(photo(ALICE), photo(ALICE, "smiling")).similar
        assert [match.name for match in client.search(photo(ALICE, "smiling"))] == ["alice"]
    assert {item.external_id for item in interceptor.entries()} == {alice, f"{alice}/{second}"}
    mixer.keystore.rotate("alice")
    with mixer.subject("alice"):
        assert not client.verify(alice, photo(ALICE, "smiling")).verified
    assert [item.delete for item in interceptor.due()] == [True, True]
    client.delete_face(alice, second)
    client.delete_person(alice)
    assert [item for item in interceptor.due() if item.delete] == []
    assert witness().clear(service.received) == 8
    # Luxand is asked not to keep the pictures.
    assert all(request.form()[0].get("store", "0") == "0" for request in service.received)


def test_a_gallery_is_searched_without_a_name(service: LuxandService, mixer: SessionMixer) -> None:
    with adapter.protect(connect(service), mixer, keys="gallery") as client:
        for name, person in (("alice", ALICE), ("bob", BOB)):
            client.add_person(name, photo(person))
        found = [[m.name for m in client.search(photo(person, "smiling"))] for person in (ALICE, BOB)]
    assert found == [["alice"], ["bob"]]
    assert witness().clear(service.received) == 4


@pytest.mark.parametrize(
    ("given", "error"),
    [
        (Url("https://photos.example/1"), BypassError),
        ("https://photos.example/1", UsageError),
        (None, UsageError),
    ],
)
def test_inputs_past_the_mixer_are_refused(
    client: Luxand, service: LuxandService, mixer: SessionMixer, given: object, error: type[Exception]
) -> None:
    mixer.keystore.issue("alice")
    with mixer.subject("alice"):
        for call in (
            client.search,
            lambda it: client.add_person("alice", it),
            lambda it: client.verify("0" * 36, it),
            lambda it: client.similarity(photo(ALICE), it),
        ):
            with pytest.raises(error, match="nothing was sent"):
                call(given)  # type: ignore[arg-type]
    assert service.received == []


def test_addresses_are_fetched_by_the_host_and_mixed(service: LuxandService, mixer: SessionMixer) -> None:
    with adapter.protect(connect(service), mixer, fetch=lambda _: photo(ALICE).read_bytes()) as client:
        client.add_person("alice", Url("https://photos.example/1"))
    assert witness().clear(service.received) == 1
    assert b"photos.example" not in service.received[0].body


def test_photos_that_cannot_be_used_are_not_sent(client: Luxand, service: LuxandService) -> None:
    with pytest.raises(NoFaceError):
        client.add_person("alice", blank())
    with pytest.raises(SubjectNeededError):
        client.search(photo(ALICE))
    assert service.received == []
    client.add_person("alice", photo(ALICE))
    with pytest.raises(AlreadyProtectedError):
        client.add_person("alice", pictures(service.received)[0])
    assert len(service.received) == 1


def test_faults_are_retried_with_the_same_face_or_told(
    client: Luxand, service: LuxandService, mixer: SessionMixer
) -> None:
    service.fail(429, {"status": "failure", "message": "too many requests"})
    alice = client.add_person("alice", photo(ALICE)).uuid
    service.fail(500, {"status": "failure", "message": "oops"})
    with mixer.subject("alice"):
        assert client.verify(alice, photo(ALICE)).verified
    service.fail(500, {"status": "failure", "message": "oops"})
    with pytest.raises(ApiError, match="oops"):
        client.add_person("bob", photo(BOB))
    assert [len(service.received), len(set(pictures(service.received)))] == [5, 2]
    assert witness().clear(service.received) == 5


def test_it_is_undone(client: Luxand, mixer: SessionMixer) -> None:
    assert adapter.unprotect(client) is client
    assert interceptor_of(client) is None
    client.add_person("alice", photo(ALICE))
    assert mixer.drawn == 0


def test_only_deletions_that_luxand_confirms_are_written_down(
    client: Luxand, service: LuxandService, mixer: SessionMixer
) -> None:
    interceptor = interceptor_of(client)
    assert interceptor is not None
    alice = client.add_person("alice", photo(ALICE)).uuid
    for answer in ({"status": "failure", "message": "no"}, {}):
        service.fail(200, answer)
        with suppress(ApiError):
            client.delete_person(alice)
        assert len(interceptor.entries()) == 1
    client.delete_person(alice)
    assert interceptor.entries() == []


def test_a_person_is_named_by_name_argument_or_block_and_only_once(
    client: Luxand, service: LuxandService, mixer: SessionMixer
) -> None:
    with pytest.raises(UsageError, match="two different people"):
        client.add_person("card-17", photo(ALICE), subject="alice")
    assert service.received == []
    with adapter.protect(connect(service), mixer, field="label") as told:
        told.add_person("card-17", photo(ALICE), subject="alice")
    assert [item.subject for item in mixer.keystore.enrolments()] == ["alice"]
    assert b"alice" not in service.received[0].body
