"""The examples run as they stand and say what they promise."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Runs an example as it stands, under the keys of tests; what it says."""

    def ran(name: str, *arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", [name, *arguments])
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        return capsys.readouterr().out

    return ran


@pytest.fixture(scope="module", autouse=True)
def weights(model: Callable[[str], Path], loaded_once: None) -> None:
    for name in ("mobilestylegan", "yunet", "arcface-mbf", "sface"):
        model(name)


def test_enrolling_and_probing_tells_people_and_keys_apart(run: Callable[..., str]) -> None:
    said = dict(line.split(":", 1) for line in run("enrol_and_probe.py").splitlines() if ":" in line)
    again, instead, renewed = (float(said[name]) for name in ("anna again", "ben instead", "new key"))
    assert again > 0.243  # ArcFace's threshold of FMR .1 %
    assert again > max(instead, renewed) + 0.2
    assert "revoked" in said


@pytest.mark.parametrize("example", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_every_example_is_short_and_needs_no_laboratory(example: Path) -> None:
    text = example.read_text(encoding="utf-8")
    assert len(text.splitlines()) < 40
    assert "anonymix_lab" not in text


def test_the_story_is_drawn(run: Callable[..., str], tmp_path: Path) -> None:
    output = tmp_path / "story.jpg"
    run("draw_story.py", str(output))
    with Image.open(output) as sheet, Image.open(Path(__file__).parents[1] / "docs" / "images" / "story.jpg") as shown:
        assert sheet.width > sheet.height > 400
        difference = np.abs(np.asarray(sheet, np.int16) - np.asarray(shown, np.int16))
    assert difference.mean() < 2  # the picture of the README, but for another processor's arithmetic
