"""One small real run of the demo, which all tests of its outputs look at."""

from __future__ import annotations

import contextlib
import io
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from demo_run import Run, remember_people, remember_secrets

from anonymix_plugin import assembly, verification
from anonymix_plugin.cli import main


@pytest.fixture(scope="module", autouse=True)
def _networks_once(loaded_once: None) -> None:
    pass


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory, model: Callable[[str], Path], loaders: dict[str, Any]) -> Run:
    """Two sample people with two photos each."""
    for name in ("mobilestylegan", "yunet", "arcface-mbf", "sface", "facenet"):
        model(name)
    folder = tmp_path_factory.mktemp("demo") / "deep" / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(assembly, "load_generator", loaders["load_generator"])
        patch.setattr(assembly, "load_recogniser", loaders["load_recogniser"])
        patch.setattr(verification, "load_recogniser", loaders["load_recogniser"])
        seen, people = remember_secrets(patch), remember_people(patch)
        printed = io.StringIO()
        started = time.process_time()
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(io.StringIO()):
            code = main(["demo", "--output", str(folder), "--people", "2", "--photos-each", "2", "--json"])
        seconds = time.process_time() - started
    page = (folder / "index.html").read_text(encoding="utf-8")
    facts = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    return Run(code, folder, printed.getvalue(), page, facts, tuple(seen), tuple(people), seconds)
