"""Work and memory have bounds: people in a photo, pixels in decoding, networks in memory, waiting."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from patience import PATIENCE, eventually

from anonymix_lab.data.keys import SeededKeys
from anonymix_plugin import Anonymixer, ImageLimits, SeveralFacesError
from anonymix_plugin import pool as pool_module
from anonymix_plugin.images import decode_photo
from anonymix_plugin.pool import MOST, Budget, Pool
from anonymix_plugin.recognisers import load_recogniser

pytestmark = pytest.mark.usefixtures("loaded_once")


@pytest.fixture(scope="module")
def crowd(portraits: Path) -> Any:
    """Six people beside each other, as an array."""
    faces = [cv2.imread(str(path)) for path in sorted(portraits.glob("*_neutral.jpg"))[:6]]
    small = [cv2.resize(face, (300, 300)) for face in faces]
    return np.concatenate([np.concatenate(small[:3], 1), np.concatenate(small[3:], 1)])[..., ::-1].copy()


@pytest.fixture(scope="module")
def mixer(model: Callable[[str], Path]) -> Iterator[Anonymixer]:
    for name in ("mobilestylegan", "yunet", "arcface-mbf", "sface"):
        model(name)
    with Anonymixer(SeededKeys(1), faces="all", limits=ImageLimits(max_faces=6)) as made:
        yield made


def test_a_photo_of_more_people_than_allowed_is_refused_before_any_is_read(
    mixer: Anonymixer, crowd: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(mixer.protect_all(crowd, subject="alice")) == 6
    monkeypatch.setattr(mixer._parts.reader, "_limits", ImageLimits(max_faces=5))
    for door in (mixer.protect, mixer.protect_all):
        with pytest.raises(SeveralFacesError, match=r"6 faces .* 5 are the most .*--max-faces"):
            door(crowd, subject="alice")
    outcome = next(mixer.protect_many([crowd], subject="alice"))
    assert isinstance(outcome.error, SeveralFacesError)


def test_protect_draws_the_one_face_that_it_returns(
    mixer: Anonymixer, crowd: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[int] = []
    draw = mixer._production._pictures
    counted = lambda codes: (drawn.append(len(codes)), draw(codes))[1]  # noqa: E731
    monkeypatch.setattr(mixer._production, "_pictures", counted)
    alone = mixer.protect(crowd, subject="alice")
    assert drawn == [1]
    assert np.array_equal(alone.pixels, mixer.protect_all(crowd, subject="alice")[0].pixels)


class Turns:
    """A pool; when one of its things is given back for the first time, another thread comes in between."""

    def __init__(self, pool: Pool[Any], between: Callable[[], object]) -> None:
        self._pool, self._other, self.count = pool, threading.Thread(target=between), 0

    @contextmanager
    def lent(self) -> Iterator[Any]:
        with self._pool.lent() as item:
            yield item
        self.count += 1
        if self.count == 1:
            self._other.start()
            self._other.join(PATIENCE)
            assert not self._other.is_alive()


def test_one_photo_of_many_people_does_not_keep_others_waiting_for_all(
    mixer: Anonymixer, crowd: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator: Any = mixer.generator
    codes = np.stack([np.asarray(mixer._parts.method.code(face, *_key()), np.float32) for face in _faces(mixer, crowd)])
    turns = Turns(generator._pool(512), lambda: generator.draw(codes[:1], 512))
    monkeypatch.setattr(generator, "_pool", lambda _: turns)
    generator.draw(codes, 512)
    assert turns.count == len(codes) + 1


def test_who_waits_for_a_pool_comes_before_who_gave_back_and_before_who_came_later() -> None:
    pool, order = Pool(object, 1), list[str]()

    def take(name: str) -> None:
        with pool.lent():
            order.append(name)

    others = [threading.Thread(target=take, args=(name,)) for name in ("second", "third")]
    with pool.lent():
        for waiting, other in enumerate(others, 1):
            other.start()
            assert eventually(lambda waiting=waiting: len(pool._waiting) == waiting)
    take("first again")
    for other in others:
        other.join(PATIENCE)
    assert order == ["second", "third", "first again"]
    with pool.lent():  # the place is free again
        pass


def test_who_is_interrupted_while_waiting_for_a_pool_takes_no_place_along(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Interrupted] = []

    class Interrupted:
        """A lock that is let go of and interrupted at the same time, or interrupted alone."""

        handed = False

        def __init__(self) -> None:
            self.asked = 0
            made.append(self)

        def acquire(self) -> None:
            self.asked += 1
            if self.asked == 2:
                if self.handed:
                    held.__exit__(None, None, None)
                raise KeyboardInterrupt

        def release(self) -> None:
            pass

    for handed in (False, True):
        pool = Pool(object, 1)
        held = pool.lent()
        held.__enter__()
        monkeypatch.setattr(Interrupted, "handed", handed)
        with monkeypatch.context() as patch:
            patch.setattr(pool_module, "Lock", Interrupted)
            with pytest.raises(KeyboardInterrupt), pool.lent():
                pytest.fail("it was interrupted")
        if not handed:
            held.__exit__(None, None, None)
        with pool.lent():  # nobody has it
            assert not pool._waiting
    assert len(made) == 2


def _key() -> tuple[Any, bytes]:
    from anonymix_plugin.mixer.key_schedule import KeySchedule

    material = SeededKeys(1).current("alice").material
    return KeySchedule(material), material


def _faces(mixer: Anonymixer, crowd: Any) -> Any:
    from anonymix_plugin.reader import Stopwatch

    watch = Stopwatch()
    return mixer._parts.reader.read(mixer._parts.reader.decode(crowd, watch), watch)


def test_many_threads_make_few_networks_and_the_same_embeddings(model: Callable[[str], Path]) -> None:
    model("sface")
    recogniser: Any = load_recogniser("sface")
    crops = np.random.default_rng(1).integers(0, 256, (4, 112, 112, 3), np.uint8)
    expected = recogniser.embed(crops)
    with ThreadPoolExecutor(40) as pool:
        for found in pool.map(lambda _: recogniser.embed(crops), range(80)):
            assert np.array_equal(found, expected)
    assert recogniser._network._requests.idle <= MOST


def test_a_pool_lends_no_more_than_it_may_and_drops_what_failed() -> None:
    made: list[int] = []
    pool = Pool(lambda: made.append(1) or len(made), most=2)
    meeting = threading.Barrier(2, timeout=PATIENCE)

    def use(_: int) -> None:
        with pool.lent():
            meeting.wait()

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(use, range(8)))
    assert len(made) == 2
    with pytest.raises(ZeroDivisionError), pool.lent():
        raise ZeroDivisionError
    with pool.lent(), pool.lent():
        assert len(made) == 3


def test_a_budget_is_kept_and_in_turn() -> None:
    budget, held, most = Budget(10), [0], [0]
    lock = threading.Lock()

    def use(amount: int) -> None:
        with budget.taken(amount):
            with lock:
                held[0] += amount
                most[0] = max(most[0], held[0]) if amount <= 10 else most[0]
            time.sleep(0.002)
            with lock:
                held[0] -= amount

    with ThreadPoolExecutor(12) as threads:
        list(threads.map(use, [3, 4, 9, 1, 25, 2, 10, 5] * 8))  # 25 is more than there is, and is alone
    assert most[0] <= 10
    assert budget._held == 0


def test_large_photos_are_decoded_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    from anonymix_plugin.images import _arrays

    monkeypatch.setattr(_arrays, "DECODING", Budget(1_500 * 1_000))
    running, most, convert = [0], [0], _arrays._converted

    def counted(*arguments: Any) -> Any:
        running[0] += 1
        most[0] = max(most[0], running[0])
        try:
            return convert(*arguments)
        finally:
            running[0] -= 1

    monkeypatch.setattr(_arrays, "_converted", counted)
    picture = np.zeros((1000, 1000, 3), np.uint8)
    with ThreadPoolExecutor(6) as threads:
        assert len(list(threads.map(decode_photo, [picture] * 12))) == 12
    assert most[0] == 1
