"""`anonymix generators`: look at generators of one's own."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Column, Table

from anonymix_plugin.cli.report import print_json

app = typer.Typer(no_args_is_help=True, help="Look at StyleGAN2 checkpoints of your own.")


@app.callback()
def generators() -> None:
    """Look at StyleGAN2 checkpoints of your own."""


@app.command()
def inspect(
    file: Annotated[Path, typer.Argument(help="A checkpoint: .pt, .pth or .pkl.", show_default=False)],
    mixer_weights: Annotated[
        Path | None,
        typer.Option("--mixer-weights", metavar="FILE", help="Whether these belong to it.", show_default=False),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what a checkpoint is, without running anything in it, and whether mixer weights belong to it."""
    from anonymix_plugin.generator.stylegan2_inspect import inspect_checkpoint

    found = inspect_checkpoint(file, mixer_weights)
    if as_json:
        print_json(asdict(found))
        return
    inputs, layers = found.style_inputs, found.layers
    rows = {
        "file": f"{file} ({found.bytes / 1e6:.1f} MB)",
        "SHA-256 of the file": found.file_sha256,
        "format": f"{found.format}, in a {found.container} file",
        "draws": f"{found.resolution} px; sizes on offer: {', '.join(map(str, found.sizes))}",
        "style inputs": f"{inputs} (coarse {layers['coarse']}, identity {layers['identity']}, fine {layers['fine']})",
        "codes": f"z {found.z_dim}, w {found.w_dim}, mapping of {found.mapping_layers} layers",
        "channels": ", ".join(map(str, found.channels)),
        "parameters": f"{found.parameters / 1e6:.2f} million",
        "noise maps": "in the file" if found.noise_maps else "none: it draws without noise",
        "bound of activations": "none" if found.activation_bound is None else f"{found.activation_bound:g}",
        "mean style vector": "in the file" if found.has_centre else "not in the file: measured when needed",
        "encoder": found.encoder or "none in the file",
        "weights hash": f"{found.weights_hash} (enters the mixer fingerprint)",
        "mixer weights": found.mixer_weights,
        "licence": found.licence,
    }
    table = Table(Column("", no_wrap=True), Column("", overflow="fold"), show_header=False, title="Generator")
    for name, value in rows.items():
        table.add_row(name, value)
    Console().print(table, markup=False)
