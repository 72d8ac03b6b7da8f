"""`anonymix bulk`: many photos, in several processes, in a way that survives interruptions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from anonymix_plugin.cli._photos import Names, jobs_by_folder, jobs_for
from anonymix_plugin.cli.bulk_work import (
    MOST_FAILURES,
    SAMPLE,
    Bar,
    WorkChoice,
    print_estimate,
    print_failures,
    works,
)
from anonymix_plugin.cli.lazy import LazyCommand, LazyGroup
from anonymix_plugin.cli.options import (
    ClockOption,
    DescriptorOption,
    Format,
    FormatOption,
    GalleryOption,
    JsonOption,
    KeystoreOption,
    MixerChoice,
    RecursiveOption,
    ScopeOption,
    Several,
    SubjectOption,
    mixes,
    takes_photos,
)
from anonymix_plugin.cli.report import EXIT_SOME_FAILED, print_json, printable
from anonymix_plugin.errors import UsageError

if TYPE_CHECKING:
    from anonymix_plugin.bulk import Ledger, Row, Summary

COMMANDS: Final = {
    "protect": LazyCommand("anonymix_plugin.cli.bulk:protect", "Turn many photos into cancelable faces.", ""),
    # By its name, as adapters import the plug-in and never the other way.
    "renew": LazyCommand("anonymix_adapters.bulk_command:renew", "Exchange a back end's entries after a rotation.", ""),
}


class Into(StrEnum):
    """What faces are written into."""

    FILES = "files"
    PARQUET = "parquet"


class _Commands(LazyGroup):
    def available(self) -> Mapping[str, LazyCommand]:
        """Its commands."""
        return COMMANDS


app = typer.Typer(cls=_Commands, no_args_is_help=True, help="Many photos, in several processes.")


@app.callback()
def bulk() -> None:
    """Many photos, in several processes."""


@takes_photos
@mixes()
@works
def protect(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="A folder of photos, or a table (.csv, .parquet) with the columns subject and photo (and scope); a "
            "path, or an address of a file system that pyarrow knows.",
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
    recursive: RecursiveOption = False,
    format_: FormatOption = Format.PNG,
    into: Annotated[
        Into, typer.Option(help="A file for each face, or Parquet files with faces and outcomes.")
    ] = Into.FILES,
    working: WorkChoice,
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
    suffix, kind = format_.suffix, format_.kind
    from anonymix_plugin.bulk import (
        Ledger,
        ParquetLedger,
        count_rows,
        is_address,
        is_table,
        local_path,
        protect_in_bulk,
        rehearse,
        rows_at,
        rows_of_table,
    )
    from anonymix_plugin.cli.keys import open_keys

    table = is_table(source)
    if table and subject is not None:
        raise UsageError("the table says whose photos they are", where="--subject", fix="leave it out")

    def rows() -> Iterator[Row]:
        if table:
            return rows_of_table(source, suffix, scope, gallery=gallery)
        if is_address(source):
            whose = "" if subject is None and not gallery else subject
            return rows_at(source, suffix, whose, scope, recursive=recursive)
        return _rows_of_folder(Path(source), subject, scope, suffix, gallery=gallery, recursive=recursive)

    if (folder := local_path(source)) is not None:
        _refuse_inside(folder, output)
    total = count_rows(source, gallery=gallery) if table else sum(1 for _ in rows())
    options, work = working.mixer_options(mixing), working.work(format_=kind, enrol=enrol)
    if working.dry_run:
        sample = islice(rows(), work.workers * SAMPLE)
        print_estimate(rehearse(sample, options, work), total, work.workers, as_json=as_json)
        return
    asked = {
        "block": work.block,
        "format": kind,
        "enrol": enrol,
        "scope": scope,
        "gallery": gallery,
        "subject": subject,
    }
    asked["into"] = into.value
    asked |= {each.name: str(getattr(mixing, each.name)) for each in fields(mixing)}
    with (
        open_keys(keystore, passphrase_fd, accept_clock=accept_clock, references_of="" if table else scope) as store,
        (ParquetLedger if into is Into.PARQUET else Ledger)(output, asked) as ledger,
        Bar(total) as bar,
    ):
        summary = protect_in_bulk(
            rows(), store, ledger, options, work, progress=lambda it: bar.show(it.done, it.failed)
        )
        outcomes = ledger.export() if summary.finished else None
        _finish(ledger, summary, total, outcomes, as_json=as_json)


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
        print_failures(ledger.failures(MOST_FAILURES))
        typer.echo(f"outcomes: {printable(table)}" if table else "not finished: the same command goes on")
    if code:
        raise typer.Exit(code)
