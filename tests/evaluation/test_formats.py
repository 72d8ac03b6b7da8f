"""The same photo in other formats is the same face."""

from __future__ import annotations

import numpy as np
import pytest

from anonymix_lab.studies import formats
from anonymix_plugin.faces import YuNet
from anonymix_plugin.images import decode_photo
from anonymix_plugin.models import locate
from anonymix_plugin.recognisers import load_recogniser

PORTRAIT = "001_neutral.jpg"


@pytest.fixture
def measured(portraits, monkeypatch):
    def measure(*names):
        chosen = {name: write for name, write in formats.WRITERS.items() if name in names}
        assert len(chosen) == len(names)
        monkeypatch.setattr(formats, "WRITERS", chosen)
        return formats.measure_formats([portraits / PORTRAIT], YuNet(locate("yunet")), [load_recogniser("sface")], 640)

    return measure


def test_a_face_in_every_format_is_that_of_its_png(measured):
    names = ("HEIC, turned and mirrored", "HEIC, Display P3", "AVIF, 10 bits", "JPEG 2000", "JPEG, Adobe RGB")
    for figures in measured(*names):
        assert figures.least["sface"] > 0.99, figures


def test_a_photo_that_is_not_turned_back_would_be_told(measured, monkeypatch):
    monkeypatch.setitem(formats._BACK, 5, formats.Image.Transpose.ROTATE_270)
    assert measured("HEIC, turned and mirrored")[0].least["sface"] < 0.9


def test_memory_at_the_peak_is_that_of_the_decoder_and_not_of_what_went_before():
    pixels = np.zeros((2000, 2000, 3), np.uint8)
    peak, shrunk = formats.measure_peak(pixels, formats.LARGEST["JPEG"])
    assert shrunk == 1
    assert 3 <= peak <= 18


def test_every_writer_writes_what_is_read(portraits):
    image = formats.Image.open(portraits / PORTRAIT).convert("RGB").resize((96, 96))
    for name, write in formats.WRITERS.items():
        pixels = decode_photo(write(image.copy())).pixels
        assert np.abs(pixels.astype(int) - np.asarray(image)).mean() < 4, name
