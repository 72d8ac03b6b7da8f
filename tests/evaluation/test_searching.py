"""The study of searches over candidates: who is chosen, what is counted, and that drawing agrees with computing."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from anonymix_lab.studies import searching
from anonymix_lab.studies.guiding import Answers, CodeCosines, Prediction
from anonymix_lab.studies.searching import draw_searches, galleries_of, gallery_of, searched
from anonymix_plugin.errors import UsageError
from anonymix_plugin.mixer.guide import GuidingCurve

THRESHOLDS = {"one": 0.5}


def people(several: int = 12, single: int = 20, spread: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    """Codes of people of two photos and of people of one."""
    random = np.random.Generator(np.random.Philox(3))
    centres = random.standard_normal((several + single, 32))
    who = np.concatenate([np.repeat(np.arange(several), 2), np.arange(several, several + single)])
    codes = centres[who] + spread * random.standard_normal((len(who), 32))
    return codes / np.linalg.norm(codes, axis=1, keepdims=True), who


def exact() -> Prediction:
    """A recogniser that says the cosine of the codes."""
    cosines = np.linspace(-1, 1, 400)
    return Prediction(Answers(cosines, {"one": cosines}), CodeCosines(np.zeros(1), np.zeros(1)), THRESHOLDS)


def test_candidates_probes_and_others_are_told_apart() -> None:
    _, who = people()
    gallery = gallery_of(who, 20, 100)
    assert len(gallery.entries) == len(set(who[gallery.entries])) == 20
    assert np.array_equal(who[gallery.probes], who[gallery.entries[gallery.own]])
    assert not set(gallery.probes) & set(gallery.entries)
    assert not set(who[gallery.others]) & set(who[gallery.entries])
    assert len(gallery.others) == 12
    with pytest.raises(UsageError, match="32 people"):
        gallery_of(who, 32, 10)
    assert sum(len(it.probes) for it in galleries_of(who, 4, 11)) >= 11
    with pytest.raises(UsageError, match="second photo"):
        galleries_of(np.arange(30), 4, 11)


def test_what_is_counted_is_what_counting_by_hand_gives() -> None:
    codes, who = people()
    galleries = galleries_of(who, 10, 12)
    (found,) = searched(codes, galleries, exact(), None, THRESHOLDS)
    mine, rest, highest = [], [], []
    for gallery in galleries:
        for probe, own in zip(gallery.probes, gallery.own, strict=True):
            scores = codes[gallery.entries] @ codes[probe]
            mine.append(scores[own])
            rest.append(np.delete(scores, own).max())
        highest += [float((codes[gallery.entries] @ codes[other]).max()) for other in gallery.others]
    own, others, foreign = map(np.array, (mine, rest, highest))
    assert (found.candidates, found.probes) == (10, len(own))
    assert found.rank1 == pytest.approx((own > others).mean())
    assert found.missed == pytest.approx((own < 0.5).mean(), abs=0.05)
    assert found.alone == pytest.approx(((own >= 0.5) & (others < 0.5)).mean(), abs=0.05)
    assert found.alarms == pytest.approx((foreign >= 0.5).mean(), abs=0.05)
    assert found.missed_at_alarm == pytest.approx((own <= foreign.max()).mean(), abs=0.05)


def test_references_keep_others_away_and_change_no_order() -> None:
    codes, who = people(several=60, single=200, spread=0.9)
    galleries = galleries_of(who, 100, 50)
    (plain,), (guided,) = (
        searched(codes, galleries, exact(), curve, {"one": 0.3}) for curve in (None, GuidingCurve(0.25, 0.6, -0.75))
    )
    assert guided.guided
    assert plain.rank1 == guided.rank1 > 0.5  # the curve never falls
    assert guided.alarms < plain.alarms


def test_drawn_searches_hold_each_probe_against_its_own_and_the_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    codes, who = people()
    gallery = gallery_of(who, 10, 12)
    drawn: list[np.ndarray] = []

    def picture(_: object, w_plus: np.ndarray, size: int) -> np.ndarray:
        drawn.append(w_plus[0])
        return np.zeros((1, 3, size, size), np.float32)

    def look(_: object) -> dict[str, Any] | None:
        return {"one": drawn[-1]}

    monkeypatch.setattr(searching, "pictures_of", picture)
    mixer: Any = SimpleNamespace(mix=lambda code, schedule, material: code)
    generator: Any = SimpleNamespace(sizes=(8,))
    (found,) = draw_searches(codes, gallery, generator, mixer, None, look, THRESHOLDS, probes=4, nearest=2)
    assert (found.probes, found.nearest, len(drawn)) == (4, 2, 4 * 3 * 2)
    near = [
        np.sort(np.delete(codes[gallery.entries] @ codes[row], own))[-2:]
        for row, own in zip(gallery.probes[:4], gallery.own[:4], strict=True)
    ]
    mine = [
        codes[gallery.entries[own]] @ codes[row] for row, own in zip(gallery.probes[:4], gallery.own[:4], strict=True)
    ]
    assert found.rank1 == sum(own > others.max() for own, others in zip(mine, near, strict=True))
    assert found.accepted == sum(own >= 0.5 for own in mine)
    assert found.others == sum(int((others >= 0.5).sum()) for others in near)
    (lost,) = draw_searches(
        codes, gallery, generator, mixer, GuidingCurve(), lambda _: None, THRESHOLDS, probes=2, nearest=2
    )
    assert (lost.guided, lost.rank1, lost.accepted) == (True, 0, 0)  # a face that nobody finds matches nobody
