"""The search over sizes and borders, with a detector that sees one bright rectangle."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anonymix_plugin.errors import UsageError
from anonymix_plugin.faces import Detector
from anonymix_plugin.faces._found import NOTHING, Found, suppress
from anonymix_plugin.faces._search import Search
from anonymix_plugin.values import Photo


class Bright(Search):
    """Finds what is white, provided that nothing white touches the edge and it is neither small nor large."""

    def __init__(self, *, least=8, most=10_000, **options):
        defaults = {"sizes": (320,), "padded_sizes": (320,), "score_threshold": 0.5, "thorough": False}
        super().__init__(**(defaults | options))
        self.least, self.most, self.seen = least, most, []

    def _look(self, picture):
        self.seen.append((picture.shape[1], picture.shape[0]))
        white = picture.min(axis=2) > 200
        rows, columns = np.flatnonzero(white.any(1)), np.flatnonzero(white.any(0))
        if not rows.size or white[0].any() or white[-1].any() or white[:, 0].any() or white[:, -1].any():
            return NOTHING
        box = np.array([[columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]], np.float32)
        if not self.least <= box[0, 2] - box[0, 0] <= self.most:
            return NOTHING
        landmarks = np.stack([box[:, :2], box[:, 2:], box[:, :2], box[:, 2:], box[:, :2]], axis=1)
        return Found(box, landmarks, np.full(1, 0.9, np.float32))


def photo_with(box, width=200, height=150):
    pixels = np.full((height, width, 3), 60, np.uint8)
    x0, y0, x1, y1 = box
    pixels[y0:y1, x0:x1] = 255
    return Photo(pixels, "drawn")


@settings(deadline=None)
@given(
    size=st.integers(100, 900),
    width=st.integers(80, 500),
    height=st.integers(80, 500),
    padded=st.booleans(),
)
def test_coordinates_come_back_to_the_photo_from_every_size_and_border(size, width, height, padded):
    inner = (width // 5, height // 4, width * 3 // 4, height * 4 // 5)
    # What is white up to the edges is seen only within a border.
    box = (0, 0, width, height) if padded else inner
    detector = Bright(sizes=(size,), padded_sizes=(size,))
    (face,) = detector.detect(photo_with(box, width, height))
    assert len(detector.seen) == (2 if padded else 1)
    pixel = max(1.0, max(width, height) * (2 if padded else 1) / size)
    assert face.box == pytest.approx(box, abs=1.5 * pixel)
    assert face.landmarks[:2].ravel() == pytest.approx(box, abs=1.5 * pixel)
    assert face.landmarks.dtype == np.float32
    assert face.landmarks.shape == (5, 2)


def test_the_first_size_that_shows_a_face_settles_it():
    detector = Bright(sizes=(100, 200, 400), least=40)
    faces = detector.detect(photo_with((50, 50, 100, 100)))
    assert detector.seen == [(100, 75), (200, 150)]
    assert len(faces) == 1


def test_no_look_is_taken_twice_and_small_photos_are_at_most_doubled():
    detector = Bright(sizes=(640, 320, 1280), padded_sizes=(640,))
    assert detector.detect(Photo(np.zeros((60, 80, 3), np.uint8), "dark")) == []
    assert detector.seen == [(160, 120), (320, 240)]


def test_thorough_joins_all_sizes_and_counts_a_face_once():
    detector = Bright(sizes=(100, 200, 400), thorough=True)
    faces = detector.detect(photo_with((50, 50, 100, 100)))
    assert detector.seen == [(100, 75), (200, 150), (400, 300)]
    assert len(faces) == 1


def test_a_search_is_a_detector():
    assert isinstance(Bright(), Detector)


@pytest.mark.parametrize(
    "wrong",
    [
        {"sizes": ()},
        {"sizes": (0,)},
        {"padded_sizes": (640, -1)},
        {"score_threshold": 0},
        {"score_threshold": 1},
    ],
)
def test_senseless_settings_are_refused(wrong):
    with pytest.raises(UsageError):
        Bright(**wrong)


def found(boxes, scores):
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    return Found(boxes, np.zeros((len(boxes), 5, 2), np.float32), np.array(scores, np.float32))


def test_of_overlapping_boxes_the_surest_stays():
    kept = suppress(
        found([[0, 0, 10, 10], [1, 1, 11, 11], [30, 30, 40, 40], [5, 0, 15, 10]], [0.6, 0.9, 0.7, 0.5]), 0.4
    )
    assert kept.boxes.tolist() == [[1, 1, 11, 11], [30, 30, 40, 40], [5, 0, 15, 10]]
    assert kept.scores.tolist() == pytest.approx([0.9, 0.7, 0.5])


def test_nothing_to_suppress_is_nothing():
    assert len(suppress(NOTHING, 0.4)) == 0


@given(
    st.lists(
        st.tuples(*[st.integers(0, 60)] * 2, *[st.integers(1, 40)] * 2, st.integers(1, 100)),
        min_size=1,
        max_size=20,
    )
)
def test_what_stays_overlaps_little_and_covers_what_went(rows):
    boxes = np.array([(x, y, x + w, y + h) for x, y, w, h, _ in rows], float)
    kept = suppress(found(boxes, [score / 100 for *_, score in rows]), 0.4)

    def iou(a, b):
        w = max(0, min(a[2], b[2]) - max(a[0], b[0]))
        h = max(0, min(a[3], b[3]) - max(a[1], b[1]))
        return w * h / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - w * h)

    for i, a in enumerate(kept.boxes):
        assert all(iou(a, b) <= 0.4001 for b in kept.boxes[:i])
    for box in boxes:
        assert any(iou(box, other) > 0.3999 for other in kept.boxes)
