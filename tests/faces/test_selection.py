from __future__ import annotations

import pytest

from anonymix_plugin.errors import NoFaceError, SeveralFacesError, UsageError
from anonymix_plugin.faces import select_faces


@pytest.fixture
def three(make_face):
    boxes = [(0.0, 0.0, 50.0, 50.0), (100.0, 100.0, 300.0, 300.0), (60.0, 60.0, 90.0, 95.0)]
    return [make_face(box=box, score=score) for box, score in zip(boxes, (0.99, 0.7, 0.95), strict=True)]


def test_largest_is_by_area_and_neither_by_score_nor_by_order(three):
    assert select_faces(three, "largest", three[0].photo) == [three[1]]


def test_all_are_sorted_by_size(three):
    assert select_faces(three, "all", three[0].photo) == [three[1], three[0], three[2]]


def test_error_counts_the_smallest_face_in_the_background(three):
    with pytest.raises(SeveralFacesError, match=r"drawn\.png: 3 faces"):
        select_faces(three, "error", three[0].photo)
    assert select_faces(three[2:], "error", three[0].photo) == [three[2]]


@pytest.mark.parametrize("policy", ["largest", "central", "all", "error"])
def test_doubtful_faces_are_passed_over_by_their_score_alone(three, policy):
    assert select_faces(three, policy, three[0].photo, min_score=0.97) == [three[0]]
    with pytest.raises(NoFaceError, match="3 doubtful"):
        select_faces(three, policy, three[0].photo, min_score=0.995)


@pytest.mark.parametrize("policy", ["largest", "central", "all", "error"])
def test_no_face_is_an_error_under_every_policy(policy, make_face):
    with pytest.raises(NoFaceError, match=r"drawn\.png: no face was found \(400 x 400"):
        select_faces([], policy, make_face().photo)


def test_central_prefers_the_portrait_to_a_larger_face_at_the_edge(make_face):
    portrait = make_face(box=(120.0, 120.0, 280.0, 280.0))
    cut = make_face(box=(300.0, 100.0, 500.0, 300.0))
    speck = make_face(box=(195.0, 195.0, 205.0, 205.0))
    assert select_faces([speck, cut, portrait], "central", portrait.photo) == [portrait]
    assert select_faces([speck, cut, portrait], "largest", portrait.photo) == [cut]
    assert select_faces([speck, cut], "central", cut.photo) == [speck]


def test_other_policies_are_refused(three):
    with pytest.raises(UsageError, match="first"):
        select_faces(three, "first", three[0].photo)
