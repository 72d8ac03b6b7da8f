"""The library on real photos: what goes in, what comes out, and what never does."""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from photo_folders import with_room
from PIL import Image
from service_rig import ServiceRig

from anonymix_keystore import (
    Argon2Cost,
    KeyRevokedError,
    Keystore,
    KeystoreError,
    LockedError,
    PassphraseUnlock,
    StoreMissingError,
    UnknownSubjectError,
    UnknownVersionError,
    UnlockUnavailableError,
    WrongPassphraseError,
)
from anonymix_lab.data.keys import SeededKeys
from anonymix_plugin import (
    AlreadyProtectedError,
    Anonymixer,
    AnonymixError,
    BadArrayError,
    CancelableFace,
    DamagedModelError,
    ImageTooLargeError,
    ImageTooSmallError,
    MissingModelError,
    NoFaceError,
    OutputError,
    SeveralFacesError,
    UnreadableImageError,
    UsageError,
    assembly,
    read_marker,
    save_cancelable,
)
from anonymix_plugin.faces import YuNet, ffhq_crop
from anonymix_plugin.generator import load_generator
from anonymix_plugin.images import decode_photo
from anonymix_plugin.inference import _kept
from anonymix_plugin.models import locate
from anonymix_plugin.recognisers import load_recogniser
from anonymix_plugin.verification import Verifier

SECRET = "swordfish and chips"
WEIGHTS = ("mobilestylegan", "yunet", "arcface-mbf", "sface")
pytestmark = pytest.mark.usefixtures("loaded_once")


@pytest.fixture(scope="module", autouse=True)
def unlocked() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("ANONYMIX_PASSPHRASE", "ANONYMIX_KEYSTORE", "ANONYMIX_KEYFILE", "ANONYMIX_KEY"):
            patch.delenv(name, raising=False)
        yield


@pytest.fixture(scope="module")
def store_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("keys") / "keystore.db"
    cheap = Argon2Cost(memory_kib=8_192, passes=1, lanes=1)
    with Keystore.create(path, PassphraseUnlock(SECRET, cost=cheap)) as store:
        for subject in ("alice", "bob", "Zaphod Beeblebrox"):
            store.issue(subject)
        store.issue("rotated")
        store.rotate("rotated")
        store.issue("revoked")
        store.revoke("revoked")
    return path


@pytest.fixture(scope="module")
def mixer(store_path: Path, model: Callable[[str], Path]) -> Iterator[Anonymixer]:
    for name in WEIGHTS:
        model(name)
    with Anonymixer.open(store_path, passphrase=SECRET) as opened:
        yield opened


@pytest.fixture(scope="module")
def seeded(mixer: Anonymixer) -> Iterator[Anonymixer]:
    """A mixer whose keys are the same in every run, for what holds for nearly every key, not for each."""
    assert mixer.generator
    with Anonymixer(SeededKeys(5)) as made:
        yield made


@pytest.fixture(scope="module")
def one(portraits: Path) -> Path:
    return portraits / "001_neutral.jpg"


@pytest.fixture(scope="module")
def one_smiling(portraits: Path) -> Path:
    return portraits / "001_smiling.jpg"


@pytest.fixture(scope="module")
def protected(mixer: Anonymixer, one: Path) -> CancelableFace:
    return mixer.protect(one, subject="alice")


@pytest.fixture(scope="module")
def verifier(model: Callable[[str], Path]) -> Verifier:
    model("arcface-mbf")
    return Verifier("arcface-mbf", "fmr-0.1%")


# --- what comes out ---------------------------------------------------------------------------------


def test_the_face_says_where_it_came_from_and_how_long_it_took(
    mixer: Anonymixer, protected: CancelableFace, one: Path
) -> None:
    assert protected.pixels.shape == (512, 512, 3)
    assert protected.pixels.dtype == np.uint8
    assert (protected.subject, protected.scope, protected.key_version) == ("alice", "default", 1)
    assert protected.method == "fast"
    assert protected.source == str(one)
    assert protected.fingerprint == mixer.fingerprint
    assert len(bytes.fromhex(protected.fingerprint)) == 16
    x0, y0, x1, y1 = protected.box
    assert 0 < x0 < x1 < 640
    assert 0 < y0 < y1 < 640
    stages = dict(protected.timings)
    total = stages.pop("total")
    assert {"decode", "detect", "align", "embed", "mix", "generate"} <= set(stages)
    assert sum(stages.values()) == pytest.approx(total)


def test_a_mixer_draws_under_keys_of_a_key_service(
    mixer: Anonymixer, protected: CancelableFace, one: Path, tmp_path: Path
) -> None:
    rig = ServiceRig(tmp_path)
    with closing(rig):
        rig.start()
        over = mixer.with_keystore(rig.client())
        enrolled = over.protect(one, subject="heidi", scope="staff", enrol=True)
        probe = over.protect(one, subject="heidi", scope="staff")
        with rig.opened_store() as store:
            local = mixer.with_keystore(store).protect(one, subject="heidi", scope="staff")
    assert np.array_equal(enrolled.pixels, local.pixels)
    assert np.array_equal(probe.pixels, local.pixels)
    assert not np.array_equal(local.pixels, protected.pixels)


def test_the_same_photo_and_key_give_the_same_pixels_however_the_photo_is_given(
    mixer: Anonymixer, protected: CancelableFace, one: Path
) -> None:
    content = one.read_bytes()
    with one.open("rb") as stream, Image.open(one) as picture:
        array = np.asarray(picture.convert("RGB"))
        sources: list[Any] = [
            str(one),
            content,
            bytearray(content),
            stream,
            io.BytesIO(content),
            picture,
            array,
        ]
        for source in sources:
            face = mixer.protect(source, subject="alice")
            assert face.pixels.tobytes() == protected.pixels.tobytes(), type(source)
            assert face.box == protected.box
    blue_first = mixer.protect(array[..., ::-1].copy(), subject="alice", channel_order="bgr")
    assert blue_first.pixels.tobytes() == protected.pixels.tobytes()


def test_a_mixer_opened_again_makes_the_same_pixels(
    store_path: Path, mixer: Anonymixer, protected: CancelableFace, one: Path
) -> None:
    with Anonymixer.open(store_path, passphrase=SECRET) as second:
        face = second.protect(one, subject="alice")
    assert second.fingerprint == mixer.fingerprint
    assert face.pixels.tobytes() == protected.pixels.tobytes()


def test_another_version_of_the_key_makes_another_face(mixer: Anonymixer, one: Path) -> None:
    old, new = (mixer.protect(one, subject="rotated", version=version) for version in (1, 2))
    assert (old.key_version, new.key_version) == (1, 2)
    assert old.pixels.tobytes() != new.pixels.tobytes()
    assert mixer.protect(one, subject="rotated").pixels.tobytes() == new.pixels.tobytes()


def test_another_key_makes_another_person(seeded: Anonymixer, one: Path, verifier: Verifier) -> None:
    embeddings = np.stack([verifier.embed(seeded.protect(one, subject=f"k{key}")) for key in range(8)])
    cosines = (embeddings @ embeddings.T)[np.triu_indices(8, 1)]
    # A few in a hundred may match, as they may for people; `anonymix measure london` counts how many do.
    assert (cosines >= verifier.threshold.value).mean() < 0.1
    assert cosines.mean() < verifier.threshold.value / 2


def test_two_photos_of_a_person_under_one_key_match(
    seeded: Anonymixer, one: Path, one_smiling: Path, verifier: Verifier
) -> None:
    for subject in ("alice", "bob"):
        faces = seeded.protect([one, one_smiling], subject=subject)
        result = verifier.compare(*faces)
        assert result.match
        assert result.similarity > result.threshold.value + 0.1


def test_the_cancelable_face_does_not_match_the_original(
    seeded: Anonymixer, one: Path, one_smiling: Path, verifier: Verifier
) -> None:
    assert verifier.compare(one, one_smiling).match
    for subject in ("alice", "bob"):
        face = seeded.protect(one, subject=subject)
        assert not verifier.compare(face, one).match
        assert not verifier.compare(face, one_smiling).match


def test_nothing_of_the_photo_is_in_the_picture(protected: CancelableFace, one: Path) -> None:
    """Two aligned faces are alike when blurred; fine detail is alike only where pixels were copied."""

    def detail(picture: np.ndarray) -> np.ndarray:
        grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float64)
        fine = grey - cv2.GaussianBlur(grey, (0, 0), 2)
        return (fine / np.linalg.norm(fine)).ravel()

    original = ffhq_crop(YuNet(locate("yunet")).detect(decode_photo(one))[0], 512)
    recoded = np.asarray(Image.open(io.BytesIO(_jpeg(original))).convert("RGB"))
    assert detail(original) @ detail(recoded) > 0.5  # so that a copy would be seen
    assert abs(detail(original) @ detail(protected.pixels)) < 0.2


def _jpeg(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=60)
    return stream.getvalue()


def test_a_gallery_key_is_one_for_everybody_in_a_scope(mixer: Anonymixer, one: Path, verifier: Verifier) -> None:
    gate, club = mixer.protect(one, scope="gate"), mixer.protect(one, scope="club")
    assert gate.subject == ""
    assert mixer.protect(one, scope="gate").pixels.tobytes() == gate.pixels.tobytes()
    assert gate.pixels.tobytes() != club.pixels.tobytes()


def test_the_same_mixer_draws_under_keys_of_another_keystore(mixer: Anonymixer, one: Path) -> None:
    other = mixer.with_keystore(SeededKeys(3))
    assert other.fingerprint == mixer.fingerprint
    first, again = (other.protect(one, subject="alice", enrol=True).pixels for _ in range(2))
    assert (first == again).all()
    assert not (first == mixer.protect(one, subject="alice", enrol=True).pixels).all()
    assert other.keystore is not mixer.keystore


def test_enrolling_issues_a_key_once(mixer: Anonymixer, one: Path) -> None:
    first = mixer.protect(one, subject="newcomer", enrol=True)
    again = mixer.protect(one, subject="newcomer", enrol=True)
    assert first.key_version == again.key_version == 1
    assert first.pixels.tobytes() == again.pixels.tobytes()


def test_one_bad_photo_of_many_does_not_stop_the_rest(mixer: Anonymixer, one: Path, one_smiling: Path) -> None:
    outcomes = list(mixer.protect_many([one, b"no image", one_smiling], subject="alice"))
    assert [len(outcome.faces) for outcome in outcomes] == [1, 0, 1]
    assert isinstance(outcomes[1].error, UnreadableImageError)
    assert outcomes[0].error is None
    assert outcomes[0].source == str(one)


# --- bad input --------------------------------------------------------------------------------------


def _png(size: tuple[int, int], mode: str = "RGB") -> bytes:
    stream = io.BytesIO()
    Image.new(mode, size).save(stream, "PNG")
    return stream.getvalue()


def _noise(dtype: str) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 200, (64, 64, 3)).astype(dtype)


_BAD_PHOTOS: dict[str, tuple[Callable[[Path], Any], type[AnonymixError]]] = {
    "no face": (lambda _: np.full((200, 200, 3), 128, np.uint8), NoFaceError),
    "no image": (lambda _: b"%PDF-1.7 and so on", UnreadableImageError),
    "nothing": (lambda _: b"", UnreadableImageError),
    "no such file": (lambda photo: photo.with_name("nobody.jpg"), UnreadableImageError),
    "a folder": (lambda photo: photo.parent, UnreadableImageError),
    "truncated": (lambda photo: photo.read_bytes()[:20_000], UnreadableImageError),
    "1 x 1": (lambda _: _png((1, 1)), ImageTooSmallError),
    "20,000 px": (lambda _: _png((20_000, 20_000), "1"), ImageTooLargeError),
    "20,000 px wide": (lambda _: _png((20_000, 64)), ImageTooLargeError),
    "NaN": (lambda _: np.full((64, 64, 3), np.nan, np.float32), BadArrayError),
    "out of range": (lambda _: _noise("float64"), BadArrayError),
    "wrong dtype": (lambda _: _noise("int32"), BadArrayError),
    "complex": (lambda _: _noise("complex64"), BadArrayError),
    "objects": (lambda _: _noise("object"), BadArrayError),
    "wrong shape": (lambda _: np.zeros((64, 64, 7), np.uint8), BadArrayError),
    "a number": (lambda _: 42, UsageError),
}


@pytest.mark.parametrize("name", _BAD_PHOTOS)
def test_a_photo_that_can_not_be_used_is_told_and_gives_nothing(mixer: Anonymixer, one: Path, name: str) -> None:
    make, expected = _BAD_PHOTOS[name]
    with pytest.raises(expected) as caught:
        mixer.protect(make(one), subject="alice")
    assert caught.value.what
    assert caught.value.fix or caught.value.where
    assert caught.value.exit_code in {2, 3}


def test_several_faces_follow_the_policy(
    store_path: Path, mixer: Anonymixer, portraits: Path, real_people: bool, one: Path
) -> None:
    both = Image.new("RGB", (1000, 640), (200, 200, 200))
    both.paste(with_room(one), (0, 0))
    both.paste(with_room(portraits / "002_neutral.jpg").resize((360, 360)), (640, 200))
    largest = mixer.protect(both, subject="alice")
    with Anonymixer.open(store_path, passphrase=SECRET, faces="all") as everybody:
        faces = everybody.protect_all(both, subject="alice")
    assert len(faces) == 2
    assert faces[0].box == pytest.approx(largest.box, abs=16)
    if real_people:  # both searches find the very same box there
        assert faces[0].pixels.tobytes() == largest.pixels.tobytes()
    assert faces[0].box != faces[1].box
    with (
        Anonymixer.open(store_path, passphrase=SECRET, faces="error") as strict,
        pytest.raises(SeveralFacesError) as caught,
    ):
        strict.protect(both, subject="alice")
    assert "largest" in caught.value.fix


def test_a_cancelable_face_is_not_mixed_twice(mixer: Anonymixer, protected: CancelableFace, tmp_path: Path) -> None:
    save_cancelable(protected, tmp_path / "face.png")
    with pytest.raises(AlreadyProtectedError):
        mixer.protect(tmp_path / "face.png", subject="alice")


# --- keys -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"subject": "nobody"}, UnknownSubjectError),
        ({"subject": "alice", "scope": "elsewhere"}, UnknownSubjectError),
        ({"subject": "alice", "version": 7}, UnknownVersionError),
        ({"subject": "revoked"}, KeyRevokedError),
        ({"subject": "revoked", "version": 1}, KeyRevokedError),
        ({"subject": "revoked", "enrol": True}, KeyRevokedError),
        ({"subject": ""}, KeystoreError),
        ({"version": 1}, UsageError),
    ],
)
def test_without_a_usable_key_there_is_no_face(
    mixer: Anonymixer, one: Path, arguments: dict[str, Any], expected: type[Exception]
) -> None:
    with pytest.raises(expected):
        mixer.protect(one, **arguments)
    with pytest.raises(expected):
        mixer.protect_many([one], **arguments)


def test_a_probe_of_an_unknown_person_makes_no_key(mixer: Anonymixer, one: Path) -> None:
    for _ in range(2):
        with pytest.raises(UnknownSubjectError):
            mixer.protect(one, subject="stranger")


def test_the_store_opens_to_its_passphrase_alone(
    store_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(WrongPassphraseError) as caught:
        Anonymixer.open(store_path, passphrase="shark and chips")
    assert "shark" not in str(caught.value)
    with pytest.raises(UnlockUnavailableError, match="ANONYMIX_PASSPHRASE"):
        Anonymixer.open(store_path)
    monkeypatch.setenv("ANONYMIX_PASSPHRASE", "whale and chips")
    with pytest.raises(WrongPassphraseError):
        Anonymixer.open(store_path)
    with pytest.raises(StoreMissingError):
        Anonymixer.open(tmp_path / "nothing.db", passphrase=SECRET)


def test_a_mixer_that_was_closed_makes_no_faces(store_path: Path, mixer: Anonymixer, one: Path) -> None:
    closed = Anonymixer.open(store_path, passphrase=SECRET)
    closed.close()
    with pytest.raises(LockedError):
        closed.protect(one, subject="alice")


# --- weights ----------------------------------------------------------------------------------------


def loaded_anew(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(assembly, "load_generator", load_generator)
    patch.setattr(assembly, "load_recogniser", load_recogniser)


def test_missing_weights_are_told_with_the_command_that_fetches_them(
    store_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANONYMIX_HOME", str(tmp_path / "empty"))
    loaded_anew(monkeypatch)
    with pytest.raises(MissingModelError, match="anonymix models pull"):
        Anonymixer.open(store_path, passphrase=SECRET)
    assert not (tmp_path / "empty").exists()


@pytest.mark.parametrize("name", WEIGHTS)
def test_damaged_weights_are_not_used(
    name: str,
    store_path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    model: Callable[[str], Path],
) -> None:
    for weights in WEIGHTS:
        source = model(weights).parent
        target = tmp_path / "models" / weights
        target.mkdir(parents=True)
        for file in source.iterdir():
            (target / file.name).symlink_to(file)
    victim = max((tmp_path / "models" / name).iterdir(), key=lambda path: path.stat().st_size)
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 1
    victim.unlink()
    victim.write_bytes(content)
    monkeypatch.setenv("ANONYMIX_HOME", str(tmp_path))
    loaded_anew(monkeypatch)
    monkeypatch.setattr(_kept, "_mapped", {})  # nothing is compiled yet: not by this process, and not in this place
    with pytest.raises(DamagedModelError, match=f"anonymix models pull {name}"):
        Anonymixer.open(store_path, passphrase=SECRET)


# --- what happens on the way ------------------------------------------------------------------------

_STATIONS = {
    "decode": ("reader", "decode"),
    "detect and embed": ("reader", "read"),
    "mix": ("method", "code"),
    "generate": ("generator", "draw"),
}


@pytest.mark.parametrize("station", _STATIONS)
@pytest.mark.parametrize("error", [RuntimeError, MemoryError, KeyboardInterrupt])
def test_whatever_fails_on_the_way_the_caller_has_no_picture(
    station: str, error: type[BaseException], mixer: Anonymixer, one: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part, method = _STATIONS[station]

    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(getattr(mixer._parts, part), method, fail)
    got: object = None
    with pytest.raises(error):
        got = mixer.protect(one, subject="alice")
    assert got is None
    with pytest.raises(error):
        got = list(mixer.protect_many([one], subject="alice"))
    assert got is None


def test_a_generator_that_draws_no_picture_is_an_error(
    mixer: Anonymixer, one: Path, monkeypatch: pytest.MonkeyPatch
) -> None:

    monkeypatch.setattr(mixer.generator, "draw", lambda *_: np.full((1, 3, 512, 512), np.nan, np.float32))
    with pytest.raises(AnonymixError, match="no picture"):
        mixer.protect(one, subject="alice")


# --- files ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_a_saved_face_is_marked_and_names_nobody(mixer: Anonymixer, one: Path, tmp_path: Path, suffix: str) -> None:
    face = mixer.protect(one, subject="Zaphod Beeblebrox")
    target = tmp_path / f"face{suffix}"
    save_cancelable(face, target)
    marker = read_marker(target)
    assert marker is not None
    assert (marker.fingerprint, marker.key_version, marker.method) == (face.fingerprint, 1, "fast")
    content = target.read_bytes()
    for name in ("Zaphod", "Beeblebrox", one.name, one.stem):
        assert name.encode() not in content
        assert name.encode("utf-16-le") not in content
    assert "Zaphod" not in repr(face)


def test_the_same_face_gives_the_same_file(mixer: Anonymixer, one: Path, tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        save_cancelable(mixer.protect(one, subject="alice"), tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_on_a_full_disk_nothing_is_left(
    protected: CancelableFace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    (tmp_path / "face.png").write_bytes(b"what was there before")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="No space left"):
        save_cancelable(protected, tmp_path / "face.png")
    assert [path.name for path in tmp_path.iterdir()] == ["face.png"]
    assert (tmp_path / "face.png").read_bytes() == b"what was there before"


def test_an_interrupt_while_saving_leaves_nothing(
    protected: CancelableFace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        save_cancelable(protected, tmp_path / "face.png")
    assert list(tmp_path.iterdir()) == []


def test_the_store_stays_open_where_the_caller_brought_it(store_path: Path, mixer: Anonymixer) -> None:
    with Keystore.open(store_path, PassphraseUnlock(SECRET)) as store:
        with Anonymixer(store):
            pass
        assert store.current("alice").version == 1
