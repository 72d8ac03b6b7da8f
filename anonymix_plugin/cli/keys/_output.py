"""What the commands print, and what they ask."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import NoReturn, TypeVar

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.table import Table

from anonymix_keystore import DamagedError, JobInfo, KeyInfo, Keystore, Progress
from anonymix_plugin.cli.keys import _opening
from anonymix_plugin.cli.report import EXIT_KEYS, fault_of, print_json
from anonymix_plugin.errors import UsageError

T = TypeVar("T")


def _described(info: KeyInfo) -> dict[str, object]:
    return {
        "subject": info.subject,
        "scope": info.scope,
        "kind": "subject" if info.subject else "gallery",
        "version": info.version,
        "state": info.state.value,
        "created": info.created.isoformat(),
        "until": info.until.isoformat() if info.until else None,
        "ended": info.ended.isoformat() if info.ended else None,
        "alias": info.alias,
    }


_COLOURS = {"active": "green", "retired": "yellow", "compromised": "bold red", "destroyed": "dim"}


def print_keys(infos: Iterable[KeyInfo], as_json: bool, damage: DamagedError | None = None) -> None:
    if as_json:
        described = [_described(info) for info in infos]
        if damage is not None:
            end_with(damage, as_json, {"keys": described})
        print_json(described)
        return
    table = Table("subject", "scope", "version", "state", "created", "until", "ended")
    for info in infos:
        state = info.state.value
        dates = (f"{moment:%Y-%m-%d %H:%M}" if moment else "" for moment in (info.created, info.until, info.ended))
        table.add_row(
            escape(info.subject) or "[italic](gallery)",
            escape(info.scope),
            str(info.version),
            f"[{_COLOURS[state]}]{state}",
            *dates,
        )
    Console().print(table)
    if damage is not None:
        raise damage


def taken(rows: Iterable[T]) -> tuple[list[T], DamagedError | None]:
    """What a listing gives, and the error that it ends with if it had to leave some out."""
    found: list[T] = []
    try:
        found.extend(rows)
    except DamagedError as error:
        return found, error
    return found, None


def end_with(damage: DamagedError, as_json: bool, facts: Mapping[str, object]) -> NoReturn:
    """End with what is damaged, after all else was told; as JSON both are one value."""
    if as_json:
        print_json({**facts, "error": fault_of(damage).as_json()})
        raise typer.Exit(EXIT_KEYS)
    raise damage


def left_out(store: Keystore, job: JobInfo) -> DamagedError | None:
    """An error that names whom a job could not treat as it was asked to, if there are any."""
    if not (job.left or job.headless):
        return None
    try:
        for _ in store.list(job.scope):
            pass
    except DamagedError as error:
        return error
    return DamagedError(
        "rows of some subjects fail authentication",
        where=str(store.path),
        fix="anonymix keys verify says which rows; restore a backup, and open it with the store's anchor",
    )


def say(as_json: bool, sentence: str, **facts: object) -> None:
    if as_json:
        print_json(facts)
    else:
        typer.echo(sentence)


def confirm(yes: bool, question: str) -> None:
    if yes:
        return
    if not _opening.on_terminal():
        raise UsageError(f"{question} Nobody is there to answer", fix="say --yes")
    typer.confirm(question, abort=True, err=True)


@contextmanager
def progress_bar(title: str) -> Iterator[Callable[[Progress], None]]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=None)
        yield lambda step: bar.update(task, completed=step.seen, total=step.total)
