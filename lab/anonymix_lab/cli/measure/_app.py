"""The command group `anonymix measure`."""

from __future__ import annotations

import typer

app = typer.Typer(no_args_is_help=True, help="Measure one thing: accuracy, thresholds, leaks, adapters.")
