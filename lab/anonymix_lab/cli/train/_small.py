"""`anonymix train small-generator`."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Annotated

import typer

from anonymix_lab.cli._common import Threads, bars, command_line, reference_generator, staged
from anonymix_lab.cli.train._app import app
from anonymix_lab.cli.train._student import say
from anonymix_plugin.errors import UsageError


@app.command("small-generator")
def small_generator(
    output: Annotated[Path, typer.Option("--output", "-o", help="The safetensors file.")],
    minutes: Annotated[float, typer.Option(help="How long it learns.", min=0.1)] = 25.0,
    batch: Annotated[
        int | None,
        typer.Option(help="Faces a step: 4, and on a GPU 64.", min=1, show_default=False),
    ] = None,
    device: Annotated[str, typer.Option(help='"cpu", or "cuda" for a GPU.')] = "cpu",
    faces: Annotated[int, typer.Option(help="Drawn faces that say where landmarks lie.", min=60)] = 300,
    work: Annotated[Path, typer.Option(help="Where unfinished work goes.")] = Path("out/small"),
    seed: Annotated[int, typer.Option(help="Seed of codes and weights.")] = 41,
    threads: Threads = 2,
) -> None:
    """Distil the small generator: a light head on MobileStyleGAN's layers up to 64 px, which draws 256 px.

    Everything is drawn while it learns. Interrupted, it goes on from the work folder.
    """
    import torch

    from anonymix_lab.training.card import RunCard
    from anonymix_lab.training.examples import draw_landmarks
    from anonymix_lab.training.small import SmallRecipe, train_small
    from anonymix_lab.training.teachers import TEACHERS
    from anonymix_plugin.faces import YuNet
    from anonymix_plugin.generator import ArrayGenerator, MobileStyleGan, load_generator
    from anonymix_plugin.mixer.weights import load_mixer_weights
    from anonymix_plugin.models import locate
    from anonymix_plugin.recognisers import torch_recogniser

    if device != "cpu" and not (device.startswith("cuda") and torch.cuda.is_available()):
        raise UsageError(
            "torch finds no such GPU",
            where=f"--device {device}",
            fix="use cpu, or install torch for your GPU",
        )
    began = time.monotonic()
    torch.set_num_threads(threads)
    source, drawer, weights = reference_generator(None), load_generator(threads=threads), load_mixer_weights()
    if not (isinstance(source, MobileStyleGan) and isinstance(drawer, ArrayGenerator)):
        raise UsageError(f"{source.name} can't be distilled")  # for the type checker
    recipe = SmallRecipe(batch=batch or (4 if device == "cpu" else 64), seed=seed)
    card = RunCard(
        "The small generator's head",
        command_line(),
        {"recipe": recipe, "minutes": minutes, "faces that say where landmarks lie": faces},
        {"large generator": source.weights_hash(), "mixer weights": f"SHA-256 {weights.sha256}"},
    )
    with bars() as bar:
        report = staged(bar)
        landmarks = draw_landmarks(
            drawer,
            source,
            weights,
            YuNet(locate("yunet")),
            work,
            lambda done, total: report("landmarks", done, total),
            count=faces,
            seed=seed,
        )
        made = train_small(
            source,
            weights,
            landmarks,
            {name: torch_recogniser(name) for name in (*TEACHERS, "facenet")},
            work,
            device=device,
            minutes=minutes,
            batch=recipe.batch,
            progress=lambda text: say(bar, card, text),
            seed=seed,
        )
    output.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(made, output)
    typer.echo(f"{output} and {card.write(output, time.monotonic() - began)}")
