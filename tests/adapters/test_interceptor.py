"""Whose key a call gets, in threads and tasks, and what becomes of records and originals."""

from __future__ import annotations

import asyncio
import contextvars
import pickle
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from remembering import RememberingMixer

from anonymix_adapters import (
    AdapterError,
    DoubleProtectionError,
    EnrolmentError,
    Interceptor,
    NotProtectedError,
    Sdk,
    SdkMissingError,
    SdkVersionError,
    SubjectNeededError,
    UnknownAdapterError,
    hook,
    interceptor_of,
    keep_original,
    load,
    names,
    need_interceptor,
    renew,
    sealed_original,
    unwrap,
    wrap,
)
from anonymix_adapters.errors import in_words
from anonymix_adapters.testing.conformance import Person
from anonymix_keystore import Keystore, KeystoreError, OriginalsError, PassphraseUnlock
from anonymix_lab.data.keys import SeededKeys
from anonymix_plugin import Anonymixer, UsageError


class NoFaces:
    """A mixer that must not be asked for a face: it is for questions about subjects alone."""

    fingerprint = "0" * 32

    def __init__(self, keystore: Any = None) -> None:
        self.keystore = keystore or SeededKeys(1)

    def protect(self, image: Any, **_: Any) -> Any:
        raise AssertionError("no face was to be made")


@pytest.fixture
def interceptor() -> Interceptor:
    return Interceptor(NoFaces(), "test")


# --- whose ------------------------------------------------------------------------------------------


subject = Anonymixer.subject.__get__(object())  # it needs nothing of a mixer


def test_whoever_is_named_is_the_subject(interceptor: Interceptor) -> None:
    assert interceptor.whose(field="alice").subject == "alice"
    assert interceptor.whose(argument="alice").subject == "alice"
    with subject("alice", scope="door"):
        assert interceptor.whose().subject == "alice"
        assert interceptor.whose().scope == "door"
        assert interceptor.whose(field="alice", argument="alice").scope == "door"
        with subject("inner", enrol=True):
            inner = interceptor.whose()
            assert (inner.subject, inner.scope, inner.enrol) == ("inner", "default", True)
        assert interceptor.whose().subject == "alice"
    with pytest.raises(SubjectNeededError) as caught:
        interceptor.whose()
    assert "mixer.subject" in caught.value.fix
    with pytest.raises(UsageError), subject(""):
        pass


@pytest.mark.parametrize(
    ("said", "places"),
    [
        ({"field": "photo-17"}, ("a field of the call", "the block around it")),
        ({"argument": "bob"}, ("subject=", "the block around it")),
        ({"argument": "alice", "field": "photo-17"}, ("subject=", "a field of the call")),
        ({"argument": "bob", "field": "bob"}, ("subject=", "the block around it")),
        ({"argument": ""}, ("subject=",)),
        ({"field": ""}, ("a field of the call",)),
    ],
)
def test_two_names_for_one_call_are_refused_and_not_repeated(
    interceptor: Interceptor, said: dict[str, str], places: tuple[str, ...]
) -> None:
    for each in (interceptor, Interceptor(NoFaces(), "test", keys="gallery")):
        with subject("alice", enrol=True), pytest.raises(UsageError) as caught:
            each.whose(**said)
        assert all(place in str(caught.value) for place in places)
        assert not any(name in str(caught.value) for name in ("alice", "bob", "photo-17"))
        assert caught.value.fix


def test_two_spellings_of_one_name_are_one(interceptor: Interceptor) -> None:
    with subject("Zoe\u0301"):
        assert interceptor.whose(argument="Zo\u00e9").subject == "Zo\u00e9"
        with pytest.raises(UsageError):
            interceptor.whose(argument="Zoe")


def test_a_call_that_names_its_subject_does_not_go_by_a_block_that_has_ended(interceptor: Interceptor) -> None:
    with subject("alice", scope="door", enrol=True):
        left_over = contextvars.copy_context()
    with pytest.raises(UsageError, match="ended"):
        left_over.run(interceptor.whose)
    whose = left_over.run(lambda: interceptor.whose(argument="bob"))
    assert (whose.subject, whose.scope, whose.enrol) == ("bob", "default", False)


def test_a_gallery_needs_a_subject_to_enrol_and_none_to_search() -> None:
    interceptor = Interceptor(NoFaces(), "test", keys="gallery", scope=lambda collection: f"gallery {collection}")
    search = interceptor.whose(collection="staff")
    assert (search.subject, search.scope, search.gallery) == (None, "gallery staff", True)
    assert interceptor.whose(collection="guests").scope == "gallery guests"
    assert interceptor.whose(argument="alice", enrol=True).subject == "alice"
    with pytest.raises(SubjectNeededError):
        interceptor.whose(enrol=True)
    with pytest.raises(UsageError):
        Interceptor(NoFaces(), "test", keys="both")  # type: ignore[arg-type]


def test_threads_and_tasks_keep_their_subjects_apart(interceptor: Interceptor) -> None:
    barrier = threading.Barrier(8)

    def ask(name: str) -> str | None:
        with subject(name):
            barrier.wait(120)
            return interceptor.whose().subject

    with ThreadPoolExecutor(8) as pool:
        wanted = [f"person {number}" for number in range(8)]
        assert list(pool.map(ask, wanted)) == wanted
        with subject("alice"), pytest.raises(SubjectNeededError):
            pool.submit(interceptor.whose).result()  # a thread of somebody else's has no subject, and gets no key

    async def ask_later(name: str) -> tuple[str | None, str | None]:
        with subject(name):
            await asyncio.sleep(0.01)
            in_thread = await asyncio.to_thread(interceptor.whose)
            return interceptor.whose().subject, in_thread.subject

    async def all_at_once() -> list[tuple[str | None, str | None]]:
        return await asyncio.gather(*(ask_later(name) for name in wanted))

    assert asyncio.run(all_at_once()) == [(name, name) for name in wanted]


# --- wrapping ---------------------------------------------------------------------------------------


class Client:
    def send(self) -> str:
        return "original"


def protected_send() -> str:
    return "protected"


def hooked(client: Client) -> Any:
    return hook(client, {"send": protected_send})


def test_a_client_is_wrapped_once_and_comes_back_as_it_was(interceptor: Interceptor) -> None:
    client = Client()
    assert wrap(wrap(client, interceptor, hooked), interceptor, hooked) is client
    assert client.send() == "protected"
    assert need_interceptor(client) is interceptor
    with pytest.raises(DoubleProtectionError, match="unprotect"):
        wrap(client, Interceptor(NoFaces(), "test"), hooked)
    with pytest.raises(TypeError, match="pickled"):
        pickle.dumps(client)
    unwrap(client)
    assert client.send() == "original"
    assert interceptor_of(client) is None
    for refused in (unwrap, need_interceptor):
        with pytest.raises(NotProtectedError):
            refused(client)
    with pytest.raises(AdapterError):
        wrap(object(), interceptor, hooked)


# --- packages and entry points ----------------------------------------------------------------------


def test_a_missing_or_untested_package_is_told_with_the_cure() -> None:
    with pytest.raises(SdkMissingError, match=r"pip install anonymix-plugin\[nowhere\]"):
        Sdk("no_such_module", ("no-such-distribution",), "nowhere", ">=1").load()
    with pytest.raises(SdkVersionError, match=">=99") as caught:
        Sdk("numpy", ("numpy",), "", ">=99").load()
    assert np.__version__ in str(caught.value)
    with pytest.raises(SdkMissingError, match="pip install other"):
        Sdk("no_such_module", ("numpy",), "", ">=1", package="other").load()
    assert Sdk("numpy", ("no-such-distribution", "numpy"), "", ">=1").load() is np


def test_adapters_are_found_by_name() -> None:
    assert {"opencv", "crops", "insightface", "facenet", "deepface", "face_recognition"} <= set(names())
    with pytest.raises(UnknownAdapterError, match="opencv"):
        load("no such adapter")


# --- records ----------------------------------------------------------------------------------------


def test_records_need_a_book(interceptor: Interceptor) -> None:
    with pytest.raises(AdapterError, match="Keystore"):
        interceptor.entries()
    with pytest.raises(AdapterError), interceptor.enrolment("alice", collection="door", external_id="1"):
        raise AssertionError("the block must not be entered")


def test_a_client_in_the_place_of_the_mixer_is_told_before_anything_is_sent() -> None:
    with pytest.raises(UsageError, match="a str is no mixer") as refused:
        Interceptor("client", "opencv")  # type: ignore[arg-type]
    assert "client first, then the mixer" in refused.value.fix


def test_an_enrolment_without_a_face_is_none(adapter_store: Keystore) -> None:
    interceptor, undone = Interceptor(NoFaces(adapter_store), "test"), []
    with (
        pytest.raises(EnrolmentError, match="0 faces"),
        interceptor.enrolment("alice", collection="door", external_id="1", undo=lambda: undone.append(1)),
    ):
        pass
    assert undone == [1]
    assert not interceptor.entries("door")


def test_an_entry_that_can_not_be_taken_back_is_told(
    adapter_mixer: RememberingMixer, londoners: list[Person], adapter_store: Keystore
) -> None:
    interceptor = Interceptor(adapter_mixer, "test")
    person = londoners[0]

    def rotate(_: Any) -> str:
        adapter_store.rotate(person.name, reason="breach")
        return "7"

    def undo(_: str) -> None:
        raise ConnectionError("the back end is gone")

    with pytest.raises(EnrolmentError, match="by hand"):
        interceptor.enrol(
            person.enrolled,
            interceptor.whose(argument=person.name, enrol=True),
            collection="door",
            send=rotate,
            external_id=str,
            undo=undo,
        )


def test_sealed_originals_spare_new_photos(
    adapter_mixer: RememberingMixer, adapter_store: Keystore, londoners: list[Person]
) -> None:
    interceptor, person, held = Interceptor(adapter_mixer, "sealed"), londoners[1], {}

    def enrol(name: str, photo: Any) -> None:
        with interceptor.enrolment(person.name, collection="door", external_id=name):
            held[name] = interceptor.protect(photo, interceptor.whose()).key_version

    with pytest.raises(OriginalsError):
        keep_original(interceptor, person.enrolled, interceptor.whose(argument=person.name))
    adapter_store.originals.enable(PassphraseUnlock("another secret"))
    try:
        enrol("first", person.enrolled)
        keep_original(interceptor, person.enrolled, interceptor.whose(argument=person.name))
        adapter_store.rotate(person.name, reason="breach")
        done = renew(
            interceptor,
            delete=lambda item: held.pop(item.external_id),
            enrol=lambda item, photo: enrol("second", photo),
            photo=sealed_original(interceptor),
            collection="door",
        )
        assert (done.deleted, done.enrolled, done.failures) == (("first",), (person.name,), ())
        assert held == {"second": adapter_store.current(person.name).version}
    finally:
        adapter_store.originals.disable()


def test_a_renewal_goes_on_after_a_failure_and_can_be_repeated(
    adapter_mixer: RememberingMixer, adapter_store: Keystore, londoners: list[Person]
) -> None:
    interceptor, held, broken = Interceptor(adapter_mixer, "renewing"), {}, {"sand in the gears"}

    def enrol(subject: str, photo: Any) -> None:
        with interceptor.enrolment(subject, collection="door", external_id=f"{subject}!{len(held)}"):
            held[f"{subject}!{len(held)}"] = interceptor.protect(photo, interceptor.whose())

    def delete(item: Any) -> None:
        if broken and item.subject == londoners[0].name:
            raise TimeoutError(broken.pop())
        held.pop(item.external_id, None)

    for person in londoners[:2]:
        enrol(person.name, person.enrolled)
        adapter_store.rotate(person.name, reason="breach")
    photos = {person.name: person.enrolled for person in londoners}
    first = renew(interceptor, delete=delete, collection="door")
    assert [failure[0] for failure in first.failures] == [londoners[0].name]
    assert "TimeoutError" in first.failures[0][2]
    assert len(first.deleted) == 1
    second = renew(
        interceptor,
        delete=delete,
        enrol=lambda item, photo: enrol(item.subject, photo),
        photo=lambda item: photos[item.subject],
        collection="door",
    )
    assert not second.failures
    assert set(second.enrolled) == {person.name for person in londoners[:2]}
    assert not interceptor.due("door")


@pytest.mark.parametrize("several", [False, True])
def test_equal_names_in_two_scopes_of_one_collection_are_two_people_to_a_renewal(
    adapter_mixer: RememberingMixer, adapter_store: Keystore, londoners: list[Person], several: bool
) -> None:
    interceptor, held = Interceptor(adapter_mixer, f"two scopes {several}", scope="staff"), {}
    photos = {"staff": londoners[0].enrolled, "guests": londoners[1].enrolled}

    def enrol(subject: str, photo: Any) -> None:  # a host's own, which says no scope
        name = f"{subject}!{len(held)}"
        with interceptor.enrolment(subject, collection="door", external_id=name):
            held[name] = interceptor.protect(photo, interceptor.whose())

    for scope, photo in photos.items():
        with subject("sam", scope=scope):
            enrol("sam", photo)
        adapter_store.rotate("sam", scope, reason="breach")
    assert {face.scope for face in held.values()} == set(photos)
    done = renew(
        interceptor,
        delete=lambda item: held.pop(item.external_id),
        enrol=lambda item, photo: enrol(item.subject, photo),
        photo=lambda item: [photos[item.scope]] * (1 + several),
        collection="door",
    )
    assert (len(done.deleted), done.enrolled, done.failures) == (2, ("sam", "sam"), ())
    assert {(face.scope, face.key_version) for face in held.values()} == {("staff", 2), ("guests", 2)}
    recorded = {(it.external_id, it.scope, it.version) for it in interceptor.entries("door")}
    assert recorded == {(name, face.scope, 2) for name, face in held.items()}
    assert not interceptor.due("door")


def test_only_what_the_back_end_confirmed_is_written_down(
    adapter_mixer: RememberingMixer, londoners: list[Person]
) -> None:
    interceptor, person = Interceptor(adapter_mixer, "confirmed"), londoners[0]

    def enrol(answer: Any) -> None:
        interceptor.enrol(
            person.enrolled,
            interceptor.whose(argument=person.name, enrol=True),
            collection="door",
            send=lambda _: answer,
            external_id=lambda it: it["id"],
            undo=undone.append,
        )

    def enrol_by_block(name: Any) -> None:
        with interceptor.enrolment(
            person.name, collection="door", external_id=name, undo=lambda: undone.append("block")
        ):
            interceptor.protect(person.enrolled, interceptor.whose())

    for answer in ({"id": None}, {"id": ""}, {}):
        undone: list[Any] = []
        with pytest.raises((EnrolmentError, KeyError)):
            enrol(answer)
        assert undone == [answer]
    for name in (None, "", lambda: None, lambda: {}["id"]):
        undone = []
        with pytest.raises((EnrolmentError, KeyError)):
            enrol_by_block(name)
        assert undone == ["block"]
    assert not interceptor.entries("door")
    enrol_by_block(lambda: "7")
    enrol({"id": "0"})
    assert {item.external_id for item in interceptor.entries("door")} == {"0", "7"}


def test_an_enrolment_is_of_one_person_and_of_faces_made_inside(
    adapter_mixer: RememberingMixer, londoners: list[Person]
) -> None:
    interceptor, (one, other) = Interceptor(adapter_mixer, "one person"), londoners[:2]
    adapter_mixer.keystore.current_or_issue(other.name)
    with (
        pytest.raises(EnrolmentError, match="this person's"),
        interceptor.enrolment(one.name, collection="door", external_id="1"),
        subject(other.name),
    ):
        interceptor.protect(other.enrolled, interceptor.whose())
    with (
        pytest.raises(UsageError, match="two different people"),
        interceptor.enrolment(one.name, collection="door", external_id="1"),
    ):
        interceptor.whose(argument=other.name)

    def enrolling(person: Person) -> Iterator[None]:
        with interceptor.enrolment(person.name, collection="door", external_id=person.name):
            interceptor.protect(person.enrolled, interceptor.whose())
            yield
            asyncio.run(interceptor.protect_async(person.enrolled, interceptor.whose()))

    both = [enrolling(one), enrolling(other)]
    for each in both:
        next(each)
    with subject(other.name):
        interceptor.protect(other.enrolled, interceptor.whose())  # of neither enrolment
    for each in both:
        assert next(each, "done") == "done"
    assert {item.external_id: item.subject for item in interceptor.entries("door")} == {
        person.name: person.name for person in (one, other)
    }


def test_what_could_not_be_taken_back_is_told_without_an_sdk_s_words(interceptor: Interceptor) -> None:
    def undo() -> None:
        raise ConnectionError("POST /faces {'api_key': 'hush', 'image': '/9j/4AAQ...'}")

    with pytest.raises(EnrolmentError) as caught:
        interceptor.roll_back(undo, ValueError("/9j/4AAQ..."))
    assert "ConnectionError" in str(caught.value)
    assert "ValueError" in str(caught.value)
    assert "hush" not in str(caught.value)
    assert "/9j/" not in str(caught.value)
    photo = "/9j/4AAQSkZJRgABAQAAAQABAAD" * 400
    words = in_words(ConnectionError(f"503 Service Unavailable for {photo} with X-Key=0123456789abcdef0123"))
    assert words.startswith("ConnectionError: 503 Service Unavailable for ...")
    assert "0123456789" not in words


def test_a_key_error_in_the_block_is_passed_on_and_nothing_is_recorded(
    adapter_mixer: RememberingMixer, adapter_store: Keystore, londoners: list[Person]
) -> None:
    interceptor = Interceptor(adapter_mixer, "revoked")
    adapter_store.current_or_issue("somebody revoked")
    adapter_store.revoke("somebody revoked")
    with (
        pytest.raises(KeystoreError),
        interceptor.enrolment("somebody revoked", collection="door", external_id="1"),
    ):
        interceptor.protect(londoners[0].enrolled, interceptor.whose())
    assert not interceptor.entries("door")
