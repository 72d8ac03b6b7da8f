"""`anonymix train mapper`."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from anonymix_lab.cli._common import (
    PAIRS,
    OwnGenerator,
    PairCount,
    PairsFolder,
    Threads,
    bars,
    command_line,
    embedder,
    reference_generator,
    staged,
)
from anonymix_lab.cli.train._app import app
from anonymix_lab.cli.train._pairs import need_pairs
from anonymix_lab.cli.train._student import Teaching, make_or_read, say, whole_reader
from anonymix_plugin.errors import UsageError

if TYPE_CHECKING:
    from rich.progress import Progress

    from anonymix_lab.training.card import RunCard
    from anonymix_lab.training.student import StudentRecipe
    from anonymix_lab.training.tuning import CodeReader, StreetCodes, TuningRecipe, TuningStep
    from anonymix_lab.training.whole import Disturbance
    from anonymix_plugin.generator import Generator
    from anonymix_plugin.mixer.subspace import IdentitySubspace
    from anonymix_plugin.mixer.weights import MixerWeights


_SEEN_LAYERS = 13  # `examples.SEEN_LAYERS`, which loads torch


@app.command()
def mapper(
    output: Annotated[Path, typer.Option("--output", "-o", help="The safetensors file.")],
    subspace: Annotated[
        Path,
        typer.Option(help="The identity subspace: of `anonymix train subspace`, or in a file of mixer weights."),
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
    start: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Mixer weights with a map to go on from: no linear map is fitted, no pairs are needed. "
            "With --steps 0, they get another subspace.",
            show_default=False,
        ),
    ] = None,
    keyed_dims: Annotated[
        int,
        typer.Option(help="Dimensions that keys turn people into. A map to go on from is cut down to so many.", min=2),
    ] = 64,
    reach: Annotated[float, typer.Option(help="Length of a person's part of a style vector.", min=0.1)] = 7.0,
    steps: Annotated[
        int, typer.Option(help="Steps of tuning through the generator; 0 leaves the linear map.", min=0)
    ] = 700,
    batch: Annotated[
        int | None,
        typer.Option(
            help="People a step of tuning, three faces each: 6 through a student, 8 under each of two keys through "
            "the small generator, and 32 on a GPU.",
            min=2,
            show_default=False,
        ),
    ] = None,
    device: Annotated[
        str,
        typer.Option(
            help='"cpu": tune through a student of the generator, or through the small generator itself. "cuda": '
            "through the generator itself, on from a map that was tuned before."
        ),
    ] = "cpu",
    teachers: Annotated[
        str,
        typer.Option(
            help="Recognisers that are learned from, separated by commas: arcface-mbf, sface and, not through a "
            "student, faceres, which `make teacher` fetches."
        ),
    ] = "arcface-mbf,sface",
    street: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Codes of photos, made by `anonymix measure gpu --prepare`, for --street-share.",
            show_default=False,
        ),
    ] = None,
    street_share: Annotated[
        float, typer.Option(help="Share of a step's people whose codes are those of photos.", min=0, max=1)
    ] = 0.0,
    hard: Annotated[
        float, typer.Option(help="Share of the pairs, the hardest, that make half of the loss.", min=0.001, max=1)
    ] = 1.0,
    keys: Annotated[
        int | None, typer.Option(help="Keys a step: 1 through a student, else 2.", min=1, show_default=False)
    ] = None,
    layers: Annotated[
        int,
        typer.Option(
            help="Style inputs that a person moves: 13 reach to 64 px, 16 to 128 px (not through a student).", min=5
        ),
    ] = _SEEN_LAYERS,
    wider: Annotated[
        float,
        typer.Option(
            help="Not through a student: greatest share by which crops are wider, as those of boxes are.", min=0
        ),
    ] = 0.0,
    half: Annotated[
        bool,
        typer.Option("--bfloat16", help="Draw in bfloat16 while learning (not through a student)."),
    ] = False,
    examples: Annotated[
        int, typer.Option(help="Faces that the student, or the guess of landmarks, learns from.", min=60)
    ] = 1000,
    work: Annotated[Path, typer.Option(help="Where unfinished work, the student and the log go.")] = Path("out/mapper"),
    seed: Annotated[int, typer.Option(help="Seed of tuning.")] = 3,
    threads: Threads = 2,
) -> None:
    """Learn the identity map: from a person's keyed code to a face that recognisers tell apart as well.

    First a linear map by regression on drawn pairs (or a map that was tuned before, by --start), then its
    tuning through the generator and the recognisers. Interrupted, it goes on from the work folder. On a GPU
    (--device cuda), and through the small generator (--generator small), no step is taken through a student:
    whole faces are drawn.
    """
    import torch

    from anonymix_lab.training.card import RunCard
    from anonymix_lab.training.examples import FeatureGenerator
    from anonymix_lab.training.mapper import SHIPPED_MARKS, MapperRecipe, train_linear_map
    from anonymix_lab.training.student import StudentRecipe
    from anonymix_lab.training.tuning import TuningRecipe, whole_recipe
    from anonymix_lab.training.whole import Disturbance
    from anonymix_plugin.mixer.subspace import IdentitySubspace

    whole = device != "cpu" or str(generator) == "small"
    names = tuple(name.strip() for name in teachers.split(","))
    _check(device, start, layers, wider, half, names, street_share, street, whole=whole)
    began = time.monotonic()
    torch.set_num_threads(threads)
    source = reference_generator(generator)
    if steps and not whole and not isinstance(source, FeatureGenerator):
        raise UsageError(
            f"{source.name} can't be tuned through: its inner features are not to be had",
            where="--generator",
            fix="leave the linear map: --steps 0",
        )
    recipe = MapperRecipe(pairs=count, keyed_dims=keyed_dims, reach=reach)
    passed = IdentitySubspace.read(subspace)
    codes = None if street is None else _street_codes(street)
    output.parent.mkdir(parents=True, exist_ok=True)
    settings: dict[str, object] = {"linear map": recipe}
    card = RunCard("Identity map and subspace", command_line(), settings)
    with bars() as bar:
        if start is not None:
            weights = _started(start, passed, source)
            card.used = {"a map that was tuned before": f"SHA-256 {weights.sha256}"}
        else:
            need_pairs(folder, count, source)
            weights, fitted = train_linear_map(
                source, embedder(), folder, passed, recipe, staged(bar), children or SHIPPED_MARKS
            )
            card.used = {"drawn faces of the linear map": str(fitted)}
        card.used |= {"generator": weights.generator_hash}
        if passed.dims > weights.keyed_dims or (steps and passed.dims > keyed_dims):
            raise UsageError(
                f"{passed.dims} numbers of a person don't fit into {min(keyed_dims, weights.keyed_dims)} "
                "keyed dimensions",
                where=str(subspace),
                fix="take a subspace of fewer numbers, or raise --keyed-dims",
            )
        if steps:
            student = StudentRecipe(examples=examples)
            disturbance = Disturbance(wider=wider) if whole else None
            if whole:
                people = batch or (8 if device == "cpu" else 32)
                tuning = whole_recipe(steps=steps, people=people, dims=passed.dims, seed=seed)
                settings |= {
                    "faces that say where landmarks lie": f"{student.examples}, seed {student.seed}",
                    "disturbance": disturbance,
                    "drawn in bfloat16": half,
                }
            else:
                tuning = TuningRecipe(steps=steps, people=batch or 6, dims=passed.dims, seed=seed)
                settings["student"] = student
            tuning = replace(
                tuning, street=street_share, hard=hard, layers=layers, keys_a_step=keys or tuning.keys_a_step
            )
            settings |= {"tuning": tuning, "keyed dimensions": keyed_dims, "teachers": teachers}
            through = Teaching(names, work, threads, device)
            weights = _tuned(bar, source, weights, student, tuning, disturbance, keyed_dims, through, card, codes, half)
    weights.save(output, {"settings": json.dumps({k: repr(v) for k, v in settings.items()}), **card.used})
    typer.echo(f"{output} and {card.write(output, time.monotonic() - began)}")


def _started(start: Path, passed: IdentitySubspace, source: Generator) -> MixerWeights:
    """The weights to go on from, with another subspace.

    Raises:
        UsageError: They were learned for another generator.
    """
    from anonymix_plugin.assembly import bound
    from anonymix_plugin.mixer.weights import load_mixer_weights

    weights = bound(replace(load_mixer_weights(start), subspace=passed), source)
    if weights.generator_hash != source.weights_hash():
        raise UsageError(
            f"the map was learned for another generator than {source.name}",
            where=str(start),
            fix="leave --start out, and train one for yours",
        )
    return weights


def _tuned(
    bar: Progress,
    source: Generator,
    weights: MixerWeights,
    student: StudentRecipe,
    tuning: TuningRecipe,
    disturbance: Disturbance | None,
    keyed_dims: int,
    through: Teaching,
    card: RunCard,
    street: StreetCodes | None,
    half: bool,
) -> MixerWeights:
    """Tune the map through a student, or through whole faces; figures go to the bar's console and the card."""
    import numpy as np

    from anonymix_lab.training.tuning import tune, visible

    report = staged(bar)
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
            say(bar, card, f"tuning, steps to {step.step + 1}: loss {loss:.3f}; {'; '.join(parts)}")
            recent.clear()
        report("tuning", step.step + 1, tuning.steps)

    if disturbance is None:
        made: CodeReader = make_or_read(bar, source, weights, student, through, card)
    else:
        made = whole_reader(bar, source, weights, student, disturbance, through, layers=tuning.layers, half=half)
    if keyed_dims < weights.keyed_dims:
        weights = visible(
            made, source, weights, keyed_dims, lambda done, total: report("visible directions", done, total)
        )
    return tune(made, source, weights, tuning, through.work, tuned, street=street)


def _check(
    device: str,
    start: Path | None,
    layers: int,
    wider: float,
    half: bool,
    teachers: tuple[str, ...],
    street_share: float,
    street: Path | None,
    *,
    whole: bool,
) -> None:
    """Refuse options that don't go together, before anything is loaded."""
    from anonymix_lab.machine import require_gpu
    from anonymix_lab.training.teachers import check_teachers

    if device != "cpu":
        require_gpu(device)
    if whole and start is None:
        raise UsageError(
            "through whole faces a map that was tuned before is tuned on",
            where="--device" if device != "cpu" else "--generator",
            fix="name its weights: --start FILE",
        )
    if not whole and (layers != _SEEN_LAYERS or wider or half or "faceres" in teachers):
        raise UsageError(
            "the student sees 13 style inputs, cuts no wider crops, computes in float32 and knows no FaceRes",
            where="--layers, --wider, --bfloat16, --teachers",
            fix="leave them out, or tune through whole faces: --generator small, or --device cuda",
        )
    if street_share and street is None:
        raise UsageError("there are no codes of photos", where="--street-share", fix="name them: --street FILE")
    check_teachers(teachers)


def _street_codes(path: Path) -> StreetCodes:
    """The codes of photos in a file of `anonymix measure gpu --prepare`."""
    from anonymix_lab.gpu import Carried
    from anonymix_lab.training.tuning import StreetCodes

    carried = Carried.read(path)
    return StreetCodes(carried.street, carried.street_who)
