"""The adapters' examples run as they stand, and tell people and keys apart."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
from remembering import RememberingMixer
from test_conformance import LOCAL, loaded

EXAMPLES = Path(__file__).parents[2] / "examples"
DISTANCES = {"face_recognition", "deepface"}


@pytest.mark.parametrize("name", LOCAL)
def test_example(
    name: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    adapter_mixer: RememberingMixer,
) -> None:
    loaded(name)
    assert adapter_mixer  # the weights are there
    monkeypatch.setenv("DEEPFACE_HOME", "")
    example = EXAMPLES / f"adapter_{name}.py"
    assert len(example.read_text().splitlines()) < 40
    runpy.run_path(str(example), run_name="__main__")
    said = dict(line.split(":", 1) for line in capsys.readouterr().out.splitlines() if ":" in line)
    again, stranger, renewed = (float(said[key]) for key in ("anna again", "ben as anna", "new key"))
    if name in DISTANCES:
        again, stranger, renewed = -again, -stranger, -renewed
    assert again > max(stranger, renewed)
