"""`anonymix train anchors`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from anonymix_lab.cli._common import Threads, bars, command_line, staged
from anonymix_lab.cli.train._app import app


@app.command()
def anchors(
    output: Annotated[Path, typer.Option("--output", "-o", help="The safetensors file.")],
    mixer: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Mixer weights; the shipped ones by default.", show_default=False),
    ] = None,
    faces: Annotated[int, typer.Option(help="Faces that are drawn.", min=60)] = 1000,
    seed: Annotated[int, typer.Option(help="Seed of people and keys.")] = 29,
    threads: Threads = 2,
) -> None:
    """Learn where the refine method may pull faces to, from faces that the fast method draws."""
    from anonymix_lab.training.anchors import AnchorRecipe, learn_anchors
    from anonymix_lab.training.card import RunCard
    from anonymix_plugin.faces import YuNet
    from anonymix_plugin.generator import load_generator
    from anonymix_plugin.mixer.weights import load_mixer_weights
    from anonymix_plugin.models import locate
    from anonymix_plugin.recognisers import load_recogniser

    began = time.monotonic()
    weights = load_mixer_weights(mixer) if mixer else load_mixer_weights()
    recipe = AnchorRecipe(faces=faces, seed=seed)
    output.parent.mkdir(parents=True, exist_ok=True)
    generator = load_generator(threads=threads)
    with bars() as bar:
        report = staged(bar)
        learned, figures = learn_anchors(
            generator,
            weights,
            YuNet(locate("yunet")),
            {name: load_recogniser(name) for name in ("arcface-mbf", "sface")},
            recipe,
            lambda done, total: report("faces", done, total),
        )
    learned.save(output)
    card = RunCard(
        "Anchors of the refine method",
        command_line(),
        {"anchors": recipe},
        {"mixer weights": f"SHA-256 {weights.sha256}", "generator": weights.generator_hash},
        [f"- {name}: held-out faces' cosine with their anchors {value:.3f}" for name, value in figures.items()],
    )
    typer.echo(f"{output} and {card.write(output, time.monotonic() - began)}")
