"""Azure's adapter with the vendor's SDK, blocking and async, judged by what comes back."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

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
from servers.azure import KEY, MAX_BYTES, MIN_BYTES, AzureFaceService

from anonymix_adapters import (
    AdapterError,
    BypassError,
    DoubleProtectionError,
    SubjectNeededError,
    interceptor_of,
)
from anonymix_adapters import azure as adapter
from anonymix_keystore import KeyRevokedError
from anonymix_plugin import AlreadyProtectedError, NoFaceError, UsageError

pytest.importorskip("azure.ai.vision.face", reason="needs the vendor's SDK: pip install 'anonymix-plugin[azure]'")

from azure.ai.vision.face import FaceAdministrationClient, FaceClient, FaceSessionClient
from azure.ai.vision.face import aio as face_aio
from azure.ai.vision.face import models as face_models
from azure.core.credentials import AzureKeyCredential
from azure.core.exceptions import HttpResponseError, ServiceResponseError
from azure.core.pipeline.policies import SansIOHTTPPolicy
from azure.core.rest import HttpRequest

STAFF = "staff"
GROUP = f"largepersongroups/{STAFF}"
HOW: dict[str, Any] = {
    "detection_model": "detection_03",
    "recognition_model": "recognition_04",
    "return_face_id": True,
}
FAST: dict[str, Any] = {"retry_backoff_factor": 0.01, "retry_total": 3}


@pytest.fixture
def mixer(tmp_path: Path, model: Callable[[str], Path]) -> Iterator[SessionMixer]:
    with session_mixer(tmp_path, model) as made:
        yield made


@pytest.fixture
def service(mixer: SessionMixer) -> Iterator[AzureFaceService]:
    with AzureFaceService(recognition()) as running:
        yield running


def connect(service: AzureFaceService, kind: Any = FaceClient, **options: Any) -> Any:
    return kind(service.url, AzureKeyCredential(KEY), **FAST, **options)


@pytest.fixture
def plain(service: AzureFaceService) -> Iterator[adapter.Clients]:
    clients = adapter.Clients.connect(service.url, KEY)
    clients.administration.large_person_group.create(STAFF, name=STAFF, recognition_model="recognition_04")
    service.received.clear()
    yield clients
    clients.close()


@pytest.fixture
def clients(service: AzureFaceService, mixer: SessionMixer, plain: adapter.Clients) -> Iterator[adapter.Clients]:
    assert plain
    made = adapter.Clients(connect(service), connect(service, FaceAdministrationClient))
    adapter.protect(made.faces, mixer)
    adapter.protect(made.administration, mixer)
    yield made
    made.close()


def content(person: str, mood: str = "neutral") -> bytes:
    return photo(person, mood).read_bytes()


def enrol(clients: adapter.Clients, mixer: SessionMixer, subject: str, person: str) -> tuple[str, str]:
    groups = clients.administration.large_person_group
    name = groups.create_person(STAFF, name=subject).person_id
    with mixer.subject(subject):
        face = groups.add_face(STAFF, name, content(person), detection_model="detection_03")
    return name, face.persisted_face_id


def identical(clients: adapter.Clients, holder: str, person: str, mood: str = "smiling") -> bool:
    (face,) = clients.faces.detect(content(person, mood), **HOW)
    answer = clients.faces.verify_from_large_person_group(
        face_id=face.face_id, large_person_group_id=STAFF, person_id=holder
    )
    return bool(answer.is_identical)


def test_the_hosts_code_enrols_verifies_and_survives_a_rotation(
    clients: adapter.Clients, service: AzureFaceService, mixer: SessionMixer
) -> None:
    alice, first = enrol(clients, mixer, "alice", ALICE)
    with mixer.subject("alice"):
        assert identical(clients, alice, ALICE)
        assert not identical(clients, alice, BOB)
        one, other = (clients.faces.detect(content(ALICE, m), **HOW)[0] for m in ("neutral", "smiling"))
        same = clients.faces.verify_face_to_face(face_id1=one.face_id, face_id2=other.face_id)
        assert same.is_identical
    mixer.keystore.rotate("alice")
    with mixer.subject("alice"):
        assert not identical(clients, alice, ALICE)
    interceptor = interceptor_of(clients.administration)
    assert interceptor is not None
    assert [(item.collection, item.external_id) for item in interceptor.due()] == [(GROUP, f"{alice}/{first}")]
    groups = clients.administration.large_person_group
    groups.delete_face(STAFF, alice, first)
    with mixer.subject("alice"):
        groups.add_face(STAFF, alice, content(ALICE), detection_model="detection_03")
        assert identical(clients, alice, ALICE)
    assert interceptor.due() == []
    groups.delete_person(STAFF, alice)
    assert interceptor.entries() == []
    assert witness().clear(service.received) == 8
    assert all(MIN_BYTES <= len(picture) <= MAX_BYTES for picture in pictures(service.received))


def test_a_gallery_is_trained_and_identified_without_a_name(
    service: AzureFaceService, mixer: SessionMixer, plain: adapter.Clients
) -> None:
    faces = adapter.protect(connect(service), mixer, keys="gallery")
    administration = adapter.protect(connect(service, FaceAdministrationClient), mixer, keys="gallery")
    clients = adapter.Clients(faces, administration)
    holders = {name: enrol(clients, mixer, name, who)[0] for name, who in (("alice", ALICE), ("bob", BOB))}
    administration.large_person_group.begin_train(STAFF, polling_interval=0).result()
    (face,) = faces.detect(content(BOB, "smiling"), **HOW)
    (found,) = faces.identify_from_large_person_group(face_ids=[face.face_id], large_person_group_id=STAFF)
    assert [candidate.person_id for candidate in found.candidates] == [holders["bob"]]
    assert witness().clear(service.received) == 3
    administration.large_person_group.delete(STAFF)
    interceptor = interceptor_of(administration)
    assert interceptor is not None
    assert interceptor.entries() == []
    plain.administration.large_person_group.create(STAFF, name=STAFF)
    clients.close()


def test_a_face_list_is_a_collection_too(
    clients: adapter.Clients, service: AzureFaceService, mixer: SessionMixer
) -> None:
    lists = clients.administration.large_face_list
    lists.create("visitors", name="visitors")
    with mixer.subject("alice", enrol=True):
        added = lists.add_face("visitors", content(ALICE), target_face=[1, 2, 3, 4])
        (face,) = clients.faces.detect(content(ALICE, "smiling"), **HOW)
    (alike,) = clients.faces.find_similar_from_large_face_list(face_id=face.face_id, large_face_list_id="visitors")
    assert alike.persisted_face_id == added.persisted_face_id
    (record,) = mixer.keystore.enrolments()
    assert (record.collection, record.external_id) == ("largefacelists/visitors", added.persisted_face_id)
    assert "targetFace" not in service.received[1].target  # a rectangle of the photo's
    assert witness().clear(service.received) == 2


def test_inputs_past_the_mixer_are_refused(
    clients: adapter.Clients, plain: adapter.Clients, service: AzureFaceService, mixer: SessionMixer
) -> None:
    foreign = plain.faces.detect(content(ALICE), **HOW)[0].face_id
    service.received.clear()
    mixer.keystore.issue("alice")
    with mixer.subject("alice"):
        with pytest.raises(BypassError, match="address"):
            clients.faces.detect_from_url(url="https://photos.example/1", **HOW)
        with pytest.raises(BypassError, match="address"):
            clients.administration.large_person_group.add_face_from_url(STAFF, "p", url="https://photos.example/1")
        with pytest.raises(BypassError, match="may be that of a photo"):
            clients.faces.verify_face_to_face(face_id1=foreign, face_id2=foreign)
        with pytest.raises(BypassError, match="may be that of a photo"):
            clients.faces.group(face_ids=[foreign, foreign])
        with pytest.raises(UsageError):
            clients.faces.detect(iter([content(ALICE)]), **HOW)
    assert service.received == []


def test_a_picture_where_none_belongs_is_refused(clients: adapter.Clients, service: AzureFaceService) -> None:
    for method, path in (("POST", f"{GROUP}/train"), ("PUT", GROUP), ("POST", "detect/new")):
        request = HttpRequest(
            method, path, content=content(ALICE), headers={"Content-Type": "application/octet-stream"}
        )
        with pytest.raises(BypassError, match="nothing was sent"):
            clients.administration.send_request(request)
    assert service.received == []


def test_liveness_sessions_are_refused(service: AzureFaceService, mixer: SessionMixer) -> None:
    with adapter.protect(connect(service, FaceSessionClient), mixer) as sessions:
        body = face_models.CreateLivenessWithVerifySessionContent(
            liveness_operation_mode="Passive", device_correlation_id="1"
        )
        with pytest.raises(BypassError, match="nothing was sent"):
            sessions.create_liveness_session(dict(body))
        with pytest.raises(BypassError, match="nothing was sent"):
            sessions.create_liveness_with_verify_session(body, verify_image=content(ALICE))
        with pytest.raises(BypassError, match="nothing was sent"):
            sessions.detect_from_session_image(session_image_id="1", **HOW)
    assert service.received == []


def test_addresses_are_fetched_by_the_host_and_mixed(service: AzureFaceService, mixer: SessionMixer) -> None:
    with (
        adapter.protect(connect(service), mixer, fetch=lambda _: content(ALICE)) as faces,
        mixer.subject("alice", enrol=True),
    ):
        assert len(faces.detect_from_url(url="https://photos.example/1", **HOW)) == 1
    assert witness().clear(service.received) == 1
    assert b"photos.example" not in service.received[0].body


def test_photos_that_cannot_be_used_are_not_sent(
    clients: adapter.Clients, service: AzureFaceService, mixer: SessionMixer
) -> None:
    with mixer.subject("alice", enrol=True):
        with pytest.raises(NoFaceError):
            clients.faces.detect(blank(), **HOW)
        assert service.received == []
        clients.faces.detect(io.BytesIO(content(ALICE)), **HOW)
        with pytest.raises(AlreadyProtectedError):
            clients.faces.detect(pictures(service.received)[0], **HOW)
    with pytest.raises(SubjectNeededError):
        clients.faces.detect(content(ALICE), **HOW)
    assert len(service.received) == 1


def test_azure_cores_retries_send_the_same_cancelable_face(
    clients: adapter.Clients, service: AzureFaceService, mixer: SessionMixer
) -> None:
    service.fail(429, {"error": {"code": "429", "message": "slow down"}}, headers={"Retry-After": "0"})
    service.fail(503, {"error": {"code": "503", "message": "starting"}})
    with mixer.subject("alice", enrol=True):
        assert len(clients.faces.detect(content(ALICE), **HOW)) == 1
    assert (len(service.received), len(set(pictures(service.received))), mixer.drawn) == (3, 1, 1)
    service.fail(400, {"error": {"code": "BadArgument", "message": "no"}})
    with mixer.subject("alice"), pytest.raises(HttpResponseError, match="BadArgument"):
        clients.faces.detect(content(ALICE), **HOW)
    service.stall(1.5, times=4)
    with mixer.subject("alice"), pytest.raises(ServiceResponseError):
        clients.faces.detect(content(ALICE), read_timeout=0.2, retry_read=0, **HOW)
    assert witness().clear(service.received) >= 5


def test_an_entry_that_was_overtaken_by_a_rotation_is_taken_back(
    clients: adapter.Clients, service: AzureFaceService, mixer: SessionMixer
) -> None:
    mixer.keystore.issue("alice")
    groups = clients.administration.large_person_group
    name = groups.create_person(STAFF, name="alice").person_id
    with mixer.subject("alice"), pytest.raises(KeyRevokedError):
        groups.add_face(STAFF, name, content(ALICE), raw_request_hook=lambda _: mixer.keystore.rotate("alice"))
    assert service.groups[STAFF].people[name].faces == {}


def test_the_mixer_can_be_given_as_a_policy(service: AzureFaceService, mixer: SessionMixer) -> None:
    policy = adapter.policy(mixer, keys="gallery")
    with connect(service, per_call_policies=[policy]) as faces:
        assert len(faces.detect(content(ALICE), **HOW)) == 1
        with pytest.raises(DoubleProtectionError, match="policy"):
            adapter.protect(faces, mixer, keys="gallery")
    assert witness().clear(service.received) == 1


def test_async_clients_are_protected_the_same_way(
    service: AzureFaceService, mixer: SessionMixer, plain: adapter.Clients
) -> None:
    pytest.importorskip("aiohttp")

    async def story() -> tuple[list[bool], list[str]]:
        async with (
            connect(service, face_aio.FaceClient) as faces,
            connect(service, face_aio.FaceAdministrationClient) as administration,
        ):
            adapter.protect(faces, mixer)
            adapter.protect(administration, mixer)
            groups = administration.large_person_group

            async def visit(subject: str, who: str) -> bool:
                holder = (await groups.create_person(STAFF, name=subject)).person_id
                with mixer.subject(subject, enrol=True):
                    await groups.add_face(STAFF, holder, content(who))
                    (face,) = await faces.detect(content(who, "smiling"), **HOW)
                answer = await faces.verify_from_large_person_group(
                    face_id=face.face_id, large_person_group_id=STAFF, person_id=holder
                )
                return bool(answer.is_identical)

            answers = await asyncio.gather(visit("alice", ALICE), visit("bob", BOB))
            with pytest.raises(SubjectNeededError):
                await faces.detect(content(ALICE), **HOW)
            left = (await groups.create_person(STAFF, name="left")).person_id
            with mixer.subject("alice"), pytest.raises(KeyRevokedError):
                await groups.add_face(
                    STAFF, left, content(ALICE), raw_request_hook=lambda _: mixer.keystore.rotate("alice")
                )
            return list(answers), list(service.groups[STAFF].people[left].faces)

    assert asyncio.run(story()) == ([True, True], [])
    assert witness().clear(service.received) == 5


def test_it_is_undone_and_never_done_twice(service: AzureFaceService, mixer: SessionMixer) -> None:
    with connect(service) as client:
        assert adapter.protect(adapter.protect(client, mixer), mixer) is client
        with pytest.raises(DoubleProtectionError):
            adapter.protect(client, mixer, keys="gallery")
        with pytest.raises(DoubleProtectionError):
            adapter.protect(client, mixer, fetch=lambda _: b"")
        adapter.unprotect(client)
        client.detect(content(ALICE), **HOW)
        assert mixer.drawn == 0
    with pytest.raises(AdapterError, match="no client of azure-ai-vision-face"):
        adapter.protect(object(), mixer)


def test_azure_core_tries_again_after_429_only_when_told_how_long_to_wait(
    clients: adapter.Clients, service: AzureFaceService, mixer: SessionMixer
) -> None:
    mixer.keystore.issue("alice")
    service.fail(429, {"error": {"code": "429", "message": "slow down"}})
    with pytest.raises(HttpResponseError, match="429"):
        clients.faces.detect(content(ALICE), **HOW, subject="alice")
    assert len(service.received) == 1


def test_a_policy_of_the_hosts_that_puts_the_photo_back_is_caught_behind_the_mixers(
    service: AzureFaceService, mixer: SessionMixer
) -> None:
    class PutBack(SansIOHTTPPolicy[Any, Any]):
        def on_request(self, request: Any) -> None:
            if request.http_request.method == "POST":
                request.http_request._data = content(ALICE)

    mixer.keystore.issue("alice")
    policy = adapter.policy(mixer)
    for options in ({"per_call_policies": [policy, PutBack()]}, {"per_retry_policies": [PutBack()]}):
        with connect(service, **options) as faces:
            if "per_retry_policies" in options:
                adapter.protect(faces, mixer)
            with pytest.raises(BypassError, match="not the mixer's"):
                faces.detect(content(ALICE), **HOW, subject="alice")
    assert service.received == []
