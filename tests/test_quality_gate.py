"""The quality gate: what it measures, what it refuses, and what it says then."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from anonymix_lab.studies.quality_gate import SPOILERS, measure_gate, pairs_of_people
from anonymix_plugin.errors import LowQualityError, NoFaceError, PhotoError, UsageError
from anonymix_plugin.faces import YuNet
from anonymix_plugin.mixer.policy import AttributePolicy
from anonymix_plugin.mixer.weights import load_mixer_weights
from anonymix_plugin.quality import (
    LEAST_QUALITY,
    ORDINARY_LENGTHS,
    Quality,
    measure_quality,
    require_quality,
)
from anonymix_plugin.reader import Reader, Stopwatch
from anonymix_plugin.recognisers import ArcFace, SFace
from anonymix_plugin.values import Face, Photo

POINTS = np.array([[38, 52], [74, 52], [56, 72], [42, 92], [71, 92]], np.float32)


@pytest.fixture(scope="module")
def reader(model: Callable[[str], Path]) -> Reader:
    return Reader(
        detector=YuNet(model("yunet")),
        arcface=ArcFace(model("arcface-mbf")),
        sface=SFace(model("sface")),
        subspace=load_mixer_weights().subspace,
        encoder=None,
        attributes=AttributePolicy.NONE,
        min_quality=LEAST_QUALITY,
    )


def face(points: np.ndarray = POINTS) -> Face:
    return Face(Photo(np.zeros((112, 112, 3), np.uint8), "drawn"), (20, 20, 92, 110), points, 0.9)


def crop(level: int = 128) -> np.ndarray:
    dice = np.random.default_rng(1)
    return np.clip(dice.normal(level, 30, (112, 112, 3)), 0, 255).astype(np.uint8)


def test_ordinary_lengths_have_quality_one_and_half_of_them_half() -> None:
    assert measure_quality(face(), crop(), *ORDINARY_LENGTHS).value == pytest.approx(1)
    assert measure_quality(face(), crop(), *(0.5 * length for length in ORDINARY_LENGTHS)).value == 0.5


@pytest.mark.parametrize(
    ("points", "picture", "cause"),
    [
        (POINTS / 4, crop(), "9 pixels between the eyes"),
        (POINTS, crop() // 8, "dark"),
        (POINTS, np.full((112, 112, 3), 250, np.uint8), "glaring"),
        (POINTS + np.array([[0, 0], [0, 0], [14, 0], [0, 0], [0, 0]], np.float32), crop(), "turned away"),
        (POINTS, np.full((112, 112, 3), 128, np.uint8), "blurred"),
    ],
)
def test_likely_causes_are_named(points: np.ndarray, picture: np.ndarray, cause: str) -> None:
    quality = measure_quality(face(points), picture, 1.0, 1.0)
    assert cause in " ".join(quality.causes)
    with pytest.raises(LowQualityError, match=cause):
        require_quality(quality, LEAST_QUALITY, "drawn.png")


@pytest.mark.parametrize(
    ("degrees", "cause"), [(90, "on its side"), (-90, "on its side"), (180, "upside down"), (30, "")]
)
def test_a_tilt_is_measured_from_eyes_to_mouth_and_named_where_it_is_steep(degrees: int, cause: str) -> None:
    angle = np.deg2rad(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]], np.float32)
    quality = measure_quality(face((POINTS - 56) @ turn.T + 56), crop(), 1, 1)
    assert abs(quality.tilt) == pytest.approx(abs(degrees), abs=2)
    assert quality.tilt * degrees > 0 or abs(degrees) == 180
    assert [named for named in quality.causes if "side" in named] == [cause] * bool(cause)


@pytest.mark.parametrize("times", [0, 1, 2, 3])
def test_a_photo_that_lies_on_its_side_is_told_as_such_with_the_turn_that_helps(
    times: int, portraits: Path, real_people: bool, reader: Reader
) -> None:
    words = ["", "lies on its side.*quarter turn clockwise", "is upside down.*half a turn"]
    words += ["lies on its side.*quarter turn counterclockwise"]
    # Upside down, the first two drawn people are found as somebody upright.
    for number in (1, 2, 3) if real_people else (3, 4, 6):
        path = portraits / f"{number:03d}_neutral.jpg"
        stored = Image.open(path).convert("RGB")
        turned = np.rot90(np.asarray(stored), times).copy()
        if not times:
            assert len(reader.read(reader.decode(turned, Stopwatch()), Stopwatch())) == 1
            continue
        with pytest.raises(LowQualityError, match=words[times] + ".*turn the photo upright"):
            reader.read(reader.decode(turned, Stopwatch()), Stopwatch())
        # Told in the metadata, the same turn makes it the upright photo.
        image = Image.fromarray(turned)
        image.getexif()[0x0112] = {1: 6, 2: 3, 3: 8}[times]
        assert len(reader.read(reader.decode(image, Stopwatch()), Stopwatch())) == 1


def test_a_poor_photo_that_no_turn_makes_better_is_not_said_to_lie_on_its_side(portraits: Path, reader: Reader) -> None:
    photo = Image.open(portraits / "001_neutral.jpg").convert("RGB")
    with pytest.raises(PhotoError) as caught:
        reader.read(reader.decode(photo.filter(ImageFilter.GaussianBlur(16)), Stopwatch()), Stopwatch())
    assert "side" not in str(caught.value)
    empty = Image.fromarray(np.random.default_rng(3).integers(0, 256, (480, 640, 3), dtype=np.uint8))
    with pytest.raises(NoFaceError, match="at least 30 pixels wide"):
        reader.read(reader.decode(empty, Stopwatch()), Stopwatch())


def test_a_turn_is_measured_along_the_line_of_the_eyes() -> None:
    angle = np.deg2rad(30)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]], np.float32)
    assert measure_quality(face(POINTS @ turn.T), crop(), 1, 1).turn == pytest.approx(
        measure_quality(face(), crop(), 1, 1).turn, abs=1e-5
    )


def test_the_limit_passes_what_reaches_it_and_can_be_lifted() -> None:
    quality = Quality(0.5, 40, 128, 100, 0)
    require_quality(quality, 0.5, "a.jpg")
    require_quality(quality, 0.0, "a.jpg")
    with pytest.raises(LowQualityError, match=r"a\.jpg: .*0\.50, at least 0\.51") as caught:
        require_quality(quality, 0.51, "a.jpg")
    assert isinstance(caught.value, PhotoError)
    assert "min-quality" in str(caught.value)


def test_a_quality_that_is_no_number_does_not_pass() -> None:
    with pytest.raises(LowQualityError):
        require_quality(Quality(float("nan"), 40, 128, 100, 0), 0.1, "a.jpg")


def test_on_real_photos_the_gate_refuses_what_is_spoilt_and_lets_the_rest_pass(
    portraits: Path, model: Callable[[str], Path]
) -> None:
    london = sorted(portraits.glob("*_neutral.jpg"))[:5]
    people = [(path, path.with_name(path.name.replace("neutral", "smiling"))) for path in london]
    figures = measure_gate(
        people,
        YuNet(model("yunet")),
        ArcFace(model("arcface-mbf")),
        SFace(model("sface")),
        load_mixer_weights().subspace,
        LEAST_QUALITY,
    )
    rows = {row.name: row for row in figures.spoilt}
    assert set(rows) == set(SPOILERS)
    assert rows["as it is"].refused == 0
    assert rows["greyscale"].refused == 0
    assert rows["blurred, 10 % of the face"].refused >= 0.8
    assert rows["as it is"].similarity > 0.8
    assert rows["blurred, 10 % of the face"].quality < rows["blurred, 3 % of the face"].quality < 1.2
    left = [row.unusable_left for row in figures.discard]
    assert left[-1] <= left[0]


def test_people_with_two_photos_are_found_and_spread_evenly(tmp_path: Path) -> None:
    for name, photos in (("a", 1), ("b", 2), ("c", 3), ("d", 2)):
        (tmp_path / name).mkdir()
        for number in range(photos):
            (tmp_path / name / f"{number}.jpg").touch()
    assert [pair[0].parent.name for pair in pairs_of_people(tmp_path, 10)] == ["b", "c", "d"]
    assert [pair[0].parent.name for pair in pairs_of_people(tmp_path, 2)] == ["b", "d"]
    with pytest.raises(UsageError, match="two photos"):
        pairs_of_people(tmp_path / "a", 2)
