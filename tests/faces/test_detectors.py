"""YuNet and SCRFD on real photos."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle

import cv2
import numpy as np
import pytest
from photo_folders import shared

from anonymix_plugin.errors import DamagedModelError, MissingModelError
from anonymix_plugin.faces import Detector, Scrfd, YuNet, recogniser_crop
from anonymix_plugin.faces._scrfd import anchor_centres
from anonymix_plugin.images import decode_photo
from anonymix_plugin.values import Face, Photo

KINDS = {"yunet": YuNet, "scrfd-500m": Scrfd}


@pytest.fixture(params=sorted(KINDS))
def detector(request, model) -> Detector:
    return KINDS[request.param](model(request.param))


@pytest.fixture(scope="module")
def london(portraits):
    paths = sorted(portraits.glob("*.jpg"))
    return [decode_photo(path) for path in paths[:: len(paths) // 14]]


@pytest.fixture(scope="module")
def snapshots(london, request):
    """Portraits, and photos of LFW where they are."""
    there = (shared() / "data" / "lfw").is_dir()
    return [*london, *(request.getfixturevalue("lfw") if there else ())]


@pytest.fixture(scope="module")
def lfw(shared_data):
    people = sorted((shared_data / "lfw" / "images").iterdir())
    if not people:
        pytest.skip("needs the LFW photos")
    return [decode_photo(sorted(person.glob("*.jpg"))[0]) for person in people[::300]]


def central(faces: list[Face]) -> Face:
    """The face nearest to the middle: LFW photos are centred on theirs."""

    def off(face: Face) -> float:
        x0, y0, x1, y1 = face.box
        return abs((x0 + x1) - face.photo.width) + abs((y0 + y1) - face.photo.height)

    return min(faces, key=off)


def between_eyes(face: Face) -> float:
    return float(np.hypot(*(face.landmarks[1] - face.landmarks[0])))


def test_every_portrait_shows_one_face_with_landmarks_in_order(detector, london):
    for photo in london:
        (face,) = detector.detect(photo)
        x0, y0, x1, y1 = face.box
        eye, other_eye, nose, corner, other_corner = face.landmarks
        assert 0.6 < face.score <= 1
        assert face.photo is photo
        assert (face.landmarks > (x0, y0)).all()
        assert (face.landmarks < (x1, y1)).all()
        assert eye[0] < nose[0] < other_eye[0]
        assert corner[0] < other_corner[0]
        assert max(eye[1], other_eye[1]) < nose[1] < min(corner[1], other_corner[1])


def test_snapshots_show_their_central_face_and_faces_sorted_by_size(detector, lfw):
    for photo in lfw:
        faces = detector.detect(photo)
        x0, y0, x1, y1 = central(faces).box
        assert x0 < photo.width / 2 < x1
        assert y0 < photo.height / 2 < y1
        areas = [(f.box[2] - f.box[0]) * (f.box[3] - f.box[1]) for f in faces]
        assert areas == sorted(areas, reverse=True)


def test_both_detectors_agree_on_the_landmarks(model, snapshots):
    yunet, scrfd = YuNet(model("yunet")), Scrfd(model("scrfd-500m"))
    distances = []
    for photo in snapshots:
        one, other = central(yunet.detect(photo)), central(scrfd.detect(photo))
        distances.append(np.abs(one.landmarks - other.landmarks).mean() / between_eyes(other))
    assert np.median(distances) < 0.06
    assert max(distances) < 0.25


@pytest.mark.parametrize("thorough", [False, True])
def test_openvino_and_opencv_see_the_same_faces(model, snapshots, thorough):
    seen = [YuNet(model("yunet"), engine=engine, thorough=thorough) for engine in ("openvino", "opencv")]
    whole = snapshots[:6]
    crowd = Photo(np.hstack([cv2.resize(photo.pixels, (400, 500)) for photo in whole]), "crowd")
    odd = Photo(np.ascontiguousarray(whole[0].pixels[3:-20, 5:-70]), "sides that no stride divides")
    for photo in [*whole, crowd, odd]:
        by_openvino, by_opencv = (detector.detect(photo) for detector in seen)
        assert len(by_openvino) == len(by_opencv) >= 1
        for one, other in zip(by_openvino, by_opencv, strict=True):
            np.testing.assert_allclose(one.landmarks, other.landmarks, atol=0.05)
            np.testing.assert_allclose(one.box, other.box, atol=0.05)
            assert one.score == pytest.approx(other.score, abs=1e-4)


def test_without_openvino_the_detector_runs_on_opencv(model, london, monkeypatch):
    expected = YuNet(model("yunet"), engine="opencv").detect(london[0])
    monkeypatch.setitem(sys.modules, "openvino", None)
    (face,) = YuNet(model("yunet")).detect(london[0])
    np.testing.assert_array_equal(face.landmarks, expected[0].landmarks)
    with pytest.raises(ImportError):
        YuNet(model("yunet"), engine="openvino")


@pytest.mark.parametrize("share", [1.0, 0.85])
def test_faces_in_tight_crops_are_recovered(detector, snapshots, share):
    for photo in snapshots:
        whole = central(detector.detect(photo))
        x0, y0, x1, y1 = whole.box
        dx, dy = (x1 - x0) * (1 - share) / 2, (y1 - y0) * (1 - share) / 2
        left, top = max(0, round(x0 + dx)), max(0, round(y0 + dy))
        crop = photo.pixels[top : round(y1 - dy), left : round(x1 - dx)].copy()
        face = detector.detect(Photo(crop, "crop"))[0]
        difference = np.abs(face.landmarks + np.array([left, top]) - whole.landmarks).mean()
        assert difference < 0.2 * between_eyes(whole)


def test_the_border_finds_what_bare_pictures_do_not_show(model, london):
    path = model("scrfd-500m")
    bare, bordered = (Scrfd(path, sizes=(640,), padded_sizes=sizes) for sizes in ((), (320,)))
    usual, few = Scrfd(path), london[:6]
    missed = 0
    for photo in few:
        x0, y0, x1, y1 = (max(0, round(v)) for v in usual.detect(photo)[0].box)
        crop = Photo(photo.pixels[y0:y1, x0:x1].copy(), "crop")
        missed += not bare.detect(crop)
        assert bordered.detect(crop)
    assert missed > len(few) / 2


def test_small_faces_in_large_photos_are_found(detector, london):
    pixels = np.full((1900, 2400, 3), 120, np.uint8)
    small = cv2.resize(london[0].pixels, (150, 150), interpolation=cv2.INTER_AREA)
    pixels[1000:1150, 1700:1850] = small
    face = detector.detect(Photo(pixels, "crowd"))[0]
    assert 1700 < face.box[0] < face.box[2] < 1850
    assert 1000 < face.box[1] < face.box[3] < 1150


def test_all_faces_of_a_group_are_found(detector, london):
    tiles = [cv2.resize(photo.pixels, (300, 300), interpolation=cv2.INTER_AREA) for photo in london[:6]]
    group = np.vstack([np.hstack(tiles[:3]), np.hstack(tiles[3:])])
    faces = detector.detect(Photo(group, "group"))
    assert {(int(f.landmarks[2][0] // 300), int(f.landmarks[2][1] // 300)) for f in faces} == {
        (x, y) for x in range(3) for y in range(2)
    }
    assert len(faces) == 6


def test_colours_reach_the_network_in_its_order(model, london):
    # With red and blue exchanged, faces are found with less confidence.
    for name, kind in KINDS.items():
        detector = kind(model(name))
        right = [detector.detect(photo)[0].score for photo in london]
        wrong = [detector.detect(Photo(photo.pixels[:, :, ::-1].copy(), ""))[0].score for photo in london]
        assert np.mean(right) > np.mean(wrong)


def test_pictures_without_faces_show_none(detector):
    rng = np.random.default_rng(0)
    for pixels in (
        np.zeros((300, 300, 3), np.uint8),
        rng.integers(0, 256, (200, 260, 3), dtype=np.uint8),
        np.full((1, 1, 3), 255, np.uint8),
        np.full((32, 3000, 3), 99, np.uint8),
    ):
        assert detector.detect(Photo(pixels, "")) == []


def test_threads_share_a_detector_and_get_what_one_alone_gets(detector, london):
    sizes = cycle((640, 480, 333, 250, 200))
    photos = [Photo(cv2.resize(photo.pixels, (size, size)), "") for photo, size in zip(london, sizes, strict=False)]
    alone = [detector.detect(photo) for photo in photos]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(detector.detect, photos * 2))
    for one, other in zip(alone * 2, together, strict=True):
        assert [f.box for f in one] == [f.box for f in other]
        assert all(np.array_equal(f.landmarks, g.landmarks) for f, g in zip(one, other, strict=True))


def test_the_same_photo_gives_the_same_crop(detector, london):
    one, other = (recogniser_crop(detector.detect(london[0])[0]) for _ in range(2))
    assert np.array_equal(one, other)


def test_the_photo_may_be_read_only(detector, london):
    pixels = london[0].pixels.copy()
    pixels.setflags(write=False)
    assert len(detector.detect(Photo(pixels, ""))) == 1


@pytest.mark.parametrize("kind", KINDS.values())
def test_missing_and_damaged_weights_are_told_apart(kind, tmp_path):
    with pytest.raises(MissingModelError, match="none"):
        kind(tmp_path / "none.onnx")
    (tmp_path / "noise.onnx").write_bytes(b"no network")
    with pytest.raises(DamagedModelError, match="noise"):
        kind(tmp_path / "noise.onnx")


def test_another_network_is_not_taken_for_scrfd(model):
    with pytest.raises(DamagedModelError, match="outputs"):
        Scrfd(model("yunet"))


def test_anchors_lie_on_the_corners_of_their_cells_two_by_two():
    centres = anchor_centres(2, 3, 8)
    assert centres.tolist() == [[x, y] for y in (0, 8) for x in (0, 8, 16) for _ in range(2)]
