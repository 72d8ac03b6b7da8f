"""Codes are rated as they are, and a curve is found where one is known to be best."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest

from anonymix_lab.data.keys import SeededKeys
from anonymix_lab.studies.codes import CodePairs, compared_enrolments, compared_pairs
from anonymix_lab.studies.enrolment import measure_enrolment
from anonymix_lab.studies.guiding import Answers, CodeCosines, Prediction, best_curve, held_out_cosines
from anonymix_plugin.errors import UsageError
from anonymix_plugin.mixer.guide import GuidingCurve

PEOPLE, PHOTOS, DIMS = 60, 8, 16


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def people() -> tuple[np.ndarray, np.ndarray]:
    """Codes of people, and who is on each: photos of one person have a cosine of about .5."""
    random = np.random.Generator(np.random.Philox(1))
    who = np.repeat(np.arange(PEOPLE), PHOTOS)
    return unit(random.standard_normal((PEOPLE, DIMS))[who] + random.standard_normal((len(who), DIMS))), who


def test_codes_that_say_nothing_are_rated_as_chance_and_perfect_ones_as_faultless() -> None:
    who = np.repeat(np.arange(PEOPLE), 2)
    first = np.arange(0, len(who), 2)
    pairs = CodePairs("pairs", (), who, first, first + 1)
    seen = np.ones(len(who), np.bool_)
    random = np.random.Generator(np.random.Philox(2))
    assert compared_pairs(pairs, unit(random.standard_normal((len(who), DIMS))), seen).figures().eer == pytest.approx(
        0.5, abs=0.1
    )
    perfect = compared_pairs(pairs, unit(random.standard_normal((PEOPLE, DIMS)))[who], seen).figures()
    assert perfect.eer == 0
    assert perfect.fnmr == (0, 0, 0)
    assert perfect.genuine == PEOPLE


def test_photos_without_a_face_are_in_no_comparison() -> None:
    who = np.repeat(np.arange(4), 2)
    pairs = CodePairs("pairs", (), who, np.arange(0, 8, 2), np.arange(1, 8, 2))
    codes = np.eye(4)[who]
    codes[0] = 0
    assert len(compared_pairs(pairs, codes, np.arange(8) > 0).genuine) == 3


def test_the_mean_of_several_photos_is_refused_less(people: tuple[np.ndarray, np.ndarray]) -> None:
    codes, who = people
    one, three = (found.figures() for found in compared_enrolments(codes, who, (1, 3)))
    assert one.genuine == three.genuine == PEOPLE * (PHOTOS - 3 - 0)
    assert three.eer < one.eer
    assert three.fnmr[1] < one.fnmr[1]


def test_people_are_compared_by_subspaces_that_were_not_learned_from_them() -> None:
    random = np.random.Generator(np.random.Philox(3))
    who = np.repeat(np.arange(40), 3)
    photos = unit(random.standard_normal((len(who), 640))).astype(np.float32)
    learned: list[set[int]] = []

    class Last:
        def project(self, rows: np.ndarray) -> np.ndarray:
            shown = {
                int(who[np.flatnonzero((photos == row).all(axis=1))[0]]) for row in rows if (photos == row).all(1).any()
            }
            assert not shown & learned[-1]
            return unit(rows[:, :DIMS].astype(np.float64))

    def fit(some: np.ndarray, names: np.ndarray, more: np.ndarray) -> Last:
        learned.append(set(names.tolist()))
        return Last()

    others = unit(random.standard_normal((20, 640))).astype(np.float32)
    found = held_out_cosines(photos, who, others, fit, impostors=400)  # type: ignore[arg-type]
    assert len(learned) == 4
    assert len(found.genuine) == 40 * 3
    assert len(found.impostor) > 300


@pytest.fixture(scope="module")
def prediction() -> Prediction:
    """A recogniser that sees the cosine as it is, with noise, and codes of people that part at about .55."""
    random = np.random.Generator(np.random.Philox(4))
    at = np.linspace(-1, 1, 1200)
    answers = Answers(at, {"plain": np.clip(at**3 + random.normal(0, 0.08, len(at)), -1, 1)})
    cosines = CodeCosines(np.clip(random.normal(0.8, 0.1, 2000), -1, 1), np.clip(random.normal(0, 0.17, 20_000), -1, 1))
    return Prediction(answers, cosines, {"plain": 0.2})


def test_guiding_lets_fewer_strangers_pass_and_refuses_fewer_of_the_genuine(prediction: Prediction) -> None:
    plain, guided = (prediction.figures(curve)["plain"] for curve in (None, GuidingCurve(0.3, 0.6, -0.5)))
    assert guided.eer < plain.eer
    assert guided.refused <= plain.refused
    assert guided.accepted < plain.accepted


def test_a_curve_that_ends_below_strangers_costs_the_low_false_match_rates(prediction: Prediction) -> None:
    early, late = (prediction.figures(GuidingCurve(0.1, high, -0.5))["plain"] for high in (0.4, 0.65))
    assert early.fnmr > 5 * late.fnmr + 0.2  # one stranger in a hundred is drawn as the reference itself


def test_a_curve_below_one_tells_those_who_are_near_apart(prediction: Prediction) -> None:
    whole, below = (prediction.figures(GuidingCurve(0.1, 0.5, -0.5, top))["plain"] for top in (1.0, 0.8))
    assert below.fnmr_low < whole.fnmr_low / 2


def test_answers_are_kept_as_they_are(tmp_path: Path) -> None:
    answers = Answers(np.linspace(-1, 1, 5), {"plain": np.zeros(5), "other": np.ones(5)})
    answers.save(tmp_path / "answers.safetensors")
    again = Answers.read(tmp_path / "answers.safetensors")
    assert again.cosines.tolist() == answers.cosines.tolist()
    assert {name: scores.tolist() for name, scores in again.scores.items()} == {"plain": [0] * 5, "other": [1] * 5}


def test_the_best_curve_comes_first_and_beats_none(prediction: Prediction) -> None:
    tried = best_curve(prediction, lows=(0.1, 0.3), highs=(0.4, 0.6), floors=(0.0, -0.5))
    assert len(tried) == 8
    assert [cost for cost, _, _ in tried] == sorted(cost for cost, _, _ in tried)
    plain = prediction.figures(None)["plain"]
    assert tried[0][0] < plain.eer + plain.refused + 4 * plain.accepted + plain.fnmr
    assert tried[0][1].high == 0.6


class Painter:
    """In the place of a mixer and a panel: a face's only pixel says who is on it, and how noisy its code is."""

    dims: ClassVar = {"plain": DIMS}

    def __init__(self) -> None:
        self.calls: list[tuple[str, str, int]] = []

    def protect(self, image: Any, *, subject: str, scope: str, enrol: bool = False) -> Any:
        photos = image if isinstance(image, tuple) else (image,)
        self.calls.append((subject, scope, len(photos) if enrol else 0))
        pixels = np.array([[[int(photos[0].parent.name), len(self.calls) % 256, len(photos)]]], np.uint8)
        face = SimpleNamespace(pixels=pixels, source="drawn")
        return [face] * len(photos) if isinstance(image, tuple) else face

    def look(self, photo: Any, names: Any, choice: str) -> dict[str, np.ndarray]:
        who, number, photos = (int(value) for value in photo.pixels[0, 0])
        random = np.random.Generator(np.random.Philox(1000 * who + number))
        centre = np.random.Generator(np.random.Philox(who)).standard_normal(DIMS)
        return {"plain": unit((centre + random.standard_normal(DIMS) / np.sqrt(photos))[None])[0].astype(np.float32)}


PHOTO_FILES = [[Path(f"{person}/{number}.jpg") for number in range(8)] for person in range(30)]


@pytest.mark.parametrize("guided", [False, True])
def test_enrolment_from_several_photos_is_measured_on_other_photos_of_the_same_people(guided: bool) -> None:
    painter = Painter()
    one, five = measure_enrolment(PHOTO_FILES, painter, painter, (1, 5), {"plain": 0.3}, guided=guided)  # type: ignore[arg-type]
    assert five.eer < one.eer
    assert five.refused < one.refused
    assert one.genuine == 90
    assert one.impostor == (90 if guided else 29 * 90)
    enrolled = [(subject, scope) for subject, scope, photos in painter.calls if photos]
    assert len(enrolled) == len(set(enrolled)) == 60
    assert {SeededKeys(1).references.enabled(scope) for _, scope in enrolled} == {guided}
    claims = [subject for subject, _, photos in painter.calls if not photos]
    assert len(claims) == (360 if guided else 90)


def test_people_of_too_few_photos_are_not_enrolled() -> None:
    with pytest.raises(UsageError, match="8 photos"):
        measure_enrolment([files[:7] for files in PHOTO_FILES], None, Painter(), (5,), {"plain": 0.3})  # type: ignore[arg-type]
