"""How small a face may be to be found: what messages and docstrings promise, on real faces."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anonymix_plugin.assembly import load_detector
from anonymix_plugin.errors import NoFaceError, SeveralFacesError
from anonymix_plugin.faces import YuNet, select_faces
from anonymix_plugin.faces._found import NOTHING, Found, suppress, without_parts
from anonymix_plugin.values import Photo


@pytest.fixture(scope="session")
def people(portraits: Path, model: Callable[[str], Path]) -> list[tuple[Image.Image, float]]:
    """London photos, and how wide the face is in each."""
    yunet = YuNet(model("yunet"))
    photos = [Image.open(path).convert("RGB") for path in sorted(portraits.glob("*_neutral.jpg"))[:4]]
    boxes = [yunet.detect(Photo(np.asarray(photo), "london"))[0].box for photo in photos]
    return [(photo, box[2] - box[0]) for photo, box in zip(photos, boxes, strict=True)]


def pasted(ground: Image.Image, person: tuple[Image.Image, float], width: int, at: tuple[float, float]) -> None:
    """Paste a photo so that its face is so many pixels wide, with its middle at a share of both sides."""
    photo, own = person
    side = round(photo.width * width / own)
    small = photo.resize((side, side), Image.Resampling.LANCZOS)
    x, y = round(ground.width * at[0] - side / 2), round(ground.height * at[1] - side / 2)
    ground.paste(small, (min(max(x, 0), ground.width - side), min(max(y, 0), ground.height - side)))


PLACES = [(0.12, 0.3), (0.88, 0.85), (0.5, 0.9)]


@pytest.mark.parametrize(("width", "height", "second"), [(640, 480, 16), (4032, 3024, 40)])
@pytest.mark.parametrize("name", ["yunet", "scrfd-500m"])
def test_a_second_face_is_seen_wherever_it_stands_if_it_matters_whether_there_is_one(
    name, width, height, second, people, model
):
    model(name)
    quick, thorough = load_detector(name), load_detector(name, "error")
    for number, place in enumerate(PLACES):
        ground = Image.new("RGB", (width, height), people[0][0].getpixel((5, 5)))
        pasted(ground, people[0], height // 3, (0.5, 0.45))
        photo = Photo(np.asarray(ground), "drawn")
        alone = thorough.detect(photo)
        assert select_faces(alone, "error", photo) == alone
        pasted(ground, people[1 + number], second, place)
        photo = Photo(np.asarray(ground), "drawn")
        with pytest.raises(SeveralFacesError, match="2 faces"):
            select_faces(thorough.detect(photo), "error", photo)
        found = quick.detect(photo)
        assert found[0].box == pytest.approx(alone[0].box, abs=height / 50)
        if width > 1280:
            assert len(found) == 1  # the quick search ends with the large face


@pytest.mark.parametrize("width", [320, 1280, 3840, 8064])
@pytest.mark.parametrize("name", ["yunet", "scrfd-500m"])
def test_a_face_as_wide_as_the_message_asks_for_is_found(name, width, people, model):
    model(name)
    detector = load_detector(name)
    height = width * 3 // 4
    empty = Photo(np.full((height, width, 3), 128, np.uint8), "empty")
    with pytest.raises(NoFaceError) as caught:
        select_faces([], "largest", empty)
    found = re.search(r"at least (\d+) pixels wide", str(caught.value))
    assert found is not None
    for number, place in enumerate(PLACES[:2]):
        ground = Image.new("RGB", (width, height), people[number][0].getpixel((5, 5)))
        pasted(ground, people[number], int(found[1]), place)
        assert detector.detect(Photo(np.asarray(ground), "drawn")), (place, found[1])


@pytest.mark.parametrize("name", ["yunet", "scrfd-500m"])
@pytest.mark.parametrize("side", [640, 2560])
def test_a_thorough_search_takes_no_part_of_a_face_for_another_person(name, side, people, model):
    model(name)
    detector = load_detector(name, "all")
    for photo, _ in people[:3]:
        large = photo.resize((side, side), Image.Resampling.BICUBIC)
        assert len(detector.detect(Photo(np.asarray(large), "london"))) == 1


@pytest.mark.parametrize("name", ["yunet", "scrfd-500m"])
def test_the_policies_that_choose_one_face_search_as_fast_as_ever(name, model, monkeypatch):
    model(name)
    for faces in ("largest", "central"):
        looks: list[tuple[int, ...]] = []
        detector = load_detector(name, faces)
        monkeypatch.setattr(detector, "_look", lambda picture, on=looks: on.append(picture.shape) or NOTHING)
        detector.detect(Photo(np.zeros((3024, 4032, 3), np.uint8), "dark"))
        assert max(max(shape) for shape in looks) <= 1280


def test_what_lies_within_a_surer_face_is_a_part_of_it_and_who_stands_beside_it_is_not():
    boxes = np.array([[0, 0, 100, 100], [10, 40, 60, 90], [80, 0, 180, 100], [-5, -5, 300, 300]], np.float32)
    scores = np.array([0.9, 0.6, 0.8, 0.5], np.float32)
    found = suppress(Found(boxes, np.zeros((4, 5, 2), np.float32), scores), 0.4)
    assert without_parts(found, 0.5).boxes.tolist() == [
        boxes[0].tolist(),
        boxes[2].tolist(),
        boxes[3].tolist(),
    ]
