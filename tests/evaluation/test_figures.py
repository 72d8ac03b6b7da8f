"""The London figures count what they say they count, and the shipped mixer holds on a handful of people."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from anonymix_lab.cli.measure._london import _table
from anonymix_lab.data.keys import SHARED_SCOPE, SeededKeys
from anonymix_lab.studies import london as module
from anonymix_lab.studies.london import london_figures, london_photos
from anonymix_plugin.errors import UsageError
from anonymix_plugin.faces import YuNet
from anonymix_plugin.models import locate
from anonymix_plugin.recognisers import load_recogniser
from anonymix_plugin.verification import THRESHOLDS

NEEDED = ("mobilestylegan", "yunet", "arcface-mbf", "sface", "facenet")


@pytest.fixture(scope="module")
def weights(model: Callable[[str], Path]) -> None:
    for name in NEEDED:
        model(name)


@pytest.fixture(scope="module")
def measured(portraits: Path, weights: None) -> module.LondonFigures:
    matchers = [load_recogniser("facenet"), load_recogniser("arcface-mbf")]
    photos = london_photos(portraits, 8)
    return london_figures(photos, matchers, YuNet(locate("yunet")), shared_keys=1)


def test_the_same_person_matches_and_others_do_not_under_one_key(measured: module.LondonFigures) -> None:
    unseen = measured.matchers[0]
    assert (unseen.matcher, unseen.seen_by_mixer) == ("facenet", False)
    assert unseen.unprotected.eer == 0
    assert unseen.one_key_eer <= 0.08
    assert unseen.own_key.eer <= 0.08
    assert unseen.own_key.genuine_mean > 0.6
    assert unseen.own_key.impostor_mean < 0.35


def test_the_figures_name_the_method(measured: module.LondonFigures) -> None:
    assert measured.as_json()["method"] == "fast"


def test_a_terminal_of_80_characters_shows_every_figure_of_four_matchers(
    measured: module.LondonFigures, tmp_path: Path
) -> None:
    names = ("facenet", "dlib-recognition", "arcface-mbf", "sface")
    four = replace(measured, matchers=tuple(replace(measured.matchers[0], matcher=name) for name in names))
    console = Console(width=80, file=StringIO(), record=True)
    console.print(_table(four, "policy none, method fast", tmp_path / "figures.json"))
    shown = console.export_text()
    assert "…" not in shown
    matcher = measured.matchers[0]
    for figure in (f"{matcher.own_key.eer:.4f}", f"{matcher.below_threshold:.2%}", f"{matcher.threshold:.3f}"):
        assert shown.count(figure) >= 4
    assert shown.count(f"{matcher.one_person[0]:.2f} ± {matcher.one_person[1]:.2f}") == 4


def test_a_preset_of_the_refine_method_reaches_the_mixer(portraits: Path, weights: None) -> None:
    pairs = london_photos(portraits, 2)
    matchers = [load_recogniser("arcface-mbf")]
    with pytest.raises(UsageError, match="no preset 'slow'"):
        london_figures(pairs, matchers, YuNet(locate("yunet")), refinement="slow")  # type: ignore[arg-type]


def test_protected_faces_do_not_match_their_originals(measured: module.LondonFigures) -> None:
    # Thresholds of 56 impostor scores are loose; the recogniser's own, from LFW, is .243 for ArcFace.
    seen = measured.matchers[1]
    assert seen.seen_by_mixer
    assert seen.highest_original < 0.243
    assert seen.original_comparisons == 8 * 3 * 4
    assert seen.renewal_comparisons == 8 * 3 * 4


def test_recognisers_see_protected_faces_nearly_as_well_as_photos(measured: module.LondonFigures) -> None:
    unseen, seen = measured.matchers
    assert seen.quality is not None
    assert seen.least_quality is not None
    assert seen.quality > 0.9
    assert 0.5 < seen.least_quality <= seen.quality
    assert unseen.quality is None  # FaceNet does not tell
    assert unseen.one_person[0] > 0.75


def test_a_threshold_for_cancelable_faces_keeps_people_and_ends_renewal_matches(
    measured: module.LondonFigures,
) -> None:
    for matcher in measured.matchers:
        recalibrated = matcher.recalibrated
        assert recalibrated is not None
        assert recalibrated.threshold == THRESHOLDS[matcher.matcher]["cancelable-fmr-0.1%"]
        for fmr, fnmr in (recalibrated.one_key, recalibrated.own_key):
            assert fmr <= 2 / 56 + 1e-9  # one pair of people, either of them as the probe
            assert fnmr <= 1 / 8
        assert recalibrated.renewal_match_rate == 0


def test_error_rates_recalibrated_are_those_of_all_shared_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "THRESHOLDS", {"matcher": {"cancelable-fmr-0.1%": 0.5}})

    def seen(cosine: float) -> module._Embedded:
        """Two people whose photos have cosine `cosine` with each other's and 1 with their own."""
        rows = np.array([[1, 0], [cosine, np.sqrt(1 - cosine**2)]], np.float32)
        return module._Embedded({"matcher": np.stack([rows, rows], axis=1)}, {}, 0)

    found = module._recalibrated("matcher", [seen(0.9), seen(0.1)], seen(0.1), np.array([0.4, 0.6, 0.7, 0.1]))
    assert found == module.Recalibrated(0.5, (0.5, 0.0), (0.0, 0.0), 0.5)
    assert module._recalibrated("another", [seen(0.9)], seen(0.1), np.zeros(1)) is None


def test_every_protected_face_is_detected(measured: module.LondonFigures) -> None:
    assert measured.undetected == 0
    assert measured.people == 8
    assert json.loads(json.dumps(measured.as_json()))["matchers"][0]["one_key_eer"] == measured.matchers[0].one_key_eer


def test_scores_compare_each_enrolment_with_each_probe_once() -> None:
    embeddings = np.zeros((3, 2, 3), np.float32)
    embeddings[:, 0] = np.eye(3)
    embeddings[:, 1] = np.roll(np.eye(3), 1, axis=0)
    genuine, impostor = module._scores(embeddings)
    assert genuine.tolist() == [0, 0, 0]
    assert sorted(impostor.tolist()) == [0, 0, 0, 1, 1, 1]


def test_a_folder_without_pairs_is_refused(tmp_path: Path) -> None:
    (tmp_path / "001_neutral.jpg").touch()
    with pytest.raises(UsageError, match="no pairs"):
        london_photos(tmp_path)


def test_seeded_keys_are_the_same_again_and_differ_where_they_should() -> None:
    keys = SeededKeys(1)
    materials = {
        keys.at("a", 1, "own").material,
        keys.at("a", 2, "own").material,
        keys.at("b", 1, "own").material,
        keys.at("a", 1, "other").material,
        keys.gallery("own").material,
        keys.at("a", 1, SHARED_SCOPE).material,
        SeededKeys(2).at("a", 1, "own").material,
    }
    assert len(materials) == 7
    assert keys.at("a", 1, "own") == SeededKeys(1).current("a", "own")
    assert keys.at("a", 1, SHARED_SCOPE).material == keys.at("b", 1, SHARED_SCOPE).material
