"""docs/quickstart.md: its commands and its first program work as they are printed, one after the other."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from anonymix_keystore import Keystore, PassphraseUnlock
from anonymix_plugin.cli import main
from anonymix_plugin.verification import named_threshold

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"```(python)?\n(.*?)```", re.DOTALL)


@pytest.mark.usefixtures("loaded_once")
def test_a_newcomer_gets_from_nothing_to_a_survived_breach(
    model: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in ("mobilestylegan", "yunet", "arcface-mbf", "sface"):
        model(name)
    for number, name in enumerate(("alice.jpg", "alice-door.jpg"), 1):
        shutil.copy(ROOT / "tests" / "people" / f"alex_{number}.jpg", tmp_path / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ANONYMIX_PASSPHRASE", "swordfish and chips")
    said = {}
    for language, block in BLOCK.findall((ROOT / "docs" / "quickstart.md").read_text(encoding="utf-8")):
        if language:
            if "boto3" not in block:  # an account of Amazon's
                exec(compile(block, "quickstart.md", "exec", dont_inherit=True), {})  # noqa: S102
                said["python"] = capsys.readouterr().out
            continue
        for line in block.splitlines():
            words = shlex.split(line, comments=True)
            if words[0] == "export":
                monkeypatch.setenv(*words[1].split("="))
            elif words[0] == "anonymix" and words[1] != "models":
                sure = ["--yes"] if "rotate" in words else []  # nobody is there to answer
                assert main([*words[1:], *sure]) == 0, line
                said[words[1] if words[1] != "keys" else words[2]] = capsys.readouterr().out
    assert "same person" in said["verify"]
    assert float(said["python"]) > named_threshold("sface", "cancelable-fmr-0.1%").value
    assert "delete 1, enrol 1" in " ".join(said["rotate"].split())
    assert "alice" in said["due"]
    with Keystore.open(tmp_path / "keys.db", PassphraseUnlock("swordfish and chips")) as keys:
        assert [info.version for info in keys.list()] == [2]
