"""`anonymix train`: make the weights that the project ships again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
    population: Annotated[
        bool, typer.Option("--population", help="Let drawn faces tell the subspace how people differ.")
    ] = False,
) -> None:
    """Fit the mixer's weights: identity subspace on photos of people, identity map on drawn pairs."""
    from anonymix_plugin.faces import YuNet
    from anonymix_plugin.models import locate
    from anonymix_plugin.recognisers import load_recogniser
    from anonymix_plugin.training.mapper import SHIPPED_MARKS, Embedder, MapperRecipe, train_mapper

    embedder = Embedder(YuNet(locate("yunet")), load_recogniser("arcface-mbf"), load_recogniser("sface"))
    recipe = MapperRecipe(pairs=count, dims=dims, keyed_dims=keyed_dims, reach=reach, population=population)
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


@app.command()
def curve(
    people: Annotated[Path, typer.Option(help="Folder with one sub-folder of photos per person.")],
    lfw: Annotated[Path, typer.Option(help="Folder of Labeled Faces in the Wild, whose view 1 judges.")],
    folder: _Folder = _PAIRS,
    count: _Count = 3500,
    dims: Annotated[str, typer.Option(help="Counts of dimensions, separated by commas.")] = (
        "8,12,16,24,32,48,64,96,128"
    ),
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Where JSON goes.")] = None,
) -> None:
    """Walk along the numbers of a person that pass: accuracy against what a thief could rebuild."""
    import json
    from dataclasses import asdict

    import numpy as np
    from rich.table import Table

    from anonymix_plugin.errors import UsageError
    from anonymix_plugin.faces import YuNet
    from anonymix_plugin.models import locate
    from anonymix_plugin.recognisers import load_recogniser
    from anonymix_plugin.training.curve import PARTS, PhotoPairs, dims_curve, read_view1_pairs
    from anonymix_plugin.training.mapper import Embedder, embed_files, people_of
    from anonymix_plugin.training.pairs import pair_path
    from anonymix_plugin.verification import THRESHOLDS

    try:
        counts = [int(word) for word in dims.split(",")]
    except ValueError as error:
        raise UsageError(f"{dims!r} is no list of numbers", where="--dims", fix="8,16,24") from error
    detector, arcface, sface = (
        YuNet(locate("yunet")),
        load_recogniser("arcface-mbf"),
        load_recogniser("sface"),
    )
    embedder = Embedder(detector, arcface, sface)
    rows = read_view1_pairs(lfw)
    places = sorted({path for one, other, _ in rows for path in (one, other)})
    folder.mkdir(parents=True, exist_ok=True)
    with _progress() as bar:
        report = _staged(bar)

        def embedded(stage: str, paths: list[Path], cache: str, by: Embedder = embedder) -> Any:
            return embed_files(by, paths, folder / cache, lambda done, total: report(stage, done, total))

        drawn, found = embedded("pairs", [pair_path(folder, i) for i in range(count)], "embeddings.npy")
        paths, who = people_of(people)
        photos, shown = embedded("people", paths, "people.npy")
        judged, seen = embedded("view 1", places, "view1.npy", Embedder(detector, arcface, sface, "central"))
    number = {path: i for i, path in enumerate(places)}
    usable = [(number[one], number[other], same) for one, other, same in rows]
    usable = [row for row in usable if seen[row[0]] and seen[row[1]]]
    first, second, same = (np.array(column) for column in zip(*usable, strict=True))
    pairs = PhotoPairs(judged, first, second, same)
    limits = {name: THRESHOLDS[name]["fmr-0.1%"] for name in PARTS}
    points = {
        source: dims_curve(counts, photos[shown], who[shown], population, pairs, limits)
        for source, population in (("people", None), ("people and drawn faces", drawn[found]))
    }
    table = Table("learned on", "dims", "EER of codes", "strangers' spread", "rebuilt", *PARTS)
    for source, walked in points.items():
        for point in walked:
            accepted = [f"{point.accepted[name]:.1%}" for name in PARTS]
            values = (f"{point.eer:.4f}", f"{point.spread:.2f}", f"{point.rebuilt:.2f}")
            table.add_row(source, str(point.dims), *values, *accepted)
    console = Console()
    console.print(table)
    console.print(f"{len(usable)} of {len(rows)} pairs of view 1; a face was found in both photos of these.")
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        kept = {source: [asdict(point) for point in walked] for source, walked in points.items()}
        output.write_text(json.dumps(kept, indent=2) + "\n")


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
