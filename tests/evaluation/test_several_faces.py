"""Where a photo shows several people, mixer, baselines and matchers mean the same one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from photo_folders import with_room
from PIL import Image

from anonymix_lab.data.keys import SeededKeys
from anonymix_lab.evaluation import assemble
from anonymix_lab.evaluation.assemble import Choice, run_choice
from anonymix_lab.matchers import Panel, RecogniserMatcher, load_matchers
from anonymix_lab.protections import Blur, KeyName, MixerProtection, Pixelation, Protection
from anonymix_lab.studies.thresholds import measure_thresholds
from anonymix_plugin import Anonymixer
from anonymix_plugin.faces import FaceChoice, FacePolicy, YuNet, select_faces
from anonymix_plugin.images import decode_photo
from anonymix_plugin.values import Face, Floats, Photo, Pixels
from anonymix_plugin.verification import Verifier

pytestmark = pytest.mark.usefixtures("loaded_once")

ALICE = KeyName("own", "alice")


@pytest.fixture
def folder(portraits: Path, tmp_path: Path) -> Path:
    """Photos of a bystander, of the person meant, and of both: the bystander larger, at the edge."""
    bystander = with_room(portraits / "003_neutral.jpg").resize((560, 560))
    meant = with_room(portraits / "010_neutral.jpg").resize((400, 400))
    both = Image.new("RGB", (1400, 600), bystander.getpixel((5, 5)))
    both.paste(bystander, (0, 20))
    both.paste(meant, (560, 100))
    for name, picture in (("bystander", bystander), ("meant", meant), ("both", both)):
        picture.save(tmp_path / f"{name}.png")
    return tmp_path


@pytest.fixture
def panel(model: Callable[[str], Path]) -> Panel:
    model("sface")
    return Panel(load_matchers(["sface"]), YuNet(model("yunet")), "yunet")


def similarity(panel: Panel, one: Pixels, other: Path, by: Protection) -> float:
    """SFace's cosine of a protected picture with that of another photo."""
    seen = []
    for pixels in (one, by.protect(other, ALICE)):
        vector = panel.look(decode_photo(pixels), ["sface"], "largest")["sface"]
        assert vector is not None
        seen.append(vector / np.linalg.norm(vector))
    return float(seen[0] @ seen[1])


@pytest.mark.parametrize(("faces", "shown"), [("largest", "bystander"), ("central", "meant")])
def test_the_mixer_protects_whom_the_matchers_look_at(
    faces: FacePolicy, shown: str, folder: Path, panel: Panel
) -> None:
    """A code of the one differs from a code of the other as two strangers do."""
    other = {"bystander": "meant", "meant": "bystander"}[shown]
    with Anonymixer(SeededKeys(1), faces=faces) as mixer:
        by = MixerProtection(mixer, 1)
        made = by.protect(folder / "both.png", ALICE)
        assert similarity(panel, made, folder / f"{shown}.png", by) > 0.8
        assert similarity(panel, made, folder / f"{other}.png", by) < 0.5
    picture = decode_photo(folder / "both.png")
    seen = panel.look(picture, ["sface"], cast("Any", faces))["sface"]
    alone = panel.look(decode_photo(folder / f"{shown}.png"), ["sface"], "largest")["sface"]
    assert seen is not None
    assert alone is not None
    assert seen @ alone / np.linalg.norm(seen) / np.linalg.norm(alone) > 0.8


@pytest.mark.parametrize("baseline", [Blur, Pixelation])
def test_baselines_blur_whom_the_matchers_look_at(
    baseline: type[Blur] | type[Pixelation], folder: Path, model: Callable[[str], Path]
) -> None:
    detector = YuNet(model("yunet"))
    central, largest = baseline(detector, faces="central"), baseline(detector)
    meant = central.protect(folder / "meant.png", ALICE).astype(float)
    assert np.abs(central.protect(folder / "both.png", ALICE) - meant).mean() < 12
    assert np.abs(largest.protect(folder / "both.png", ALICE) - meant).mean() > 24
    assert central.fingerprint != largest.fingerprint  # a cache must not mix them up


BOXES = st.lists(
    st.tuples(st.integers(-40, 240), st.integers(-40, 240), st.integers(8, 200), st.integers(8, 200)),
    min_size=1,
    max_size=5,
)


class Finder:
    """A detector that finds faces in given boxes, the largest first."""

    def __init__(self, boxes: list[tuple[int, int, int, int]]) -> None:
        self._boxes = sorted(boxes, key=lambda box: -box[2] * box[3])

    def detect(self, photo: Photo) -> list[Face]:
        points = np.zeros((5, 2), np.float32)
        return [Face(photo, (x, y, x + w, y + h), points, 0.9) for x, y, w, h in self._boxes]


class Onlooker:
    """A recogniser with a way to cut of its own, which remembers the faces that it was asked to cut out."""

    name, dim, input_size, seen_by_mixer = "onlooker", 2, 8, False
    alignment = cast("Any", "of its own")
    identity = name

    def __init__(self) -> None:
        self.cut: list[tuple[float, ...]] = []

    def crop(self, face: Face) -> Pixels:
        self.cut.append(face.box)
        return np.full((8, 8, 3), 7, np.uint8)

    def embed(self, crops: Pixels) -> Floats:
        assert crops.shape[1:] == (8, 8, 3)
        return np.tile(np.array([1, 0], np.float32), (len(crops), 1))

    def embed_photo(self, photo: Photo, face: Face | None) -> Floats | None:
        assert face is not None
        return self.embed(self.crop(face)[None])[0]


def lfw_of_two(folder: Path) -> Path:
    """Labeled Faces in the Wild with two people, one photo of each, who look alike."""
    (folder / "pairsDevTrain.txt").write_text("1\nAnn 1 Bob 1\n")
    for name in ("Ann", "Bob"):
        (folder / "images" / name).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (250, 250), "grey").save(folder / "images" / name / f"{name}_0001.jpg")
    return folder


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(boxes=BOXES, choice=st.sampled_from(["largest", "central"]))
@example(boxes=[(15, 75, 100, 100), (105, 105, 40, 40)], choice="central")
def test_mixer_matchers_and_thresholds_mean_the_same_face_wherever_faces_stand(
    boxes: list[tuple[int, int, int, int]], choice: FaceChoice, tmp_path: Path
) -> None:
    detector, photo = Finder(boxes), Photo(np.zeros((250, 250, 3), np.uint8), "drawn")
    meant = select_faces(detector.detect(photo), choice, photo)[0].box
    matcher = Onlooker()
    Panel([matcher], detector, "drawn").look(photo, ["onlooker"], choice)
    assert matcher.cut == [meant]
    if choice == "central":
        matcher = Onlooker()
        measure_thresholds(lfw_of_two(tmp_path), [matcher], detector=detector)
        assert matcher.cut == [meant, meant]


@pytest.mark.parametrize("crowd", [[(105, 105, 40, 40)], [(105, 105, 40, 40), (190, 60, 120, 150)]])
def test_central_is_neither_a_speck_in_the_very_middle_nor_a_larger_face_at_the_edge(
    crowd: list[tuple[int, int, int, int]],
) -> None:
    photo = Photo(np.zeros((250, 250, 3), np.uint8), "drawn")
    person = (55, 60, 100, 130)
    matcher = Onlooker()
    Panel([matcher], Finder([person, *crowd]), "drawn").look(photo, ["onlooker"], "central")
    assert matcher.cut == [(55, 60, 155, 190)]


def test_every_way_to_compare_lets_the_recogniser_cut() -> None:
    matcher = Onlooker()
    picture = np.zeros((250, 250, 3), np.uint8)
    Verifier(matcher, 0.5, detector=Finder([(50, 50, 100, 100)])).compare(picture, picture)
    mine = object.__new__(RecogniserMatcher)  # without a name in the registry of weights
    mine._recogniser = matcher
    face = Finder([(50, 50, 100, 100)]).detect(Photo(picture, "drawn"))[0]
    assert mine.embed_photo(face.photo, face) is not None
    assert matcher.cut == [(50, 50, 150, 150)] * 3


class _OpenedError(Exception):
    pass


@pytest.mark.parametrize(("protocol", "faces"), [("lfw", "central"), ("folder", "largest")])
def test_on_lfw_the_person_in_the_middle_is_protected(
    protocol: str,
    faces: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    model: Callable[[str], Path],
) -> None:
    model("sface")
    given: dict[str, Any] = {}

    def opened(*_: object, **options: object) -> None:
        given.update(options)
        raise _OpenedError

    monkeypatch.setattr(assemble, "Anonymixer", opened)
    choice = SimpleNamespace(
        protocol=SimpleNamespace(name=protocol),
        generator=None,
        cache=tmp_path,
        detector="yunet",
        matchers=["sface"],
        features=None,
        workers=1,
        policy=None,
        key_seed=1,
        engine="auto",
        method="fast",
        mixer_weights=None,
    )
    with pytest.raises(_OpenedError):
        run_choice(cast("Choice", choice), lambda *_: None, lambda _: None)
    assert given["faces"] == faces
