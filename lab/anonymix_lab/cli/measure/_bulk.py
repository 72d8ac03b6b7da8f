"""`anonymix measure bulk`: what bulk work costs beside the mixer."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from anonymix_lab.cli._common import JsonFile, write_json
from anonymix_lab.cli.measure._app import app
from anonymix_plugin.cli.options import takes_photos


@app.command("bulk")
@takes_photos
def bulk(
    photos: Annotated[Path, typer.Argument(metavar="FOLDER", help="Photos.", show_default=False)],
    *,
    limit: Annotated[int, typer.Option(help="So many of them.", min=2)] = 24,
    rounds: Annotated[int, typer.Option(help="Rounds, in which the ways take turns.", min=1)] = 3,
    ray: Annotated[bool, typer.Option("--ray", help="Ray, too (extra [ray]).")] = False,
    output: JsonFile = None,
) -> None:
    """Compare one worker, two workers and Ray with the stream of one process, a core for each of them."""
    from rich.console import Console

    from anonymix_lab.studies.bulk import measure_bulk, ratios
    from anonymix_plugin.errors import UsageError
    from anonymix_plugin.images import PHOTO_SUFFIXES

    found = sorted(path for path in photos.rglob("*") if path.suffix.lower() in PHOTO_SUFFIXES)[:limit]
    if len(found) < 2:
        raise UsageError("there are no photos here", where=str(photos), fix="name a folder with two or more")
    with Console(stderr=True).status("") as status:
        measured = measure_bulk(found, rounds, ray=ray, report=status.update)
    for it in measured:
        typer.echo(f"{it.way:22} {it.faces:4} faces  {it.rate:6.2f} a second  {it.cpu / it.faces:6.3f} CPU s a face")
    told = ratios(measured)
    for name, ratio in told.items():
        typer.echo(f"{name}: {ratio:.2f}")
    write_json(output, {"rounds": [asdict(it) for it in measured], "ratios": told})
