"""`anonymix measure keystore`: a million subjects, beside raw SQLite with and without the cryptography."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from anonymix_lab.cli._common import JsonFile, write_json
from anonymix_lab.cli.measure._app import app


@app.command()
def keystore(
    subjects: Annotated[int, typer.Option(help="How many subjects the store holds.", min=1000)] = 1_000_000,
    folder: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where the store is made; temporary files by default."),
    ] = None,
    output: JsonFile = None,
) -> None:
    """Measure the keystore beside raw SQLite on the same rows, without and with the cryptography they need."""
    from anonymix_lab.bench.keystore import measure, verdict

    with tempfile.TemporaryDirectory(dir=folder) as place:
        figures = measure(Path(place), subjects)
    for name, value in figures.items():
        typer.echo(f"{name:38} {value:>14,.2f}  {verdict(name, value)}")
    write_json(output, figures)
