"""What every adapter is held to, ours or others'.

    from anonymix_adapters.testing import conformance

    @pytest.mark.parametrize("check", conformance.CHECKS, ids=lambda check: check.__name__)
    def test_conformance(check, mixer, people):
        check(conformance.Trial(my_adapter, mixer, people))

Each check opens back ends of its own by the adapter's `rehearse` and raises `NonConformity`, or the error
that should not have come. `run` does them all without pytest.
"""

from __future__ import annotations

import base64
import copy
import inspect
import os
import pickle
import secrets
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from packaging.specifiers import SpecifierSet

from anonymix_adapters.errors import (
    DoubleProtectionError,
    EnrolmentError,
    NotProtectedError,
    SdkMissingError,
    SdkVersionError,
    SubjectNeededError,
    asked_to_stop,
)
from anonymix_adapters.interceptor import FaceMixer, KeyUse, MixerAround
from anonymix_adapters.protocol import Adapter, Inspectable, Rehearsal
from anonymix_adapters.renewal import renew
from anonymix_keystore import Keystore, KeystoreError
from anonymix_plugin.claims import Claim, claimed
from anonymix_plugin.errors import AlreadyProtectedError, AnonymixError, PhotoError, UsageError
from anonymix_plugin.images import PhotoSource, decode_photo, encode_cancelable
from anonymix_plugin.values import CancelableFace
from anonymix_plugin.verification import Verifier


class NonConformity(AssertionError):  # noqa: N818 - what is found, not what goes wrong
    """The adapter does not do what every adapter must."""


@dataclass(frozen=True)
class Person:
    """Somebody to rehearse with.

    Attributes:
        name: An id that is unused in the keystore.
        enrolled: The photo to enrol.
        probe: Another photo of the same person.
    """

    name: str
    enrolled: PhotoSource
    probe: PhotoSource


@dataclass(frozen=True)
class Trial:
    """An adapter on trial.

    Attributes:
        adapter: The adapter.
        mixer: A mixer over a `Keystore` whose subjects may be made, rotated and revoked.
        people: At least three people, one face in each photo.
        options: Handed to `rehearse`.
        genuine: Least share of genuine probes that must be accepted.
        impostors: Greatest share of impostors that may be.
        lies: By name, what has the back end answer the next enrolment with a success that made nothing, or
            that names nothing; for back ends that can be told to.
    """

    adapter: Adapter
    mixer: FaceMixer
    people: Sequence[Person]
    options: Mapping[str, Any] = field(default_factory=dict)
    genuine: float = 0.6
    impostors: float = 0.34
    lies: Mapping[str, Callable[[], None]] = field(default_factory=dict)

    @property
    def store(self) -> Keystore:
        """The keystore."""
        store = self.mixer.keystore
        if not isinstance(store, Keystore):
            raise NonConformity("a trial needs a mixer over a Keystore")
        return store

    def open(self, *, keys: KeyUse = "own", mixer: FaceMixer | None = None) -> AbstractContextManager[Rehearsal]:
        """An empty back end with the adapter in front."""
        return self.adapter.rehearse(mixer or self.mixer, keys=keys, **self.options)


def _need(holds: object, what: str) -> None:
    if not holds:
        raise NonConformity(what)


def _raises(expected: type[Exception] | tuple[type[Exception], ...], call: Callable[[], object]) -> Exception:
    try:
        call()
    except expected as error:
        return error
    names = expected.__name__ if isinstance(expected, type) else " or ".join(e.__name__ for e in expected)
    raise NonConformity(f"no {names} was raised")


# --- the checks -------------------------------------------------------------------------------------


def names_itself_and_its_sdk(trial: Trial) -> None:
    """The adapter says who it is; a missing or untested SDK is told with the command that helps."""
    adapter = trial.adapter
    _need(adapter.NAME and adapter.NAME.strip().lower() == adapter.NAME, "NAME is a word in lower case")
    for sdk in adapter.SDKS:
        _need(SpecifierSet(sdk.tested).contains(sdk.installed(), prereleases=True), f"{sdk.module} is untested")

    def opened() -> None:
        with trial.open():
            pass

    if not adapter.SDKS:
        return
    with mock.patch.object(metadata, "version", side_effect=metadata.PackageNotFoundError("it")):
        said = str(_raises(SdkMissingError, opened))
    _need(any(sdk.command in said for sdk in adapter.SDKS), f"the missing SDK's cure is not named: {said}")
    for version in ("0.0.0.1", "99999.0"):
        with mock.patch.object(metadata, "version", return_value=version):
            said = str(_raises(SdkVersionError, opened))
        _need(any(sdk.tested in said for sdk in adapter.SDKS), f"the tested range is not named: {said}")


def wraps_once_and_unwraps(trial: Trial) -> None:
    """Protecting twice does nothing or is refused; unprotecting undoes it."""
    adapter = trial.adapter
    with trial.open() as stage:
        client = stage.client
        _need(adapter.interceptor_of(client) is stage.interceptor, "interceptor_of does not know the client")
        again = {"keys": stage.interceptor.keys, "scope": stage.interceptor.scope_rule}
        _need(adapter.protect(client, trial.mixer, **again) is client, "a double wrap makes another client")
        _need(adapter.interceptor_of(client) is stage.interceptor, "a double wrap replaces the interceptor")
        _raises(
            DoubleProtectionError,
            lambda: adapter.protect(client, _Watched(trial.mixer, lambda _: None), **again),
        )
        bare = adapter.unprotect(client)
        _need(adapter.interceptor_of(bare) is None, "unprotect leaves an interceptor")
        _raises(NotProtectedError, lambda: adapter.unprotect(bare))
        wrapped = adapter.protect(bare, trial.mixer, **again)
        _need(adapter.interceptor_of(wrapped) is not None, "what was unprotected can't be protected again")


def leaves_the_original_alone_when_copied(trial: Trial) -> None:
    """A copy of the client is refused, or is protected; unprotecting it does nothing to the client itself."""
    adapter, person = trial.adapter, trial.people[0]
    for make in _COPIES:
        with trial.open() as stage:
            stage.enrol(person.name, person.enrolled)
            try:
                twin = make(stage.client)
            except (AnonymixError, KeystoreError):
                twin = None  # refused
            if twin is not None and adapter.interceptor_of(twin) is None:
                _raises(AnonymixError, lambda it=twin: adapter.unprotect(it))  # type: ignore[misc]
            elif twin is not None:
                adapter.unprotect(twin)
            _need(
                adapter.interceptor_of(stage.client) is stage.interceptor, "unprotecting a copy unprotects the original"
            )
            stage.verify(person.name, person.probe)
            assert_nothing_original(stage.seen(), [person.enrolled, person.probe])


def tells_people_apart(trial: Trial) -> None:
    """Genuine probes are accepted, impostors and original photos are not, by the back end's own threshold."""
    with trial.open() as stage:
        for person in trial.people:
            stage.enrol(person.name, person.enrolled)
        genuine = [stage.verify(person.name, person.probe).accepted for person in trial.people]
        impostors = [stage.verify(one.name, other.probe).accepted for one, other in _strangers(trial.people)]
        originals = [stage.verify_original(person.name, person.probe).accepted for person in trial.people]
    _need(_share(genuine) >= trial.genuine, f"only {sum(genuine)} of {len(genuine)} were accepted")
    _need(_share(impostors) <= trial.impostors, f"{sum(impostors)} of {len(impostors)} impostors were accepted")
    _need(_share(originals) <= trial.impostors, f"{sum(originals)} of {len(originals)} original photos match")


def writes_enrolments_down(trial: Trial) -> None:
    """Each entry has a record with the key version and the mixer's fingerprint; a subject is asked for."""
    person = trial.people[0]
    with trial.open() as stage:
        name = stage.enrol(person.name, person.enrolled)
        version = trial.store.current(person.name, stage.interceptor.scope(stage.collection)).version
        found = [item for item in stage.interceptor.entries(stage.collection) if item.external_id == name]
        _need(len(found) == 1, f"{len(found)} records of one entry")
        item = found[0]
        _need((item.subject, item.version) == (person.name, version), "the record names another key")
        _need(item.fingerprint == trial.mixer.fingerprint, "the record names another mixer")
        _need(item.adapter == trial.adapter.NAME, "the record names another adapter")
        _need(stage.entries() == {name: person.name}, "the back end holds something else")
        _raises(SubjectNeededError, lambda: stage.interceptor.whose(collection=stage.collection))
        stage.delete(name)
        stage.delete(name)
        _need(stage.entries() == {}, "a deleted entry is still there")
        _need(not stage.verify(person.name, person.probe).accepted, "a deleted entry matches")
        _need(stage.interceptor.forget_entry(stage.collection, name), "the record can't be closed")


def sends_cancelable_faces_only(trial: Trial) -> None:
    """Nothing that comes out behind the adapter is the photo, holds it, or shows the person."""
    person = trial.people[0]
    with trial.open() as stage:
        stage.enrol(person.name, person.enrolled)
        stage.verify(person.name, person.probe)
        seen = stage.seen()
    _need(seen, "the rehearsal records nothing, so that it proves nothing")
    assert_nothing_original(seen, [person.enrolled, person.probe])


def refuses_bad_photos(trial: Trial) -> None:
    """A photo that can't be used, or is protected already, leaves the back end without a picture or entry."""
    person = trial.people[0]
    blank = np.full((300, 300, 3), 128, np.uint8)
    with trial.open() as stage:
        stage.enrol(person.name, person.enrolled)
        made = encode_cancelable(_protect(trial, person))
        before, entries = len(stage.seen()), stage.entries()
        newcomer = f"{person.name} newcomer {secrets.token_hex(4)}"
        _raises((PhotoError, EnrolmentError), lambda: stage.enrol(newcomer, blank))
        _need(newcomer not in set(trial.store.subjects()), "an enrolment that failed left a subject behind")
        _raises((PhotoError, EnrolmentError), lambda: stage.enrol(person.name, blank))
        _raises(PhotoError, lambda: stage.verify(person.name, blank))
        _raises(PhotoError, lambda: stage.verify(person.name, b"no picture"))
        _raises(AlreadyProtectedError, lambda: stage.enrol(person.name, made))
        _need(len(stage.seen()) == before, "something was sent of a photo that can't be used")
        _need(stage.entries() == entries, "an entry was made of a photo that can't be used")


def refuses_unknown_and_revoked_subjects(trial: Trial) -> None:
    """A probe of somebody unknown makes no key; a revoked subject gets nothing, not even at enrolment."""
    person, other = trial.people[0], trial.people[1]
    with trial.open() as stage:
        scope = stage.interceptor.scope(stage.collection)
        stage.enrol(person.name, person.enrolled)
        before = len(stage.seen())
        unknown = f"{person.name} unknown {secrets.token_hex(4)}"
        _raises(KeystoreError, lambda: stage.verify(unknown, person.probe))
        _need(unknown not in set(trial.store.subjects(scope)), "a probe issued a key")
        revoked = f"{other.name} revoked {secrets.token_hex(4)}"
        trial.store.current_or_issue(revoked, scope)
        trial.store.revoke(revoked, scope)
        _raises(KeystoreError, lambda: stage.verify(revoked, other.probe))
        _raises(KeystoreError, lambda: stage.enrol(revoked, other.enrolled))
        _need(len(stage.seen()) == before, "something was sent for somebody without a key")
        _need(len(stage.entries()) == 1, "an entry was made for somebody without a key")


def renews_after_rotation(trial: Trial) -> None:
    """After a breach old entries match nobody; they are deleted, and people enrolled again verify again."""
    people = trial.people[:3]
    with trial.open() as stage:
        scope = stage.interceptor.scope(stage.collection)
        for person in people:
            stage.enrol(person.name, person.enrolled)
        leaked = stage.leak()
        for person in people:
            trial.store.rotate(person.name, scope, reason="breach")
        stale = [stage.verify(person.name, person.probe).accepted for person in people]
        _need(_share(stale) <= trial.impostors + 0.1, f"{sum(stale)} of {len(stale)} old entries still match")
        due = stage.interceptor.due(stage.collection)
        _need(len([item for item in due if item.delete]) == len(people), "old entries are not due")
        photos = {person.name: person.enrolled for person in people}
        done = renew(
            stage.interceptor,
            delete=lambda item: stage.delete(item.external_id),
            enrol=lambda item, photo: stage.enrol(item.subject, photo),
            photo=lambda item: photos[item.subject],
            collection=stage.collection,
        )
        _need(not done.failures, f"the renewal failed: {done.failures}")
        _need(set(done.enrolled) == set(photos), "somebody was not enrolled again")
        _need(not stage.interceptor.due(stage.collection), "work is left after the renewal")
        _need(not set(done.deleted) & set(stage.entries()), "deleted entries are still there")
        _need(len(stage.entries()) == len(people), "the back end holds something else")
        again = [stage.verify(person.name, person.probe).accepted for person in people]
        old = [stage.match(template, template.subject).accepted for template in leaked]
    _need(_share(again) >= trial.genuine - 0.1, f"only {sum(again)} of {len(again)} verify after the renewal")
    _need(_share(old) <= trial.impostors + 0.1, f"{sum(old)} of {len(old)} leaked templates still match")


def takes_back_what_a_rotation_overtook(trial: Trial) -> None:
    """A key rotated between making a face and writing the entry down leaves no entry."""
    person = trial.people[0]
    scope: list[str] = []

    def rotate(face: CancelableFace) -> None:
        if face.subject:
            trial.store.rotate(face.subject, face.scope, reason="breach")

    with trial.open(mixer=_Watched(trial.mixer, rotate)) as stage:
        scope.append(stage.interceptor.scope(stage.collection))
        _raises((KeystoreError, AnonymixError), lambda: stage.enrol(person.name, person.enrolled))
        _need(stage.entries() == {}, "an entry under a dead key stays in the back end")
        _need(not stage.interceptor.entries(stage.collection), "an entry under a dead key is recorded")


def serves_threads(trial: Trial) -> None:
    """Threads at once, each with its own subject, get the answers that they get one after another."""
    people = list(trial.people[:3])
    with trial.open() as stage:
        for person in people:
            stage.enrol(person.name, person.enrolled)
        alone = [stage.verify(person.name, person.probe).score for person in people]
        barrier = threading.Barrier(len(people))

        def together(person: Person) -> float:
            barrier.wait(60)
            return stage.verify(person.name, person.probe).score

        with ThreadPoolExecutor(len(people)) as pool:
            scores = list(pool.map(together, people))
    _need(np.allclose(alone, scores, atol=1e-3), f"threads get other answers: {alone} and {scores}")


def searches_under_a_gallery_key(trial: Trial) -> None:
    """1:N search finds people under the gallery key, and needs no subject."""
    with trial.open(keys="gallery") as stage:
        if not stage.searches:
            return
        for person in trial.people:
            stage.enrol(person.name, person.enrolled)
        records = stage.interceptor.entries(stage.collection)
        _need(records and all(item.gallery for item in records), "records do not name the gallery key")
        found = [stage.search(person.probe).subject == person.name for person in trial.people]
    _need(_share(found) >= trial.genuine - 0.1, f"only {sum(found)} of {len(found)} were found")


def holds_when_parts_are_exchanged(trial: Trial) -> None:
    """Whatever a host exchanges in a client after `protect`: the photo is not sent."""
    person = trial.people[0]
    photo = _content(person.probe) if isinstance(person.probe, bytes | str | os.PathLike) else b""
    with trial.open() as stage:
        if not isinstance(stage, Inspectable):
            return
        stage.enrol(person.name, person.enrolled)
        for name, exchange in stage.exchanges(photo).items():
            before = len(stage.seen())
            with suppress(Exception), exchange():  # refused, in whatever words the SDK has for it
                stage.verify(person.name, person.probe)
            try:
                assert_nothing_original(stage.seen()[before:], [person.probe])
            except NonConformity as error:
                raise NonConformity(f"exchanged for {name}: {error}") from None
        _need(stage.verify(person.name, person.probe).accepted, "nothing works after the exchanges")


def takes_the_subject_as_an_argument(trial: Trial) -> None:
    """Calls have the back end's own signatures and take `subject=`, which is not handed on."""
    person = replace(trial.people[0], name=f"{trial.people[0].name}-{secrets.token_hex(8)}")
    with trial.open() as stage:
        if not isinstance(stage, Inspectable):
            return
        for protected, plain in stage.pairs():
            for name in dir(plain):
                if not name.startswith("_") and inspect.isroutine(getattr(plain, name)):
                    what = _differs(getattr(protected, name), getattr(plain, name))
                    _need(not what, f"{name}: {what}")
        stage.enrol(person.name, person.enrolled)
        before = len(stage.seen())
        accepted = stage.verify_named(person.name, person.probe).accepted
        sent = [thing for thing in stage.seen()[before:] if isinstance(thing, bytes)]
        _need(accepted, "the subject's own probe is not accepted")
        _need(not any(person.name.encode() in thing for thing in sent), "the subject was sent")
        with claimed(Claim(trial.people[1].name)):
            _raises(UsageError, lambda: stage.verify_named(person.name, person.probe))


def records_what_the_back_end_confirms(trial: Trial) -> None:
    """An enrolment that the back end did not make, or does not name, is not recorded."""
    person = trial.people[0]
    for name, lie in trial.lies.items():
        with trial.open() as stage:
            lie()
            with suppress(Exception):  # the SDK's, the rehearsal's or ours: what counts is the record
                stage.enrol(person.name, person.enrolled)
            _need(not stage.interceptor.entries(stage.collection), f"{name}: an entry was recorded")
            _need(not stage.entries(), f"{name}: an entry was made")


CHECKS: tuple[Callable[[Trial], None], ...] = (
    names_itself_and_its_sdk,
    wraps_once_and_unwraps,
    leaves_the_original_alone_when_copied,
    tells_people_apart,
    writes_enrolments_down,
    sends_cancelable_faces_only,
    refuses_bad_photos,
    refuses_unknown_and_revoked_subjects,
    renews_after_rotation,
    takes_back_what_a_rotation_overtook,
    serves_threads,
    searches_under_a_gallery_key,
    holds_when_parts_are_exchanged,
    takes_the_subject_as_an_argument,
    records_what_the_back_end_confirms,
)
"""All checks, to be parametrised over; each takes a Trial with subjects of its own or used ones alike."""


def run(trial: Trial) -> dict[str, str]:
    """Do all checks; for each its name and "" or what is wrong."""
    results = {}
    for check in CHECKS:
        try:
            check(trial)
        except (Exception, SystemExit) as error:
            if asked_to_stop(error):
                raise
            results[check.__name__] = f"{type(error).__name__}: {error}"
        else:
            results[check.__name__] = ""
    return results


# --- what the checks are made of --------------------------------------------------------------------


def assert_nothing_original(
    seen: Iterable[Any], originals: Sequence[PhotoSource], verifier: Verifier | None = None
) -> None:
    """Hold everything that came out behind an adapter against original photos.

    Args:
        seen: Pictures, (height, width, 3) uint8 RGB, or bytes as they went over the wire.
        originals: The photos.
        verifier: Says whether a picture shows the person of a photo; ArcFace at FMR .1 % by default.

    Raises:
        NonConformity: A picture is an original or shows its person; bytes hold the photo's file or text of
            it in base64.
    """
    matcher = verifier or Verifier()
    files = [_content(photo) for photo in originals if isinstance(photo, bytes | str | os.PathLike)]
    people = [matcher.embed(photo) for photo in originals]
    pixels = [decode_photo(photo).pixels for photo in originals]
    for thing in seen:
        if isinstance(thing, bytes | bytearray):
            for file in files:
                _need(file[64:1024] not in thing, "the photo's file was sent")
                text = base64.b64encode(file[63:1023])[4:-4]
                _need(text not in thing, "the photo's file was sent in base64")
            continue
        picture = np.asarray(thing)
        for photo in pixels:
            same = picture.shape == photo.shape and np.abs(picture.astype(int) - photo).mean() < 2
            _need(not same, "the photo's pixels were sent")
        try:
            shown = matcher.embed(picture)
        except PhotoError:
            continue  # it shows nobody
        for person in people:
            _need(float(shown @ person) < matcher.threshold.value, "a picture that was sent shows the person")


def _differs(protected: Callable[..., Any], plain: Callable[..., Any]) -> str:
    """How a protected call's signature differs from the back end's own, but for `subject=`; "" for not."""
    try:
        ours, theirs = inspect.signature(protected), inspect.signature(plain)
    except ValueError:  # of a built-in
        return ""
    shape = [(it.name, it.kind, it.default) for it in theirs.parameters.values()]
    found = [(it.name, it.kind, it.default) for it in ours.parameters.values()]
    if found == shape or [it for it in found if it[0] != "subject"] == shape:
        extra = ours.parameters.get("subject")
        if extra is None or "subject" in theirs.parameters or extra.kind is extra.KEYWORD_ONLY:
            return ""
    return f"it is called with {ours} in place of {theirs}"


def _content(photo: bytes | str | os.PathLike[str]) -> bytes:
    return photo if isinstance(photo, bytes) else Path(photo).read_bytes()


def _by_hand(client: Any) -> Any:
    """A copy as some libraries make them, past the object's own ways."""
    twin = object.__new__(type(client))
    vars(twin).update(vars(client))
    return twin


_COPIES: tuple[Callable[[Any], Any], ...] = (
    copy.copy,
    copy.deepcopy,
    lambda client: pickle.loads(pickle.dumps(client)),  # noqa: S301 - our own
    _by_hand,
)


class _Watched(MixerAround):
    """A mixer that does something after each face."""

    def __init__(self, mixer: FaceMixer, after: Callable[[CancelableFace], None]) -> None:
        super().__init__(mixer)
        self._after = after

    def protect(self, image: Any, **how: Any) -> CancelableFace:
        face: CancelableFace = super().protect(image, **how)
        self._after(face)
        return face


def _protect(trial: Trial, person: Person) -> CancelableFace:
    return trial.mixer.protect(person.enrolled, subject=person.name, enrol=True)


def _strangers(people: Sequence[Person]) -> list[tuple[Person, Person]]:
    """Each person, and the next one who claims to be them."""
    return [(one, people[(number + 1) % len(people)]) for number, one in enumerate(people)]


def _share(answers: Sequence[bool]) -> float:
    return sum(answers) / len(answers) if answers else 0.0
