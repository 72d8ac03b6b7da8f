"""Streams of photos: the same bytes as one by one, in order, whatever goes wrong, in constant memory."""

from __future__ import annotations

import gc
import io
import itertools
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from anonymix_keystore import Argon2Cost, Keystore, PassphraseUnlock, UnknownSubjectError
from anonymix_plugin import Anonymixer, NoFaceError, PhotoRequest, UnreadableImageError, UsageError
from anonymix_plugin import production as module
from anonymix_plugin.faces import Detector
from anonymix_plugin.reader import Reader
from anonymix_plugin.values import Face, Floats, Photo, Pixels

pytestmark = pytest.mark.usefixtures("loaded_once")

WEIGHTS = ("mobilestylegan", "yunet", "arcface-mbf", "sface")


@pytest.fixture(scope="module")
def mixer(tmp_path_factory: pytest.TempPathFactory, model: Callable[[str], Path]) -> Iterator[Anonymixer]:
    for name in WEIGHTS:
        model(name)
    cheap = Argon2Cost(memory_kib=8_192, passes=1, lanes=1)
    path = tmp_path_factory.mktemp("keys") / "keystore.db"
    with Keystore.create(path, PassphraseUnlock("swordfish", cost=cheap)) as store:
        store.issue("alice")
        store.issue("bob")
        with Anonymixer(store) as made:
            yield made


@pytest.fixture(scope="module")
def london(portraits: Path) -> list[Path]:
    return sorted(portraits.glob("00*_neutral.jpg"))


def test_a_stream_makes_the_bytes_that_single_calls_make(mixer: Anonymixer, london: list[Path]) -> None:
    who = ["alice", "bob", "alice"]
    requests = [PhotoRequest(photo, subject) for photo, subject in zip(london[:3], who, strict=True)]
    outcomes = list(mixer.protect_stream(requests))
    assert [outcome.source for outcome in outcomes] == [str(photo) for photo in london[:3]]
    for request, outcome in zip(requests, outcomes, strict=True):
        assert outcome.error is None
        (face,) = outcome.faces
        alone = mixer.protect(request.image, subject=request.subject)
        assert face.pixels.tobytes() == alone.pixels.tobytes()
        assert (face.subject, face.engine, face.fingerprint) == (
            alone.subject,
            alone.engine,
            alone.fingerprint,
        )


def test_faces_drawn_at_once_are_the_same_and_stay_in_order(mixer: Anonymixer, london: list[Path]) -> None:
    requests = [PhotoRequest(photo, subject) for photo in london[:2] for subject in ("alice", "bob")][:3]
    with Anonymixer(mixer.keystore, at_once=2) as wide:
        made: Any = wide.generator
        outcomes = list(wide.protect_stream(requests))
        with ThreadPoolExecutor(2) as callers:
            again = list(callers.map(lambda each: wide.protect(each.image, subject=each.subject), requests))
        (pool,) = made._requests.values()
    for request, outcome, called in zip(requests, outcomes, again, strict=True):
        (face,) = outcome.faces
        alone = mixer.protect(request.image, subject=request.subject)
        assert face.pixels.tobytes() == alone.pixels.tobytes() == called.pixels.tobytes()
        assert face.fingerprint == alone.fingerprint
    assert pool.idle == 2  # so many were in use together
    with pool.lent() as request:
        assert request.get_compiled_model().get_property("NUM_STREAMS") == 2


def test_no_face_at_once_is_refused(mixer: Anonymixer) -> None:
    with pytest.raises(UsageError, match="at once"):
        Anonymixer(mixer.keystore, at_once=0)


def test_what_fails_fails_alone_and_in_its_place(mixer: Anonymixer, london: list[Path], tmp_path: Path) -> None:
    from PIL import Image

    room = tmp_path / "room.png"
    Image.new("RGB", (300, 200), (90, 120, 150)).save(room)
    requests = [
        PhotoRequest(b"no image", "alice"),
        PhotoRequest(london[0], "alice"),
        PhotoRequest(london[0], "nobody"),
        PhotoRequest(room, "alice"),
        PhotoRequest(london[1], "newcomer", enrol=True),
        PhotoRequest(london[1], scope="gate"),
    ]
    outcomes = list(mixer.protect_stream(requests))
    kinds = [type(outcome.error) for outcome in outcomes]
    none = type(None)
    assert kinds == [UnreadableImageError, none, UnknownSubjectError, NoFaceError, none, none]
    assert [len(outcome.faces) for outcome in outcomes] == [0, 1, 0, 0, 1, 1]
    assert outcomes[0].source == "<bytes>"
    assert outcomes[5].faces[0].scope == "gate"


@pytest.mark.parametrize("kind", ["path", "text", "bytes", "file", "array", "request", "nothing"])
def test_one_photo_in_the_place_of_many_is_refused(mixer: Anonymixer, london: list[Path], kind: str) -> None:
    content = london[0].read_bytes()
    one: Any = {
        "path": london[0],
        "text": str(london[0]),
        "bytes": content,
        "file": io.BytesIO(content),
        "array": np.zeros((80, 60, 3), np.uint8),
        "request": PhotoRequest(london[0], "alice"),
        "nothing": None,
    }[kind]
    with pytest.raises(UsageError, match="images"):
        mixer.protect_many(one, subject="alice")
    with pytest.raises(UsageError, match="requests"):
        mixer.protect_stream(one)


@pytest.mark.parametrize("value", ["no", "False", b"0", float("nan")])
def test_no_key_is_issued_for_a_text_that_says_no(mixer: Anonymixer, london: list[Path], value: Any) -> None:
    for subject in ("alice", "a stranger"):
        with pytest.raises(UsageError, match="enrol"):
            mixer.protect(london[0], subject=subject, enrol=value)


def test_many_photos_in_one_array_are_taken(mixer: Anonymixer, london: list[Path]) -> None:
    from PIL import Image

    batch = np.stack([np.asarray(Image.open(london[0]))] * 2)
    for photos in (batch, batch[..., 0], np.array([str(london[0])] * 2), iter([london[0]] * 2)):
        assert [outcome.error for outcome in mixer.protect_many(photos, subject="alice")] == [None, None]


def test_a_fault_of_the_program_is_raised_and_gives_no_face(
    mixer: Anonymixer, london: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(module, "pictures_of", broken)
    with pytest.raises(ZeroDivisionError):
        list(mixer.protect_stream([PhotoRequest(london[0], "alice")]))


def test_closing_a_stream_stops_it(mixer: Anonymixer, london: list[Path]) -> None:
    asked = itertools.count()
    stream = mixer.protect_stream(PhotoRequest(london[next(asked) % 2], "alice") for _ in range(10**6))
    next(stream)
    stream.close()
    assert next(asked) <= 1 + 3 + 2 * 2
    assert not [thread for thread in threading.enumerate() if thread.name == "anonymix-draw"]


def test_few_photos_are_in_memory_at_a_time(
    mixer: Anonymixer, london: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    alive: weakref.WeakSet[Photo] = weakref.WeakSet()
    most, decode = 0, Reader.decode

    def counted(self: Reader, *arguments: object) -> Photo:
        photo: Photo = decode(self, *arguments)  # type: ignore[arg-type]
        alive.add(photo)
        return photo

    monkeypatch.setattr(Reader, "decode", counted)
    requests = (PhotoRequest(london[number % 3], "alice") for number in range(12))
    for outcome in mixer.protect_stream(requests, ahead=2):
        assert outcome.error is None
        most = max(most, len(alive))
    assert most <= 2 + 2  # in the queue, and one with each thread
    gc.collect()
    assert not alive


def resident() -> int:
    """Bytes in memory now."""
    status = Path("/proc/self/statm")
    if not status.exists():
        pytest.skip("needs /proc")
    return int(status.read_text().split()[1]) * 4096


def grown(mixer: Anonymixer, photos: list[Path], *, settle: int, count: int) -> float:
    """Growth of resident memory from the `settle`-th photo to the last, as a share."""
    requests = (PhotoRequest(photos[number % len(photos)], f"s{number}", enrol=True) for number in range(count))
    early = 0
    for number, outcome in enumerate(mixer.protect_stream(requests), 1):
        assert outcome.error is None
        if number == settle:
            gc.collect()
            early = resident()
    gc.collect()
    return resident() / early - 1


def test_memory_stays_flat(mixer: Anonymixer, london: list[Path]) -> None:
    assert grown(mixer, london, settle=10, count=25) < 0.05


@pytest.mark.long
@pytest.mark.timeout(7200)
def test_memory_stays_flat_over_2000_photos(mixer: Anonymixer, london: list[Path]) -> None:
    assert grown(mixer, london, settle=1000, count=2000) < 0.05


class CheapNetwork:
    """Gives rows of a recogniser's shape and length without looking far."""

    def __init__(self, dim: int) -> None:
        self._dim = dim

    def embed_with_lengths(self, crops: Pixels) -> tuple[Floats, Floats]:
        rows = crops.reshape(len(crops), -1)[:, : self._dim].astype(np.float32) + 1
        lengths = np.linalg.norm(rows, axis=1, keepdims=True)
        return rows / lengths, np.full(len(crops), 20, np.float32)


class CheapDetector:
    """Looks once, and finds that face on every photo of the same size."""

    def __init__(self, detector: Detector) -> None:
        self._detector = detector
        self._found: Face | None = None

    def detect(self, photo: Photo) -> list[Face]:
        self._found = self._found or self._detector.detect(photo)[0]
        return [replace(self._found, photo=photo)]


@pytest.fixture
def cheap(mixer: Anonymixer, monkeypatch: pytest.MonkeyPatch) -> Anonymixer:
    """The mixer with networks that cost nothing: decoding, keys, mixing and queues are what they are."""
    reader, generator = mixer._parts.reader, mixer.generator
    drawn = generator.draw(np.zeros((1, generator.layers.total, 512), np.float32), 512)  # type: ignore[attr-defined]
    monkeypatch.setattr(reader, "_detector", CheapDetector(reader._detector))
    monkeypatch.setattr(reader, "_arcface", CheapNetwork(512))
    monkeypatch.setattr(reader, "_sface", CheapNetwork(128))
    monkeypatch.setattr(reader, "_min_quality", 0.0)
    monkeypatch.setattr(generator, "draw", lambda codes, size: drawn.repeat(len(codes), axis=0))
    return mixer


@pytest.mark.long
@pytest.mark.timeout(7200)
def test_memory_stays_flat_over_100000_photos_of_100000_subjects(
    cheap: Anonymixer, london: list[Path], tmp_path: Path
) -> None:
    from PIL import Image

    small = tmp_path / "small.jpg"
    Image.open(london[0]).resize((256, 256)).save(small)
    assert grown(cheap, [small], settle=1000, count=100_000) < 0.05


# --- generators that draw in batches ----------------------------------------------------------------


def test_a_generator_of_batches_is_given_whole_batches(
    mixer: Anonymixer, london: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from anonymix_plugin.generator import OpenVinoGenerator

    drawn: list[int] = []
    draw = mixer.generator.draw  # type: ignore[attr-defined]
    assert isinstance(mixer.generator, OpenVinoGenerator)

    def counted(codes: object, size: int) -> object:
        drawn.append(len(codes))  # type: ignore[arg-type]
        return draw(codes, size)

    monkeypatch.setattr(mixer.generator, "batch", 3, raising=False)
    monkeypatch.setattr(mixer.generator, "draw", counted)
    requests = [
        PhotoRequest(photo, who)
        for photo, who in zip(
            [*london[:2], b"no image", *london[2:4]], ["alice", "bob", "alice", "nobody", "bob"], strict=True
        )
    ]
    outcomes = list(mixer.protect_stream(requests))
    assert drawn == [2, 1]  # of five photos in groups of three, one can't be read and one has no key
    assert [outcome.error is None for outcome in outcomes] == [True, True, False, False, True]
    alone = mixer.protect(london[1], subject="bob")
    assert outcomes[1].faces[0].pixels.tobytes() == alone.pixels.tobytes()
    assert sum(outcomes[1].faces[0].timings.values()) > 0
