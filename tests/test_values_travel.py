"""What the plug-in hands out can leave a process, pickled or copied; what must not leave it can't."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import multiprocessing
import pickle
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import anonymix_adapters
import anonymix_plugin
from anonymix_lab.data.keys import SeededKeys
from anonymix_plugin import (
    Anonymixer,
    CancelableFace,
    GuidingCurve,
    MixerOptions,
    MixingPolicy,
    Outcome,
    PhotoRequest,
    UnreadableImageError,
    images,
    verification,
)
from anonymix_plugin.values import Timings

pytestmark = pytest.mark.usefixtures("loaded_once")

MODULES = (anonymix_plugin, verification, images)


def exported(kind: Callable[[Any], bool], *more: ModuleType) -> list[type]:
    found = {
        value
        for module in (*MODULES, *more)
        for name in module.__all__
        if inspect.isclass(value := getattr(module, name)) and kind(value)
    }
    return sorted(found, key=lambda each: each.__qualname__)


ERRORS = exported(lambda it: issubclass(it, Exception), anonymix_adapters)
VALUES = exported(dataclasses.is_dataclass)


def some_face() -> CancelableFace:
    rng = np.random.default_rng(3)
    pixels = rng.integers(0, 256, (8, 8, 3), np.uint8)
    return CancelableFace(
        pixels,
        (1.0, 2.0, 3.0, 4.0),
        "alice",
        "door",
        2,
        "0" * 32,
        "fast",
        timings=Timings({"mix": 0.1, "total": 0.3}),
    )


def some_error() -> UnreadableImageError:
    return UnreadableImageError("it is none", where="a.jpg", fix="give another")


MADE: dict[str, Callable[[], Any]] = {
    "CancelableFace": some_face,
    "Outcome": lambda: Outcome("a.jpg", (some_face(), some_face()), some_error()),
    "PhotoRequest": lambda: PhotoRequest(b"photo", "alice", version=2),
    "GuidingCurve": lambda: GuidingCurve(0.1, 0.4, 0.0),
    "ImageLimits": lambda: images.ImageLimits(max_side=4000),
    "Marker": lambda: images.Marker("door", 2, "0" * 32),
    "MixerOptions": lambda: MixerOptions(faces="central", min_quality=0.5),
    "MixingPolicy": MixingPolicy,
    "Threshold": lambda: verification.Threshold("sface", "given", 0.5),
    "Comparison": lambda: verification.Comparison(0.4, verification.Threshold("sface", "given", 0.5), True),
}


def same(a: Any, b: Any) -> bool:
    if isinstance(a, np.ndarray):
        return bool(np.array_equal(a, b)) and a.dtype == b.dtype and a.flags.writeable == b.flags.writeable
    if dataclasses.is_dataclass(a) and not isinstance(a, type):
        names = [each.name for each in dataclasses.fields(a)]
        return type(a) is type(b) and all(same(getattr(a, name), getattr(b, name)) for name in names)
    if isinstance(a, tuple | list):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, BaseException):
        return type(a) is type(b) and a.args == b.args and vars(a) == vars(b) and str(a) == str(b)
    return type(a) is type(b) and bool(a == b)


def travelled(value: Any) -> Iterator[Any]:
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        yield pickle.loads(pickle.dumps(value, protocol))  # noqa: S301 - our own
    yield copy.copy(value)
    yield copy.deepcopy(value)


@pytest.mark.parametrize("kind", VALUES, ids=lambda it: it.__name__)
def test_values_are_the_same_after_a_journey(kind: type) -> None:
    if kind.__name__ not in MADE:
        fields = {each.name for each in dataclasses.fields(kind)}
        pytest.fail(f"{kind.__qualname__} is exported: say in MADE how one is made, of {fields}")
    value = MADE[kind.__name__]()
    assert isinstance(value, kind)
    for again in travelled(value):
        assert same(value, again)
    assert set(dataclasses.asdict(value)) == {each.name for each in dataclasses.fields(kind)}


@pytest.mark.parametrize("kind", ERRORS, ids=lambda it: it.__name__)
def test_errors_are_the_same_after_a_journey(kind: type[Exception]) -> None:
    needed = {
        name: "alice"
        for name, it in inspect.signature(kind).parameters.items()
        if name != "what" and it.kind is it.KEYWORD_ONLY
    }
    error = kind("what was wrong", **needed)
    for again in travelled(error):
        assert same(error, again)


def test_timings_stay_read_only() -> None:
    for again in travelled(some_face()):
        assert isinstance(again.timings, Mapping)
        assert again.timings == {"mix": 0.1, "total": 0.3}
        with pytest.raises(TypeError):
            again.timings["mix"] = 0.2
        with pytest.raises(dataclasses.FrozenInstanceError):
            again.subject = "bob"


_WORKER: list[Anonymixer] = []


def _open() -> None:
    _WORKER.append(Anonymixer(SeededKeys(1)))


def _protected(path: Path) -> tuple[CancelableFace, list[Outcome]]:
    mixer = _WORKER[0]
    return mixer.protect(path, subject="alice"), list(mixer.protect_many([path, b"none"], subject="alice"))


def _made() -> list[Any]:
    return [make() for make in MADE.values()]


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_values_come_home_from_worker_processes(method: str) -> None:
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"this system does not {method}")
    with ProcessPoolExecutor(1, multiprocessing.get_context(method)) as pool:
        for mine, theirs in zip(_made(), pool.submit(_made).result(), strict=True):
            assert same(mine, theirs)


@pytest.mark.long
@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_faces_come_home_from_worker_processes(method: str, portraits: Path, model: Callable[[str], Path]) -> None:
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"this system does not {method}")
    for name in ("mobilestylegan", "yunet", "arcface-mbf", "sface"):
        model(name)
    path = portraits / "001_neutral.jpg"
    with ProcessPoolExecutor(1, multiprocessing.get_context(method), initializer=_open) as pool:
        face, outcomes = pool.submit(_protected, path).result()
    with Anonymixer(SeededKeys(1)) as mixer:
        here = mixer.protect(path, subject="alice")
        assert np.array_equal(face.pixels, here.pixels)
        assert face.timings["total"] > 0
        assert np.array_equal(outcomes[0].faces[0].pixels, here.pixels)
        assert isinstance(outcomes[1].error, UnreadableImageError)


def test_a_mixer_is_opened_in_each_process(model: Callable[[str], Path]) -> None:
    for name in ("mobilestylegan", "yunet", "arcface-mbf", "sface"):
        model(name)
    with Anonymixer(SeededKeys(1)) as mixer:
        for attempt in (pickle.dumps, copy.copy, copy.deepcopy):
            with pytest.raises(TypeError, match="open one in each process"):
                attempt(mixer)
            with pytest.raises(TypeError, match="open an Anonymixer in each process"):
                attempt(mixer.protect_stream([]))
