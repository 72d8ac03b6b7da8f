"""`anonymix models`: list, pull and verify weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Annotated, Any, get_args

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Column, Table

from anonymix_plugin.cli.report import print_json
from anonymix_plugin.errors import DamagedModelError, UsageError
from anonymix_plugin.models import (
    REGISTRY,
    Group,
    ModelEntry,
    PullEvent,
    Verification,
    entry,
    names_in,
    pull,
    sources,
    verify,
)

__all__ = ["app", "progress_bar"]

app = typer.Typer(no_args_is_help=True, help="List, fetch and check the weights that Anonymix uses.")

_Names = Annotated[list[str] | None, typer.Argument(metavar="NAME", show_default=False)]
_Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


@contextmanager
def progress_bar() -> Iterator[Any]:
    """A progress bar on standard error, as the `progress` argument of `pull`."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        tasks: dict[str, TaskID] = {}

        def show(event: PullEvent) -> None:
            if event.stage == "waiting":
                bar.console.print("Another process is fetching models; waiting for it.")
                return
            if event.package not in tasks:
                tasks[event.package] = bar.add_task(event.package, total=event.total)
            bar.update(tasks[event.package], completed=event.done)

        yield show


@app.command("list")
def list_models(as_json: _Json = False) -> None:
    """Show all models, their licences, and whether they are on this machine."""
    if as_json:
        print_json([_described(item) for item in REGISTRY.values()])
        return
    table = Table(_model_column(), "role", "needed for", "MB", "here", "licence", title="Models")
    for item in REGISTRY.values():
        here = _presence(item)
        colour = {"yes": "green", "own": "cyan"}.get(here, "dim")
        size = f"{item.size / 1e6:.1f}"
        table.add_row(item.name, item.role, item.group, size, f"[{colour}]{here}", item.licence)
    console = Console()
    console.print(table)
    _print_restrictions(console, list(REGISTRY.values()))


@app.command("pull")
def pull_models(
    names: _Names = None,
    everything: Annotated[bool, typer.Option("--all", help="All models of the registry.")] = False,
    group: Annotated[str | None, typer.Option(help="All models of a group: core, evaluation or optional.")] = None,
    as_json: _Json = False,
) -> None:
    """Fetch models that are not on this machine yet; those of the group "core" unless told otherwise."""
    wanted = _choice(names, everything, group)
    with progress_bar() as show:
        results = pull(wanted, progress=show)
    if as_json:
        print_json([{"name": r.name, "status": r.status, "folder": str(r.folder)} for r in results])
        return
    console = Console()
    words = {
        "fetched": "[green]fetched",
        "present": "already here",
        "own": "[cyan]your own, by configuration",
    }
    table = Table(_model_column(), "state", Column("folder", overflow="fold"), "licence")
    for result in results:
        licence = entry(result.name).licence
        table.add_row(result.name, words[result.status], escape(str(result.folder)), licence)
    console.print(table)
    _print_restrictions(console, [entry(result.name) for result in results])


@app.command("verify")
def verify_models(names: _Names = None, as_json: _Json = False) -> None:
    """Hash the files of models afresh.

    Ends with exit code 5 if one is damaged, or if one that was named is missing. Without names, models that
    were never fetched are listed as missing and no fault.
    """
    found = verify(names or None)
    if as_json:
        print_json([_as_json(item) for item in found])
    else:
        colours = {"ok": "green", "missing": "yellow" if names else "dim", "damaged": "bold red"}
        table = Table(_model_column(), Column("file", overflow="fold"), "state", title="Weights on this machine")
        for item in found:
            state = f"[{colours[item.status]}]{item.status}"
            own = " (your own)" if item.source.own else ""
            table.add_row(item.source.model, item.source.file, state + own)
        Console().print(table)
    if any(item.status == "damaged" or (names and item.status == "missing") for item in found):
        raise typer.Exit(DamagedModelError.exit_code)


def _choice(names: list[str] | None, everything: bool, group: str | None) -> tuple[str, ...]:
    if sum((bool(names), everything, group is not None)) > 1:
        raise UsageError("names, --all and --group exclude one another", fix="give one of them")
    if everything:
        return tuple(REGISTRY)
    if names:
        return tuple(names)
    return names_in(_group(group or "core"))


def _group(text: str) -> Group:
    groups: dict[str, Group] = {group: group for group in get_args(Group)}
    if text not in groups:
        raise UsageError("no such group of models", where=text, fix="known groups: " + ", ".join(groups))
    return groups[text]


def _model_column() -> Column:
    return Column("model", no_wrap=True)  # a new one each time: a column keeps the cells of its table


def _presence(item: ModelEntry) -> str:
    files = sources(item.name)
    if any(source.own for source in files):
        return "own"
    return "yes" if all(source.path.is_file() for source in files) else "no"


def _described(item: ModelEntry) -> dict[str, Any]:
    return {**asdict(item), "here": _presence(item), "folder": str(sources(item.name)[0].path.parent)}


def _as_json(item: Verification) -> dict[str, Any]:
    return {
        "model": item.source.model,
        "file": item.source.file,
        "path": str(item.source.path),
        "status": item.status,
        "expected": item.source.sha256,
        "actual": item.actual,
        "own": item.source.own,
    }


def _print_restrictions(console: Console, items: list[ModelEntry]) -> None:
    """Print each restriction of use once, with the models that it is about."""
    about: dict[str, list[str]] = {}
    for item in items:
        if item.restrictions:
            about.setdefault(item.restrictions, []).append(item.name)
    if about:
        console.print("[bold yellow]Restrictions of use")
    for text, names in about.items():
        console.print(f"  [bold]{', '.join(names)}[/]: {escape(text)}", highlight=False)
