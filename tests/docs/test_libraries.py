"""The page on libraries names tests and scripts that are there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_what_is_said_to_hold_a_behaviour_exists() -> None:
    page = (ROOT / "docs" / "libraries.md").read_text()
    paths = set(re.findall(r"`((?:tests|findings)/[\w./-]+)`", page))
    tests = set(re.findall(r"`(test_\w+)`", page))
    assert len(paths) > 10
    assert len(tests) > 5
    assert [path for path in sorted(paths) if not (ROOT / path).exists()] == []
    content = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    assert [name for name in sorted(tests) if f"def {name}(" not in content] == []


def test_every_finding_stands_on_the_page() -> None:
    page = (ROOT / "docs" / "libraries.md").read_text()
    assert [path.name for path in (ROOT / "findings").glob("*.sh") if f"`findings/{path.name}`" not in page] == []
