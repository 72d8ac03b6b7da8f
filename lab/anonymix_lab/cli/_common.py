"""What the commands of the laboratory share: options, progress bars, loaders, JSON files."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from anonymix_lab.training.embedding import Embedder
    from anonymix_plugin.faces import FacePolicy
    from anonymix_plugin.generator import Generator

PairsFolder = Annotated[Path, typer.Option("--pairs", help="Folder with the drawn pairs.")]
PairCount = Annotated[int, typer.Option(help="How many pairs.", min=100)]
Threads = Annotated[int, typer.Option(help="CPU threads.", min=1)]
PeopleFolder = Annotated[Path, typer.Option(help="Folder with one sub-folder of photos per person.")]
OwnGenerator = Annotated[
    Path | None,
    typer.Option(
        "--generator",
        metavar="FILE",
        help='In the place of MobileStyleGAN: a StyleGAN2 checkpoint of your own, or "small".',
        show_default=False,
    ),
]
JsonFile = Annotated[Path | None, typer.Option("--output", "-o", metavar="FILE", help="Where JSON goes.")]
PAIRS = Path("out/pairs")


def bars() -> Progress:
    """Progress bars on stderr."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )


def staged(bar: Progress) -> Callable[[str, int, int], None]:
    """One bar for each stage that is reported."""
    tasks: dict[str, TaskID] = {}

    def report(stage: str, done: int, total: int) -> None:
        if stage not in tasks:
            tasks[stage] = bar.add_task(stage, total=total)
        bar.update(tasks[stage], completed=done)

    return report


def write_json(output: Path | None, value: Any) -> str:
    """Return a value as JSON, and write it to a file if one is named.

    Raises:
        OutputError: The file can't be written.
    """
    text = json.dumps(value, indent=2)
    if output is not None:
        from anonymix_plugin.files import write_text

        write_text(output, text + "\n")
    return text


def command_line() -> str:
    """What was typed, for a model card: the program's name without its folder."""
    return shlex.join(["anonymix", *sys.argv[1:]])


def reference_generator(file: Path | None) -> Generator:
    """The generator on torch: what maps codes, and draws where gradients are wanted."""
    from anonymix_plugin.generator import load_generator
    from anonymix_plugin.generator.stylegan2 import load_stylegan2

    if file is None or str(file) == "small":
        return load_generator("torch", name="mobilestylegan" if file is None else "small")
    return load_stylegan2(file)


def embedder(faces: FacePolicy = "largest", *, mirrored: bool = False) -> Embedder:
    """The detector and the recognisers of the mixer."""
    from anonymix_lab.training.embedding import Embedder
    from anonymix_plugin.faces import YuNet
    from anonymix_plugin.models import locate
    from anonymix_plugin.recognisers import load_recogniser

    recognisers = load_recogniser("arcface-mbf"), load_recogniser("sface")
    return Embedder(YuNet(locate("yunet")), *recognisers, faces, mirrored=mirrored)
