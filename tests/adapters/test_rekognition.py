"""Rekognition's adapter, with boto3 as it is, over a socket, judged by what comes back."""

from __future__ import annotations

import contextvars
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.client import BaseClient
from botocore.config import Config
from botocore.exceptions import ClientError, ReadTimeoutError
from botocore.stub import ANY, Stubber
from servers import (
    ACCESS_KEY,
    ALICE,
    BOB,
    SECRET,
    SessionMixer,
    blank,
    photo,
    pictures,
    recognition,
    session_mixer,
    witness,
)
from servers.rekognition import MAX_BYTES, RekognitionService, S3Service

from anonymix_adapters import (
    AdapterError,
    BypassError,
    DoubleProtectionError,
    NotProtectedError,
    SdkVersionError,
    SubjectNeededError,
    interceptor_of,
    renew,
)
from anonymix_adapters import rekognition as adapter
from anonymix_adapters.candidates import search_candidates
from anonymix_keystore import KeyRevokedError, UnknownSubjectError
from anonymix_plugin import AlreadyProtectedError, NoFaceError, UsageError

STAFF = "staff"


@pytest.fixture
def mixer(tmp_path: Path, model: Callable[[str], Path]) -> Iterator[SessionMixer]:
    with session_mixer(tmp_path, model) as made:
        yield made


@pytest.fixture
def service(mixer: SessionMixer) -> Iterator[RekognitionService]:
    with RekognitionService(recognition()) as running:
        yield running


def connect(service: Any, name: str = "rekognition", **options: Any) -> Any:
    return boto3.client(
        name,
        endpoint_url=service.url,
        region_name="eu-west-1",
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET,
        config=Config(retries={"mode": "standard", "total_max_attempts": 3}, **options),
    )


@pytest.fixture
def plain(service: RekognitionService) -> Iterator[Any]:
    client = connect(service)
    client.create_collection(CollectionId=STAFF)
    service.received.clear()
    yield client
    client.close()


@pytest.fixture
def client(service: RekognitionService, mixer: SessionMixer, plain: Any) -> Iterator[Any]:
    protected = adapter.protect(connect(service), mixer)
    yield protected
    protected.close()


def bytes_of(person: str, mood: str = "neutral") -> bytes:
    return photo(person, mood).read_bytes()


def index(client: Any, subject: str, person: str, mood: str = "neutral") -> str:
    answer = client.index_faces(CollectionId=STAFF, Image={"Bytes": bytes_of(person, mood)}, ExternalImageId=subject)
    name: str = answer["FaceRecords"][0]["Face"]["FaceId"]
    return name


def found(client: Any, person: str, mood: str = "smiling") -> list[str]:
    answer = client.search_faces_by_image(CollectionId=STAFF, Image={"Bytes": bytes_of(person, mood)})
    return [match["Face"]["ExternalImageId"] for match in answer["FaceMatches"]]


def test_a_person_is_enrolled_verified_rotated_and_enrolled_again(
    client: Any, plain: Any, service: RekognitionService, mixer: SessionMixer
) -> None:
    first = index(client, "alice", ALICE)
    index(client, "bob", BOB)
    with mixer.subject("alice"):
        assert found(client, ALICE) == ["alice"]
        assert found(client, BOB) == []  # Bob at the door, claiming to be Alice
    assert found(plain, ALICE) == []  # the photo itself, past the adapter
    assert witness().clear(service.received[:-1]) == 4

    mixer.keystore.rotate("alice")
    with mixer.subject("alice"):
        assert found(client, ALICE) == []  # the old entry is dead
    interceptor = interceptor_of(client)
    assert interceptor is not None
    assert [(item.subject, item.external_id, item.delete) for item in interceptor.due()] == [("alice", first, True)]
    done = renew(
        interceptor,
        delete=lambda item: client.delete_faces(CollectionId=item.collection, FaceIds=[item.external_id]),
        enrol=lambda item, picture: index(client, item.subject, ALICE, picture),
        photo=lambda item: "neutral",
    )
    assert done.failures == ()
    assert done.deleted == (first,)
    with mixer.subject("alice"):
        assert found(client, ALICE) == ["alice"]
    assert interceptor.due() == []
    assert [face["FaceId"] for face in plain.list_faces(CollectionId=STAFF)["Faces"]].count(first) == 0


def test_a_gallery_is_searched_without_a_name(service: RekognitionService, mixer: SessionMixer, plain: Any) -> None:
    client = adapter.protect(connect(service), mixer, keys="gallery")
    ids = {name: index(client, name, person) for name, person in (("alice", ALICE), ("bob", BOB))}
    assert found(client, ALICE) == ["alice"]
    assert found(client, BOB) == ["bob"]
    client.create_user(CollectionId=STAFF, UserId="alice")
    client.associate_faces(CollectionId=STAFF, UserId="alice", FaceIds=[ids["alice"]])
    answer = client.search_users_by_image(CollectionId=STAFF, Image={"Bytes": bytes_of(ALICE, "smiling")})
    assert [match["User"]["UserId"] for match in answer["UserMatches"]] == ["alice"]
    assert witness().clear(service.received) == 5
    client.close()


def test_a_small_gallery_is_searched_with_each_candidates_own_key(
    service: RekognitionService, mixer: SessionMixer
) -> None:
    with adapter.rehearse(mixer, connect=lambda: connect(service)) as stage:
        for name in (ALICE, BOB):
            stage.enrol(name, photo(name))
        found = search_candidates(stage.verify, photo(BOB, "smiling"), [ALICE, BOB, "nobody"])
    assert (found.subject, found.tried, found.keyless) == (BOB, 2, ("nobody",))
    assert witness().clear(service.received) == 4


def test_two_photos_are_compared_under_one_key(client: Any, mixer: SessionMixer) -> None:
    def compare(a: bytes, b: bytes) -> int:
        answer = client.compare_faces(SourceImage={"Bytes": a}, TargetImage={"Bytes": b})
        return len(answer["FaceMatches"])

    mixer.keystore.issue("alice")
    with mixer.subject("alice"):
        assert compare(bytes_of(ALICE), bytes_of(ALICE, "smiling")) == 1
        assert compare(bytes_of(ALICE), bytes_of(BOB)) == 0
        assert compare(bytes_of(ALICE), bytes_of(ALICE)) == 1


def test_what_is_sent_is_within_the_limits_and_the_callers_own_is_untouched(
    client: Any, service: RekognitionService
) -> None:
    params = {"CollectionId": STAFF, "Image": {"Bytes": bytes_of(ALICE)}, "ExternalImageId": "alice"}
    before = {**params, "Image": dict(params["Image"])}  # type: ignore[call-overload]
    client.index_faces(**params)
    assert params == before
    (sent,) = pictures(service.received)
    assert len(sent) <= MAX_BYTES
    assert min(recognition().faces(sent)[0].size) >= 80


def test_nothing_is_sent_where_nobody_is_named(client: Any, service: RekognitionService) -> None:
    with pytest.raises(SubjectNeededError, match="whose face"):
        found(client, ALICE)
    with pytest.raises(SubjectNeededError):
        client.index_faces(CollectionId=STAFF, Image={"Bytes": bytes_of(ALICE)})
    assert service.received == []


def test_nothing_is_sent_for_unknown_or_revoked_subjects(
    client: Any, service: RekognitionService, mixer: SessionMixer
) -> None:
    with mixer.subject("nobody"), pytest.raises(UnknownSubjectError):
        found(client, ALICE)
    mixer.keystore.issue("alice")
    mixer.keystore.revoke("alice")
    with mixer.subject("alice"), pytest.raises(KeyRevokedError):
        found(client, ALICE)
    with pytest.raises(KeyRevokedError):
        index(client, "alice", ALICE)
    assert service.received == []


@pytest.mark.parametrize(
    ("image", "error"),
    [
        ({"S3Object": {"Bucket": "photos", "Name": "alice.jpg"}}, BypassError),
        ({"Bytes": b"x", "S3Object": {"Bucket": "photos", "Name": "alice.jpg"}}, UsageError),
        ({"Bytes": "/etc/passwd"}, UsageError),
        ({}, UsageError),
        (b"bytes", UsageError),
        (None, UsageError),
    ],
)
def test_inputs_past_the_mixer_are_refused(
    client: Any, service: RekognitionService, image: Any, error: type[Exception]
) -> None:
    with pytest.raises(error, match="nothing was sent"):
        client.index_faces(CollectionId=STAFF, Image=image, ExternalImageId="alice")
    assert service.received == []


def test_a_photo_without_a_face_and_a_cancelable_face_are_refused(client: Any, service: RekognitionService) -> None:
    with pytest.raises(NoFaceError):
        client.index_faces(CollectionId=STAFF, Image={"Bytes": blank()}, ExternalImageId="alice")
    assert service.received == []
    index(client, "alice", ALICE)
    (sent,) = pictures(service.received)
    with pytest.raises(AlreadyProtectedError):
        client.index_faces(CollectionId=STAFF, Image={"Bytes": sent}, ExternalImageId="alice")
    assert len(service.received) == 1


def test_s3_objects_are_fetched_and_mixed_where_a_client_is_given(
    service: RekognitionService, mixer: SessionMixer, plain: Any
) -> None:
    with S3Service(recognition()) as storage:
        storage.objects["photos", "alice.jpg"] = bytes_of(ALICE)
        s3 = connect(storage, "s3", s3={"addressing_style": "path"})
        client = adapter.protect(connect(service), mixer, s3=s3)
        place = {"Bucket": "photos", "Name": "alice.jpg"}
        client.index_faces(CollectionId=STAFF, Image={"S3Object": place}, ExternalImageId="alice")
        with pytest.raises(ClientError, match="NoSuchKey"):
            client.index_faces(
                CollectionId=STAFF, Image={"S3Object": {**place, "Name": "bob.jpg"}}, ExternalImageId="bob"
            )
        s3.close()
        client.close()
    assert witness().clear(service.received) == 1
    assert b"S3Object" not in b"".join(request.body for request in service.received)


def test_every_operation_of_the_installed_boto3_that_takes_pictures_is_mixed_or_refused(
    client: Any, service: RekognitionService, mixer: SessionMixer
) -> None:
    model = client.meta.service_model
    mixed = {"IndexFaces", "SearchFacesByImage", "SearchUsersByImage", "CompareFaces"}
    reading = [name for name in model.operation_names if name not in mixed and _reads(model, name)]
    assert {"DetectFaces", "RecognizeCelebrities", "StartFaceSearch", "DetectText"} <= set(reading)
    for name in reading:
        with mixer.subject("alice"), pytest.raises(BypassError, match="nothing was sent"):
            client._make_api_call(name, {"Image": {"Bytes": bytes_of(ALICE)}})
    for name in ("CreateStreamProcessor", "StartStreamProcessor", "CreateFaceLivenessSession"):
        with pytest.raises(BypassError):
            client._make_api_call(name, {})
    assert service.received == []


def _reads(model: Any, operation: str) -> bool:
    def reads(shape: Any, above: frozenset[str]) -> bool:
        if shape.type_name == "blob" or shape.name in {"S3Object", "Image", "Video"}:
            return True
        inner = {"structure": "members", "list": "member", "map": "value"}.get(shape.type_name)
        if inner is None or shape.name in above:
            return False
        children = getattr(shape, inner)
        shapes = children.values() if isinstance(children, dict) else [children]
        return any(reads(child, above | {shape.name}) for child in shapes)

    return reads(model.operation_model(operation).input_shape, frozenset())


def test_detection_describes_a_cancelable_face_where_the_policy_says_so(
    service: RekognitionService, mixer: SessionMixer, plain: Any
) -> None:
    client = adapter.protect(connect(service), mixer, keys="gallery", detect="protect")
    assert len(client.detect_faces(Image={"Bytes": bytes_of(ALICE)})["FaceDetails"]) == 1
    assert witness().clear(service.received) == 1
    with pytest.raises(UsageError):
        adapter.protect(connect(service), mixer, detect="pass")  # type: ignore[arg-type]
    client.close()


@pytest.mark.parametrize("event", ["provide-client-params", "before-parameter-build"])
def test_another_handler_that_puts_the_photo_back_is_caught(
    client: Any, service: RekognitionService, event: str
) -> None:
    def put_back(params: Any, **_: Any) -> Any:
        params["Image"] = {"Bytes": bytes_of(ALICE)}
        return params

    client.meta.events.register_first(f"{event}.rekognition.IndexFaces", put_back)
    with pytest.raises(BypassError, match="not the mixer's"):
        index(client, "alice", ALICE)
    assert service.received == []


def test_throttling_and_failures_are_retried_with_the_same_cancelable_face(
    client: Any, service: RekognitionService, mixer: SessionMixer
) -> None:
    service.fail(400, {"__type": "ThrottlingException", "Message": "slow down"})
    service.fail(503, {"__type": "ServiceUnavailableException"})
    index(client, "alice", ALICE)
    assert len(service.received) == 3
    assert len(set(pictures(service.received))) == 1
    assert mixer.drawn == 1
    assert witness().clear(service.received) == 3


def test_a_time_out_and_a_lost_connection_end_in_an_error_or_a_retry_never_in_the_photo(
    client: Any, service: RekognitionService, mixer: SessionMixer, monkeypatch: pytest.MonkeyPatch
) -> None:
    session, tries = client._endpoint.http_session, []
    send = session.send

    def late(request: Any) -> Any:
        tries.append(request)
        answer = send(request)
        if len(tries) == 2:
            raise ReadTimeoutError(endpoint_url=service.url)
        return answer

    monkeypatch.setattr(session, "send", late)
    mixer.keystore.issue("alice")
    service.hang_up()
    with mixer.subject("alice"):
        assert found(client, ALICE) == []
    service.fail(500, {"__type": "InternalServerError"}, times=3)
    with mixer.subject("alice"), pytest.raises(ClientError, match="InternalServerError"):
        found(client, ALICE)
    assert witness().clear(service.received) == 6


def test_an_entry_that_was_overtaken_by_a_rotation_is_taken_back(
    client: Any, plain: Any, mixer: SessionMixer, monkeypatch: pytest.MonkeyPatch
) -> None:
    mixer.keystore.issue("alice")
    client.meta.events.register(
        "before-call.rekognition.IndexFaces", lambda **_: mixer.keystore.rotate("alice") and None
    )
    with pytest.raises(KeyRevokedError):
        index(client, "alice", ALICE)
    assert plain.list_faces(CollectionId=STAFF)["Faces"] == []


def test_deletions_are_written_down(client: Any, mixer: SessionMixer) -> None:
    interceptor = interceptor_of(client)
    assert interceptor is not None
    first, _ = index(client, "alice", ALICE), index(client, "bob", BOB)
    client.delete_faces(CollectionId=STAFF, FaceIds=[first])
    assert [item.subject for item in interceptor.entries(STAFF)] == ["bob"]
    client.delete_collection(CollectionId=STAFF)
    assert interceptor.entries() == []


def test_protection_is_taken_off_again_and_never_put_on_twice(
    service: RekognitionService, mixer: SessionMixer, plain: Any
) -> None:
    client = connect(service)
    assert adapter.protect(adapter.protect(client, mixer), mixer) is client
    index(client, "alice", ALICE)
    assert mixer.drawn == 1
    with pytest.raises(DoubleProtectionError):
        adapter.protect(client, mixer, keys="gallery")
    with pytest.raises(DoubleProtectionError):
        adapter.protect(client, mixer, detect="protect")
    adapter.unprotect(client)
    with pytest.raises(NotProtectedError):
        adapter.unprotect(client)
    client.detect_faces(Image={"Bytes": b"\xff\xd8\xff"})
    assert mixer.drawn == 1
    client.close()


def test_other_clients_and_other_versions_are_refused(
    mixer: SessionMixer, service: RekognitionService, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(AdapterError, match="s3's"):
        adapter.protect(connect(service, "s3"), mixer)
    with pytest.raises(AdapterError, match="no boto3 client"):
        adapter.protect(object(), mixer)
    monkeypatch.setattr("anonymix_adapters.sdk.metadata.version", lambda _: "2.0.0")
    with pytest.raises(SdkVersionError, match=r">=1\.34,<2"):
        adapter.protect(connect(service), mixer)


def test_botocores_stubber_works_as_before(mixer: SessionMixer, service: RekognitionService) -> None:
    client = adapter.protect(connect(service), mixer)
    with Stubber(client) as stub:
        stub.add_response(
            "search_faces_by_image", {"FaceMatches": []}, {"CollectionId": STAFF, "Image": {"Bytes": ANY}}
        )
        mixer.keystore.issue("alice")
        with mixer.subject("alice"):
            assert found(client, ALICE) == []
    assert service.received == []
    client.close()


def test_many_threads_each_keep_their_own_subject(
    client: Any, service: RekognitionService, mixer: SessionMixer
) -> None:
    people = {"alice": ALICE, "bob": BOB}
    for name, person in people.items():
        index(client, name, person)

    def ask(name: str) -> list[str]:
        with mixer.subject(name):
            return found(client, people[name], "neutral")

    names = ["alice", "bob"] * 6
    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(ask, names)) == [[name] for name in names]
    assert witness().clear(service.received) == 2 + len(names)


def test_the_adapter_itself_costs_little(
    client: Any, plain: Any, service: RekognitionService, mixer: SessionMixer
) -> None:
    index(client, "alice", ALICE)
    (sent,) = pictures(service.received)

    def fastest(call: Callable[[], object]) -> float:
        times = []
        for _ in range(8):
            start = time.thread_time()
            call()
            times.append(time.thread_time() - start)
        return min(times)

    with mixer.subject("alice"):
        through = fastest(lambda: found(client, ALICE, "neutral"))
    past = fastest(lambda: plain.search_faces_by_image(CollectionId=STAFF, Image={"Bytes": sent}))
    assert through - past < 0.02  # 5 ms on an idle machine; a busy one takes longer for the same


def test_only_deletions_that_rekognition_confirms_are_written_down(
    client: Any, service: RekognitionService, mixer: SessionMixer
) -> None:
    interceptor = interceptor_of(client)
    assert interceptor is not None
    first, second = index(client, "alice", ALICE), index(client, "alice", ALICE, "smiling")
    service.fail(200, {"DeletedFaces": [first], "UnsuccessfulFaceDeletions": [{"FaceId": second}]})
    client.delete_faces(CollectionId=STAFF, FaceIds=[first, second])
    assert [item.external_id for item in interceptor.entries(STAFF)] == [second]


def test_an_external_image_id_is_the_person_unless_the_adapter_is_told_otherwise(
    client: Any, service: RekognitionService, mixer: SessionMixer, plain: Any
) -> None:
    picture = {"Image": {"Bytes": bytes_of(ALICE)}, "CollectionId": STAFF}
    with pytest.raises(UsageError, match="two different people"):
        client.index_faces(**picture, ExternalImageId="photo-17", subject="alice")
    with mixer.subject("alice"), pytest.raises(UsageError, match="two different people"):
        client.index_faces(**picture, ExternalImageId="photo-17")
    assert service.received == []
    rules: list[Any] = ["label", lambda label: label.partition("-")[0], lambda _: None]
    for rule in rules:
        told = adapter.protect(connect(service), mixer, field=rule)
        said = {} if told.meta and rule is rules[1] else {"subject": "alice"}
        told.index_faces(**picture, ExternalImageId="alice-photo-17", **said)
        told.close()
    assert [item.subject for item in mixer.keystore.enrolments()] == ["alice"] * 3
    labels = {face["ExternalImageId"] for face in plain.list_faces(CollectionId=STAFF)["Faces"]}
    assert labels == {"alice-photo-17"}
    with pytest.raises(UsageError, match="rule"):
        adapter.protect(connect(service), mixer, field="image")  # type: ignore[arg-type]


def test_calls_past_the_clients_own_methods_send_nothing(
    client: Any, service: RekognitionService, mixer: SessionMixer
) -> None:
    params = {"CollectionId": STAFF, "Image": {"Bytes": bytes_of(ALICE)}}
    mixer.keystore.issue("alice")
    with mixer.subject("alice"):
        for call in (
            lambda: BaseClient._make_api_call(client, "SearchFacesByImage", params),
            lambda: BaseClient._make_api_call(client, "DetectLabels", {"Image": params["Image"]}),
            lambda: client.generate_presigned_url("search_faces_by_image", Params=params),
        ):
            with pytest.raises(BypassError):
                call()
    assert service.received == []


def test_boto3s_own_retries_are_as_the_documentation_of_the_adapter_says(
    service: RekognitionService, mixer: SessionMixer, plain: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the number of tries: each sends the same face, and one call is one record."""
    assert plain
    monkeypatch.setattr("time.sleep", lambda _: None)
    client = boto3.client(
        "rekognition",
        endpoint_url=service.url,
        region_name="eu-west-1",
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET,
    )
    standard = (client.meta.config.retries or {}).get("mode") == "standard"
    tries = 3 if standard else 5  # boto3 1.44 and 1.34
    adapter.protect(client, mixer)
    service.fail(500, {"__type": "InternalServerError"}, times=tries - 1)
    index(client, "alice", ALICE)
    assert len(service.received) == tries
    assert len(set(pictures(service.received))) == 1
    assert len(list(mixer.keystore.enrolments())) == 1
    client.close()


def test_a_subject_ends_with_its_call(client: Any, service: RekognitionService, mixer: SessionMixer) -> None:
    """What a handler calls, or starts and leaves running, is no part of the call that it was started in."""
    mixer.keystore.issue("alice")
    params = {"CollectionId": STAFF, "Image": {"Bytes": bytes_of(BOB)}}
    inside: list[Any] = []

    def handler(**_: Any) -> None:
        client.meta.events.unregister("before-call.rekognition", handler)
        with pytest.raises(SubjectNeededError):
            client.search_faces_by_image(**params)
        inside.append(contextvars.copy_context())

    client.meta.events.register("before-call.rekognition", handler)
    client.search_faces_by_image(**{**params, "Image": {"Bytes": bytes_of(ALICE)}}, subject="alice")
    (left,) = inside
    with pytest.raises(SubjectNeededError):
        left.run(lambda: client.search_faces_by_image(**params))
    assert len(service.received) == 1
