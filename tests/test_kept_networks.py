"""Compiled networks on disk: used by whoever wrote them, and by nobody else."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from anonymix_plugin.inference import Network, Recipe, _kept, opened, runtime
from anonymix_plugin.inference._kept import UnusableNetworkWarning
from anonymix_plugin.models import content_of_model
from anonymix_plugin.recognisers import ArcFace, _load, load_recogniser

GIVEN = np.linspace(-1, 1, 64, dtype=np.float32).reshape(1, 64)


class Place:
    """A user of his own, with a toy of a network."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.home, self.state, self.code = folder / "home", folder / "state", folder / "code"
        self.code.mkdir()
        (self.code / "builds.py").write_text("it = 1\n")
        self.patch = monkeypatch
        self.built = 0
        monkeypatch.setenv("ANONYMIX_HOME", str(self.home))
        monkeypatch.setenv("ANONYMIX_CONFIG", str(folder / "anonymix.toml"))
        (folder / "anonymix.toml").write_text("")
        monkeypatch.setattr("platformdirs.user_state_path", lambda *_: self.state)

    def open(self, weights: str = "0" * 64, **options: Any) -> np.ndarray[Any, Any]:
        """Open the network as another process does, and run it."""
        self.patch.setattr(_kept, "_mapped", {})
        _kept._source_of.cache_clear()
        network = opened(Recipe("toy", weights, self.code), self._build, **options)
        assert list(network.arrays) == ["noise"]
        return np.asarray(network.model({0: GIVEN + network.arrays["noise"]})[0])

    def _build(self) -> Network:
        self.built += 1
        op = runtime().opset13
        given = op.parameter([1, 64], np.float32)
        matrix = np.random.default_rng(1).normal(size=(64, 64)).astype(np.float32)
        result = op.relu(op.matmul(given, op.constant(matrix), False, True))
        return Network(runtime().Model([result], [given], "toy"), {"noise": np.full((1, 64), 0.5, np.float32)})

    @property
    def files(self) -> list[Path]:
        return sorted((self.home / "compiled").glob("*")) if self.home.is_dir() else []

    @property
    def key(self) -> Path:
        return self.state / "compiled.key"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    yield Place(tmp_path, monkeypatch)
    _kept._source_of.cache_clear()


def test_a_second_process_builds_nothing_and_computes_the_same(place: Place) -> None:
    first = place.open()
    assert place.built == 1
    assert len(place.files) == 1
    assert np.array_equal(place.open(), first)
    assert place.built == 1
    assert [path.stat().st_mode & 0o777 for path in (*place.files, place.key)] == [0o600, 0o600]
    assert place.state.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("where", [0, 20, 40, 75, 128, 140, 300, -1])
def test_a_file_with_a_changed_byte_is_not_used_but_replaced(place: Place, where: int) -> None:
    first = place.open()
    (file,) = place.files
    content = bytearray(file.read_bytes())
    content[where] ^= 1
    file.write_bytes(content)
    with pytest.warns(UnusableNetworkWarning, match="compiled again"):
        again = place.open()
    assert np.array_equal(again, first)
    assert place.built == 2
    place.open()
    assert place.built == 2


@pytest.mark.parametrize("size", [0, 10, 100, 200])
def test_a_file_that_ends_early_is_not_used(place: Place, size: int) -> None:
    place.open()
    os.truncate(place.files[0], size)
    with pytest.warns(UnusableNetworkWarning):
        place.open()
    assert place.built == 2


def _readable(place: Place) -> None:
    place.files[0].chmod(0o644)


def _linked(place: Place) -> None:
    other = place.home / "other"
    place.files[0].rename(other)
    (place.home / "compiled" / other.name).symlink_to(other)
    name = next(path for path in place.files if path.is_symlink())
    name.rename(name.with_name(place.name))  # type: ignore[attr-defined]


@pytest.mark.parametrize("change", [_readable, _linked])
def test_a_file_that_somebody_else_may_have_written_is_not_used(place: Place, change: Callable[[Place], None]) -> None:
    place.open()
    place.name = place.files[0].name  # type: ignore[attr-defined]
    change(place)
    with pytest.warns(UnusableNetworkWarning):
        place.open()
    assert place.built == 2
    place.open()
    assert place.built == 2


def test_another_user_has_files_of_his_own_and_uses_no_others(place: Place) -> None:
    place.open()
    (first,) = place.files
    place.key.unlink()
    place.open()
    (second,) = set(place.files) - {first}
    assert place.built == 2
    second.write_bytes(first.read_bytes())
    with pytest.warns(UnusableNetworkWarning):
        place.open()
    assert place.built == 3


def test_a_file_under_another_networks_name_is_not_used(place: Place) -> None:
    place.open()
    first = place.files[0].read_bytes()
    place.open("1" * 64)
    other = next(path for path in place.files if path.read_bytes() != first)
    other.write_bytes(first)
    with pytest.warns(UnusableNetworkWarning):
        place.open("1" * 64)
    assert place.built == 3


def test_other_weights_source_options_or_processors_have_files_of_their_own(place: Place) -> None:
    place.open()
    place.open("1" * 64)
    place.open(threads=1)
    (place.code / "builds.py").write_text("it = 2\n")
    place.open()
    place.patch.setattr(_kept, "_machine", lambda: ("another processor",))
    place.open()
    assert place.built == len(place.files) == 5


def test_the_newest_files_are_kept(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_kept, "_MOST", 2)
    for number in range(3):
        place.open(f"{number:064}")
        for age, path in enumerate(reversed(place.files)):
            os.utime(path, (1e9 - age, 1e9 - age) if path.stat().st_mtime < 2e9 else None)
    assert len(place.files) == 2


def _no_home(place: Place) -> None:
    place.patch.setattr("platformdirs.user_state_path", lambda *_: Path("nowhere"))


def _foreign_key(place: Place) -> None:
    place.state.mkdir()
    place.key.write_bytes(bytes(32))
    place.key.chmod(0o644)


def _short_key(place: Place) -> None:
    place.state.mkdir()
    place.key.write_bytes(bytes(31))
    place.key.chmod(0o600)


def _no_folder(place: Place) -> None:
    place.home.write_text("a file")


def _not_wanted(place: Place) -> None:
    Path(os.environ["ANONYMIX_CONFIG"]).write_text("[networks]\nkeep = false\n")


def _no_source(place: Place) -> None:
    place.patch.setattr(_kept, "_source_of", lambda _: "")
    place.patch.setattr(_kept._source_of, "cache_clear", lambda: None, raising=False)


@pytest.mark.parametrize("change", [_no_home, _foreign_key, _short_key, _no_folder, _not_wanted, _no_source])
def test_where_nothing_can_be_kept_networks_are_compiled(place: Place, change: Callable[[Place], None]) -> None:
    change(place)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.array_equal(place.open(), place.open())
    assert place.built == 2
    assert not place.files


def test_a_recogniser_sees_the_same_in_a_kept_network_and_reads_no_weights(
    tmp_path: Path, model: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "models").symlink_to(model("arcface-mbf").parents[1])
    Place(tmp_path, monkeypatch)
    crops = np.random.default_rng(0).integers(0, 256, (2, 112, 112, 3), np.uint8)
    seen = []
    for content in (content_of_model, lambda name: replace(content_of_model(name), read=lambda: pytest.fail("read"))):
        monkeypatch.setattr(_kept, "_mapped", {})
        monkeypatch.setattr(_load, "content_of_model", content)
        seen.append(load_recogniser("arcface-mbf").embed(crops))
    straight = ArcFace(model("arcface-mbf"), threads=1).embed(crops)
    assert np.array_equal(seen[0], seen[1])
    assert np.array_equal(seen[0], straight)
