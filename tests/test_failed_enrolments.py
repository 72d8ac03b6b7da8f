"""An enrolment that fails leaves nothing behind: no subject, no scope, no other reference."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from patience import PATIENCE

from anonymix_adapters import Interceptor
from anonymix_keystore import (
    AnchorError,
    BusyError,
    KeyFileUnlock,
    KeyRevokedError,
    Keystore,
    OriginalsError,
    UnknownSubjectError,
)
from anonymix_plugin import (
    Anonymixer,
    AnonymixError,
    DifferentPeopleError,
    NoFaceError,
    PhotoRequest,
    UnreadableImageError,
)
from anonymix_plugin import production as module
from anonymix_plugin.errors import LowQualityError
from anonymix_plugin.first_keys import Attempt, attempt, first_or_current

pytestmark = pytest.mark.usefixtures("parts_once")
WEIGHTS = ("mobilestylegan", "yunet", "arcface-mbf", "sface")
BLANK = np.full((300, 300, 3), 128, np.uint8)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keystore]:
    folder = tmp_path_factory.mktemp("failed")
    with Keystore.create(folder / "keystore.db", KeyFileUnlock.generate(folder / "unlock.key")) as made:
        made.originals.enable(KeyFileUnlock.generate(folder / "second.key"))
        made.references.enable("door")
        yield made


@pytest.fixture(scope="module")
def mixer(store: Keystore, parts_once: None, model: Callable[[str], Path]) -> Iterator[Anonymixer]:
    for name in WEIGHTS:
        model(name)
    with Anonymixer(store) as made:
        yield made


@pytest.fixture
def left(store: Keystore) -> Iterator[Callable[[], set[str]]]:
    """Who is in the store that was not there before; a test that passes leaves it as it was."""
    before, scopes = set(store.subjects()), set(store.scopes())
    yield lambda: (set(store.subjects()) - before) | (set(store.scopes()) - scopes)
    assert store.verify().ok


@pytest.fixture
def photos(portraits: Path) -> list[Path]:
    """Of three people."""
    return [portraits / f"{name}_neutral.jpg" for name in ("001", "002", "003")]


def no_picture(*_: object) -> np.ndarray:
    return np.full((1, 3, 8, 8), np.nan, np.float32)


def test_a_photo_that_can_not_be_used_issues_no_key_by_any_door(
    mixer: Anonymixer, photos: list[Path], left: Callable[[], set[str]]
) -> None:
    how = {"subject": "nobody", "scope": "a new one", "enrol": True}
    for bad, error in ((b"no image", UnreadableImageError), (BLANK, NoFaceError)):
        for call in (mixer.protect, mixer.protect_all):
            with pytest.raises(error):
                call(bad, **how)
        with pytest.raises(error):
            mixer.protect([photos[0], bad], **how)
        outcomes = [*mixer.protect_many([bad], **how), *mixer.protect_stream([PhotoRequest(bad, **how)])]
        assert [type(outcome.error) for outcome in outcomes] == [error, error]
    with pytest.raises(DifferentPeopleError):
        mixer.protect(list(photos), **how)
    assert left() == set()
    assert not [line for line in mixer.keystore.audit() if line["action"] in {"issue", "take-back"}]  # type: ignore[attr-defined]


def test_a_face_that_the_quality_gate_refuses_issues_no_key(
    store: Keystore, photos: list[Path], left: Callable[[], set[str]]
) -> None:
    with Anonymixer(store, min_quality=50) as strict, pytest.raises(LowQualityError):
        strict.protect(photos[0], subject="nobody", enrol=True)
    assert left() == set()


def test_a_key_whose_face_could_not_be_drawn_is_taken_back(
    mixer: Anonymixer, photos: list[Path], left: Callable[[], set[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    how = {"subject": "nobody", "scope": "a new one", "enrol": True}
    with monkeypatch.context() as patch:
        patch.setattr(module, "pictures_of", no_picture)
        for images in (photos[0], [photos[0]]):
            with pytest.raises(AnonymixError, match="no picture"):
                mixer.protect(images, **how)  # type: ignore[call-overload]
        assert left() == set()
        (outcome,) = mixer.protect_many([photos[0]], **how)
        assert isinstance(outcome.error, AnonymixError)
        assert left() == set()
        patch.setattr(type(mixer.generator), "batch", 4, raising=False)
        requests = [PhotoRequest(photo, f"nobody {number}", enrol=True) for number, photo in enumerate(photos)]
        patch.setattr(module, "pictures_of", lambda *_: np.repeat(no_picture(), 3, axis=0))
        assert all(outcome.error is not None for outcome in mixer.protect_stream(requests))
        assert left() == set()
        patch.setattr(module, "pictures_of", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            list(mixer.protect_stream(requests))
    assert left() == set()
    assert mixer.protect(photos[0], **how).key_version == 1  # type: ignore[call-overload]
    assert left() == {"nobody", "a new one"}


def test_a_locked_second_secret_leaves_no_subject(store: Keystore, mixer: Anonymixer, photos: list[Path], left) -> None:
    unlock = KeyFileUnlock(store.path.parent / "unlock.key")
    with Anonymixer.open(store.path, unlock=unlock) as locked, pytest.raises(OriginalsError):
        locked.protect(photos[0], subject="nobody", scope="door", enrol=True)
    assert left() == set()


def attempted(make: Callable[[], object]) -> None:
    """An enrolment that fails after its key was issued."""
    with attempt():
        make()
        raise TimeoutError


@pytest.mark.parametrize("scope", ["plain", "door"])
def test_a_back_end_that_fails_leaves_no_subject_and_no_reference(
    mixer: Anonymixer, store: Keystore, photos: list[Path], left: Callable[[], set[str]], scope: str
) -> None:
    front = Interceptor(mixer, "test", scope=scope)

    def enrol(subject: str, send: Callable[[object], str]) -> None:
        whose = front.whose(argument=subject, enrol=True)
        front.enrol(photos[0], whose, collection="c", send=send, external_id=str, undo=lambda _: None)

    def fail(_: object = None) -> str:
        raise TimeoutError

    def together(subject: str) -> None:
        with front.together(subject, [photos[1]] * 2):
            fail()

    def host(subject: str, several: bool) -> None:
        with front.enrolment(subject, collection="c", external_id="1", photos=[photos[1]] * 2 if several else ()):
            front.protect(photos[1], front.whose())
            fail()

    def every(subject: str) -> None:
        for call in (lambda: enrol(subject, fail), lambda: together(subject), lambda: host(subject, several=False)):
            with pytest.raises(TimeoutError):
                call()

    every("nobody")
    assert left() == set()
    enrol("known", lambda _: "entry")  # who was there before stays, with the reference of before
    before = mixer.protect(photos[1], subject="known", scope=scope)
    every("known")
    assert mixer.protect(photos[1], subject="known", scope=scope).pixels.tobytes() == before.pixels.tobytes()


def test_a_key_stays_where_something_came_of_it(store: Keystore) -> None:
    def recorded() -> None:
        first_or_current(store, "recorded", "plain")
        store.record_enrolment(
            "recorded", "plain", adapter="a", collection="c", external_id="r", version=1, fingerprint="f"
        )

    def rotated() -> None:
        first_or_current(store, "rotated", "plain")
        store.rotate("rotated", "plain")

    for make in (recorded, rotated, lambda: store.issue("issued by itself", "plain")):
        with pytest.raises(TimeoutError):
            attempted(make)
    assert {"recorded", "rotated", "issued by itself"} <= set(store.subjects("plain"))
    store.issue("gone", "plain")
    store.revoke("gone", "plain")
    with pytest.raises(KeyRevokedError):
        attempted(lambda: first_or_current(store, "gone", "plain"))
    assert "gone" in set(store.subjects("plain"))


def test_of_two_attempts_at_once_one_that_succeeds_keeps_the_key(store: Keystore) -> None:
    both, done = threading.Barrier(2, timeout=PATIENCE), threading.Event()
    keys: list[bytes] = []

    def look() -> None:
        keys.append(first_or_current(store, "twin", "plain").material)
        both.wait()

    def succeed() -> None:
        with attempt():
            look()
            done.wait(PATIENCE)

    thread = threading.Thread(target=succeed)
    thread.start()
    with pytest.raises(TimeoutError):
        attempted(look)
    assert store.current("twin", "plain").material == keys[0]
    done.set()
    thread.join()
    assert set(keys) == {store.current("twin", "plain").material}


def test_an_attempt_inside_another_leaves_the_end_to_that(store: Keystore) -> None:
    def inner() -> None:
        with pytest.raises(TimeoutError):
            attempted(lambda: first_or_current(store, "inner", "plain"))
        assert "inner" in set(store.subjects("plain"))

    with attempt():
        inner()
    assert "inner" in set(store.subjects("plain"))
    store.forget("inner")
    with pytest.raises(TimeoutError):
        attempted(inner)
    assert "inner" not in set(store.subjects("plain"))


def test_what_can_not_be_taken_back_is_told_with_the_error(store: Keystore, monkeypatch: pytest.MonkeyPatch) -> None:
    def busy(*_: object) -> bool:
        raise BusyError("other writers hold the store")

    monkeypatch.setattr(type(store), "take_back", busy)
    with pytest.raises(TimeoutError) as caught:
        attempted(lambda: first_or_current(store, "stays", "plain"))
    assert "could not be taken back: other writers hold the store" in caught.value.__notes__[0]
    assert "stays" not in caught.value.__notes__[0]


def test_steps_are_undone_in_turn_and_only_after_an_error() -> None:
    done: list[int] = []
    one = Attempt()
    one.undo(lambda: done.append(1))
    one.undo(lambda: done.append(2))
    one.end(AnchorError("away"))
    assert done == [2, 1]
    other = Attempt()
    other.undo(lambda: done.append(3))
    other.end()
    assert done == [2, 1]
    with pytest.raises(UnknownSubjectError), attempt():
        raise UnknownSubjectError("nobody")
