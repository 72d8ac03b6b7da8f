"""`anonymix measure adapters`: accuracy and overhead of back ends behind their adapters."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from anonymix_lab.cli.measure._app import app
from anonymix_plugin.cli.options import takes_photos
from anonymix_plugin.cli.report import print_json, printable
from anonymix_plugin.words import clean


@app.command()
@takes_photos
def adapters(
    names: Annotated[list[str], typer.Argument(metavar="ADAPTER", help="Adapters, by name.")],
    photos: Annotated[Path, typer.Option(metavar="DIR", help="Folder of photos, two a person.")],
    people: Annotated[int, typer.Option(help="How many people take part.", min=2)] = 40,
    claims: Annotated[int, typer.Option(help="How many strangers claim to be each person.", min=1)] = 3,
    references: Annotated[
        bool, typer.Option("--references", help="Keep sealed references: probes are guided by them.")
    ] = False,
) -> None:
    """Measure accuracy and overhead of back ends behind their adapters; prints a line of JSON for each.

    An adapter whose SDK is missing, or whose back end fails, is named on standard error with the reason, and
    the command ends with exit code 1.
    """
    from anonymix_adapters.drill import people_in, temporary_mixer
    from anonymix_adapters.errors import asked_to_stop, in_words
    from anonymix_adapters.registry import load
    from anonymix_lab.studies.adapters import Timed, measure

    taking_part = people_in(photos, people)
    failed = 0
    with temporary_mixer(second_secret=references) as mixer:
        timed = Timed(mixer)
        for name in names:
            adapter = load(name)
            try:
                found = measure(adapter, timed, taking_part, claims=claims, references=references)
            except (Exception, SystemExit) as error:  # an SDK may raise whatever it likes
                if asked_to_stop(error):
                    raise
                failed += 1
                typer.echo(printable(f"{name}: {clean(in_words(error))}"), err=True)
                continue
            print_json(asdict(found), indent=None)
    if failed:
        raise typer.Exit(1)
