"""`anonymix train`: make the weights that the project ships again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from collections.abc import Callable

    from anonymix_plugin.generator import Generator

app = typer.Typer(no_args_is_help=True, help="Train the weights that the project ships, on CPU.")

_Folder = Annotated[Path, typer.Option("--pairs", help="Folder with the drawn pairs.")]
_Count = Annotated[int, typer.Option(help="How many pairs.", min=100)]
_Threads = Annotated[int, typer.Option(help="CPU threads.", min=1)]
_Generator = Annotated[
    Path | None,
    typer.Option(
        "--generator",
        metavar="FILE",
        help="A StyleGAN2 checkpoint of your own in the place of MobileStyleGAN.",
        show_default=False,
    ),
]
_PAIRS = Path("out/pairs")


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )


def _staged(bar: Progress) -> Callable[[str, int, int], None]:
    tasks: dict[str, TaskID] = {}

    def report(stage: str, done: int, total: int) -> None:
        if stage not in tasks:
            tasks[stage] = bar.add_task(stage, total=total)
        bar.update(tasks[stage], completed=done)

    return report


def _reference(file: Path | None) -> Generator:
    """The generator on torch: what maps codes, and draws where gradients are wanted."""
    from anonymix_plugin.generator import load_reference_generator
    from anonymix_plugin.generator.stylegan2 import load_stylegan2

    return load_reference_generator() if file is None else load_stylegan2(file)


@app.command()
def pairs(
    count: _Count = 3500,
    folder: _Folder = _PAIRS,
    generator: _Generator = None,
    seed: Annotated[int, typer.Option(help="Seed that names the series.")] = 1,
    threads: _Threads = 2,
) -> None:
    """Draw pairs of latent code and picture; goes on where an earlier run stopped."""
    from anonymix_plugin.generator import load_generator
    from anonymix_plugin.generator.stylegan2_engines import load_own_generator
    from anonymix_plugin.training.pairs import draw_pairs

    own = None if generator is None else load_own_generator(generator, threads=threads)
    with _progress() as bar:
        report = _staged(bar)
        for number in draw_pairs(own or load_generator(threads=threads), folder, range(count), seed=seed):
            report("drawing", number + 1, count)


@app.command()
def encoder(
    output: Annotated[Path, typer.Option("--output", "-o", help="The safetensors file.")],
    count: _Count = 3500,
    folder: _Folder = _PAIRS,
    generator: _Generator = None,
    epochs: Annotated[int, typer.Option(help="Passes over the pairs.", min=1)] = 20,
    seed: Annotated[int, typer.Option(help="Seed of weights, order and changes.")] = 7,
    threads: _Threads = 2,
) -> None:
    """Train the encoder from photo to style vectors on drawn pairs."""
    import torch

    from anonymix_plugin.training.encoder import EncoderRecipe, train_encoder

    torch.set_num_threads(threads)
    recipe = EncoderRecipe(pairs=count, epochs=epochs, seed=seed)
    with _progress() as bar:
        task = bar.add_task("epochs", total=epochs)

        def report(epoch: int, loss: float, explained: tuple[float, float, float]) -> None:
            shares = ", ".join(f"{share:.3f}" for share in explained)
            bar.console.print(f"epoch {epoch}: loss {loss:.4f}, held-out variance explained {shares}")
            bar.update(task, completed=epoch)

        train_encoder(_reference(generator), folder, recipe, output, report)


@app.command()
def mapper(
    output: Annotated[Path, typer.Option("--output", "-o", help="The safetensors file.")],
    people: Annotated[Path, typer.Option(help="Folder with one sub-folder of photos per person.")],
    count: _Count = 3500,
    folder: _Folder = _PAIRS,
    generator: _Generator = None,
    children: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help='JSON like {"children": [26, 53]}: pairs that show a child. The shipped marks are about '
            "MobileStyleGAN's pairs only.",
            show_default=False,
        ),
    ] = None,
    dims: Annotated[int, typer.Option(help="Numbers of a person that pass.", min=2)] = 24,
    keyed_dims: Annotated[int, typer.Option(help="Dimensions that keys turn them into.", min=2)] = 48,
    reach: Annotated[float, typer.Option(help="Length of a person's part of a style vector.")] = 7.0,
) -> None:
    """Fit the mixer's weights: identity subspace on photos of people, identity map on drawn pairs."""
    from anonymix_plugin.faces import YuNet
    from anonymix_plugin.models import locate
    from anonymix_plugin.recognisers import load_recogniser
    from anonymix_plugin.training.mapper import SHIPPED_MARKS, Embedder, MapperRecipe, train_mapper

    embedder = Embedder(YuNet(locate("yunet")), load_recogniser("arcface-mbf"), load_recogniser("sface"))
    recipe = MapperRecipe(pairs=count, dims=dims, keyed_dims=keyed_dims, reach=reach)
    with _progress() as bar:
        train_mapper(
            _reference(generator),
            embedder,
            folder,
            people,
            recipe,
            output,
            _staged(bar),
            children or SHIPPED_MARKS,
        )


@app.command("measure-encoder")
def measure_encoder(
    photos: Annotated[list[Path], typer.Argument(help="Photos, or folders of photos.")],
    limit: Annotated[int, typer.Option(help="Photos at most, spread evenly.", min=10)] = 204,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Where JSON goes.")] = None,
) -> None:
    """Measure how well the shipped encoder reads photos: pixels, perception, identity, pose, light."""
    import json
    from dataclasses import asdict

    from anonymix_plugin.encoder import load_encoder
    from anonymix_plugin.evaluation.reconstruction import measure_reconstruction
    from anonymix_plugin.faces import YuNet
    from anonymix_plugin.generator import load_generator
    from anonymix_plugin.mixer.attributes import load_attribute_distance
    from anonymix_plugin.mixer.weights import load_mixer_weights
    from anonymix_plugin.models import locate
    from anonymix_plugin.recognisers import load_recogniser

    found = [
        path for place in photos for path in (sorted(place.rglob("*.jpg")) if place.is_dir() else [place])
    ]
    chosen = found[:: max(1, -(-len(found) // limit))]
    with _progress() as bar:
        report = _staged(bar)
        result = measure_reconstruction(
            chosen,
            load_encoder(),
            load_generator(),
            YuNet(locate("yunet")),
            load_attribute_distance(),
            [load_recogniser(name) for name in ("facenet", "arcface-mbf")],
            load_mixer_weights().centre,
            lambda done, total: report("photos", done, total),
        )
    text = json.dumps(asdict(result), indent=2)
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(text + "\n")
    typer.echo(text)


@app.command("measure-quality")
def measure_quality(
    people: Annotated[Path, typer.Argument(help="Folder with one sub-folder of photos per person.")],
    limit: Annotated[int, typer.Option(help="People at most, spread evenly.", min=2)] = 160,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Where JSON goes.")] = None,
) -> None:
    """Measure what the quality gate refuses: photos that are blurred, small, covered, dark, noisy."""
    import json
    from dataclasses import asdict

    from rich.table import Table

    from anonymix_plugin.evaluation.gate import measure_gate, pairs_of_people
    from anonymix_plugin.faces import YuNet
    from anonymix_plugin.mixer.weights import load_mixer_weights
    from anonymix_plugin.models import locate
    from anonymix_plugin.quality import LEAST_QUALITY
    from anonymix_plugin.recognisers import ArcFace, SFace

    with _progress() as bar:
        report = _staged(bar)
        figures = measure_gate(
            pairs_of_people(people, limit),
            YuNet(locate("yunet")),
            ArcFace(locate("arcface-mbf")),
            SFace(locate("sface")),
            load_mixer_weights().subspace,
            LEAST_QUALITY,
            lambda done, total: report("people", done, total),
        )
    table = Table("photo", "face found", "quality", "likeness of codes", f"refused at {LEAST_QUALITY}")
    for row in figures.spoilt:
        table.add_row(
            row.name, f"{row.found:.0%}", f"{row.quality:.2f}", f"{row.likeness:.2f}", f"{row.refused:.0%}"
        )
    console = Console()
    console.print(table)
    table = Table("limit", "ordinary photos refused", "unusable among those that pass")
    for discard in figures.discard:
        table.add_row(
            f"{discard.limit:.2f}", f"{discard.ordinary_refused:.1%}", f"{discard.unusable_left:.1%}"
        )
    console.print(table)
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(json.dumps(asdict(figures), indent=2) + "\n")
