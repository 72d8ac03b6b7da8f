"""`anonymix measure gpu`: everything that a machine with a GPU is asked, within minutes."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated, cast, get_args

import typer

from anonymix_lab.cli.measure._app import app
from anonymix_plugin.errors import UsageError

_SHARED = Path("../shared/data")


@app.command()
def gpu(
    carried: Annotated[
        Path, typer.Option(help="Numbers that stand for photos, made by --prepare.", metavar="FILE")
    ] = Path("out/gpu/carried.npz"),
    output: Annotated[Path, typer.Option("--output", "-o", help="Where results go.", metavar="DIR")] = Path("out/gpu"),
    minutes: Annotated[float, typer.Option(help="Budget of all steps together.", min=0.1)] = 12.0,
    steps: Annotated[
        str, typer.Option(help="Which, in what order; a step may have a limit: engine:90,tune:300.")
    ] = "engine,compiled,stream,tune,refine,small",
    variants: Annotated[
        str | None,
        typer.Option(
            help='Ways to tune, separated by semicolons, that share the time of the step "tune".',
            show_default=False,
        ),
    ] = None,
    start: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Mixer weights that tuning goes on from; the shipped ones by default."),
    ] = None,
    presets: Annotated[
        str, typer.Option(help="Presets of the refine method, and fast, that share the time of the step refine.")
    ] = "fast,quick,paper,anchored",
    photos: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Photos named PERSON_NUMBER for the steps refine and stream; the drawn people of the tests by "
            "default.",
            show_default=False,
        ),
    ] = None,
    device: Annotated[
        str, typer.Option(help='"cuda", or "cpu": for a rehearsal, and to tune through the small generator.')
    ] = "cuda",
    generator: Annotated[
        str,
        typer.Option(help='Which one the step "tune" goes through: mobilestylegan, or small, which a CPU can do.'),
    ] = "mobilestylegan",
    rehearsal: Annotated[bool, typer.Option("--rehearsal", help="Counts so small that two cores do it.")] = False,
    listing: Annotated[
        bool, typer.Option("--list", help="List the weights and packages that the machine must be given.")
    ] = False,
    prepare: Annotated[bool, typer.Option("--prepare", help="Make --carried, where the photos are, and end.")] = False,
    lfw: Annotated[Path, typer.Option(help="For --prepare: Labeled Faces in the Wild.")] = _SHARED / "lfw",
    people: Annotated[Path, typer.Option(help="For --prepare: a sub-folder of photos a person.")] = _SHARED / "pins",
    london: Annotated[Path, typer.Option(help="For --prepare: photos to compare engines on.")] = _SHARED / "london",
) -> None:
    """Check and time engine `cuda`, compiled too, stream, tune the map, refine, distil: in this order.

    Each step saves its result as it ends, so that whatever is cut off leaves something. No network is used.
    """
    from anonymix_lab import gpu as steps_
    from anonymix_lab.cli._common import embedder

    if listing:
        for file in steps_.needed_weights():
            typer.echo(f"{file.path}  {file.size:,} bytes{'' if file.here else '  NOT HERE'}")
        for package in steps_.needed_packages():
            typer.echo(f"{package.name}  {package.version or 'NOT HERE'}")
        return
    if prepare:
        steps_.prepare(london, lfw, people, carried.parent / "cache", typer.echo, embedder).save(carried)
        typer.echo(f"{carried}")
        return
    from anonymix_plugin.generator import GeneratorName

    if generator not in get_args(GeneratorName):
        raise UsageError(f"there is no generator {generator!r}", where="--generator", fix="mobilestylegan or small")
    named = [part.strip().partition(":") for part in steps.split(",")]
    settings = steps_.GpuSettings(
        device=device,
        minutes=minutes,
        steps=tuple(name for name, _, _ in named),
        limits={name: _seconds(name, text) for name, colon, text in named if colon},
        rehearsal=rehearsal,
        start=start,
        photos=photos,
        presets=tuple(name.strip() for name in presets.split(",")),
        generator=cast("GeneratorName", generator),
        **({} if variants is None else {"variants": tuple(part.strip() for part in variants.split(";"))}),
    )
    results = steps_.run_steps(settings, steps_.Carried.read(carried), output, typer.echo)
    for result in results:
        typer.echo(json.dumps(result.result, indent=1, default=float) if result.state == "done" else result.error)
        typer.echo(f"{result.name}: {result.state}, {result.seconds:.0f} s")
    if any(result.state == "failed" for result in results):
        raise typer.Exit(1)


def _seconds(step: str, text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise UsageError(f"{text!r} is no limit of the step {step} in seconds", where="--steps", fix="as engine:90")
    return seconds
