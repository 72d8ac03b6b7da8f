"""The pages that are made from the program are those that are committed."""

from __future__ import annotations

from pathlib import Path

from anonymix_lab.reference import command_reference, pages
from anonymix_plugin.cli import _all_commands

ROOT = Path(__file__).parents[2]


def test_commands_and_adapters_are_documented_as_they_are() -> None:
    for path, text in pages(ROOT / "docs", ROOT / "README.md").items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name} is out of date: make docs"


def test_every_command_stands_in_the_reference_with_its_options() -> None:
    made = command_reference()
    for name in _all_commands():
        assert f"## anonymix {name}" in made
    for option in ("`--subject ID`", "`--reason", "`--json`", "`PHOTO...`"):
        assert option in made
