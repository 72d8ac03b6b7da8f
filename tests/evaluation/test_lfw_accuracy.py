"""Unprotected recognisers reach what is known of them on view 2 of LFW: pairs and folds are right."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from anonymix_lab.data import lfw_protocol
from anonymix_lab.evaluation.scenarios import scores_of
from anonymix_lab.matchers import EmbeddingStore, Extractor, Panel, Request, load_matchers
from anonymix_lab.metrics.curves import accuracy_of_folds
from anonymix_plugin.faces import Scrfd, YuNet


@pytest.mark.long
@pytest.mark.timeout(7200)
@pytest.mark.parametrize(
    ("name", "expected", "finder"),
    # SFace is .1 % worse on YuNet's landmarks than on those of SCRFD.
    [("arcface-mbf", 0.9963, "yunet"), ("sface", 0.9958, "scrfd-500m")],
)
def test_accuracy_on_view_2_is_the_known_one(
    shared_data: Path, model: Callable[[str], Path], tmp_path: Path, name: str, expected: float, finder: str
) -> None:
    model(name)
    protocol = lfw_protocol(shared_data / "lfw")
    detector = YuNet(model(finder)) if finder == "yunet" else Scrfd(model(finder))
    panel = Panel(load_matchers([name]), detector, finder)
    extractor = Extractor(panel, EmbeddingStore(tmp_path), choice="central")
    table = extractor.table([Request(sample) for sample in protocol.samples], None, "view 2")
    pairs = protocol.pairs
    folds = np.array([protocol.samples[int(i)].fold for i in pairs.first])
    scores = scores_of(table, table, name, pairs.first, pairs.second)
    accuracy, _ = accuracy_of_folds(scores, pairs.same, folds)
    assert accuracy == pytest.approx(expected, abs=0.001)
