"""Photos of one's own: bad ones are named and left out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from demo_run import Run
from PIL import Image

from anonymix_lab.demo.photos import people_from
from anonymix_plugin.cli import main
from anonymix_plugin.errors import UsageError


@pytest.fixture(scope="module")
def own_photos(tmp_path_factory: pytest.TempPathFactory, small_run: Run) -> Path:
    """Photos of two people, and what else people have in their folders."""
    folder = tmp_path_factory.mktemp("own")
    for person, name in zip(small_run.people, ("Zoë & Co", "<b>Max"), strict=True):
        (folder / name).mkdir()
        for number, sample in enumerate(person.photos):
            (folder / name / f"{number}.jpg").write_bytes(sample.data)
    (folder / "<b>Max" / "broken.jpg").write_bytes(b"\xff\xd8\xff no photo at all")
    Image.fromarray(np.full((300, 300, 3), 120, np.uint8)).save(folder / "<b>Max" / "wall.png")
    (folder / "<b>Max" / "notes.txt").write_text("not a photo, and nobody says it is")
    (folder / "Lone").mkdir()
    (folder / "Lone" / "1.jpg").write_bytes(sample.data)
    return folder


def test_bad_photos_are_reported_and_stop_nothing(
    own_photos: Path, small_run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(["demo", "--output", str(tmp_path), "--photos", str(own_photos)])
    facts = json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))
    assert code == (0 if facts["holds"] else 1)
    assert facts["sample_people"] is False
    assert facts["seed"] is None
    assert [one["name"] for one in facts["people"]] == ["<b>Max", "Zoë & Co"]
    left_out = {entry["what"]: entry["why"] for entry in facts["skipped"]}
    assert set(left_out) == {"<b>Max/broken.jpg", "<b>Max/wall.png", "Lone"}
    assert "no face" in left_out["<b>Max/wall.png"]
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "&lt;b&gt;Max" in page
    assert "<b>Max" not in page
    assert "broken.jpg" in page
    printed = capsys.readouterr().out
    assert "broken.jpg" in printed
    assert "index.html" in printed
    # The cancelable faces are others each time, because the keys are, but the mixer is the same.
    assert facts["fingerprint"] == small_run.facts["fingerprint"]


def test_folder_with_one_person_is_refused(tmp_path: Path) -> None:
    (tmp_path / "alone").mkdir()
    with pytest.raises(UsageError, match="photos of 1 people"):
        people_from(tmp_path, 8)


def test_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="can't be read"):
        people_from(tmp_path / "nowhere", 8)


def test_people_beyond_the_first_are_named(tmp_path: Path) -> None:
    for name in "dacb":
        (tmp_path / name).mkdir()
    people, skipped = people_from(tmp_path, 2)
    assert [person.name for person in people] == ["a", "b"]
    assert [entry.what for entry in skipped] == ["c, d"]


def test_options_for_samples_do_not_go_with_own_photos(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--output", str(tmp_path / "out"), "--photos", str(tmp_path), "--seed", "1"]) == 2
    assert "sample people" in capsys.readouterr().err
