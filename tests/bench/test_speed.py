"""Two revisions in pairs: what is compared, that ratios are those of pairs, and what makes it fail."""

from __future__ import annotations

import json
import os
import zipfile
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

import anonymix_keystore
import anonymix_plugin
from anonymix_adapters.registry import load
from anonymix_lab.bench.modes import measure_modes
from anonymix_lab.bench.sides import Side, Spent, Worker
from anonymix_lab.bench.speed import Row, Speed, Stack, _Pairs, _stacks
from anonymix_lab.cli.measure._speed import _table
from anonymix_plugin.cli import main
from anonymix_plugin.errors import AnonymixError, UsageError

TOLD = """

_made = Production.waiting


def _told(*args, **how):
    open({file!r}, "a").close()
    return _made(*args, **how)


Production.waiting = _told
"""


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    """This revision as a wheel."""
    path = tmp_path / "anonymix_plugin-0.0.1-py3-none-any.whl"
    about = {
        "METADATA": "Metadata-Version: 2.1\nName: anonymix-plugin\nVersion: 0.0.1\n",
        "WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "RECORD": "",
    }
    with zipfile.ZipFile(path, "w") as archive:
        for package in (anonymix_plugin, anonymix_keystore):
            folder = Path(str(package.__file__)).parent
            for file in sorted(folder.rglob("*")):
                if file.is_file() and "__pycache__" not in file.parts:
                    archive.write(file, file.relative_to(folder.parent))
        for name, text in about.items():
            archive.writestr(f"anonymix_plugin-0.0.1.dist-info/{name}", text)
    return path


def telling(wheel: Path, file: Path) -> Path:
    """The wheel, which makes a file when it makes a face."""
    with zipfile.ZipFile(wheel) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    content["anonymix_plugin/production.py"] += TOLD.format(file=str(file)).encode()
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return wheel


def test_a_wheel_is_compared_face_by_face_in_a_process_of_its_own(
    wheel: Path, portraits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        "measure",
        "speed",
        "--against",
        str(telling(wheel, tmp_path / "made")),
        "--photo",
        str(portraits / "001_neutral.jpg"),
    ]
    words += ["--pairs", "3", "--face-alone", "--output", str(tmp_path / "speed.json")]
    assert main([*words, "--fail-over", "0.01"]) != 0
    told, complaint = capsys.readouterr()
    assert "same bytes: 5 of 5 faces" in told
    assert "times as long as with the wheel" in complaint
    found = json.loads((tmp_path / "speed.json").read_text())
    rows = {row["what"]: row for row in found["rows"]}
    face = rows["one face, decode to picture"]
    assert (tmp_path / "made").exists()  # what runs there is the wheel
    assert min(face["ratio"], face["cpu"]) > 0
    assert 100 < rows["memory after 5 faces, resident"]["new"] < 2000


def test_a_stack_without_its_library_is_left_out_by_name(portraits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    insightface = load("insightface")
    monkeypatch.setattr(insightface, "SDKS", (replace(insightface.SDKS[0], distributions=("no-such-package",)),))
    with _stacks(("opencv", "insightface")) as (ready, left_out):
        assert list(ready) == ["opencv"]
        ready["opencv"].verify_original("speed", portraits / "001_neutral.jpg")
    assert "no-such-package is not installed" in left_out["insightface"]
    stack = Stack("opencv", ms=40.0, cpu=50.0, adds=200.0, adds_cpu=150.0)
    told = _table(Speed({"cores": 2, "processor": "", "openvino": ""}, [], None, [stack], left_out))
    assert "| opencv | 40.0 ms | 50.0 ms | 200 % | 150 % |" in told
    assert any(line.startswith("left out: insightface (insightface: no-such-package") for line in told)


@pytest.mark.long
def test_callers_at_once_wait_longer_and_all_ways_make_faces(portraits: Path) -> None:
    modes = measure_modes(Side.here(), [portraits / "001_neutral.jpg"], 1)
    assert modes[0].ratio == 1.0
    by = {(mode.way, mode.callers): mode for mode in modes}
    assert by["all cores a face", 4].p50 > 2 * by["all cores a face", 1].p50
    assert all(mode.p95 >= mode.p50 > 10 and mode.rate > 0 and mode.cpu > 10 for mode in modes)


def test_what_is_no_wheel_is_refused(tmp_path: Path) -> None:
    for name, content in (("none.whl", None), ("a.zip", b""), ("a-1-py3-none-any.whl", b"PK")):
        path = tmp_path / name
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(UsageError):
            Side.of_wheel(path, tmp_path / "folder")


def test_a_process_that_would_run_another_revision_is_refused(portraits: Path, tmp_path: Path) -> None:
    with pytest.raises(AnonymixError, match="another revision"):
        Worker(Side((tmp_path,)), [portraits / "001_neutral.jpg"])
    assert str(tmp_path) in Side((tmp_path,)).environment()["PYTHONPATH"].split(os.pathsep)


def test_a_process_that_makes_no_face_says_why(tmp_path: Path) -> None:
    (tmp_path / "none.jpg").write_bytes(b"no photo")
    with Worker(Side.here(), [tmp_path / "none.jpg"]) as worker, pytest.raises(AnonymixError, match="no face"):
        worker.ask("faces", start=0, count=1)


def test_ratios_are_those_of_pairs_and_not_of_medians() -> None:
    pairs = _Pairs()
    for old, new in ((1.0, 0.5), (10.0, 5.0), (100.0, 50.0), (1.0, 0.9)):
        pairs.run(partial(Spent, old, old), partial(Spent, new, 2 * new))
    row = pairs.row("a face")
    assert (row.ratio, row.cpu) == (0.5, 1.0)
    assert pairs.rate("faces", 8, 1.5).ratio == pytest.approx(2.0)
    assert row == Row("a face", "ms", 5500.0, 2950.0, 0.5, 1.0)


def test_who_begins_changes_from_pair_to_pair() -> None:
    pairs, begun = _Pairs(), []
    for _ in range(3):
        pairs.run(lambda: begun.append("old") or Spent(1, 1), lambda: begun.append("new") or Spent(1, 1))
    assert begun == ["old", "new", "new", "old", "old", "new"]
