"""`anonymix measure speed`: what a face costs, in pairs with an older wheel."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from anonymix_lab.cli._common import JsonFile, write_json
from anonymix_lab.cli.measure._app import app
from anonymix_plugin.errors import AnonymixError

if TYPE_CHECKING:
    from anonymix_lab.bench.speed import Row, Speed


@app.command()
def speed(
    against: Annotated[
        Path, typer.Option("--against", metavar="WHEEL", help="A wheel of the older revision: pip wheel --no-deps .")
    ],
    photos: Annotated[
        list[Path] | None,
        typer.Option("--photo", help="A photo with a face; may be repeated. Without it, a drawn one.", exists=True),
    ] = None,
    pairs: Annotated[int, typer.Option(help="Counted faces of either side.", min=1)] = 30,
    starts: Annotated[int, typer.Option(help="Fresh processes of either side; 0 leaves them out.", min=0)] = 5,
    streams: Annotated[int, typer.Option(help="Streams of eight faces; 0 leaves them out.", min=0)] = 6,
    faces: Annotated[int, typer.Option(help="Faces until memory is looked at.", min=1)] = 100,
    stacks: Annotated[
        str, typer.Option(metavar="NAME,...", help="Adapters whose back end's own time is measured beside ours.")
    ] = "face_recognition,insightface,facenet,opencv",
    modes: Annotated[
        int, typer.Option(help="Rounds of the ways to share out the cores; 0 leaves them out.", min=0)
    ] = 4,
    engines: Annotated[
        bool, typer.Option(help="The small generator, too, and bfloat16 where the processor has it.")
    ] = True,
    threads: Annotated[
        int, typer.Option(help="Threads with which both draw in float32; 0 leaves that to them.", min=0)
    ] = 0,
    face_alone: Annotated[
        bool, typer.Option("--face-alone", help="Leave out streams, fresh processes, stacks, modes and other engines.")
    ] = False,
    fail_over: Annotated[
        float | None, typer.Option(metavar="RATIO", help="Fail if one face takes more than so many times as long.")
    ] = None,
    output: JsonFile = None,
) -> None:
    """Measure this revision against a wheel: both take turns on the same photos, and ratios of pairs are printed.

    The wheel is unpacked into a temporary folder and runs on this environment's other packages.
    """
    from rich.console import Console

    from anonymix_lab.bench.drawn import draw_photo
    from anonymix_lab.bench.speed import SpeedSettings, measure_speed

    named = tuple(filter(None, stacks.split(",")))
    settings = SpeedSettings(pairs, starts, streams, faces, engines, named, modes, threads)
    if face_alone:
        settings = SpeedSettings(pairs, 0, 0, 1, engines=False, threads=threads)
    with tempfile.TemporaryDirectory() as folder, Console(stderr=True).status("") as status:
        given = photos or [draw_photo(Path(folder) / "drawn.jpg")]
        found = measure_speed(against, given, settings, status.update)
    for line in _table(found):
        typer.echo(line)
    write_json(output, found.as_json())
    if found.same is not None and found.same[0] < found.same[1]:
        raise AnonymixError("the same fingerprint gives other bytes", where="speed", fix="find out which stage changed")
    if fail_over is not None and found.face > fail_over:
        raise AnonymixError(
            f"one face takes {found.face:.2f} times as long as with the wheel; at most {fail_over:.2f} is asked for",
            where="speed",
            fix="compare the stages: anonymix bench",
        )


def _table(found: Speed) -> list[str]:
    place = found.machine
    lines = [
        f"{datetime.now(UTC):%Y-%m-%d}, {place['cores']} cores, {place['processor']}, OpenVINO {place['openvino']}",
        "",
        "| | wheel | now | now / wheel | in processor time | asked for |",
        "|---|---|---|---|---|---|",
        *map(_line, found.rows),
        "",
        *_stacks(found),
        *_modes(found),
    ]
    same = found.same
    lines.append(
        "the fingerprints differ, and so do the faces" if same is None else f"same bytes: {same[0]} of {same[1]} faces"
    )
    return lines


def _stacks(found: Speed) -> Iterator[str]:
    if found.stacks:
        yield "| stack | its own time a photo | processor time | what the mixer adds | in processor time |"
        yield "|---|---|---|---|---|"
        for it in found.stacks:
            yield f"| {it.name} | {it.ms:.1f} ms | {it.cpu:.1f} ms | {it.adds:.0f} % | {it.adds_cpu:.0f} % |"
        yield ""
    for name, reason in found.left_out.items():
        yield f"left out: {name} ({reason})"


def _modes(found: Speed) -> Iterator[str]:
    if found.modes:
        yield "| cores | callers at once | faces a second | to the first | p50 | p95 | processor time a face |"
        yield "|---|---|---|---|---|---|---|"
        for it in found.modes:
            told = f"| {it.way} | {it.callers} | {it.rate:.1f} | {it.ratio:.2f} |"
            yield f"{told} {it.p50:.0f} ms | {it.p95:.0f} ms | {it.cpu:.0f} ms |"
        yield ""


def _line(row: Row) -> str:
    digits = 0 if row.unit == "MB" else 1 if row.unit else 2

    def shown(value: float | None) -> str:
        return "" if value is None else f"{value:.{digits}f} {row.unit}".strip()

    ratio, cpu = ("" if value is None else f"{value:.2f}" for value in (row.ratio, row.cpu))
    wanted = "" if row.wanted is None else f"{'<=' if row.most else '>='} {row.wanted:g}"
    return f"| {row.what} | {shown(row.old)} | {shown(row.new)} | {ratio} | {cpu} | {wanted} |"
