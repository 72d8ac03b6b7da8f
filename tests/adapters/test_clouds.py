"""What holds for the adapter of every service: one test, six services, each behind its local server."""

from __future__ import annotations

import base64
import logging
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from remembering import RememberingMixer
from servers import (
    ALICE,
    BOB,
    LocalService,
    Received,
    SessionMixer,
    photo,
    pictures,
    recognition,
    run_example,
    session_mixer,
    trial,
    witness,
)
from servers.__main__ import KINDS

import anonymix_adapters
from anonymix_adapters import BypassError, EnrolmentError, SdkMissingError
from anonymix_adapters._rest import Call, Reply, RestClient
from anonymix_adapters.drill import drill
from anonymix_adapters.protocol import Adapter, Inspectable
from anonymix_adapters.testing import conformance
from anonymix_keystore import KeystoreError
from anonymix_plugin import AnonymixError
from anonymix_plugin.values import CancelableFace

When = Callable[[Received], bool]


def _asks(word: str, method: str = "POST") -> When:
    """Whether a request has a word in its path, or in the header that names an operation."""

    def asks(received: Received) -> bool:
        named = (received.headers.get("x-amz-target", ""), received.headers.get("x-tc-action", ""))
        return received.method == method and (any(word in it for it in named) or word in received.path)

    return asks


def _said(content: Any, when: When) -> Callable[[LocalService], None]:
    return lambda service: service.fail(200, content, when=when)


_TENCENTS_ERROR = {"Response": {"Error": {"Code": "FailedOperation", "Message": "no"}, "RequestId": "0"}}
LIES: Mapping[str, Mapping[str, Callable[[LocalService], None]]] = {
    "rekognition": {
        "nothing indexed": _said({"FaceRecords": [], "UnindexedFaces": [{}]}, _asks("IndexFaces")),
        "nameless": _said({"FaceRecords": [{"Face": {}}]}, _asks("IndexFaces")),
        "no answer": _said({}, _asks("IndexFaces")),
    },
    "azure": {
        "nameless": _said({"persistedFaceId": ""}, _asks("/persistedfaces")),
        "an error": _said({"error": {"code": "InvalidImage"}}, _asks("/persistedfaces")),
        "a list": _said([], _asks("/persistedfaces")),
    },
    "facepp": {
        "none added": _said({"face_added": 0, "face_count": 0}, _asks("addface")),
        "an error": _said({"error_message": "INTERNAL_ERROR"}, _asks("addface")),
    },
    "compreface": {
        "nameless": _said({"image_id": "", "subject": ALICE}, _asks("faces")),
        "an error": _said({"message": "No face is found", "code": 28}, _asks("faces")),
    },
    "luxand": {
        "a failure": _said({"status": "failure", "message": "no face"}, _asks("v2/person")),
        "nameless": _said({"status": "success", "uuid": ""}, _asks("v2/person")),
    },
    "tencent": {
        "somebody alike": _said(
            {"Response": {"FaceId": "7", "SimilarPersonId": "other", "RequestId": "0"}}, _asks("CreatePerson")
        ),
        "nameless": _said({"Response": {"RequestId": "0"}}, _asks("CreatePerson")),
        "an error that the SDK does not see": lambda service: service.fail(
            200,
            _TENCENTS_ERROR,
            headers={"Content-Type": "application/json; charset=utf-8"},
            when=_asks("CreatePerson"),
        ),
    },
}
"""Answers of success to an enrolment that was not made, or that has no name."""

UNDELETED: Mapping[str, Callable[[LocalService], None]] = {
    "rekognition": _said({"DeletedFaces": []}, _asks("DeleteFaces")),
    "azure": lambda service: service.fail(500, {}, when=_asks("persistedfaces", "DELETE"), times=20),
    "facepp": _said({"face_removed": 0}, _asks("removeface")),
    "compreface": _said({"image_id": "another", "subject": ""}, _asks("faces", "DELETE")),
    "luxand": _said({"status": "failure", "message": "no"}, _asks("person", "DELETE")),
    "tencent": _said(_TENCENTS_ERROR, _asks("DeletePerson")),
}
"""Deletions that are not confirmed."""


@pytest.fixture
def mixer(tmp_path: Path, model: Callable[[str], Path]) -> Iterator[SessionMixer]:
    with session_mixer(tmp_path, model) as made:
        yield made


@pytest.fixture(params=sorted(KINDS))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def adapter(name: str) -> Adapter:
    found = anonymix_adapters.load(name)
    try:
        for sdk in found.SDKS:
            sdk.load()
    except SdkMissingError as error:
        pytest.skip(f"needs the vendor's SDK: {error}")
    return found


@pytest.fixture
def service(
    name: str, adapter: Adapter, mixer: SessionMixer, monkeypatch: pytest.MonkeyPatch
) -> Iterator[LocalService]:
    """The local server, and the environment that leads to it."""
    start, environment = KINDS[name]
    with start(recognition()) as running:
        for variable, value in environment(running).items():
            monkeypatch.setenv(variable, value)
        yield running


@pytest.fixture
def tried(name: str, adapter: Adapter, mixer: SessionMixer, service: LocalService) -> conformance.Trial:
    lies = {why: (lambda lie=lie: lie(service)) for why, lie in LIES[name].items()}
    return replace(trial(adapter, mixer), lies=lies)


def test_every_adapter_in_the_registry_is_held_to_the_conformance_suite() -> None:
    from test_conformance import LOCAL

    assert {*LOCAL, *KINDS} == set(anonymix_adapters.names())
    assert set(LIES) == set(UNDELETED) == set(KINDS)


@pytest.mark.parametrize("check", conformance.CHECKS, ids=lambda check: check.__name__)
def test_conformance(check: Callable[[conformance.Trial], None], tried: conformance.Trial) -> None:
    check(tried)


def test_nothing_reaches_the_service_when_parts_are_exchanged(tried: conformance.Trial, service: LocalService) -> None:
    conformance.holds_when_parts_are_exchanged(tried)
    assert witness().clear(service.received) >= 2


def test_the_example_runs_as_it_stands(
    name: str,
    service: LocalService,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run_example(name, capsys)
    assert len(pictures(service.received)) >= 4


def test_the_breach_drill_passes_and_leaves_nothing(
    adapter: Adapter, mixer: SessionMixer, tried: conformance.Trial, service: LocalService
) -> None:
    report = drill(adapter, mixer, tried.people)
    assert report.passed, report.to_text()
    held = ("collections", "groups", "sets", "examples", "people")
    assert not any(getattr(service, kind, None) for kind in held)


@pytest.mark.long
def test_twenty_people_go_through_the_breach_drill(
    adapter: Adapter,
    adapter_mixer: RememberingMixer,
    londoners: list[conformance.Person],
    service: LocalService,
) -> None:
    assert service
    report = drill(adapter, adapter_mixer, londoners)
    assert report.passed, report.to_text()


def test_a_rollback_that_fails_is_told(name: str, mixer: SessionMixer, adapter: Adapter, service: LocalService) -> None:
    """The key is rotated while the entry is on its way, and the service does not let go of the entry."""

    class Overtaken(SessionMixer):
        def protect(self, *given: Any, **how: Any) -> CancelableFace:
            face = super().protect(*given, **how)
            mixer.keystore.rotate(face.subject or "")
            return face

    with adapter.rehearse(Overtaken(mixer.keystore)) as stage:
        UNDELETED[name](service)
        with pytest.raises(EnrolmentError, match="could not be deleted"):
            stage.enrol(ALICE, photo(ALICE))
        service.mend()
        assert stage.interceptor.entries(stage.collection) == []
        assert len(stage.entries()) == 1


def test_no_message_and_no_log_holds_a_photo_a_secret_or_a_name(
    name: str,
    adapter: Adapter,
    mixer: SessionMixer,
    service: LocalService,
    caplog: pytest.LogCaptureFixture,
) -> None:
    subject = "Erika-Mustermann"
    known = KINDS[name][1](service).items()
    # An account's id goes with each signed request, and is no secret.
    secrets = [it for what, it in known if what.rpartition("_")[2] in {"KEY", "SECRET", "TOKEN"}]
    content = photo(ALICE).read_bytes()
    told = [*secrets, subject, base64.b64encode(content).decode()[400:500], repr(content)[400:500]]
    caplog.set_level(logging.INFO)
    errors: list[BaseException] = []

    def attempt(call: Callable[[], Any]) -> None:
        try:
            call()
        except (AnonymixError, KeystoreError) as error:
            errors.append(error)
        except Exception as error:  # noqa: BLE001 - the SDK's own, in its own words
            assert not type(error).__module__.startswith("anonymix")  # noqa: PT017 - it is none of ours

    def exchanged(exchange: Any) -> None:
        with exchange():
            stage.verify_named(subject, content)

    with adapter.rehearse(mixer) as stage:
        assert isinstance(stage, Inspectable)
        attempt(lambda: stage.enrol(subject, content))
        said = f"{subject} {secrets}"
        service.fail(400, {"message": said, "error_message": said, "code": 1}, when=lambda it: bool(pictures([it])))
        attempt(lambda: stage.verify_named(subject, content))  # the service repeats what it was sent
        service.mend()
        for exchange in stage.exchanges(content).values():
            attempt(lambda it=exchange: exchanged(it))  # type: ignore[misc]
        words = [text for error in errors for text in _texts(error)] + [repr(stage.client), caplog.text]
    assert secrets
    assert len(errors) >= 2
    for text in words:
        for secret in told:
            assert secret not in text, f"{text[:80]} ..."


def _texts(error: BaseException) -> Iterator[str]:
    """All that an error says, its causes included."""
    yield "".join(traceback.format_exception(error))
    each: BaseException | None = error
    while each is not None:
        yield f"{each} {each!r} {vars(each)}"
        each = each.__cause__ or each.__context__


def test_the_person_of_one_call_is_another_at_once(
    adapter: Adapter, mixer: SessionMixer, service: LocalService
) -> None:
    """`subject=` of each call is that call's alone, whoever was named before."""
    with adapter.rehearse(mixer) as stage:
        assert isinstance(stage, Inspectable)
        for person in (ALICE, BOB):
            stage.enrol(person, photo(person))
        asked = [(one, other) for one in (ALICE, BOB) for other in (ALICE, BOB)]
        found = [stage.verify_named(one, photo(other, "smiling")).accepted for one, other in asked]
    assert found == [one == other for one, other in asked]
    assert witness().clear(service.received) >= 4


def test_our_rest_clients_send_nothing_past_their_calls(
    name: str, adapter: Adapter, mixer: SessionMixer, service: LocalService
) -> None:
    with adapter.rehearse(mixer) as stage:
        client, content = stage.client, photo(ALICE).read_bytes()
        if not isinstance(client, RestClient):
            return
        before = len(service.received)
        call: Call[Any] = Call("new", Reply, "POST", "recognition/recognize", pictures={"file": content})
        for past in (
            lambda: client._http.post("new", files={"file": content}),
            lambda: client._http.post("new", json={"image_url": "https://photos.example/1"}),
            lambda: client._send(call),
            lambda: client._call(call),
        ):
            with pytest.raises(BypassError):
                past()
        assert len(service.received) == before
