"""Pages of the documentation that are made from the program: its commands, and the table of adapters.

python -m anonymix_lab.reference docs    # docs/commands.md; the tables of adapters and of the gateway

A test makes them again and compares, so that a new option or adapter cannot be forgotten.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any, Final

from typer.main import get_command

from anonymix_adapters.gateway import PROFILES, load_profile
from anonymix_adapters.registry import load, names
from anonymix_plugin.cli import app
from anonymix_plugin.cli.lazy import LazyGroup
from anonymix_plugin.files import write_text

_TABLE: Final = re.compile(r"(<!-- adapters -->\n).*?(<!-- /adapters -->)", re.DOTALL)
_PROFILES: Final = re.compile(r"(<!-- profiles -->\n).*?(<!-- /profiles -->)", re.DOTALL)


def command_reference() -> str:
    """Return the reference of all commands, Markdown."""
    lines = [
        "# Commands",
        "",
        "This page is made from the program by `make docs`. `anonymix COMMAND --help` prints the same.",
        "[Exit codes](exit-codes.md) are the same for all commands.",
    ]
    root: Any = get_command(app)
    for words, command in _commands(root, ("anonymix",)):
        if getattr(command, "commands", None) and not command.params:
            continue
        lines += ["", f"## {' '.join(words)}", "", inspect.cleandoc(command.help or "")]
        rows = [row for parameter in command.params if (row := _row(parameter)) is not None]
        if rows:
            lines += ["", "| argument or option | meaning | default |", "|---|---|---|", *rows]
    return "\n".join(lines) + "\n"


def _commands(command: Any, words: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(command, LazyGroup):
        for name, entry in command.available().items():
            yield from _commands(entry.load(name), (*words, name))
        return
    children = getattr(command, "commands", {})
    if not children or command.invoke_without_command:
        yield words, command
    for name in children:
        yield from _commands(children[name], (*words, name))


def _row(parameter: Any) -> str | None:
    if getattr(parameter, "hidden", False) or parameter.name == "help":
        return None
    if parameter.param_type_name == "argument":
        name = f"`{_cell(parameter.metavar or (parameter.name or '').upper())}`"
    else:
        value = "" if parameter.is_flag else " " + _cell(parameter.metavar or _kind(parameter))
        name = " ".join(f"`{option}{value}`" for option in (*parameter.opts, *parameter.secondary_opts))
    default = getattr(parameter.default, "value", parameter.default)
    shown = "" if default in (None, False, "", [], ()) or callable(default) else f"`{default}`"
    if parameter.required:
        shown = "required"
    told = _cell(" ".join((getattr(parameter, "help", None) or "").split()))
    if variable := getattr(parameter, "envvar", None):
        told += f" Environment: `{variable}`."
    return f"| {name} | {told} | {shown} |"


def _kind(parameter: Any) -> str:
    kind = parameter.type_descriptor.annotation
    if isinstance(kind, type) and issubclass(kind, Enum):
        return "|".join(str(choice.value) for choice in kind)
    return {int: "INTEGER", float: "NUMBER", str: "TEXT", Path: "PATH"}.get(kind, "VALUE")


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def adapter_table() -> str:
    """Return the table of all adapters in the registry, Markdown."""
    rows = ["| adapter | in front of | SDK | extra |", "|---|---|---|---|"]
    for name in names():
        adapter = load(name)
        first = (inspect.getdoc(adapter) or "").partition("\n")[0].rstrip(".:")
        sdks = ", ".join(f"{sdk.distributions[0]} {sdk.tested}" for sdk in adapter.SDKS) or "none"
        extra = ", ".join(dict.fromkeys(sdk.extra for sdk in adapter.SDKS if sdk.extra))
        rows.append(f"| `{name}` | {first} | {sdks} | {f'`[{extra}]`' if extra else ''} |")
    return "\n".join(rows) + "\n"


_WAYS = {"file": "file", "base64": "base64", "url": "address", "token": "token"}


def profile_tables() -> str:
    """Return what the gateway's profiles know, route by route, Markdown."""
    parts = []
    for name in PROFILES:
        profile = load_profile(name)
        parts += [f"### `{name}`: {profile.title}", "", profile.deletes, ""]
        parts += ["| route | purpose | photos | other fields |", "|---|---|---|---|"]
        for route in profile.routes:
            places = [
                ", ".join(f"{word} `{field}`" for way, word in _WAYS.items() if (field := getattr(each, way)))
                for each in route.pictures.values()
            ]
            others = ", ".join(f"`{field}`" for field in (*route.query, *route.fields))
            parts.append(
                f"| {route.method} `{profile.base}{route.path}` | {route.purpose} | {'; '.join(places)} | {others} |"
            )
        parts.append("")
    return "\n".join(parts)


def pages(docs: Path, readme: Path) -> dict[Path, str]:
    """Return the text of every made page, by its path."""
    made = {docs / "commands.md": command_reference()}
    for path in (docs / "adapters.md", readme):
        text = path.read_text(encoding="utf-8")
        made[path] = _TABLE.sub(lambda found: found[1] + adapter_table() + found[2], text)
    gateway = docs / "gateway.md"
    text = gateway.read_text(encoding="utf-8")
    made[gateway] = _PROFILES.sub(lambda found: found[1] + profile_tables() + found[2], text)
    return made


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    for place, text in pages(folder, folder.parent / "README.md").items():
        write_text(place, text)
