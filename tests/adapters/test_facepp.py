"""Face++'s client and adapter over a socket, judged by what comes back."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from patience import eventually
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
from servers.facepp import KEY, MAX_BYTES, SECRET_KEY, FacePlusPlusService

from anonymix_adapters import (
    AdapterError,
    BypassError,
    DoubleProtectionError,
    NotProtectedError,
    SubjectNeededError,
    interceptor_of,
)
from anonymix_adapters import facepp as adapter
from anonymix_adapters.facepp import ApiError, FacePlusPlus, FaceToken, RetryPolicy, Url
from anonymix_keystore import KeyRevokedError
from anonymix_plugin import AlreadyProtectedError, NoFaceError, UsageError

STAFF = "staff"
SOON = RetryPolicy(timeout=60.0, pause=0.01)


@pytest.fixture
def mixer(tmp_path: Path, model: Callable[[str], Path]) -> Iterator[SessionMixer]:
    with session_mixer(tmp_path, model) as made:
        yield made


@pytest.fixture
def service(mixer: SessionMixer) -> Iterator[FacePlusPlusService]:
    with FacePlusPlusService(recognition()) as running:
        yield running


def connect(service: FacePlusPlusService, retry: RetryPolicy = SOON) -> FacePlusPlus:
    return FacePlusPlus(KEY, SECRET_KEY, url=service.url, retry=retry)


@pytest.fixture
def plain(service: FacePlusPlusService) -> Iterator[FacePlusPlus]:
    with connect(service) as client:
        client.create_face_set(STAFF)
        service.received.clear()
        yield client


@pytest.fixture
def client(service: FacePlusPlusService, mixer: SessionMixer, plain: FacePlusPlus) -> Iterator[FacePlusPlus]:
    assert plain
    with connect(service) as made:
        yield adapter.protect(made, mixer)


def enrol(client: FacePlusPlus, mixer: SessionMixer, subject: str, person: str) -> str:
    with mixer.subject(subject, enrol=True):
        token = client.detect(photo(person)).faces[0].face_token
    client.set_user_id(token, subject)
    client.add_faces(STAFF, [token])
    return token


def found(client: FacePlusPlus, person: str, mood: str = "smiling") -> list[str]:
    answer = client.search(photo(person, mood), STAFF)
    return [m.user_id for m in answer.results if m.confidence >= answer.thresholds["1e-3"]]


def test_from_enrolment_to_a_new_key_no_photo_leaves(
    client: FacePlusPlus, plain: FacePlusPlus, mixer: SessionMixer, service: FacePlusPlusService
) -> None:
    enrol(client, mixer, "alice", ALICE)
    enrol(client, mixer, "bob", BOB)
    with mixer.subject("alice"):
        assert found(client, ALICE) == ["alice"]
        assert found(client, BOB) == []
        alike = client.compare(photo(ALICE), photo(ALICE, "smiling"))
        assert (alike.confidence or 0) >= alike.thresholds["1e-3"]
    mixer.keystore.rotate("alice")
    with mixer.subject("alice"):
        assert found(client, ALICE) == []
    assert witness().clear(service.received) == 7
    assert all(len(picture) <= MAX_BYTES for picture in pictures(service.received))
    assert found(plain, ALICE) == []


def test_a_gallery_is_searched_without_a_name(
    service: FacePlusPlusService, mixer: SessionMixer, plain: FacePlusPlus
) -> None:
    with adapter.protect(connect(service), mixer, keys="gallery") as client:
        enrol(client, mixer, "alice", ALICE)
        enrol(client, mixer, "bob", BOB)
        assert [found(client, ALICE), found(client, BOB)] == [["alice"], ["bob"]]
        with pytest.raises(SubjectNeededError, match="detect it inside"):
            client.add_faces(STAFF, [client.detect(photo(ALICE)).faces[0].face_token])
    assert witness().clear(service.received) == 5


@pytest.mark.parametrize(
    ("given", "error"),
    [
        (Url("https://photos.example/alice.jpg"), BypassError),
        (FaceToken("f" * 32), BypassError),
        ("alice.jpg", UsageError),
        (None, UsageError),
        ([0.1] * 512, UsageError),
    ],
)
def test_inputs_past_the_mixer_are_refused(
    client: FacePlusPlus,
    service: FacePlusPlusService,
    mixer: SessionMixer,
    given: object,
    error: type[Exception],
) -> None:
    mixer.keystore.issue("alice")
    with mixer.subject("alice"):
        for call in (
            lambda: client.detect(given),  # type: ignore[arg-type]
            lambda: client.compare(photo(ALICE), given),  # type: ignore[arg-type]
            lambda: client.search(given, STAFF),  # type: ignore[arg-type]
        ):
            with pytest.raises(error):
                call()
    assert service.received == []


def test_a_token_of_a_photo_is_neither_added_nor_compared(
    client: FacePlusPlus, plain: FacePlusPlus, mixer: SessionMixer
) -> None:
    token = plain.detect(photo(ALICE)).faces[0].face_token
    with pytest.raises(BypassError, match="not made through the mixer"):
        client.add_faces(STAFF, [token])
    own = enrol(client, mixer, "alice", ALICE)
    with pytest.raises(BypassError):
        client.compare(FaceToken(own), FaceToken(token))
    assert client.compare(FaceToken(own), FaceToken(own)).confidence == pytest.approx(100)


def test_tokens_of_an_earlier_process_are_known_from_their_records(
    client: FacePlusPlus, service: FacePlusPlusService, mixer: SessionMixer
) -> None:
    token = enrol(client, mixer, "alice", ALICE)
    with adapter.protect(connect(service), mixer) as later:
        assert later.compare(FaceToken(token), FaceToken(token)).confidence == pytest.approx(100)


def test_addresses_are_fetched_by_the_host_and_mixed(
    service: FacePlusPlusService, mixer: SessionMixer, plain: FacePlusPlus
) -> None:
    asked = []

    def fetch(address: str) -> bytes:
        asked.append(address)
        return photo(ALICE).read_bytes()

    with (
        adapter.protect(connect(service), mixer, fetch=fetch) as client,
        mixer.subject("alice", enrol=True),
    ):
        assert len(client.detect(Url("https://photos.example/1")).faces) == 1
    assert asked == ["https://photos.example/1"]
    assert witness().clear(service.received) == 1
    assert b"photos.example" not in service.received[0].body


def test_photos_that_cannot_be_used_are_not_sent(
    client: FacePlusPlus, service: FacePlusPlusService, mixer: SessionMixer
) -> None:
    with mixer.subject("alice", enrol=True):
        with pytest.raises(NoFaceError):
            client.detect(blank())
        assert service.received == []
        client.detect(photo(ALICE))
        with pytest.raises(AlreadyProtectedError):
            client.detect(pictures(service.received)[0])
    with pytest.raises(SubjectNeededError):
        client.detect(photo(ALICE))
    assert len(service.received) == 1


def test_too_many_queries_are_waited_for_and_sent_again_as_they_were(
    client: FacePlusPlus, service: FacePlusPlusService, mixer: SessionMixer
) -> None:
    service.fail(403, {"error_message": "CONCURRENCY_LIMIT_EXCEEDED"}, times=2)
    service.hang_up()
    with mixer.subject("alice", enrol=True):
        assert len(client.detect(photo(ALICE)).faces) == 1
    assert len(service.received) == 4
    assert len({request.body for request in service.received}) == 1
    assert mixer.drawn == 1
    assert witness().clear(service.received) == 4


def test_what_cannot_be_repeated_is_not(plain: FacePlusPlus, service: FacePlusPlusService) -> None:
    service.fail(500, {"error_message": "INTERNAL_ERROR"}, after_the_work=True)
    with pytest.raises(ApiError, match="INTERNAL_ERROR") as caught:
        plain.create_face_set("visitors")
    assert (caught.value.status, caught.value.reason) == (500, "INTERNAL_ERROR")
    assert len(service.received) == 1
    service.fail(400, {"error_message": "INVALID_OUTER_ID"})
    with pytest.raises(ApiError, match="INVALID_OUTER_ID"):
        plain.face_set("nowhere")
    assert len(service.received) == 2


def test_a_time_out_ends_in_an_error_without_secrets(service: FacePlusPlusService, mixer: SessionMixer) -> None:
    with adapter.protect(connect(service, RetryPolicy(timeout=0.3, attempts=2, pause=0.01)), mixer) as client:
        service.stall(0.8, times=2)
        with mixer.subject("alice", enrol=True), pytest.raises(ApiError, match="ReadTimeout") as caught:
            client.detect(photo(ALICE))
        assert SECRET_KEY not in repr(caught.value) + str(caught.value) + repr(client)
        assert caught.value.__cause__ is None
    assert eventually(lambda: len(service.received) == 2)
    assert witness().clear(service.received) == 2


def test_an_answer_that_is_none_is_an_error(plain: FacePlusPlus, service: FacePlusPlusService) -> None:
    service.fail(200, {"faces": [{"face_token": 7}]})
    with pytest.raises(ApiError, match="not what the API's documentation says"):
        plain.detect(photo(ALICE))


def test_a_rotation_between_detection_and_enrolment_leaves_nothing_behind(
    client: FacePlusPlus, plain: FacePlusPlus, mixer: SessionMixer
) -> None:
    with mixer.subject("alice", enrol=True):
        token = client.detect(photo(ALICE)).faces[0].face_token
    mixer.keystore.rotate("alice")
    with pytest.raises(KeyRevokedError):
        client.add_faces(STAFF, [token])
    assert plain.face_set(STAFF).face_tokens == []


def test_removals_are_written_down(client: FacePlusPlus, mixer: SessionMixer) -> None:
    interceptor = interceptor_of(client)
    assert interceptor is not None
    first = enrol(client, mixer, "alice", ALICE)
    enrol(client, mixer, "bob", BOB)
    client.remove_faces(STAFF, [first])
    assert [item.subject for item in interceptor.entries(STAFF)] == ["bob"]
    client.delete_face_set(STAFF)
    assert interceptor.entries() == []


def test_it_is_undone_and_never_done_twice(
    service: FacePlusPlusService, mixer: SessionMixer, plain: FacePlusPlus
) -> None:
    with connect(service) as client:
        assert adapter.protect(adapter.protect(client, mixer), mixer) is client
        with pytest.raises(DoubleProtectionError):
            adapter.protect(client, mixer, keys="gallery")
        with pytest.raises(DoubleProtectionError):
            adapter.protect(client, mixer, fetch=lambda _: b"")
        adapter.unprotect(client)
        assert interceptor_of(client) is None
        client.detect(photo(ALICE))
        assert mixer.drawn == 0
    with pytest.raises(AdapterError, match="no FacePlusPlus client"):
        adapter.protect(object(), mixer)  # type: ignore[arg-type]


def test_retry_needs_at_least_one_try() -> None:
    for wrong in ({"attempts": 0}, {"timeout": 0.0}, {"pause": -1.0}):
        with pytest.raises(UsageError, match="retry"):
            RetryPolicy(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("url", ["http://api.example/", "ftp://api.example/", "api.example"])
def test_addresses_that_would_give_the_secret_away_are_refused(url: str) -> None:
    with pytest.raises(AdapterError):
        FacePlusPlus(KEY, SECRET_KEY, url=url)


def test_only_tokens_that_were_added_are_recorded_and_each_once(
    client: FacePlusPlus, service: FacePlusPlusService, mixer: SessionMixer
) -> None:
    interceptor = interceptor_of(client)
    assert interceptor is not None
    first = enrol(client, mixer, "alice", ALICE)
    client.add_faces(STAFF, [first, first])  # there already
    assert [item.external_id for item in interceptor.entries()] == [first]
    with mixer.subject("alice"):
        second = client.detect(photo(ALICE, "smiling")).faces[0].face_token
    failed = [{"face_token": second, "reason": "QUOTA_EXCEEDED"}]
    service.fail(200, {"face_added": 0, "failure_detail": failed}, when=lambda it: "addface" in it.path)
    client.add_faces(STAFF, [second])
    assert [item.external_id for item in interceptor.entries()] == [first]


def test_only_tokens_that_have_left_the_face_set_are_written_down(
    client: FacePlusPlus,
    service: FacePlusPlusService,
    mixer: SessionMixer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("servers.facepp.PAGE", 1)
    interceptor = interceptor_of(client)
    assert interceptor is not None
    tokens = [enrol(client, mixer, name, who) for name, who in (("alice", ALICE), ("bob", BOB))]
    service.fail(200, {"face_removed": 0}, when=lambda it: "removeface" in it.path, times=2)
    client.remove_faces(STAFF, [tokens[1]])
    client.remove_faces(STAFF, ["RemoveAllFaceTokens"])
    assert len(interceptor.entries()) == 2
    service.sets[STAFF].tokens.remove(tokens[0])  # past the adapter
    assert client.remove_faces(STAFF, [tokens[0]]).face_removed == 0
    assert [item.external_id for item in interceptor.entries()] == [tokens[1]]
    client.remove_faces(STAFF, ["RemoveAllFaceTokens"])
    assert interceptor.entries() == []


def test_a_user_id_that_names_somebody_else_is_refused(
    client: FacePlusPlus, service: FacePlusPlusService, mixer: SessionMixer, plain: FacePlusPlus
) -> None:
    token = enrol(client, mixer, "alice", ALICE)
    with pytest.raises(UsageError, match="not whom"):
        client.set_user_id(token, "bob")
    with adapter.protect(connect(service), mixer, field="label") as told:
        told.set_user_id(token, "card-17")
    assert plain.face(token).user_id == "card-17"
    with pytest.raises(NotProtectedError):
        plain.detect(photo(ALICE), subject="alice")


def test_an_address_that_could_not_be_fetched_is_not_told(service: FacePlusPlusService, mixer: SessionMixer) -> None:
    signed = "https://photos.example/1?X-Amz-Signature=0123456789"

    def fetch(address: str) -> bytes:
        raise OSError(address)

    assert "0123456789" not in repr(Url(signed))
    with adapter.protect(connect(service), mixer, fetch=fetch) as client, mixer.subject("alice", enrol=True):
        with pytest.raises(AdapterError, match="OSError") as caught:
            client.detect(Url(signed))
        shown = "".join(traceback.format_exception(caught.value))
    assert "0123456789" not in shown
    assert caught.value.__context__ is None
