"""Commands that make weights."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from anonymix_lab.cli._common import (
    PAIRS,
    OwnGenerator,
    PairCount,
    PairsFolder,
    PeopleFolder,
    Threads,
    bars,
    command_line,
    embedder,
    reference_generator,
    staged,
)
from anonymix_lab.cli.train._app import app
from anonymix_lab.cli.train._pairs import begin_pairs, need_pairs
from anonymix_lab.cli.train._student import Teaching, make_or_read, say
from anonymix_plugin.cli.options import takes_photos


@app.command()
def pairs(
    count: PairCount = 3500,
    folder: PairsFolder = PAIRS,
    generator: OwnGenerator = None,
    seed: Annotated[int, typer.Option(help="Seed that names the series.")] = 1,
    threads: Threads = 2,
) -> None:
    """Draw pairs of latent code and picture; goes on where an earlier run stopped."""
    from anonymix_lab.training.pairs import draw_pairs
    from anonymix_plugin.generator import load_generator
    from anonymix_plugin.generator.stylegan2_engines import load_own_generator

    drawing = load_generator(threads=threads) if generator is None else load_own_generator(generator, threads=threads)
    begin_pairs(folder, drawing, seed)
    with bars() as bar:
        report = staged(bar)
        for number in draw_pairs(drawing, folder, range(count), seed=seed):
            report("drawing", number + 1, count)


@app.command()
def encoder(
    output: Annotated[Path, typer.Option("--output", "-o", help="The safetensors file.")],
    count: PairCount = 3500,
    folder: PairsFolder = PAIRS,
    generator: OwnGenerator = None,
    epochs: Annotated[int, typer.Option(help="Passes over the pairs.", min=1)] = 20,
    work: Annotated[Path, typer.Option(help="Where unfinished work goes.")] = Path("out/encoder"),
    seed: Annotated[int, typer.Option(help="Seed of weights, order and changes.")] = 7,
    threads: Threads = 2,
) -> None:
    """Train the encoder from photo to style vectors on drawn pairs.

    Interrupted, it goes on from the last whole epoch in the work folder.
    """
    import torch

    from anonymix_lab.training.encoder import EncoderRecipe, train_encoder

    torch.set_num_threads(threads)
    recipe = EncoderRecipe(pairs=count, epochs=epochs, seed=seed)
    with bars() as bar:
        task = bar.add_task("epochs", total=epochs)

        def report(epoch: int, loss: float, explained: tuple[float, float, float]) -> None:
            shares = ", ".join(f"{share:.3f}" for share in explained)
            bar.console.print(f"epoch {epoch}: loss {loss:.4f}, held-out variance explained {shares}")
            bar.update(task, completed=epoch)

        work.mkdir(parents=True, exist_ok=True)
        state = work / "encoder.safetensors"
        source = reference_generator(generator)
        need_pairs(folder, count, source)
        train_encoder(source, folder, recipe, output, report, state=state)


@app.command("adapt-encoder")
@takes_photos
def adapt_encoder(
    output: Annotated[Path, typer.Option("--output", "-o", help="The safetensors file.")],
    people: PeopleFolder,
    encoder: Annotated[Path, typer.Option(metavar="FILE", help="Of `anonymix train encoder`.")],
    start: Annotated[
        Path, typer.Option(metavar="FILE", help="Mixer weights that the student's examples are drawn by.")
    ],
    examples: Annotated[int, typer.Option(help="Faces that the student learns from.", min=60)] = 1000,
    work: Annotated[Path, typer.Option(help="Where the student is, or will be made.")] = Path("out/mapper"),
    steps: Annotated[int, typer.Option(help="Steps.", min=1)] = 600,
    seed: Annotated[int, typer.Option(help="Seed of the order of the photos.")] = 23,
    threads: Threads = 2,
) -> None:
    """Adapt the encoder to real photos, through the student that `train mapper` makes.

    Interrupted, it goes on from the work folder.
    """
    from dataclasses import asdict

    import numpy as np
    import torch

    from anonymix_lab.training.adaptation import AdaptationRecipe, frame_photos
    from anonymix_lab.training.adaptation import adapt_encoder as adapt
    from anonymix_lab.training.card import RunCard
    from anonymix_lab.training.embedding import people_of
    from anonymix_lab.training.student import StudentRecipe
    from anonymix_lab.training.teachers import TEACHERS
    from anonymix_plugin.encoder import load_encoder, save_encoder
    from anonymix_plugin.faces import YuNet
    from anonymix_plugin.mixer.weights import load_mixer_weights
    from anonymix_plugin.models import locate

    began = time.monotonic()
    torch.set_num_threads(threads)
    before, weights = load_encoder(encoder), load_mixer_weights(start)
    recipe = AdaptationRecipe(steps=steps, seed=seed)
    output.parent.mkdir(parents=True, exist_ok=True)
    card = RunCard(
        "Encoder, adapted to photos",
        command_line(),
        {"adaptation": recipe},
        {"encoder": f"SHA-256 {before.sha256}", "mixer weights": f"SHA-256 {weights.sha256}"},
    )
    recent: list[dict[str, float]] = []
    with bars() as bar:
        report = staged(bar)
        source = reference_generator(None)
        student = make_or_read(
            bar, source, weights, StudentRecipe(examples=examples), Teaching(TEACHERS, work, threads), card
        )
        photos = frame_photos(
            people_of(people)[0], YuNet(locate("yunet")), lambda done, total: report("photos", done, total)
        )
        card.used["photos"] = str(len(photos.pictures))

        def stepped(step: int, parts: dict[str, float]) -> None:
            recent.append(parts)
            if (step + 1) % 50 == 0:
                means = {name: float(np.mean([part[name] for part in recent])) for name in parts}
                text = ", ".join(f"{name} {value:.4f}" for name, value in means.items())
                say(bar, card, f"steps to {step + 1}: {text}")
                recent.clear()
            report("adaptation", step + 1, steps)

        adapted = adapt(
            before.network,
            before.centre,
            student,
            photos,
            recipe,
            stepped,
            state=work / "adaptation.safetensors",
            about={"encoder": before.sha256, "mixer": weights.sha256},
        )
    about = {"recipe": json.dumps(asdict(recipe), sort_keys=True), **card.used}
    save_encoder(
        adapted,
        output,
        centre=before.centre,
        basis=before.basis,
        generator_hash=before.generator_hash,
        about=about,
    )
    typer.echo(f"{output} and {card.write(output, time.monotonic() - began)}")


@app.command()
@takes_photos
def subspace(
    output: Annotated[Path, typer.Option("--output", "-o", help="The safetensors file.")],
    people: PeopleFolder,
    lfw: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Labeled Faces in the Wild; people of --folds and of no pair of view 2 are learned from.",
            show_default=False,
        ),
    ] = None,
    folds: Annotated[
        str, typer.Option(help="Folds of LFW's view 2 to learn from; the others remain to be tested on.")
    ] = "1-5",
    folder: PairsFolder = PAIRS,
    count: PairCount = 3500,
    dims: Annotated[int, typer.Option(help="Numbers of a person that pass.", min=2)] = 32,
    ridge: Annotated[
        float, typer.Option(help="Added to the scatter within people, in mean eigenvalues.", min=0.0)
    ] = 2.0,
    population: Annotated[
        bool,
        typer.Option(
            "--population/--people-only",
            help="Whether people of whom there is one photo (of LFW, or else drawn) tell how people differ.",
        ),
    ] = True,
) -> None:
    """Learn the identity subspace: in which few numbers people differ most."""
    from anonymix_lab.data import parse_folds
    from anonymix_lab.training.card import RunCard
    from anonymix_lab.training.embedding import embed_pairs, embed_people
    from anonymix_lab.training.street import embed_street
    from anonymix_plugin.mixer.subspace import fit_subspace

    began = time.monotonic()
    chosen = parse_folds(folds) if lfw is not None else ()
    if lfw is None and population:
        need_pairs(folder, count)
    output.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    with bars() as bar:
        report = staged(bar)
        if lfw is not None:
            street = embed_street(embedder(), embedder("central"), people, lfw, chosen, folder, report)
            photos, who, used = street.photos, street.who, street.used
            others = street.others if population else None
        else:
            photos, who = embed_people(embedder(), people, folder / "people.npz", report)
            used = {"people": f"{len(set(who.tolist()))}, with {len(photos)} photos"}
            others = None
            if population:
                seen, found = embed_pairs(embedder(), folder, count, report)
                others = seen[found]
                used["drawn faces"] = str(len(others))
    learned = replace(fit_subspace(photos, who, dims=dims, ridge=ridge, population=others), lfw_folds=chosen)
    learned.save(output, {"dims": str(dims), "ridge": str(ridge), **used})
    settings = {
        "dims": dims,
        "ridge": ridge,
        "population": population,
        "folds of LFW": folds if lfw else "none",
    }
    card = RunCard("Identity subspace", command_line(), settings, used)
    typer.echo(f"{output} and {card.write(output, time.monotonic() - began)}")
