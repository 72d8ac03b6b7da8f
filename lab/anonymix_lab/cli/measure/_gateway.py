"""`anonymix measure gateway`: the gateway under load and under kill -9."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer

from anonymix_lab.cli._common import JsonFile, write_json
from anonymix_lab.cli.measure._app import app
from anonymix_lab.cli.measure._codes import counts_in


@app.command()
def gateway(
    photo: Annotated[Path, typer.Argument(metavar="PHOTO", help="The photo that all clients send.", exists=True)],
    clients: Annotated[str, typer.Option(help="How many clients at once, separated by commas.")] = "16,64",
    seconds: Annotated[float, typer.Option(help="How long each load lasts.", min=1)] = 120,
    kill: Annotated[int, typer.Option(help="How often the gateway is killed in the middle of enrolments.", min=0)] = 0,
    output: JsonFile = None,
) -> None:
    """Measure the gateway under load, beside the library's own call: latency, processor, memory, refusals.

    A gateway process is started in front of a back end that does nothing, over a keystore made for it.
    """
    from dataclasses import asdict

    from anonymix_lab.studies.gateway import kills, load, rig
    from anonymix_plugin.images import decode_photo

    counts = counts_in(clients, "--clients")
    decode_photo(photo)
    data = photo.read_bytes()
    found: list[dict[str, Any]] = []
    with TemporaryDirectory() as folder, rig(Path(folder)) as made:
        for count in counts:
            one = load(made, data, clients=count, seconds=seconds)
            found.append(asdict(one) | {"cpu_ratio": one.cpu_ratio})
            told = ", ".join(f"{status}: {number}" for status, number in sorted(one.answers.items()))
            typer.echo(
                f"{one.clients} clients, {one.seconds:g} s: {told}; p50 {one.p50:.0f} ms, p99 {one.p99:.0f} ms; "
                f"processor {one.cpu_ms:.0f} ms a request, {one.cpu_ratio:.2f} of the library's {one.library_ms:.0f}; "
                f"memory {one.memory_mb[0]:.0f}, then {one.memory_mb[1]:.0f} MB"
            )
        if kill:
            left = kills(made, data, times=kill)
            found.append(asdict(left))
            typer.echo(f"{left.kills} times kill -9: {left.acknowledged} acknowledged, {left.lost} lost")
    if output is not None:
        write_json(output, found)
