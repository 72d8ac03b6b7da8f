"""What an encoder reads back from protected faces, on thieves and protections whose success is known."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path
from typing import cast

import cv2
import numpy as np
import pytest

from anonymix_lab.protections import KeyName, Protection
from anonymix_lab.studies.leak import LeakFigures, measure_leak
from anonymix_plugin.encoder import Encoder
from anonymix_plugin.errors import NoFaceError, UsageError
from anonymix_plugin.faces import Detector, YuNet
from anonymix_plugin.images import decode_photo
from anonymix_plugin.values import Floats, Pixels


class Thief:
    """Reads each group of layers from a third of the picture."""

    def encode(self, crops: Pixels) -> Floats:
        rows = []
        for crop in crops:
            thirds = np.array_split(crop, 3)
            rows.append([cv2.resize(third, (16, 32)).mean(axis=2).ravel() for third in thirds])
        return np.asarray(rows, np.float32)


class Copy:
    """Protects nothing."""

    name, title, keyed, fingerprint = "copy", "Copy", False, "copy"

    def protect(self, photo: Path, key: KeyName) -> Pixels:
        return decode_photo(photo).pixels


class Constant(Copy):
    """Shows the same face for everybody, a little noisy."""

    title = "Constant"

    def __init__(self, photo: Path) -> None:
        self._pixels = decode_photo(photo).pixels

    def protect(self, photo: Path, key: KeyName) -> Pixels:
        noise = np.random.default_rng(zlib.crc32(key.subject.encode())).integers(-6, 7, self._pixels.shape)
        return np.clip(self._pixels + noise, 0, 255).astype(np.uint8)


class HalfCopy(Copy):
    """Leaves the lowest third of the picture as it is: what the paper's mix does with the fine layers."""

    title = "Half"

    def __init__(self, photo: Path) -> None:
        self._pixels = decode_photo(photo).pixels

    def protect(self, photo: Path, key: KeyName) -> Pixels:
        made, own = self._pixels.copy(), super().protect(photo, key)
        rows = round(0.58 * len(made))
        made[rows:] = own[rows:]
        return made


class Refusing(Copy):
    """Refuses the first person."""

    title = "Refusing"

    def protect(self, photo: Path, key: KeyName) -> Pixels:
        if key.subject == "person 0":
            raise NoFaceError("no")
        return super().protect(photo, key)


@pytest.fixture
def people(portraits: Path) -> list[tuple[Path, Path]]:
    neutral = sorted(portraits.glob("*_neutral.jpg"))[:8]
    return [(path, path.with_name(path.name.replace("neutral", "smiling"))) for path in neutral]


@pytest.fixture
def stranger(portraits: Path) -> Path:
    return sorted(portraits.glob("*_neutral.jpg"))[11]


@pytest.fixture
def measure(people: list[tuple[Path, Path]], model: Callable[[str], Path]) -> Callable[[Protection], LeakFigures]:
    detector: Detector = YuNet(model("yunet"))
    return lambda protection: measure_leak(people, cast("Encoder", Thief()), detector, [protection])


def test_a_protection_that_does_nothing_lets_everything_through(
    measure: Callable[[Protection], LeakFigures],
) -> None:
    figures = measure(Copy())
    assert figures.people == 8
    for group in figures.leaks["Copy"]:
        assert group.same_photo == 1
        assert group.similarity == pytest.approx(1)
        assert group.strangers < 0.2


def test_a_face_that_knows_nothing_of_the_person_finds_nobody(
    measure: Callable[[Protection], LeakFigures], stranger: Path
) -> None:
    figures = measure(Constant(stranger))
    for group in figures.leaks["Constant"]:
        assert group.same_photo <= 0.5  # one in eight by chance
        assert abs(group.similarity) < 0.35


def test_layers_that_are_copied_are_told_from_those_that_are_not(
    measure: Callable[[Protection], LeakFigures], stranger: Path
) -> None:
    figures = measure(HalfCopy(stranger))
    groups = {group.group: group for group in figures.leaks["Half"]}
    assert groups["fine"].same_photo > 0.7
    assert groups["coarse"].same_photo < 0.5
    assert groups["fine"].similarity > groups["coarse"].similarity + 0.4


def test_people_whom_nobody_protects_are_counted(measure: Callable[[Protection], LeakFigures]) -> None:
    figures = measure(Refusing())
    assert figures.failures == {"Refusing": 1}
    assert figures.leaks["Refusing"][0].same_photo == 1


def test_two_people_are_too_few(people: list[tuple[Path, Path]], model: Callable[[str], Path]) -> None:
    with pytest.raises(UsageError, match="too few"):
        measure_leak(people[:2], cast("Encoder", Thief()), YuNet(model("yunet")), [])
