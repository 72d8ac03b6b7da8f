"""`anonymix bench`: what one face costs on this machine, stage by stage."""

from __future__ import annotations

import json
import os
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

STAGES = ("decode", "detect", "align", "embed", "encode", "mix", "generate")


def bench(
    photo: Annotated[
        Path | None, typer.Option(help="A photo with a face; without it, a drawn one.", show_default=False)
    ] = None,
    repeats: Annotated[int, typer.Option(help="Counted runs after two that are not.", min=3)] = 20,
    policy: Annotated[str, typer.Option(help="What is kept of the photo: none, pose or full.")] = "",
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Where JSON goes.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Time one face on the fast road, decode to 512 px, beside the generator's pass alone."""
    from anonymix_plugin.evaluation.bench import measure

    result = measure(photo, repeats=repeats, policy=policy)
    content = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "repeats": repeats,
        "policy": result.policy,
        "cold_start_s": result.cold_start,
        "generator_alone_s": result.generator,
        "total_s": result.total,
        "ratio": result.ratio,
        "stages_s": result.stages,
    }
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(json.dumps(content, indent=2) + "\n")
    if as_json:
        typer.echo(json.dumps(content))
        return
    table = Table(title=f"One face, 512 px, policy {result.policy}, median of {repeats}")
    table.add_column("stage")
    table.add_column("ms", justify="right")
    table.add_column("share", justify="right")
    for stage in STAGES:
        if stage in result.stages:
            seconds = result.stages[stage]
            table.add_row(stage, f"{1000 * seconds:.1f}", f"{seconds / result.total:.0%}")
    table.add_section()
    table.add_row("total", f"{1000 * result.total:.1f}", "")
    table.add_row("generator alone, same run", f"{1000 * result.generator:.1f}", "")
    table.add_row("total / generator", f"{result.ratio:.2f}", "")
    table.add_row("cold start to first face", f"{1000 * result.cold_start:.0f}", "")
    Console().print(table)
