"""The command group `anonymix train`."""

from __future__ import annotations

import typer

app = typer.Typer(no_args_is_help=True, help="Train the weights that the project ships, on CPU.")
