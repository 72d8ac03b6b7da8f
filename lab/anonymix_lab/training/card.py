"""Model cards that a training run writes about itself."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from anonymix_lab.machine import machine, versions


@dataclass
class RunCard:
    """What a run was made of, and what it showed.

    Attributes:
        title: What was trained.
        command: The command line, without the program's folder.
        settings: Name -> value, every setting and seed.
        used: What went in: data by kind and count, weights by hash.
        figures: Rows of the log that a reader wants, as text.
    """

    title: str
    command: str
    settings: Mapping[str, object]
    used: dict[str, str] = field(default_factory=dict)
    figures: list[str] = field(default_factory=list)

    def write(self, weights: Path, seconds: float) -> Path:
        """Write the card beside the weights, as their name with ".md" added, and return its path."""
        digest = hashlib.sha256(weights.read_bytes()).hexdigest()
        facts = machine()
        used = versions(("torch",))
        place = f"{facts['processor']}, {facts['cores']} cores, {facts['system']}, Python {used['python']}"
        lines = [
            f"# {self.title}",
            "",
            f"`{weights.name}`, {weights.stat().st_size:,} bytes, SHA-256 `{digest}`.",
            "",
            f"Made by `{self.command}` in {seconds / 60:.0f} minutes on {datetime.now(UTC):%Y-%m-%d} "
            f"({place}, torch {used['torch']}).",
            "",
            "## Settings",
            "",
            *(f"- {name}: {value}" for name, value in self.settings.items()),
            "",
            "## Used",
            "",
            *(f"- {name}: {value}" for name, value in self.used.items()),
        ]
        if self.figures:
            lines += ["", "## What the run showed", "", *self.figures]
        card = weights.with_name(weights.name + ".md")
        card.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return card
