"""Commands that are imported when they are run, so that `anonymix --help` does not wait for torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command, get_group


@dataclass(frozen=True)
class LazyCommand:
    """Where a command is and what the list of commands says about it.

    Attributes:
        target: "module:attribute"; a function, or a Typer app of sub-commands.
        help: One line.
        panel: The heading it stands under.
    """

    target: str
    help: str
    panel: str

    def load(self, name: str) -> Any:
        """Import the command."""
        module, attribute = self.target.split(":")
        found = getattr(import_module(module), attribute)
        if isinstance(found, typer.Typer):
            command: Any = get_group(found)
        else:
            alone = typer.Typer(add_completion=False)
            alone.command(name)(found)
            command = get_command(alone)
        command.name = name
        return command


class LazyGroup(TyperGroup):
    """A group that knows names and one line each of its commands, and imports the one that is run."""

    def available(self) -> Mapping[str, LazyCommand]:
        """The commands by name."""
        return {}

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 - the base's signature
        """All names, in the order they were given in."""
        return list(self.available())

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002 - the base's signature
        """A stand-in that can be listed but not run."""
        entry = self.available().get(cmd_name)
        if entry is None:
            return None
        return TyperCommand(cmd_name, help=entry.help, rich_help_panel=entry.panel)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command to run, imported now."""
        name, stand_in, rest = super().resolve_command(ctx, args)
        if name is None or stand_in is None:
            return name, stand_in, rest
        return name, self.available()[name].load(name), rest
