"""Tencent's adapter with the vendor's own SDK, signatures checked, judged by what comes back."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
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
from servers.tencent import MAX_BASE64, TencentService, refuse

from anonymix_adapters import (
    AdapterError,
    BypassError,
    DoubleProtectionError,
    SubjectNeededError,
    interceptor_of,
)
from anonymix_adapters import tencent as adapter
from anonymix_keystore import KeyRevokedError
from anonymix_plugin import AlreadyProtectedError, NoFaceError, UsageError

pytest.importorskip("tencentcloud.iai", reason="needs the vendor's SDK: pip install 'anonymix-plugin[tencent]'")

from tencentcloud.common.credential import Credential
from tencentcloud.common.exception import TencentCloudSDKException
from tencentcloud.common.profile.client_profile import ClientProfile
from tencentcloud.common.profile.http_profile import HttpProfile
from tencentcloud.common.retry import StandardRetryer
from tencentcloud.iai.v20200303 import iai_client, iai_client_async, models

STAFF = "staff"


@pytest.fixture
def mixer(tmp_path: Path, model: Callable[[str], Path]) -> Iterator[SessionMixer]:
    with session_mixer(tmp_path, model) as made:
        yield made


@pytest.fixture
def service(mixer: SessionMixer) -> Iterator[TencentService]:
    with TencentService(recognition()) as running:
        running.groups.add(STAFF)
        yield running


def connect(service: TencentService, kind: Any = iai_client.IaiClient, **profile: Any) -> Any:
    http = HttpProfile(endpoint=service.host, protocol="http", reqTimeout=5)
    return kind(Credential(ACCESS_KEY, SECRET), "ap-hongkong", ClientProfile(httpProfile=http, **profile))


@pytest.fixture
def client(service: TencentService, mixer: SessionMixer) -> Any:
    return adapter.protect(connect(service), mixer)


def text(person: str, mood: str = "neutral") -> str:
    return base64.b64encode(photo(person, mood).read_bytes()).decode()


def asked(kind: type[Any], **fields: Any) -> Any:
    request = kind()
    for name, value in fields.items():
        setattr(request, name, value)
    return request


def person(subject: str, who: str) -> Any:
    return asked(models.CreatePersonRequest, GroupId=STAFF, PersonId=subject, PersonName=subject, Image=text(who))


def verified(client: Any, subject: str, who: str, mood: str = "smiling") -> bool:
    request = asked(models.VerifyFaceRequest, PersonId=subject, Image=text(who, mood))
    return bool(client.VerifyFace(request).IsMatch)


def test_the_hosts_code_enrols_verifies_and_survives_a_rotation(
    client: Any, service: TencentService, mixer: SessionMixer
) -> None:
    request = person("alice", ALICE)
    before = request.Image
    client.CreatePerson(request)
    assert request.Image == before  # the host's own request stays as it was
    client.CreatePerson(person("bob", BOB))
    assert verified(client, "alice", ALICE)  # PersonId says whose key; no block is needed
    assert not verified(client, "alice", BOB)
    mixer.keystore.rotate("alice")
    assert not verified(client, "alice", ALICE)
    added = client.CreateFace(
        asked(models.CreateFaceRequest, PersonId="alice", Images=[text(ALICE), text(ALICE, "smiling")])
    )
    assert added.SucFaceNum == 2
    assert verified(client, "alice", ALICE)
    interceptor = interceptor_of(client)
    assert interceptor is not None
    (old,) = [item for item in interceptor.due() if item.delete]
    client.DeleteFace(asked(models.DeleteFaceRequest, PersonId="alice", FaceIds=[old.external_id.split("/")[1]]))
    assert interceptor.due() == []
    assert len(interceptor.entries()) == 3
    client.DeletePerson(asked(models.DeletePersonRequest, PersonId="alice"))
    assert [item.subject for item in interceptor.entries()] == ["bob"]
    sent = witness().clear(service.received)
    assert sent == 8
    assert all(len(base64.b64encode(picture)) <= MAX_BASE64 for picture in pictures(service.received))


def test_two_photos_are_compared_and_a_gallery_is_searched(service: TencentService, mixer: SessionMixer) -> None:
    client = adapter.protect(connect(service), mixer, keys="gallery")
    for name, who in (("alice", ALICE), ("bob", BOB)):
        client.CreatePerson(person(name, who))
    request = asked(models.SearchPersonsRequest, GroupIds=[STAFF], Image=text(BOB, "smiling"))
    (result,) = client.SearchPersons(request).Results
    assert (result.Candidates[0].PersonId, result.Candidates[0].Score >= 50) == ("bob", True)
    compared = client.CompareFace(asked(models.CompareFaceRequest, ImageA=text(ALICE), ImageB=text(ALICE, "smiling")))
    assert compared.Score >= 50
    assert witness().clear(service.received) == 5


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"Url": "https://photos.example/1"}, BypassError),
        ({"Image": "aGVsbG8=", "Url": "https://photos.example/1"}, UsageError),
        ({"Image": "no base64!"}, UsageError),
        ({}, UsageError),
    ],
)
def test_inputs_past_the_mixer_are_refused(
    client: Any, service: TencentService, fields: dict[str, str], error: type[Exception]
) -> None:
    request = asked(models.CreatePersonRequest, GroupId=STAFF, PersonId="alice", PersonName="a", **fields)
    with pytest.raises(error, match="nothing was sent"):
        client.CreatePerson(request)
    with pytest.raises(error, match="nothing was sent"):
        client.call_json("CreatePerson", request._serialize())
    assert service.received == []


def test_addresses_are_fetched_by_the_host_and_mixed(service: TencentService, mixer: SessionMixer) -> None:
    client = adapter.protect(connect(service), mixer, fetch=lambda _: photo(ALICE).read_bytes())
    fields = {"GroupId": STAFF, "PersonId": "alice", "PersonName": "a"}
    client.CreatePerson(asked(models.CreatePersonRequest, Url="https://photos.example/1", **fields))
    assert witness().clear(service.received) == 1
    assert b"photos.example" not in service.received[0].body


def test_every_action_of_the_installed_sdk_that_takes_pictures_is_mixed_or_refused(
    client: Any, service: TencentService, mixer: SessionMixer
) -> None:
    actions = [name for name in dir(iai_client.IaiClient) if name[0].isupper() and name != "FMT"]
    fields = {"Image", "Images", "ImageA", "Url", "Urls", "UrlA", "Video"}
    reading = [name for name in actions if fields & set(dir(getattr(models, f"{name}Request")()))]
    assert len(reading) >= 14
    mixer.keystore.issue("alice")
    for name in reading:
        with mixer.subject("alice"), pytest.raises((BypassError, UsageError), match="nothing was sent"):
            client.call_json(name, {"PersonId": "alice"})
    for name in ("call_octet_stream", "call_sse", "call_with_region_breaker"):
        with pytest.raises(BypassError):
            getattr(client, name)("DetectFace", {}, b"")
    assert service.received == []


def test_detection_is_a_matter_of_policy(client: Any, service: TencentService, mixer: SessionMixer) -> None:
    request = asked(models.DetectFaceRequest, Image=text(ALICE))
    with pytest.raises(BypassError):
        client.DetectFace(request)
    describing = adapter.protect(connect(service), mixer, keys="gallery", detect="protect")
    assert len(describing.DetectFace(request).FaceInfos) == 1
    assert witness().clear(service.received) == 1


def test_photos_that_cannot_be_used_are_not_sent(client: Any, service: TencentService, mixer: SessionMixer) -> None:
    request = person("alice", ALICE)
    request.Image = base64.b64encode(blank()).decode()
    with pytest.raises(NoFaceError):  # as it was raised, not as an error of the SDK's
        client.CreatePerson(request)
    with pytest.raises(SubjectNeededError):
        client.SearchPersons(asked(models.SearchPersonsRequest, GroupIds=[STAFF], Image=text(ALICE)))
    assert service.received == []
    client.CreatePerson(person("alice", ALICE))
    request.Image = base64.b64encode(pictures(service.received)[0]).decode()
    with pytest.raises(AlreadyProtectedError):
        client.CreatePerson(request)
    assert len(service.received) == 1


def test_failures_are_the_sdks_own_and_never_let_the_photo_out(
    client: Any, service: TencentService, mixer: SessionMixer
) -> None:
    service.fail(200, refuse("RequestLimitExceeded").answer.content)
    with pytest.raises(TencentCloudSDKException, match="RequestLimitExceeded"):
        client.CreatePerson(person("alice", ALICE))
    service.fail(503)
    with pytest.raises(TencentCloudSDKException, match="ServerNetworkError"):
        client.CreatePerson(person("alice", ALICE))
    service.hang_up()
    with pytest.raises(TencentCloudSDKException):
        client.CreatePerson(person("alice", ALICE))
    assert mixer.drawn == 3
    retrying = adapter.protect(connect(service, retryer=StandardRetryer(max_attempts=2, backoff_fn=lambda _: 0)), mixer)
    service.fail(200, refuse("RequestLimitExceeded").answer.content, times=2)
    with pytest.raises(TencentCloudSDKException, match="RequestLimitExceeded"):
        retrying.CreatePerson(person("alice", ALICE))
    assert mixer.drawn == 4  # once a call, not once a try
    assert witness().clear(service.received) == len(service.received) == 5


def test_an_entry_that_was_overtaken_by_a_rotation_is_taken_back(
    client: Any, service: TencentService, mixer: SessionMixer
) -> None:
    mixer.keystore.issue("alice")
    send = client.request.send_request

    def overtaken(request: Any) -> Any:
        if request.header["X-TC-Action"].startswith("Create"):
            mixer.keystore.rotate("alice")
        return send(request)

    client.request.send_request = overtaken
    with pytest.raises(KeyRevokedError):
        client.CreatePerson(person("alice", ALICE))
    assert service.people == {}


def test_the_async_client_is_protected_the_same_way(service: TencentService, mixer: SessionMixer) -> None:
    async def story() -> list[bool]:
        async with connect(service, iai_client_async.IaiClient) as client:
            assert adapter.protect(client, mixer) is client
            await client.CreatePerson(person("alice", ALICE))
            await client.CreatePerson(person("bob", BOB))
            asks = [
                client.VerifyFace(asked(models.VerifyFaceRequest, PersonId=name, Image=text(who, "smiling")))
                for name, who in (("alice", ALICE), ("bob", BOB), ("alice", BOB))
            ]
            answers = [answer.IsMatch for answer in await asyncio.gather(*asks)]
            with pytest.raises(BypassError):
                await client.VerifyFace(
                    asked(models.VerifyFaceRequest, PersonId="alice", Url="https://photos.example/1")
                )
            mixer.keystore.rotate("bob")
            adapter.unprotect(client)
            return answers

    assert asyncio.run(story()) == [True, True, False]
    assert witness().clear(service.received) == 5
    assert len(list(mixer.keystore.enrolments())) == 2


def test_it_is_undone_and_never_done_twice(service: TencentService, mixer: SessionMixer) -> None:
    client = connect(service)
    before = dict(vars(client))
    assert adapter.protect(adapter.protect(client, mixer), mixer) is client
    with pytest.raises(DoubleProtectionError):
        adapter.protect(client, mixer, keys="gallery")
    with pytest.raises(DoubleProtectionError):
        adapter.protect(client, mixer, detect="protect")
    adapter.unprotect(client)
    assert vars(client) == before
    with pytest.raises(AdapterError, match="no IaiClient"):
        adapter.protect(object(), mixer)


def test_people_who_go_with_their_last_group_are_written_down(
    client: Any, service: TencentService, mixer: SessionMixer
) -> None:
    interceptor = interceptor_of(client)
    assert interceptor is not None
    service.groups.add("visitors")
    for name in ("alice", "bob"):
        client.CreatePerson(person(name, ALICE if name == "alice" else BOB))
    client.CopyPerson(asked(models.CopyPersonRequest, PersonId="bob", GroupIds=["visitors"]))
    client.DeleteGroup(asked(models.DeleteGroupRequest, GroupId=STAFF))
    assert [item.subject for item in interceptor.entries()] == ["bob"]
    leaving = asked(models.DeletePersonFromGroupRequest, PersonId="bob", GroupId="visitors")
    client.DeletePersonFromGroup(leaving)
    assert interceptor.entries() == []


def test_of_several_photos_those_are_recorded_that_tencent_took(
    client: Any, service: TencentService, mixer: SessionMixer
) -> None:
    interceptor = interceptor_of(client)
    assert interceptor is not None
    client.CreatePerson(person("alice", ALICE))
    service.fail(200, {"Response": {"SucFaceNum": 1, "SucFaceIds": ["7"], "RetCode": [-1101, 0]}})
    two = asked(models.CreateFaceRequest, PersonId="alice", Images=[text(ALICE), text(ALICE, "smiling")])
    client.CreateFace(two)
    assert len(interceptor.entries()) == 2
    service.fail(200, {"Response": {"SucDeletedNum": 0, "SucFaceIds": [], "RequestId": "0"}})
    client.DeleteFace(asked(models.DeleteFaceRequest, PersonId="alice", FaceIds=["7"]))
    assert len(interceptor.entries()) == 2
    client.CreatePerson(person("bob", BOB))
    with pytest.raises(UsageError, match="two different people"):
        client.VerifyFace(asked(models.VerifyFaceRequest, PersonId="alice", Image=text(BOB)), subject="bob")


def test_options_by_position_and_subjects_by_name_reach_where_they_belong(
    service: TencentService, mixer: SessionMixer
) -> None:
    client = adapter.protect(connect(service), mixer, field="label")
    fields = {"GroupId": STAFF, "PersonId": "card-17", "PersonName": "a", "Image": text(ALICE)}
    client.call_json("CreatePerson", fields, {"X-TC-TraceId": "mine"}, subject="alice")
    assert service.received[-1].headers["x-tc-traceid"] == "mine"
    (record,) = mixer.keystore.enrolments()
    assert (record.subject, record.external_id.split("/")[0]) == ("alice", "card-17")
    assert b"alice" not in service.received[-1].body


def test_tencents_sdk_does_not_retry_by_itself(client: Any, service: TencentService) -> None:
    service.fail(503)
    with pytest.raises(TencentCloudSDKException, match="ServerNetworkError"):
        client.GetPersonList(asked(models.GetPersonListRequest, GroupId=STAFF))
    assert len(service.received) == 1


def test_the_async_client_is_looked_at_last_too(service: TencentService, mixer: SessionMixer) -> None:
    async def story() -> None:
        async with connect(service, iai_client_async.IaiClient) as client:
            adapter.protect(client, mixer)
            mixer.keystore.issue("alice")
            build = client._build_req

            def put_back(action: str, params: Any, headers: Any, opts: Any) -> Any:
                return build(action, {**params, "Image": text(ALICE)}, headers, opts)

            client._build_req = put_back
            request = asked(models.VerifyFaceRequest, PersonId="alice", Image=text(ALICE))
            with pytest.raises(BypassError, match="not the mixer's"):
                await client.VerifyFace(request)
            with pytest.raises(BypassError):
                client.http_client = httpx.AsyncClient()
            with pytest.raises(BypassError):
                await client.http_client.post(service.url, json={"Image": text(ALICE)})

    asyncio.run(story())
    assert service.received == []
