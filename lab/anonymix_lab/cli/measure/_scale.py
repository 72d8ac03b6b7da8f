"""`anonymix measure scale`: what 1, 10 and 100 million faces cost, from measured figures."""

from __future__ import annotations

import dataclasses
import tempfile
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from anonymix_lab.cli._common import JsonFile, write_json
from anonymix_lab.cli.measure._app import app
from anonymix_plugin.pool import CORES


class Through(StrEnum):
    """What a simulated run goes through."""

    VIRTUAL = "virtual"
    WORKERS = "workers"
    RENEWAL = "renewal"


@app.command()
def scale(
    faces: Annotated[list[int] | None, typer.Option(help="Faces; may be given several times.", min=1)] = None,
    cpu_rate: Annotated[float, typer.Option(help="Faces a second of a machine with two cores.", min=0.001)] = 14.5,
    gpu_rate: Annotated[float, typer.Option(help="Faces a second of a GPU.", min=0.001)] = 643,
    reading_rate: Annotated[float, typer.Option(help="Photos a second that 16 cores read.", min=0.001)] = 205,
    face_bytes: Annotated[float, typer.Option(help="Bytes of a cancelable face.", min=1)] = 378_000,
    original_bytes: Annotated[float, typer.Option(help="Bytes of a sealed original.", min=1)] = 67_000,
    key_bytes: Annotated[float, typer.Option(help="Bytes of a keystore for a subject.", min=1)] = 670,
    rotation_rate: Annotated[float, typer.Option(help="Keys a second that are rotated.", min=1)] = 25_000,
    driver_rate: Annotated[float, typer.Option(help="Rows a second that a driver plans.", min=1)] = 6_200,
    renewal_rate: Annotated[float, typer.Option(help="The same of a renewal, on one core.", min=1)] = 113,
    simulate: Annotated[int, typer.Option(help="Rows of a simulated run; 0 for none.", min=0)] = 0,
    workers: Annotated[int, typer.Option(help="Workers of the simulated run.", min=1)] = 64,
    worker_rate: Annotated[float, typer.Option(help="Rows a second of each of them.", min=0.001)] = 14.5,
    through: Annotated[
        Through,
        typer.Option(
            help="virtual: the driver's part is done, and workers draw in virtual time. workers: bulk protect, whose "
            "workers sleep. renewal: bulk renew of so many people, in front of a back "
            "end that answers at once."
        ),
    ] = Through.VIRTUAL,
    ray: Annotated[
        str | None, typer.Option(metavar="local|ADDRESS", help="Workers that sleep do so on Ray.", show_default=False)
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Leave the simulated run after so many rows.", min=1)] = None,
    folder: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Where the simulated run keeps its keystore and ledger, and goes on; temporary files by default.",
            file_okay=False,
            exists=True,
        ),
    ] = None,
    output: JsonFile = None,
) -> None:
    """Compute what millions of faces cost, from measured figures, and run the planner in virtual time."""
    from anonymix_lab.bench.scale import LIMITS, Measured, plan
    from anonymix_lab.bench.scale import simulate as simulated
    from anonymix_lab.bench.sleeping import protect_asleep, renewal_asleep
    from anonymix_plugin.bulk import Cluster, Work

    measured = Measured(
        cpu_rate,
        gpu_rate,
        reading_rate,
        face_bytes,
        original_bytes,
        key_bytes,
        rotation_rate,
        driver_rate,
        renewal_rate,
    )
    plans = [plan(count, measured) for count in faces or (1_000_000, 10_000_000, 100_000_000)]
    rows = {
        "one machine with two cores, days": [each.cpu_days for each in plans],
        "such machines for eight hours": [each.cpu_machines for each in plans],
        "one GPU with its readers, hours": [each.gpu_hours for each in plans],
        "cores that read photos for one GPU": [each.readers for each in plans],
        "GPUs for eight hours": [each.gpus for each in plans],
        "rotation of all keys, hours": [each.rotation_hours for each in plans],
        "keystore after a rotation, GiB": [each.keystore_gib for each in plans],
        "faces as PNG files, TiB": [each.faces_tib for each in plans],
        "sealed originals, TiB": [each.originals_tib for each in plans],
        "one driver of bulk work, hours": [each.driver_hours for each in plans],
        "one core of the driver of a renewal, hours": [each.renewal_hours for each in plans],
        **{
            f"renewal at {limit.name}: {limit.calls_per_s:g} calls a second, days": [
                each.back_ends[place] for each in plans
            ]
            for place, limit in enumerate(LIMITS)
        },
    }
    typer.echo(f"| faces | {' | '.join(f'{each.faces:,}' for each in plans)} |")
    typer.echo(f"|---{'|---' * len(plans)}|")
    for name, values in rows.items():
        typer.echo(f"| {name} | {' | '.join(_figure(value) for value in values)} |")
    typer.echo("\nLimits, and who says so:")
    for published in LIMITS:
        typer.echo(f"- {published.name}: {published.calls_per_s:g} calls a second ({published.source})")
    content = {"measured": dataclasses.asdict(measured), "plans": [dataclasses.asdict(each) for each in plans]}
    if simulate:
        with tempfile.TemporaryDirectory() as temporary:
            place = folder or Path(temporary)
            if through is Through.VIRTUAL:
                run = simulated(place, simulate, workers=workers, rate=worker_rate, limit=limit)
            else:
                asleep = protect_asleep if through is Through.WORKERS else renewal_asleep
                cluster = None if ray is None else Cluster(ray, cpus=CORES / workers)
                run = asleep(place, simulate, Work(workers, limit=limit, cluster=cluster), worker_rate)
        where = f"{through.value}{'' if ray is None else ', on Ray'}"
        typer.echo(f"\nSimulated run of {simulate:,} rows, {workers} workers at {worker_rate:g} a second ({where}):")
        for name, value in dataclasses.asdict(run).items():
            typer.echo(f"{name:20} {_figure(value):>14}")
        content["simulated"] = dataclasses.asdict(run)
    write_json(output, content)


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
