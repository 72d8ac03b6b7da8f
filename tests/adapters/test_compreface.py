"""CompreFace's client and adapter over a socket, judged by what comes back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
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
from servers.compreface import (
    DETECTION_KEY,
    MAX_BYTES,
    RECOGNITION_KEY,
    VERIFICATION_KEY,
    CompreFaceService,
)

from anonymix_adapters import AdapterError, BypassError, SubjectNeededError, interceptor_of, renew
from anonymix_adapters import compreface as adapter
from anonymix_adapters.compreface import ApiError, CompreFace, RetryPolicy
from anonymix_adapters.testing import conformance
from anonymix_plugin import AlreadyProtectedError, NoFaceError, UsageError

SOON = RetryPolicy(timeout=60.0, pause=0.01)


@pytest.fixture
def mixer(tmp_path: Path, model: Callable[[str], Path]) -> Iterator[SessionMixer]:
    with session_mixer(tmp_path, model) as made:
        yield made


@pytest.fixture
def service(mixer: SessionMixer) -> Iterator[CompreFaceService]:
    with CompreFaceService(recognition()) as running:
        yield running


def connect(service: CompreFaceService) -> CompreFace:
    return CompreFace(
        f"http://{service.host}",
        recognition_key=RECOGNITION_KEY,
        verification_key=VERIFICATION_KEY,
        detection_key=DETECTION_KEY,
        collection="staff",
        det_prob_threshold=0.8,
        retry=SOON,
    )


@pytest.fixture
def plain(service: CompreFaceService) -> Iterator[CompreFace]:
    with connect(service) as client:
        yield client


@pytest.fixture
def client(service: CompreFaceService, mixer: SessionMixer) -> Iterator[CompreFace]:
    with connect(service) as made:
        yield adapter.protect(made, mixer)


def found(client: CompreFace, person: str, mood: str = "smiling") -> list[str]:
    faces = client.recognize(photo(person, mood), limit=1).result
    return [guess.subject for face in faces for guess in face.subjects if guess.similarity >= 0.85]


def test_from_enrolment_to_renewal_no_photo_leaves(
    client: CompreFace, plain: CompreFace, mixer: SessionMixer, service: CompreFaceService
) -> None:
    first = client.add_face("alice", photo(ALICE)).image_id
    client.add_face("bob", photo(BOB))
    with mixer.subject("alice"):
        assert found(client, ALICE) == ["alice"]
        assert found(client, BOB) == []
        assert client.verify_face(first, photo(ALICE, "smiling")).result[0].similarity >= 0.85
        matches = client.verify(photo(ALICE), photo(ALICE, "smiling")).result[0].face_matches
        assert [match.similarity >= 0.85 for match in matches] == [True]
    mixer.keystore.rotate("alice")
    with mixer.subject("alice"):
        assert found(client, ALICE) == []
    interceptor = interceptor_of(client)
    assert interceptor is not None
    done = renew(
        interceptor,
        delete=lambda item: client.delete_face(item.external_id),
        enrol=lambda item, picture: client.add_face(item.subject, picture),  # type: ignore[arg-type]
        photo=lambda _: photo(ALICE),
    )
    assert (done.deleted, done.enrolled, done.failures) == ((first,), ("alice",), ())
    with mixer.subject("alice"):
        assert found(client, ALICE) == ["alice"]
    assert witness().clear(service.received) == 10
    assert all(len(picture) <= MAX_BYTES for picture in pictures(service.received))
    assert found(plain, ALICE) == []
    # What CompreFace keeps of each example, and shows to its administrators, is a cancelable face, too.
    kept = [example.picture for example in service.examples.values()]
    assert set(kept) <= set(pictures(service.received[:-1]))


def test_a_gallery_is_searched_without_a_name(service: CompreFaceService, mixer: SessionMixer) -> None:
    with adapter.protect(connect(service), mixer, keys="gallery") as client:
        client.add_face("alice", photo(ALICE))
        client.add_face("bob", photo(BOB))
        assert [found(client, ALICE), found(client, BOB)] == [["alice"], ["bob"]]
    assert witness().clear(service.received) == 4


@pytest.mark.parametrize("given", ["alice.jpg", "https://photos.example/alice.jpg", [0.1] * 512, None])
def test_inputs_past_the_mixer_are_refused(
    client: CompreFace, service: CompreFaceService, mixer: SessionMixer, given: object
) -> None:
    mixer.keystore.issue("alice")
    with mixer.subject("alice"):
        for call in (client.recognize, client.detect, lambda it: client.add_face("alice", it)):
            with pytest.raises((UsageError, BypassError)):
                call(given)  # type: ignore[arg-type]
    assert service.received == []


def test_no_call_of_the_client_takes_embeddings() -> None:
    assert not [name for name in dir(CompreFace) if "embedding" in name]


def test_detection_is_a_matter_of_policy(service: CompreFaceService, mixer: SessionMixer) -> None:
    with adapter.protect(connect(service), mixer, keys="gallery") as client:
        with pytest.raises(BypassError, match="detect='protect'"):
            client.detect(photo(ALICE))
        assert service.received == []
    with adapter.protect(connect(service), mixer, keys="gallery", detect="protect") as client:
        assert len(client.detect(photo(ALICE)).result) == 1
    assert witness().clear(service.received) == 1


def test_photos_that_cannot_be_used_are_not_sent(client: CompreFace, service: CompreFaceService) -> None:
    with pytest.raises(NoFaceError):
        client.add_face("alice", blank())
    with pytest.raises(SubjectNeededError):
        client.recognize(photo(ALICE))
    assert service.received == []
    client.add_face("alice", photo(ALICE))
    with pytest.raises(AlreadyProtectedError):
        client.add_face("alice", pictures(service.received)[0])
    assert len(service.received) == 1


def test_an_enrolment_is_sent_again_only_where_nothing_was_done(
    client: CompreFace, service: CompreFaceService, mixer: SessionMixer
) -> None:
    service.fail(429, {"message": "slow down"}, headers={"Retry-After": "0"})
    service.fail(503, {"message": "starting"})
    client.add_face("alice", photo(ALICE))
    assert len(service.received) == 3
    service.fail(502, {"message": "bad gateway"}, after_the_work=True)
    with pytest.raises(ApiError, match="bad gateway"):
        client.add_face("bob", photo(BOB))
    assert len(service.received) == 4
    service.fail(502, {"message": "bad gateway"})
    service.hang_up()
    with mixer.subject("alice"):
        assert found(client, ALICE) == ["alice"]  # a question may be asked again
    assert witness().clear(service.received) == 7


def test_deletions_are_written_down(client: CompreFace, service: CompreFaceService) -> None:
    interceptor = interceptor_of(client)
    assert interceptor is not None
    first = client.add_face("alice", photo(ALICE)).image_id
    client.add_face("bob", photo(BOB))
    client.delete_face(first)
    assert [item.subject for item in interceptor.entries("staff")] == ["bob"]
    client.delete_subject("bob")
    assert interceptor.entries() == []
    with pytest.raises(ApiError, match="not found") as caught:
        client.delete_face(first)
    assert caught.value.status == 404
    assert client.subjects().subjects == ["alice"]


def test_threads_keep_their_own_subject(client: CompreFace, service: CompreFaceService, mixer: SessionMixer) -> None:
    people = {"alice": ALICE, "bob": BOB}
    for name, person in people.items():
        client.add_face(name, photo(person))

    def ask(name: str) -> list[str]:
        with mixer.subject(name):
            return found(client, people[name])

    names = ["alice", "bob"] * 4
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(ask, names)) == [[name] for name in names]
    assert witness().clear(service.received) == 2 + len(names)


def test_a_service_without_a_key_is_said(service: CompreFaceService) -> None:
    with (
        CompreFace(f"http://{service.host}", recognition_key="wrong", retry=SOON) as client,
        pytest.raises(AdapterError, match="verification_key"),
    ):
        client.verify(photo(ALICE), photo(ALICE))
    with (
        CompreFace(f"http://{service.host}", recognition_key="wrong", retry=SOON) as client,
        pytest.raises(ApiError, match="x-api-key"),
    ):
        client.subjects()


def test_every_call_with_a_picture_says_how_sure_the_detector_must_be(
    service: CompreFaceService, londoners: list[conformance.Person]
) -> None:
    photo = Path(str(londoners[0].enrolled)).read_bytes()
    url = f"http://{service.host}"
    strict = CompreFace(url, detection_key=DETECTION_KEY, det_prob_threshold=1.0, retry=SOON)
    with strict, pytest.raises(AdapterError, match="No face"):
        strict.detect(photo)
    with CompreFace(url, detection_key=DETECTION_KEY, retry=SOON) as lenient:
        assert len(lenient.detect(photo).result) == 1


def test_a_subject_that_was_renamed_at_compreface_is_followed(
    client: CompreFace, service: CompreFaceService, mixer: SessionMixer
) -> None:
    interceptor = interceptor_of(client)
    assert interceptor is not None
    client.add_face("alice", photo(ALICE))
    for example in service.examples.values():
        example.subject = "alicia"
    assert client.delete_faces("alice").deleted == 0  # nobody of that name any more: the record stays
    assert [item.subject for item in interceptor.entries()] == ["alice"]
    client.delete_subject("alicia")
    assert interceptor.entries() == []


def test_only_what_compreface_no_longer_lists_is_written_down(client: CompreFace, service: CompreFaceService) -> None:
    interceptor = interceptor_of(client)
    assert interceptor is not None
    client.add_face("alice", photo(ALICE))
    service.fail(200, {"deleted": 1}, when=lambda it: it.method == "DELETE")
    client.delete_faces("alice")  # says so, and has not done it
    assert len(interceptor.entries()) == 1
    service.fail(200, {"subject": "alice"}, when=lambda it: it.method == "DELETE")
    client.delete_subject("alice")
    assert len(interceptor.entries()) == 1


def test_a_person_is_named_beside_a_label(client: CompreFace, service: CompreFaceService, mixer: SessionMixer) -> None:
    with mixer.subject("alice"), pytest.raises(UsageError, match="two different people"):
        client.add_face("card-17", photo(ALICE))
    assert service.received == []
    with adapter.protect(connect(service), mixer, field="label") as told, mixer.subject("alice"):
        told.add_face("card-17", photo(ALICE))
        assert told.recognize(photo(ALICE, "smiling")).result[0].subjects[0].subject == "card-17"
        assert [item.subject for item in mixer.keystore.enrolments()] == ["alice"]
        told.delete_subject("card-17")
        assert list(mixer.keystore.enrolments()) == [] or interceptor_of(told).entries() == []  # type: ignore[union-attr]


def test_a_name_that_went_up_in_an_address_is_in_no_log(client: CompreFace, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        client.add_face("Erika-Mustermann", photo(ALICE))
    assert "Erika" not in caplog.text
