"""A keystore of its own for every test, real photos, and weights that are loaded once."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from anonymix_keystore import Argon2Cost, Keystore, PassphraseUnlock
from anonymix_plugin.cli import main

SECRET = "swordfish and chips"


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Ended]


@pytest.fixture
def weights(model: Callable[[str], Path], loaded_once: None) -> None:
    """The weights of the mixer, or a skip."""
    for name in ("mobilestylegan", "yunet", "arcface-mbf", "sface"):
        model(name)


@pytest.fixture(autouse=True)
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # ANONYMIX_HOME stays as it is: the weights may be there.
    for name in ("KEYFILE", "KEY", "ANCHOR", "DEBUG", "CONFIG"):
        monkeypatch.delenv(f"ANONYMIX_{name}", raising=False)
    monkeypatch.setenv("ANONYMIX_KEYSTORE", str(tmp_path / "keystore.db"))
    monkeypatch.setenv("ANONYMIX_PASSPHRASE", SECRET)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("NO_COLOR", "1")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Keystore]:
    cheap = Argon2Cost(memory_kib=8_192, passes=1, lanes=1)
    with Keystore.create(tmp_path / "keystore.db", PassphraseUnlock(SECRET, cost=cheap)) as made:
        made.issue("alice")
        made.issue("bob")
        yield made


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def command(*arguments: object) -> Ended:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Ended(code, captured.out, captured.err)

    return command


@pytest.fixture(scope="session")
def london(portraits: Path) -> Path:
    return portraits


@pytest.fixture
def one(london: Path) -> Path:
    return london / "001_neutral.jpg"


@pytest.fixture
def one_smiling(london: Path) -> Path:
    return london / "001_smiling.jpg"
