"""Measuring commands say what is wrong with their arguments, before they start anything."""

from __future__ import annotations

from multiprocessing import Pipe
from pathlib import Path

import pytest

from anonymix_lab.studies.keyservice import _answer
from anonymix_plugin.cli import main
from anonymix_plugin.errors import PhotoError

PHOTO = str(Path(__file__).parents[1] / "people" / "alex_1.jpg")


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        (["gateway", PHOTO, "--clients", "a"], 2, "no list of whole numbers"),
        (["gateway", PHOTO, "--clients", "0"], 2, "no list of whole numbers"),
        (["gateway", PHOTO, "--clients", ""], 2, "no list of whole numbers"),
        (["gateway", str(Path(PHOTO).parent)], 3, "not a regular file"),
        (["keyservice", PHOTO, str(Path(PHOTO).parent)], 3, "not a regular file"),
        (["keyservice", __file__], 3, "test_odd_arguments"),
    ],
)
def test_odd_arguments_are_told_before_anything_is_started(
    command: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for started in ("gateway.rig", "keyservice.served"):
        monkeypatch.setattr(f"anonymix_lab.studies.{started}", lambda *_: pytest.fail("it was started"))
    assert main(["measure", *command]) == code
    told = capsys.readouterr().err
    assert said in told
    assert "What to do" in told


def test_a_mixer_that_ends_is_no_traceback() -> None:
    mine, theirs = Pipe()
    theirs.send(("no face was found", "a.jpg", "use another photo"))
    with pytest.raises(PhotoError, match="no face was found"):
        _answer(mine)
    theirs.close()
    with pytest.raises(PhotoError, match="ended unforeseen"):
        _answer(mine)
