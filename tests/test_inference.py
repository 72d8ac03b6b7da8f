"""How OpenVINO is loaded."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def run(code: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env={**os.environ, **environment}
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_loading_openvino_reports_nothing_to_anybody_and_leaves_nothing_at_home(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from anonymix_plugin.inference import runtime\n"
        "found = runtime().Core().available_devices\n"
        "print(found, [name for name in sys.modules if 'telemetry' in name or name.startswith('openvino.tools')])"
    )
    assert run(code, HOME=str(tmp_path)) == "['CPU'] []"
    assert list(tmp_path.iterdir()) == []


def test_a_program_that_converts_models_still_can(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "sys.modules['openvino_telemetry'] = None\n"
        "from anonymix_plugin.inference import runtime\n"
        "openvino = runtime()\n"
        "print(openvino.convert_model.__module__, hasattr(openvino, 'nothing'), runtime() is openvino)"
    )
    assert run(code, HOME=str(tmp_path)) == "openvino.tools.ovc.convert False True"


@pytest.mark.parametrize("package", ["anonymix_plugin", "adapters", "keystore", "lab"])
def test_openvino_is_loaded_in_one_place(package: str) -> None:
    wrong = {
        path.name
        for path in (ROOT / package).rglob("*.py")
        if re.search(r"^\s*(import|from) openvino\b", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert wrong <= {"_runtime.py"}
