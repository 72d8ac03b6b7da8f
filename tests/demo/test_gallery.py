"""The gallery shows what it says, and the same at every run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from anonymix_lab.demo.gallery import KEYS, SIDE, make_gallery
from anonymix_plugin.encoder import load_encoder
from anonymix_plugin.faces import YuNet
from anonymix_plugin.generator import load_generator
from anonymix_plugin.verification import Verifier


def test_pictures_and_figures_of_two_people(tmp_path: Path, model: Callable[[str], Path]) -> None:
    for name in ("yunet", "arcface-mbf", "sface", "mobilestylegan", "facenet"):
        model(name)
    detector = YuNet(model("yunet"))
    figures = make_gallery(
        load_generator(),
        load_encoder(),
        detector,
        Verifier("facenet", "fmr-0.1%", detector=detector),
        tmp_path,
        people=2,
        photos=2,
    )
    assert (figures.people, figures.photos) == (2, 4)
    keys = len(KEYS)
    assert figures.same[2].endswith(f"of {2 * keys}")
    # People drawn by the generator are more like its cancelable faces than photos of people are.
    assert int(figures.original[2].split()[0]) <= keys
    assert figures.original[0] < figures.threshold - 0.2
    assert figures.strangers[2].endswith(f"of {4 * keys}")
    assert figures.same[0] > figures.strangers[0] + 0.2
    sheet = np.asarray(Image.open(tmp_path / "gallery.jpg").convert("RGB"))
    assert sheet.shape[1] > 7 * SIDE
    # The photo at the left, the cancelable face in the third column: pictures, and not the same one.
    row = sheet[40:180]
    photo, face = row[:, 10 : SIDE - 10], row[:, 10 + 2 * (SIDE + 6) : 2 * (SIDE + 6) + SIDE - 10]
    assert photo.std() > 20
    assert face.std() > 20
    assert np.abs(photo.astype(float) - face).mean() > 15
    assert (tmp_path / "failures.jpg").stat().st_size > 10_000
