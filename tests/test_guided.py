"""Scopes that keep references: probes are turned by them; everywhere else all is as it was, byte for byte."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from anonymix_keystore import (
    KeyFileUnlock,
    KeyRevokedError,
    Keystore,
    OriginalsError,
    OutdatedReferenceError,
    SubjectKey,
    UnknownSubjectError,
    WrongKeyError,
)
from anonymix_plugin import (
    Anonymixer,
    DamagedModelError,
    DifferentPeopleError,
    GuidingCurve,
    MixingPolicy,
    PhotoRequest,
)
from anonymix_plugin.guiding import Guide, GuideSettings
from anonymix_plugin.mixer.key_schedule import KeySchedule
from anonymix_plugin.reader import Stopwatch
from anonymix_plugin.values import ReadFace
from anonymix_plugin.verification import Verifier

pytestmark = pytest.mark.usefixtures("parts_once")
WEIGHTS = ("mobilestylegan", "yunet", "arcface-mbf", "sface")
VECTORS = json.loads((Path(__file__).parent / "mixer" / "vectors.json").read_text())
SHIPPED = "65c4b092"  # what the mixer is called in the tables of the docs


class PlainKeys:
    """Keys of a store, as a source that knows nothing of references."""

    def __init__(self, store: Keystore) -> None:
        self._store = store

    def current(self, subject: str, scope: str = "default") -> SubjectKey:
        return self._store.current(subject, scope)

    def current_or_issue(self, subject: str, scope: str = "default") -> SubjectKey:
        return self._store.current_or_issue(subject, scope)

    def at(self, subject: str, version: int, scope: str = "default") -> SubjectKey:
        return self._store.at(subject, version, scope)

    def gallery(self, scope: str = "default") -> SubjectKey:
        return self._store.gallery(scope)

    def close(self) -> None:
        pass


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("guided")


@pytest.fixture(scope="module")
def store(folder: Path) -> Iterator[Keystore]:
    unlock = KeyFileUnlock.generate(folder / "unlock.key")
    with Keystore.create(folder / "keystore.db", unlock) as made:
        made.originals.enable(KeyFileUnlock.generate(folder / "second.key"))
        made.references.enable("door")
        yield made


@pytest.fixture(scope="module")
def mixer(store: Keystore, parts_once: None, model: Callable[[str], Path]) -> Iterator[Anonymixer]:
    for name in WEIGHTS:
        model(name)
    with Anonymixer(store) as made:
        yield made


@pytest.fixture(scope="module")
def photos(portraits: Path) -> list[Path]:
    """Two photos of one person, then one each of two others."""
    names = ("001_neutral", "001_smiling", "002_neutral", "003_neutral")
    return [portraits / f"{name}.jpg" for name in names]


@pytest.fixture(scope="module")
def verifier(model: Callable[[str], Path]) -> Verifier:
    model("sface")
    return Verifier("sface", "fmr-0.1%")


def code_of(mixer: Anonymixer, photo: Path) -> np.ndarray:
    """The person's code, read as the mixer reads it."""
    reader = mixer._parts.reader
    return reader.read(reader.decode(photo, Stopwatch()), Stopwatch())[0].person


@contextmanager
def seeing_codes(mixer: Anonymixer) -> Iterator[list[np.ndarray]]:
    """The codes that are drawn inside the block."""
    seen: list[np.ndarray] = []
    method = type(mixer._parts.method)
    make = method.code

    def noting(self: object, read: ReadFace, *more: object) -> object:
        seen.append(read.person)
        return make(self, read, *more)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(method, "code", noting)
        yield seen


@pytest.mark.parametrize("vector", VECTORS["mix"], ids=lambda vector: f"axis {vector['axis']}")
def test_codes_are_mixed_as_the_vectors_say(mixer: Anonymixer, vector: dict[str, Any]) -> None:
    key = bytes.fromhex(vector["key"])
    read = ReadFace(None, np.eye(32)[vector["axis"]], None, None, None)  # type: ignore[arg-type]
    code = mixer._parts.method.code(read, KeySchedule(key), key)
    assert np.allclose(code[[0, 8, 22], :4], vector["w_plus"], atol=2e-4)


def test_without_references_all_is_as_it_was_byte_for_byte(
    mixer: Anonymixer, store: Keystore, photos: list[Path]
) -> None:
    assert mixer.fingerprint.startswith(SHIPPED)
    for subject in ("alice", "bob"):
        store.issue(subject, "plain")
    with Anonymixer(PlainKeys(store)) as before:
        for subject, photo in (("alice", photos[0]), ("bob", photos[2]), (None, photos[0])):
            old = before.protect(photo, subject=subject, scope="plain")
            for enrol in (False, True):
                new = mixer.protect(photo, subject=subject, scope="plain", enrol=enrol)
                assert new.pixels.tobytes() == old.pixels.tobytes()
                assert (new.fingerprint, new.guided) == (old.fingerprint, False)
        # In a scope with references: the gallery key, and whoever was enrolled before the switch.
        store.issue("enrolled before", "door")
        for who in (None, "enrolled before"):
            face = mixer.protect(photos[0], subject=who, scope="door")
            assert face.pixels.tobytes() == before.protect(photos[0], subject=who, scope="door").pixels.tobytes()
            assert (face.fingerprint, face.guided) == (mixer.fingerprint, False)


def test_the_first_photo_is_drawn_as_ever_and_becomes_the_reference(
    mixer: Anonymixer, store: Keystore, photos: list[Path]
) -> None:
    entry = mixer.protect(photos[0], subject="first", scope="door", enrol=True)
    with Anonymixer(PlainKeys(store)) as before:
        assert entry.pixels.tobytes() == before.protect(photos[0], subject="first", scope="door").pixels.tobytes()
    assert entry.guided
    assert entry.fingerprint == mixer.guided_fingerprint != mixer.fingerprint
    assert "guide" in entry.timings
    again = mixer.protect(photos[0], subject="first", scope="door")
    assert again.pixels.tobytes() == entry.pixels.tobytes()


def test_near_photos_become_the_same_face_and_strangers_another(
    mixer: Anonymixer, store: Keystore, photos: list[Path], verifier: Verifier
) -> None:
    key = store.issue("mary", "door")
    entry = mixer.protect(photos[0], subject="mary", scope="door", enrol=True)
    plain = MixingPolicy()
    cosines = [code_of(mixer, photos[0]) @ code_of(mixer, photo) for photo in photos[1:]]
    with Anonymixer(PlainKeys(store)) as before:
        for photo, cosine in zip(photos[1:], cosines, strict=True):
            guided = mixer.protect(photo, subject="mary", scope="door")
            unguided = before.protect(photo, subject="mary", scope="door")
            nearer = verifier.compare(entry, guided).similarity - verifier.compare(entry, unguided).similarity
            # Towards the entry or away from it, as the curve says of this photo's angle.
            assert np.sign(nearer) == np.sign(plain.guide.turned(cosine) - cosine)
            assert guided.key_version == key.version
    assert cosines[0] > plain.guide.high > plain.guide.low > max(cosines[1:])
    same = mixer.protect(photos[1], subject="mary", scope="door")
    assert verifier.compare(entry, same).similarity > 0.9  # next to the reference, if not the reference itself
    assert same.pixels.tobytes() != entry.pixels.tobytes()


def test_a_stranger_who_is_enrolled_by_a_single_photo_does_not_move_the_reference(
    mixer: Anonymixer, photos: list[Path]
) -> None:
    entry = mixer.protect(photos[0], subject="nell", scope="door", enrol=True)
    mixer.protect(photos[2], subject="nell", scope="door", enrol=True)
    mixer.protect([photos[2]], subject="nell", scope="door", enrol=True)
    assert mixer.protect(photos[0], subject="nell", scope="door").pixels.tobytes() == entry.pixels.tobytes()


def test_streams_and_single_calls_make_the_same_guided_bytes(mixer: Anonymixer, photos: list[Path]) -> None:
    mixer.protect(photos[0], subject="olga", scope="door", enrol=True)
    requests = [PhotoRequest(photo, "olga", "door") for photo in photos[:3]]
    streamed = [outcome.faces[0] for outcome in mixer.protect_stream(requests)]
    many = [outcome.faces[0] for outcome in mixer.protect_many(photos[:3], subject="olga", scope="door")]
    for photo, one, other in zip(photos, streamed, many, strict=False):
        face = mixer.protect(photo, subject="olga", scope="door")
        assert face.guided
        assert face.pixels.tobytes() == one.pixels.tobytes() == other.pixels.tobytes()
        assert one.fingerprint == other.fingerprint == mixer.guided_fingerprint


def test_several_photos_make_one_entry_from_their_mean(
    mixer: Anonymixer, store: Keystore, photos: list[Path], folder: Path
) -> None:
    with Image.open(photos[0]) as picture:
        ImageOps.mirror(picture.convert("RGB")).save(folder / "mirrored.png")
    mine = [*photos[:2], folder / "mirrored.png"]
    for scope, guided in (("plain", False), ("door", True)):
        faces = mixer.protect([*mine, photos[2]], subject="pat", scope=scope, enrol=True)
        assert len(faces) == 4
        assert len({face.pixels.tobytes() for face in faces}) == 1
        assert (faces[0].photos, faces[0].left_out, faces[0].guided) == (3, (3,), guided)
        mean = sum(code_of(mixer, photo) for photo in mine)
        mean /= np.linalg.norm(mean)
        key = store.current("pat", scope)
        with seeing_codes(mixer) as seen:
            again = mixer.protect(tuple(mine), subject="pat", scope=scope, enrol=True)[0]
        assert np.allclose(seen[0], mean, atol=1e-9)
        assert again.pixels.tobytes() == faces[0].pixels.tobytes()
        assert again.left_out == ()
        assert again.key_version == key.version
    single = mixer.protect(photos[:1], subject="pat", scope="plain", enrol=True)[0]
    assert single.pixels.tobytes() == mixer.protect(photos[0], subject="pat", scope="plain").pixels.tobytes()


def test_several_photos_enrol_a_subject_again(mixer: Anonymixer, photos: list[Path], verifier: Verifier) -> None:
    wrong = mixer.protect(photos[2], subject="quinn", scope="door", enrol=True)
    right = mixer.protect(photos[:2], subject="quinn", scope="door", enrol=True)[0]
    probe = mixer.protect(photos[0], subject="quinn", scope="door")
    assert verifier.compare(right, probe).similarity > 0.9
    assert not verifier.compare(wrong, probe).match


def test_photos_of_different_people_enrol_nobody(mixer: Anonymixer, store: Keystore, photos: list[Path]) -> None:
    with pytest.raises(DifferentPeopleError):
        mixer.protect(photos[1:], subject="rose", scope="door", enrol=True)
    with pytest.raises(UnknownSubjectError):
        store.current("rose", "door")
    entry = mixer.protect(photos[0], subject="rosa", scope="door", enrol=True)
    with pytest.raises(DifferentPeopleError):
        mixer.protect(photos[1:], subject="rosa", scope="door", enrol=True)
    assert mixer.protect(photos[0], subject="rosa", scope="door").pixels.tobytes() == entry.pixels.tobytes()


def test_a_rotated_key_starts_without_a_reference_and_the_old_one_keeps_its_own(
    mixer: Anonymixer, store: Keystore, photos: list[Path]
) -> None:
    mixer.protect(photos[0], subject="sue", scope="door", enrol=True)
    store.rotate("sue", "door")
    assert not mixer.protect(photos[1], subject="sue", scope="door").guided
    assert mixer.protect(photos[1], subject="sue", scope="door", version=1).guided
    assert mixer.protect(photos[1], subject="sue", scope="door", enrol=True).guided
    store.rotate("sue", "door", reason="breach")
    with pytest.raises(KeyRevokedError):
        mixer.protect(photos[1], subject="sue", scope="door", version=2)


def test_another_curve_is_another_fingerprint_for_guided_scopes_alone(
    mixer: Anonymixer, store: Keystore, photos: list[Path]
) -> None:
    mixer.protect(photos[0], subject="tom", scope="door", enrol=True)
    with Anonymixer(store, policy=MixingPolicy(guide=GuidingCurve(0.1, 0.7, 0.0))) as other:
        assert other.fingerprint == mixer.fingerprint
        assert other.guided_fingerprint != mixer.guided_fingerprint
        with pytest.raises(OutdatedReferenceError, match="another mixer"):
            other.protect(photos[1], subject="tom", scope="door")
        assert other.protect(photos[1], subject="tom", scope="door", enrol=True).guided  # enrolled again
    with pytest.raises(OutdatedReferenceError):
        mixer.protect(photos[1], subject="tom", scope="door")


def test_a_scope_whose_secret_is_not_there_is_refused_and_others_are_not(
    mixer: Anonymixer, store: Keystore, photos: list[Path], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mixer.protect(photos[0], subject="uma", scope="door", enrol=True)
    store.current_or_issue("uma", "plain")
    entry = mixer.protect(photos[1], subject="uma", scope="door")
    path, unlock = folder / "keystore.db", KeyFileUnlock(folder / "unlock.key")
    monkeypatch.delenv("ANONYMIX_SECOND_KEYFILE", raising=False)
    with Anonymixer.open(path, unlock=unlock) as locked:
        for enrol in (False, True):
            with pytest.raises(OriginalsError, match="locked"):
                locked.protect(photos[1], subject="uma", scope="door", enrol=enrol)
        (outcome,) = locked.protect_many([photos[1]], subject="uma", scope="door")
        assert isinstance(outcome.error, OriginalsError)
        assert not outcome.faces
        assert not locked.protect(photos[1], subject="uma", scope="plain").guided
    second = KeyFileUnlock(folder / "second.key")
    with Anonymixer.open(path, unlock=unlock, second_unlock=second) as opened:
        assert opened.protect(photos[1], subject="uma", scope="door").pixels.tobytes() == entry.pixels.tobytes()
    monkeypatch.setenv("ANONYMIX_SECOND_KEYFILE", str(folder / "second.key"))
    with Anonymixer.open(path, unlock=unlock) as opened:
        assert opened.protect(photos[1], subject="uma", scope="door").guided
    KeyFileUnlock.generate(folder / "wrong.key")
    monkeypatch.setenv("ANONYMIX_SECOND_KEYFILE", str(folder / "wrong.key"))
    with pytest.raises(WrongKeyError):
        Anonymixer.open(path, unlock=unlock)


def test_guiding_a_face_costs_less_than_a_millisecond(mixer: Anonymixer, photos: list[Path]) -> None:
    mixer.protect(photos[0], subject="vera", scope="door", enrol=True)
    costs = [mixer.protect(photos[1], subject="vera", scope="door").timings["guide"] for _ in range(5)]
    assert min(costs) < 1e-3


def test_a_reference_of_another_length_is_refused(store: Keystore) -> None:
    key = store.issue("will", "door")
    settings = GuideSettings(GuidingCurve(), "f", "s")
    store.references.keep(key, b"short", fingerprint="f", subspace="s")
    with pytest.raises(DamagedModelError, match="5 bytes"):
        Guide(settings, store).turned(np.eye(32)[0], key, enrol=False)


def test_of_two_enrolments_at_once_both_are_drawn_by_the_first_ones_reference(store: Keystore) -> None:
    key, first, second = store.issue("xena", "door"), np.eye(32)[0], np.eye(32)[1]
    guide = Guide(GuideSettings(GuidingCurve(), "f", "s"), store)
    keep = type(store.references).keep

    def slower(book: object, *arguments: object, **names: object) -> bool:
        """Another process enrols between the look and the keeping."""
        keep(store.references, key, first.astype("<f8").tobytes(), fingerprint="f", subspace="s")
        return keep(book, *arguments, **names)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(store.references), "keep", slower)
        drawn = guide.turned(second, key, enrol=True)
    assert drawn is not None
    assert drawn @ first == pytest.approx(GuidingCurve().floor)
    again = guide.turned(second, key, enrol=True, again=True)
    assert again is not None
    assert np.allclose(again, second)
