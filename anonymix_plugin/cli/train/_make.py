"""Commands that make weights."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from anonymix_plugin.cli.train._app import (
    PAIRS,
    OwnGenerator,
    PairCount,
    PairsFolder,
    PeopleFolder,
    Threads,
    app,
    bars,
    command_line,
    embedder,
    reference_generator,
    staged,
)
from anonymix_plugin.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.progress import Progress

    from anonymix_plugin.generator import Generator
    from anonymix_plugin.mixer.weights import MixerWeights
    from anonymix_plugin.training.card import RunCard
    from anonymix_plugin.training.student import StudentRecipe
    from anonymix_plugin.training.tuning import TuningRecipe, TuningStep


@app.command()
def pairs(
    count: PairCount = 3500,
    folder: PairsFolder = PAIRS,
    generator: OwnGenerator = None,
    seed: Annotated[int, typer.Option(help="Seed that names the series.")] = 1,
    threads: Threads = 2,
) -> None:
    """Draw pairs of latent code and picture; goes on where an earlier run stopped."""
    from anonymix_plugin.generator import load_generator
    from anonymix_plugin.generator.stylegan2_engines import load_own_generator
    from anonymix_plugin.training.pairs import draw_pairs

    own = None if generator is None else load_own_generator(generator, threads=threads)
    with bars() as bar:
        report = staged(bar)
        for number in draw_pairs(own or load_generator(threads=threads), folder, range(count), seed=seed):
            report("drawing", number + 1, count)


@app.command()
def encoder(
    output: Annotated[Path, typer.Option("--output", "-o", help="The safetensors file.")],
    count: PairCount = 3500,
    folder: PairsFolder = PAIRS,
    generator: OwnGenerator = None,
    epochs: Annotated[int, typer.Option(help="Passes over the pairs.", min=1)] = 20,
    seed: Annotated[int, typer.Option(help="Seed of weights, order and changes.")] = 7,
    threads: Threads = 2,
) -> None:
    """Train the encoder from photo to style vectors on drawn pairs."""
    import torch

    from anonymix_plugin.training.encoder import EncoderRecipe, train_encoder

    torch.set_num_threads(threads)
    recipe = EncoderRecipe(pairs=count, epochs=epochs, seed=seed)
    with bars() as bar:
        task = bar.add_task("epochs", total=epochs)

        def report(epoch: int, loss: float, explained: tuple[float, float, float]) -> None:
            shares = ", ".join(f"{share:.3f}" for share in explained)
            bar.console.print(f"epoch {epoch}: loss {loss:.4f}, held-out variance explained {shares}")
            bar.update(task, completed=epoch)

        train_encoder(reference_generator(generator), folder, recipe, output, report)


@app.command()
def subspace(
    output: Annotated[Path, typer.Option("--output", "-o", help="The safetensors file.")],
    people: PeopleFolder,
    folder: PairsFolder = PAIRS,
    count: PairCount = 3500,
    dims: Annotated[int, typer.Option(help="Numbers of a person that pass.", min=2)] = 48,
    population: Annotated[
        bool,
        typer.Option(
            "--population/--people-only",
            help="Whether drawn faces tell how people differ, beside the people of the photos.",
        ),
    ] = True,
) -> None:
    """Learn the identity subspace: in which few numbers people differ most."""
    from anonymix_plugin.mixer.subspace import fit_subspace
    from anonymix_plugin.training.card import RunCard
    from anonymix_plugin.training.embedding import embed_pairs, embed_people

    began = time.monotonic()
    output.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    with bars() as bar:
        report = staged(bar)
        reader = embedder()
        photos, who = embed_people(reader, people, folder / "people.npy", report)
        drawn = None
        if population:
            seen, found = embed_pairs(reader, folder, count, report)
            drawn = seen[found]
    learned = fit_subspace(photos, who, dims=dims, population=drawn)
    used = {
        "people": f"{len(set(who.tolist()))}, with {len(photos)} photos",
        "drawn faces": str(0 if drawn is None else len(drawn)),
    }
    learned.save(output, {"dims": str(dims), **used})
    card = RunCard(
        "Identity subspace", command_line(), {"dims": dims, "population": population, "pairs": count}, used
    )
    typer.echo(f"{output} and {card.write(output, time.monotonic() - began)}")


@app.command()
def mapper(
    output: Annotated[Path, typer.Option("--output", "-o", help="The safetensors file.")],
    subspace: Annotated[
        Path,
        typer.Option(
            help="The identity subspace: of `anonymix train subspace`, or in a file of mixer weights."
        ),
    ],
    count: PairCount = 3500,
    folder: PairsFolder = PAIRS,
    generator: OwnGenerator = None,
    children: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help='JSON like {"children": [26, 53]}: pairs that show a child. The shipped marks are about '
            "MobileStyleGAN's pairs only.",
            show_default=False,
        ),
    ] = None,
    keyed_dims: Annotated[int, typer.Option(help="Dimensions that keys turn people into.", min=2)] = 64,
    reach: Annotated[float, typer.Option(help="Length of a person's part of a style vector.")] = 7.0,
    steps: Annotated[
        int, typer.Option(help="Steps of tuning through the generator; 0 leaves the linear map.", min=0)
    ] = 420,
    batch: Annotated[int, typer.Option(help="People a step of tuning, three faces each.", min=2)] = 6,
    examples: Annotated[int, typer.Option(help="Faces that the student learns from.", min=60)] = 700,
    work: Annotated[Path, typer.Option(help="Where unfinished work, the student and the log go.")] = Path(
        "out/mapper"
    ),
    seed: Annotated[int, typer.Option(help="Seed of tuning.")] = 3,
    threads: Threads = 2,
) -> None:
    """Learn the identity map: from a person's keyed code to a face that recognisers tell apart as well.

    First a linear map by regression on drawn pairs, then its tuning through the generator and the
    recognisers. Interrupted, it goes on from the work folder.
    """
    import torch

    from anonymix_plugin.mixer.subspace import IdentitySubspace
    from anonymix_plugin.training.card import RunCard
    from anonymix_plugin.training.mapper import SHIPPED_MARKS, MapperRecipe, train_linear_map
    from anonymix_plugin.training.student import FeatureGenerator, StudentRecipe
    from anonymix_plugin.training.tuning import TuningRecipe

    began = time.monotonic()
    torch.set_num_threads(threads)
    source = reference_generator(generator)
    if steps and not isinstance(source, FeatureGenerator):
        raise UsageError(
            f"{source.name} can't be tuned through: its inner features are not to be had",
            where="--generator",
            fix="leave the linear map: --steps 0",
        )
    recipe = MapperRecipe(pairs=count, keyed_dims=keyed_dims, reach=reach)
    passed = IdentitySubspace.read(subspace)
    output.parent.mkdir(parents=True, exist_ok=True)
    settings: dict[str, object] = {"linear map": recipe}
    card = RunCard("Identity map and subspace", command_line(), settings)
    with bars() as bar:
        weights, fitted = train_linear_map(
            source, embedder(), folder, passed, recipe, staged(bar), children or SHIPPED_MARKS
        )
        card.used = {"generator": weights.generator_hash, "drawn faces of the linear map": str(fitted)}
        if steps:
            student, tuning = (
                StudentRecipe(examples=examples),
                TuningRecipe(steps=steps, people=batch, seed=seed),
            )
            settings |= {"student": student, "tuning": tuning}
            weights = _tuned(bar, source, weights, student, tuning, work, threads, card)
    weights.save(output, {"settings": json.dumps({k: repr(v) for k, v in settings.items()}), **card.used})
    typer.echo(f"{output} and {card.write(output, time.monotonic() - began)}")


def _tuned(
    bar: Progress,
    source: Generator,
    weights: MixerWeights,
    student: StudentRecipe,
    tuning: TuningRecipe,
    work: Path,
    threads: int,
    card: RunCard,
) -> MixerWeights:
    """Train the student and tune the map through it; figures go to the bar's console and the card."""
    import numpy as np

    from anonymix_plugin.faces import YuNet
    from anonymix_plugin.generator import ArrayGenerator, load_generator
    from anonymix_plugin.models import locate
    from anonymix_plugin.recognisers import load_recogniser, torch_recogniser
    from anonymix_plugin.training.student import FeatureGenerator, make_student
    from anonymix_plugin.training.tuning import tune

    names = ("arcface-mbf", "sface")
    report = staged(bar)

    def say(text: str) -> None:
        bar.console.print(text)
        card.figures.append(f"- {text}")

    def drawn(stage: str, done: int, total: int, figures: Mapping[str, float]) -> None:
        if figures:
            values = ", ".join(f"{name} {value:.3f}" for name, value in figures.items())
            say(f"head, epoch {done}: held-out {values}")
        report(stage, done, total)

    recent: list[TuningStep] = []

    def tuned(step: TuningStep) -> None:
        recent.append(step)
        if (step.step + 1) % 50 == 0:
            parts = [
                f"{name} same {np.mean([s.same[name][0] for s in recent]):.3f}, "
                f"others {np.mean([s.others[name][0] for s in recent]):.3f}, "
                f"d' {np.mean([s.separation(name) for s in recent]):.2f}"
                for name in step.same
            ]
            loss = np.mean([s.loss for s in recent])
            say(f"tuning, steps to {step.step + 1}: loss {loss:.3f}; {'; '.join(parts)}")
            recent.clear()
        report("tuning", step.step + 1, tuning.steps)

    drawer = load_generator(threads=threads)
    if not (isinstance(source, FeatureGenerator) and isinstance(drawer, ArrayGenerator)):
        raise UsageError("this generator can't be tuned through", fix="leave the linear map: --steps 0")
    made = make_student(
        drawer,
        source,
        weights,
        YuNet(locate("yunet")),
        {name: load_recogniser(name) for name in names},
        {name: torch_recogniser(name) for name in names},
        student,
        work,
        drawn,
    )
    return tune(made, source, weights, tuning, work, tuned)
