"""`anonymix bulk`: many photos, in several processes, in a way that survives interruptions."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from anonymix_plugin.cli._photos import Names, jobs_by_folder, jobs_for
from anonymix_plugin.cli.options import (
    ClockOption,
    DescriptorOption,
    Format,
    GalleryOption,
    JsonOption,
    KeystoreOption,
    MixerChoice,
    ScopeOption,
    Several,
    SubjectOption,
    mixes,
    takes_photos,
)
from anonymix_plugin.cli.report import EXIT_SOME_FAILED, print_json, printable
from anonymix_plugin.errors import UsageError

if TYPE_CHECKING:
    from anonymix_plugin.bulk import Figures, Ledger, Progress, Row, Summary

app = typer.Typer(no_args_is_help=True, help="Many photos, in several processes.")

_MOST_FAILURES = 20
_SAMPLE = 24  # photos that a worker rehearses
_KINDS = {Format.PNG: (".png", "PNG"), Format.JPEG: (".jpg", "JPEG"), Format.WEBP: (".webp", "WEBP")}


@app.callback()
def bulk() -> None:
    """Many photos, in several processes."""


@app.command()
@takes_photos
@mixes()
def protect(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="SOURCE",
            help="A folder of photos, or a CSV table with the columns subject and photo (and scope).",
            show_default=False,
        ),
    ],
    *,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="TARGET", help="The folder of the cancelable faces.")
    ],
    subject: SubjectOption = None,
    scope: ScopeOption = "default",
    gallery: GalleryOption = False,
    enrol: Annotated[bool, typer.Option("--enrol", help="Issue a first key to whoever has none.")] = False,
    recursive: Annotated[bool, typer.Option("--recursive", "-r", help="Folders within folders, too.")] = False,
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers", metavar="N", min=1, max=1024, help="Processes; one for two cores.", show_default=False
        ),
    ] = None,
    threads: Annotated[
        int, typer.Option("--threads", metavar="N", min=1, help="Threads that a worker draws with.")
    ] = 1,
    block: Annotated[int, typer.Option("--block", metavar="N", min=1, max=10_000, help="Photos in a block.")] = 32,
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit", metavar="N", min=1, help="Begin N photos in this run, in whole blocks.", show_default=False
        ),
    ] = None,
    patience: Annotated[
        float, typer.Option("--patience", metavar="SECONDS", min=1, help="The most that one photo may take.")
    ] = 600.0,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Write nothing and touch no key: try some photos and estimate the job.")
    ] = False,
    format_: Annotated[Format, typer.Option("--format", help="Format of the files.")] = Format.PNG,
    mixing: MixerChoice,
    accept_clock: ClockOption = False,
    keystore: KeystoreOption = None,
    passphrase_fd: DescriptorOption = None,
    as_json: JsonOption = False,
) -> None:
    """Turn many photos into cancelable faces, and go on where an earlier run was stopped.

    In a folder, each sub-folder holds the photos of the subject it is named after; with --subject or --gallery the
    photos of the folder itself are taken. The same command again goes on. TARGET/outcomes.csv tells what became of
    each photo.
    """
    mixing.check()
    if mixing.faces is Several.ALL:
        raise UsageError("bulk work makes one face of a photo", where="--faces", fix="choose largest, central or error")
    if subject is not None and gallery:
        raise UsageError("--subject and --gallery exclude each other", fix="give one of them")
    suffix, kind = _KINDS[format_]
    is_table = source.suffix.lower() == ".csv" and not source.is_dir()
    if is_table and subject is not None:
        raise UsageError("the table says whose photos they are", where="--subject", fix="leave it out")

    from anonymix_plugin.bulk import Ledger, protect_in_bulk, rehearse, rows_of_table
    from anonymix_plugin.cli.keys import open_keys
    from anonymix_plugin.images import default_limits

    def rows() -> Iterator[Row]:
        if is_table:
            return rows_of_table(source, suffix, scope, gallery=gallery)
        return _rows_of_folder(source, subject, scope, suffix, gallery=gallery, recursive=recursive)

    _refuse_inside(source, output)
    total = sum(1 for _ in rows())
    count = workers or max(1, (os.cpu_count() or 1) // 2)  # a worker reads one photo while it draws another
    options = replace(mixing.options(), threads=threads, limits=default_limits())
    common: dict[str, Any] = {"workers": count, "format_": kind, "patience": patience}
    if dry_run:
        sample = [row for row, _ in zip(rows(), range(count * _SAMPLE), strict=False)]
        _print_estimate(rehearse(sample, options, **common), total, count, as_json=as_json)
        return
    asked = {"block": block, "format": kind, "enrol": enrol, "scope": scope, "gallery": gallery, "subject": subject}
    asked |= {each.name: str(getattr(mixing, each.name)) for each in fields(mixing)}
    with (
        open_keys(keystore, passphrase_fd, accept_clock=accept_clock) as store,
        Ledger(output, asked) as ledger,
        _Bar(total) as bar,
    ):
        summary = protect_in_bulk(
            rows(), store, ledger, options, block=block, enrol=enrol, limit=limit, progress=bar.show, **common
        )
        table = ledger.export() if summary.finished else None
        _finish(ledger, summary, total, table, as_json=as_json)


def _rows_of_folder(
    folder: Path, subject: str | None, scope: str, suffix: str, *, gallery: bool, recursive: bool
) -> Iterator[Row]:
    from anonymix_plugin.bulk import Row

    if subject is None and not gallery:
        jobs = jobs_by_folder([folder], recursive=recursive)
    else:
        jobs = jobs_for([folder], subject, recursive=recursive)
    names = Names(Path(), suffix)
    return (Row(job.source, job.subject, scope, names.allot(job)) for job in jobs)


def _refuse_inside(source: Path, output: Path) -> None:
    """Faces among the photos would be photos of the next run."""
    try:
        inside = source.is_dir() and output.resolve().is_relative_to(source.resolve())
    except (OSError, ValueError):  # no path at all: it fails when it is read
        return
    if inside:
        raise UsageError("the target lies in the source", where=str(output), fix="choose a folder elsewhere")


class _Bar:
    """A bar with the time left on standard error, if that is a terminal."""

    def __init__(self, total: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        console = Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._bar = Bar(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._task = self._bar.add_task("loading weights", total=total)

    def __enter__(self) -> _Bar:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def show(self, progress: Progress) -> None:
        """Show how far the job is."""
        self._bar.update(self._task, completed=progress.done, description=f"{progress.failed} failed")


def _print_estimate(figures: Figures, total: int, workers: int, *, as_json: bool) -> None:
    rate = figures.photos / figures.seconds if figures.photos else 0.0
    size = figures.image_bytes / figures.made if figures.made else 0.0
    seconds, share = (total / rate if rate else 0.0), figures.made / max(1, figures.photos)
    if as_json:
        told = {
            "photos": total,
            "workers": workers,
            "tried": figures.photos,
            "tried_made": figures.made,
            "photos_per_second": round(rate, 3),
            "bytes_per_face": round(size),
            "estimated_seconds": round(seconds, 1),
            "estimated_bytes": round(size * share * total),
        }
        print_json(told)
        return
    typer.echo(f"{total:,} photos; {figures.made} of the {figures.photos} that were tried gave a face")
    typer.echo(f"{rate:.1f} photos a second with {workers} workers: {_span(seconds)}")
    typer.echo(f"{size / 1000:.0f} kB a face: {size * share * total / 1e9:.2f} GB; nothing was written")


def _span(seconds: float) -> str:
    for unit, length in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} seconds"


def _finish(ledger: Ledger, summary: Summary, total: int, table: Path | None, *, as_json: bool) -> None:
    code = EXIT_SOME_FAILED if summary.failed else 0
    if as_json:
        told = {
            "photos": total,
            "made": summary.made,
            "failed": summary.failed,
            "left": total - summary.made - summary.failed,
            "finished": summary.finished,
            "outcomes": None if table is None else str(table),
            "exit_code": code,
        }
        print_json(told)
    else:
        typer.echo(f"{summary.made} faces made, {summary.failed} photos failed, of {total}")
        for source, what, fix in ledger.failures(_MOST_FAILURES):
            cure = f" ({fix})" if fix else ""
            typer.echo(f"  {printable(source)}: {printable(what)}{printable(cure)}", err=True)
        typer.echo(f"outcomes: {printable(table)}" if table else "not finished: the same command goes on")
    if code:
        raise typer.Exit(code)
