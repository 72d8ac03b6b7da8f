"""Several people in a photo, video, and search among candidates, on real photos."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from remembering import RememberingMixer

from anonymix_adapters import Interceptor
from anonymix_adapters import opencv as adapter
from anonymix_adapters.candidates import search_candidates
from anonymix_adapters.scenes import Scene, cut_faces, protect_frames, protect_scene
from anonymix_adapters.testing.conformance import Person
from anonymix_keystore import Keystore, KeystoreError
from anonymix_plugin import UsageError
from anonymix_plugin.faces import YuNet, recogniser_crop
from anonymix_plugin.images import decode_photo
from anonymix_plugin.models import locate
from anonymix_plugin.recognisers import load_recogniser
from anonymix_plugin.values import Face, Photo, Pixels
from anonymix_plugin.verification import THRESHOLDS

THRESHOLD = THRESHOLDS["arcface-mbf"]["fmr-0.1%"]


@pytest.fixture
def interceptor(adapter_mixer: RememberingMixer, adapter_store: Keystore, londoners: list[Person]) -> Interceptor:
    for person in londoners[:3]:
        adapter_store.current_or_issue(person.name)
    return Interceptor(adapter_mixer, "scenes")


@pytest.fixture(scope="module")
def group(londoners: list[Person]) -> Pixels:
    """Three people side by side, each 320 px, on a striped wall."""
    wall = np.zeros((400, 1100, 3), np.uint8)
    wall[:, ::8] = 255
    for number, person in enumerate(londoners[:3]):
        with Image.open(Path(str(person.enrolled))) as photo:
            wall[40:360, 40 + 350 * number : 360 + 350 * number] = photo.convert("RGB").resize((320, 320))
    return wall


def names_by_place(londoners: list[Person], known: int = 3) -> object:
    def name(face: Face) -> str | None:
        number = int((face.box[0] + face.box[2]) / 2 // 366)
        return londoners[number].name if number < known else None

    return name


def embedded(pixels: Pixels) -> list[tuple[float, np.ndarray]]:
    """Where each face of a picture is, left to right, and its embedding."""
    found = YuNet(locate("yunet")).detect(Photo(pixels, "scene"))
    recogniser = load_recogniser("arcface-mbf")
    faces = [((it.box[0] + it.box[2]) / 2, recogniser.embed(recogniser_crop(it)[None])[0]) for it in found]
    return sorted(faces, key=lambda it: it[0])


def test_each_face_of_a_photo_gets_its_own_subjects_key(
    interceptor: Interceptor, group: Pixels, londoners: list[Person]
) -> None:
    scene = protect_scene(interceptor, group, whose=names_by_place(londoners), rest="keep")  # type: ignore[arg-type]
    assert scene.pixels.shape == group.shape
    assert {face.subject for face in scene.faces} == {person.name for person in londoners[:3]}
    before, after = embedded(group), embedded(scene.pixels)
    assert len(before) == len(after) == 3
    for (_, original), (_, drawn), person in zip(before, after, londoners, strict=False):
        assert original @ drawn < THRESHOLD  # nobody's own face is left
        alone = interceptor.protect(person.enrolled, interceptor.whose(argument=person.name))
        # Now and then part of a second face is drawn at the edge.
        similarity = max(drawn @ enrolled for _, enrolled in embedded(alone.pixels))
        assert similarity > THRESHOLD  # the face drawn in is the one that the key stands for
    assert np.array_equal(scene.pixels[:20], group[:20])  # the wall is kept


@pytest.mark.parametrize("rest", ["blur", "drop"])
def test_the_rest_is_blurred_or_dropped_and_unnamed_faces_are_covered(
    interceptor: Interceptor, group: Pixels, londoners: list[Person], rest: str
) -> None:
    scene = protect_scene(interceptor, group, whose=names_by_place(londoners, 1), rest=rest)  # type: ignore[arg-type]
    assert [face.why for face in scene.faces if face.subject is None] == ["nobody"] * 2
    assert len(embedded(scene.pixels)) == 1
    wall = scene.pixels[:20].astype(int)
    assert np.abs(np.diff(wall, axis=1)).max() < 40  # the stripes of the wall, 0 and 255, are gone
    if rest == "drop":
        assert (wall == 128).all()


def test_unnamed_faces_are_covered_even_where_the_rest_is_kept(interceptor: Interceptor, group: Pixels) -> None:
    scene = protect_scene(interceptor, group, whose=lambda _: None, rest="keep")
    assert embedded(scene.pixels) == []
    assert np.array_equal(scene.pixels[:20], group[:20])


def test_a_subject_without_a_key_gives_no_picture(interceptor: Interceptor, group: Pixels) -> None:
    with pytest.raises(KeystoreError):
        protect_scene(interceptor, group, whose=lambda _: "nobody who is known")
    with pytest.raises(UsageError):
        protect_scene(interceptor, group, whose=lambda _: None, rest="burn")  # type: ignore[arg-type]


def test_a_video_keeps_each_persons_identity(interceptor: Interceptor, londoners: list[Person]) -> None:
    """Two people pass before the camera; the second stays away for a while."""
    pictures = [decode_photo(person.enrolled).pixels for person in londoners[:2]]
    small = [cv2.resize(picture, (240, 240), interpolation=cv2.INTER_AREA) for picture in pictures]
    asked: list[str] = []

    def whose(face: Face) -> str:
        asked.append(londoners[0 if face.box[0] < 330 else 1].name)
        return asked[-1]

    def frames() -> list[Pixels]:
        made = []
        for number in range(5):
            frame = np.full((280, 660, 3), 90, np.uint8)
            frame[20:260, 20 + 15 * number : 260 + 15 * number] = small[0]
            if number != 2:
                frame[20:260, 400 - 8 * number : 640 - 8 * number] = small[1]
            made.append(frame)
        return made

    scenes: list[Scene] = list(protect_frames(interceptor, frames(), whose=whose, rest="drop"))
    assert [scene.number for scene in scenes] == list(range(5))
    assert [len(scene.faces) for scene in scenes] == [2, 2, 1, 2, 2]
    assert sorted(asked) == sorted(person.name for person in londoners[:2])  # once each, not once a frame
    for person in londoners[:2]:
        tracks = {face.track for scene in scenes for face in scene.faces if face.subject == person.name}
        assert len(tracks) == 1
    left = np.stack([embedded(scene.pixels)[0][1] for scene in scenes])
    assert (left @ left.T).min() > THRESHOLD  # the same stranger's face in all frames


def test_one_persons_faces_are_cut_out_of_scenes_and_enrolled_together(
    interceptor: Interceptor, group: Pixels, londoners: list[Person]
) -> None:
    wanted = londoners[1]
    mirrored = np.ascontiguousarray(group[:, ::-1])
    by_place = names_by_place(londoners)

    def name(face: Face) -> str | None:
        return by_place(face)  # type: ignore[operator, no-any-return]

    faces = cut_faces([group, mirrored, group[:, :380]], subject=wanted.name, whose=name)
    assert len(faces) == 2  # the last one shows another person alone
    with interceptor.together(wanted.name, faces) as entry:
        assert (entry.photos, entry.left_out) == (2, ())
        assert interceptor.protect(faces[0], interceptor.whose()).pixels.tobytes() == entry.pixels.tobytes()
    assert cut_faces([group], subject="nobody", whose=name) == []


def test_candidates_are_tried_one_by_one_with_their_own_keys(
    adapter_mixer: RememberingMixer, adapter_store: Keystore, londoners: list[Person]
) -> None:
    people = londoners[:3]
    names = [f"candidate {person.name}" for person in people]  # nobody else's keys, whichever tests ran before
    with adapter.rehearse(adapter_mixer) as stage:
        for name, person in zip(names, people, strict=True):
            stage.enrol(name, person.enrolled)
        listed = [*names, "a candidate without a key"]
        found = search_candidates(stage.verify, people[1].probe, listed)
        assert (found.subject, found.tried, found.keyless) == (names[1], 3, (listed[3],))
        assert found.seconds > 0
        with pytest.raises(UsageError, match="gallery key"):
            search_candidates(stage.verify, people[1].probe, listed, most=2)
        with Path(str(people[1].probe)).open("rb") as stream, pytest.raises(UsageError, match="once"):
            search_candidates(stage.verify, stream, listed)
