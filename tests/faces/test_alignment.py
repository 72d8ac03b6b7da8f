from __future__ import annotations

import cv2
import numpy as np
import pytest
from drawn_faces import UPRIGHT, dots, middles
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from anonymix_plugin.errors import NoFaceError, UsageError
from anonymix_plugin.faces import (
    RECOGNISER_TEMPLATE,
    box_crop,
    ffhq_crop,
    ffhq_matrix,
    recogniser_crop,
    recogniser_crops,
)

POSES = settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def posed(angle: float, scale: float, x: float, y: float) -> np.ndarray:
    c, s = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    return UPRIGHT @ (scale * np.array([[c, -s], [s, c]])).T + (x, y)


@POSES
@given(angle=st.floats(-180, 180), scale=st.floats(0.5, 3.5), x=st.floats(250, 400), y=st.floats(250, 400))
def test_landmarks_come_to_lie_on_the_template_from_any_pose(make_face, angle, scale, x, y):
    template_like = (RECOGNISER_TEMPLATE - RECOGNISER_TEMPLATE.mean(0)) / 35 * 60
    c, s = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    points = template_like @ (scale * np.array([[c, -s], [s, c]])).T + (x, y)
    face = make_face(dots((650, 650), points, 6 * scale), points)
    for size in (112, 224):
        found = middles(recogniser_crop(face, size))
        assert np.abs(found - RECOGNISER_TEMPLATE * (size / 112)).max() < 0.6 * size / 112


@POSES
@given(angle=st.floats(-60, 60), scale=st.floats(0.4, 2.5))
def test_ffhq_crops_have_eyes_and_mouth_where_the_generator_wants_them(make_face, angle, scale):
    points = posed(angle, scale, 400, 400)
    found = middles(ffhq_crop(make_face(dots((800, 800), points, 5 * scale), points), 256)) / 256
    eyes, mouth = found[:2].mean(0), found[3:].mean(0)
    # Half a side is max(2 x 60, 1.8 x 68) = 122.4; the middle is a tenth of the way from eyes to mouth.
    assert eyes == pytest.approx((0.5, 0.5 - 6.8 / 244.8), abs=0.01)
    assert mouth == pytest.approx((0.5, 0.5 + 61.2 / 244.8), abs=0.01)
    assert found[1] - found[0] == pytest.approx((60 / 244.8, 0), abs=0.01)


def test_wide_faces_are_framed_by_their_eyes(make_face):
    points = UPRIGHT * (1.5, 1) + 200  # 90 between the eyes, 68 from eyes to mouth
    matrix = ffhq_matrix(make_face(None, points), 512)
    assert matrix[0, 0] == pytest.approx(512 / (2 * 2.0 * 90))
    assert matrix[0, 1] == pytest.approx(0, abs=1e-9)


def test_a_crop_of_half_the_size_is_the_mean_of_two_by_two_pixels(make_face):
    # Anti-aliasing, and pixel centres in the right place, show in one number.
    rng = np.random.default_rng(3)
    pixels = cv2.resize(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8), (480, 480), interpolation=cv2.INTER_CUBIC)
    face = make_face(pixels, UPRIGHT * 0.8 + 240)
    large, small = ffhq_crop(face, 192), ffhq_crop(face, 96)
    mean = large.reshape(96, 2, 96, 2, 3).mean((1, 3))
    assert np.abs(mean - small).mean() < 1.5


def test_fine_patterns_shrink_to_grey_and_not_to_stripes(make_face):
    pixels = np.zeros((2000, 2000, 3), np.uint8)
    pixels[::2] = 255
    face = make_face(pixels, posed(17, 5, 1000, 1000))
    for crop in (recogniser_crop(face), ffhq_crop(face, 128), box_crop(face, 64)):
        assert crop.min() > 100
        assert crop.max() < 155


def test_beyond_the_photo_ffhq_mirrors_and_recognisers_see_black(make_face):
    pixels = np.full((60, 60, 3), 200, np.uint8)
    face = make_face(pixels, UPRIGHT * 0.6 + 30)
    assert (ffhq_crop(face, 128) == 200).all()
    far = make_face(pixels, UPRIGHT * 0.6 + (5, 30))
    crop = recogniser_crop(far)
    assert (crop[:, 0] == 0).all()
    assert (crop[50:90, 60:105] == 200).all()


def test_the_mirror_continues_at_the_edge_of_the_photo(make_face):
    rows = np.linspace(0, 255, 300).astype(np.uint8)
    pixels = np.broadcast_to(rows[:, None, None], (300, 300, 3)).copy()
    face = make_face(pixels, UPRIGHT + np.array([150, 60]))  # the frame begins 90.6 pixels above the photo
    column = ffhq_crop(face, 245)[:, 100, 0].astype(int)
    assert column[90] == column.min()
    assert column[30] > column[90] + 30
    assert np.abs(column[31:91] - column[91:151][::-1]).max() <= 2


@pytest.mark.parametrize("offset", [(-900, 200), (200, 5000), (-4000, -4000)])
def test_landmarks_far_outside_the_photo_do_no_harm(make_face, offset):
    pixels = np.full((100, 90, 3), 77, np.uint8)
    face = make_face(pixels, UPRIGHT + offset)
    assert (recogniser_crop(face) == 0).all()
    assert (ffhq_crop(face, 64) == 77).all()


def test_batches_equal_single_crops(make_face):
    rng = np.random.default_rng(1)
    faces = [make_face(rng.integers(0, 256, (400, 400, 3), dtype=np.uint8), posed(a, 1, 200, 200)) for a in (0, 30)]
    batch = recogniser_crops(faces, 64)
    assert batch.shape == (2, 64, 64, 3)
    for crop, face in zip(batch, faces, strict=True):
        assert np.array_equal(crop, recogniser_crop(face, 64))
    assert recogniser_crops([], 64).shape == (0, 64, 64, 3)


def test_the_photo_is_left_as_it_was(make_face):
    pixels = np.random.default_rng(2).integers(0, 256, (300, 300, 3), dtype=np.uint8)
    before = pixels.copy()
    face = make_face(pixels, UPRIGHT + 150)
    for crop in (recogniser_crop(face), ffhq_crop(face), box_crop(face, margin=0.3)):
        crop[:] = 0
    assert np.array_equal(pixels, before)


def test_box_crop_takes_the_box_and_nothing_else(make_face):
    pixels = np.zeros((200, 200, 3), np.uint8)
    pixels[50:90, 20:80] = 255
    face = make_face(pixels, box=(20.2, 49.8, 79.9, 90.3))
    assert (box_crop(face) == 255).all()
    assert box_crop(face).shape == (160, 160, 3)
    with_margin = box_crop(face, 120, margin=0.5)  # 20 pixels above and below, 30 beside, cut off at 0
    assert (with_margin[0] == 0).all()
    assert (with_margin[60, 24:84] == 255).all()


def test_box_crop_is_cut_off_at_the_photo(make_face):
    face = make_face(np.full((100, 100, 3), 9, np.uint8), box=(-50, -20, 30, 400))
    assert (box_crop(face, 32) == 9).all()


@pytest.mark.parametrize("box", [(300.0, 0.0, 400.0, 50.0), (10.0, 10.0, 10.0, 40.0), (0.0, 0.0, np.nan, 9.0)])
def test_boxes_without_pixels_are_no_face(make_face, box):
    with pytest.raises(NoFaceError, match=r"drawn\.png"):
        box_crop(make_face(np.zeros((100, 100, 3), np.uint8), box=box))


@pytest.mark.parametrize("landmarks", [np.full((5, 2), 50.0), np.full((5, 2), np.nan)])
def test_landmarks_that_settle_nothing_are_no_face(make_face, landmarks):
    face = make_face(None, landmarks, box=(0, 0, 10, 10))
    for crop in (recogniser_crop, ffhq_crop):
        with pytest.raises(NoFaceError, match=r"drawn\.png"):
            crop(face)


def test_senseless_sizes_and_margins_are_refused(make_face):
    face = make_face()
    for crop in (recogniser_crop, ffhq_crop, box_crop):
        with pytest.raises(UsageError):
            crop(face, 0)
    with pytest.raises(UsageError):
        box_crop(face, margin=-0.1)
    with pytest.raises(UsageError):
        box_crop(face, margin=float("nan"))
