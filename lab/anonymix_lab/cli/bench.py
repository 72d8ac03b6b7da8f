"""`anonymix bench`: what faces cost on this machine, beside the floor and beside the alternatives."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from anonymix_lab.cli._common import write_json
from anonymix_plugin.cli.options import EngineName, EngineOption, Policy, takes_photos
from anonymix_plugin.cli.report import print_json
from anonymix_plugin.errors import UsageError

if TYPE_CHECKING:
    from rich.table import Table

    from anonymix_lab.bench import BenchResult
    from anonymix_lab.bench.clock import Times

STAGES = ("decode", "detect", "align", "embed", "encode", "mix", "generate")


@takes_photos
def bench(
    photos: Annotated[
        list[Path] | None,
        typer.Option("--photo", help="A photo with a face; may be repeated. Without it, a drawn one."),
    ] = None,
    repeats: Annotated[int, typer.Option(help="Counted faces after two that are not.", min=3)] = 20,
    policy: Annotated[Policy, typer.Option(help="What is kept of the photo.")] = Policy.NONE,
    engine: EngineOption = EngineName.AUTO,
    batches: Annotated[
        str, typer.Option(metavar="N,N,...", help="Batch sizes for throughput; empty leaves it out.")
    ] = "1,4,16",
    refine_steps: Annotated[
        int,
        typer.Option(
            help="How many of the refine preset's 50 steps are run, the rest extrapolated; 0 for none.",
            min=0,
            max=50,
        ),
    ] = 3,
    cold_starts: Annotated[int, typer.Option(help="Fresh processes.", min=0)] = 2,
    engines: Annotated[int, typer.Option(help="Rounds in which all engines draw side by side.", min=0)] = 0,
    compiled: Annotated[
        bool, typer.Option("--compiled", help="With --engines: torch.compile, too (needs a C++ compiler).")
    ] = False,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Where JSON goes.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Time faces on this machine: latency, cold start, throughput, memory, and what else could be done.

    Everything is measured in one run on the same photos: the whole way from decoding to 512 px, the
    generator's pass alone, the refine preset, blur, pixelation and a recogniser alone. Operations and
    bytes are counted and compared with the best that this machine's cores were measured to do.
    """
    sizes = _batches(batches)
    from rich.console import Console

    from anonymix_lab.bench import BenchSettings, run_bench
    from anonymix_plugin.mixer.policy import AttributePolicy

    settings = BenchSettings(
        repeats=repeats,
        policy=AttributePolicy(policy.value),
        engine=engine.value,
        batches=sizes,
        refine_steps=refine_steps,
        cold_starts=cold_starts,
        engines=engines,
        compiled=compiled,
    )
    console = Console(stderr=True)
    with _some_photos(photos) as chosen, console.status("") as status:
        result = run_bench(chosen, settings, status.update)
    content = result.as_json()
    write_json(output, content)
    if as_json:
        print_json(content, indent=None)
        return
    for table in _tables(result):
        Console().print(table)


def _batches(text: str) -> tuple[int, ...]:
    try:
        sizes = tuple(int(part) for part in text.split(",") if part.strip())
    except ValueError:
        sizes = (0,)
    if any(size < 1 for size in sizes):
        raise UsageError(f"{text!r} are no batch sizes", where="--batches", fix="for example 1,4,16")
    return sizes


@contextmanager
def _some_photos(photos: list[Path] | None) -> Iterator[list[Path]]:
    if photos:
        yield photos
        return
    with tempfile.TemporaryDirectory(prefix="anonymix-bench-") as folder:
        from anonymix_lab.bench.drawn import draw_photo

        yield [draw_photo(Path(folder) / "drawn.jpg")]


# --- tables -----------------------------------------------------------------------------------------


def _tables(result: BenchResult) -> Iterator[Table]:
    yield _latency(result)
    yield _alternatives(result)
    if result.cold_starts:
        yield _cold(result)
    if result.throughput:
        yield _throughput(result)
    yield _floor(result)
    if result.engines:
        yield _engines(result)


def _table(title: str, *columns: str) -> Table:
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    table.add_column(columns[0])
    for column in columns[1:]:
        table.add_column(column, justify="right")
    return table


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.1f}"


def _percentiles(times: Times) -> tuple[str, str, str]:
    return _ms(times.p50), _ms(times.p95), _ms(times.p99)


def _latency(result: BenchResult) -> Table:
    title = f"One face, 512 px, policy {result.policy}, engine {result.engine}, {result.total.runs} runs"
    table = _table(title, "stage", "p50 ms", "p95", "p99", "share")
    for stage in STAGES:
        if stage in result.stages:
            times = result.stages[stage]
            table.add_row(stage, *_percentiles(times), f"{times.p50 / result.total.p50:.0%}")
    table.add_section()
    table.add_row("total", *_percentiles(result.total), "")
    table.add_row("generator alone, same run", *_percentiles(result.generator), "")
    table.add_row("total / generator", f"{result.ratio:.2f}", "", "", "")
    table.add_row("processor seconds a face", f"{result.total.cpu:.3f}", "", "", "")
    return table


def _alternatives(result: BenchResult) -> Table:
    table = _table("What a user might do instead, same photos", "", "p50 ms", "p95", "p99", "/ total")
    for name, times in result.baselines.items():
        table.add_row(name, *_percentiles(times), f"{times.p50 / result.total.p50:.2f}")
    table.add_row("cancelable face", *_percentiles(result.total), "1.00")
    if result.refine is not None:
        refine = result.refine
        name = "refine preset, 50 steps" + (f" ({refine.steps_run} run)" if refine.extrapolated else "")
        table.add_row(name, f"{1000 * refine.seconds:.0f}", "", "", f"{refine.ratio:.0f}")
    return table


def _cold(result: BenchResult) -> Table:
    runs = result.cold_starts
    title = "Cold start: a fresh process to its first face"
    table = _table(title, "", *(f"run {number}" for number in range(1, len(runs) + 1)))
    for name, values in {
        "interpreter, s": [cold.interpreter for cold in runs],
        "imports": [cold.imports for cold in runs],
        "opening": [cold.opening for cold in runs],
        "first face": [cold.first for cold in runs],
        "total, s": [cold.total for cold in runs],
        "processor, s": [cold.cpu for cold in runs],
    }.items():
        table.add_row(name, *(f"{value:.2f}" for value in values))
    table.add_row("MB then", *(f"{cold.peak_first / 1e6:.0f}" for cold in runs))
    table.add_row(f"MB after {runs[0].faces} more", *(f"{cold.peak_many / 1e6:.0f}" for cold in runs))
    return table


def _throughput(result: BenchResult) -> Table:
    table = _table("Faces a second", "photos at once", "one by one", "as a stream", "processor s a face")
    for row in result.throughput:
        values = (f"{row.one_by_one:.2f}", f"{row.streamed:.2f}", f"{row.cpu_per_face:.3f}")
        table.add_row(str(row.batch), *values)
    return table


def _floor(result: BenchResult) -> Table:
    peak = result.peak
    title = f"The floor: {peak.convolution / 1e9:.0f} GFLOP/s, {peak.memory / 1e9:.1f} GB/s measured"
    table = _table(title, "stage", "GFLOP", "MB moved", "ms at peak", "ms to move", "share of peak")
    for stage, floor in result.floors.items():
        counts = floor.counts
        table.add_row(
            stage,
            f"{counts.operations / 1e9:.2f}",
            f"{counts.traffic / 1e6:.0f}",
            _ms(floor.at_peak),
            _ms(floor.moving),
            f"{floor.share:.0%}",
        )
    return table


def _engines(result: BenchResult) -> Table:
    table = _table("Engines, one pass, side by side", "engine", "p50 ms", "p95", "p99", "/ best", "grey levels")
    for engine in result.engines:
        table.add_row(engine.name, *_percentiles(engine.times), f"{engine.ratio:.2f}", f"{engine.difference:.2f}")
    return table
