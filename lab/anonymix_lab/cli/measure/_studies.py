"""`anonymix measure dimensions | encoder | leak | quality`: studies of the parts that are trained."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from anonymix_lab.cli._common import (
    PAIRS,
    JsonFile,
    PairsFolder,
    PeopleFolder,
    bars,
    embedder,
    staged,
    write_json,
)
from anonymix_lab.cli.measure._app import app
from anonymix_plugin.cli.options import takes_photos


@app.command()
@takes_photos
def dimensions(
    people: PeopleFolder,
    lfw: Annotated[Path, typer.Option(help="Folder of Labeled Faces in the Wild.")],
    folds: Annotated[str, typer.Option(help="Folds of its view 2 that are learned from.")] = "1-5",
    folder: PairsFolder = PAIRS,
    dims: Annotated[str, typer.Option(help="Counts of dimensions, separated by commas.")] = (
        "8,12,16,24,32,48,64,96,128"
    ),
    ridge: Annotated[
        float, typer.Option(help="Added to the scatter within people, in mean eigenvalues.", min=0.0)
    ] = 2.0,
    output: JsonFile = None,
) -> None:
    """Measure accuracy, and what a thief could rebuild, by the number of dimensions of the subspace.

    The pairs of LFW's view 1 whose people were not learned from rate each number of dimensions.
    """
    from dataclasses import asdict

    import numpy as np
    from rich.table import Table

    from anonymix_lab.data import parse_folds
    from anonymix_lab.studies.dimensions import PARTS, PhotoPairs, dims_curve, read_view1_pairs
    from anonymix_lab.training.embedding import embed_files
    from anonymix_lab.training.street import embed_street, street_people
    from anonymix_plugin.errors import UsageError
    from anonymix_plugin.verification import THRESHOLDS

    try:
        counts = [int(word) for word in dims.split(",")]
    except ValueError as error:
        raise UsageError(f"{dims!r} is no list of numbers", where="--dims", fix="8,16,24") from error
    chosen = parse_folds(folds)
    known = {path.parent.name for path in street_people(lfw, chosen).paths}
    rows = [
        row
        for listing in ("pairsDevTrain.txt", "pairsDevTest.txt")
        for row in read_view1_pairs(lfw, listing)
        if not {row[0].parent.name, row[1].parent.name} & known
    ]
    places = sorted({path for one, other, _ in rows for path in (one, other)})
    folder.mkdir(parents=True, exist_ok=True)
    with bars() as bar:
        report = staged(bar)
        learned = embed_street(embedder(), embedder("central"), people, lfw, chosen, folder, report)
        judged, seen = embed_files(
            embedder("central"),
            places,
            folder / f"view1-without-{'-'.join(map(str, chosen))}.npz",
            lambda done, total: report("view 1", done, total),
        )
    number = {path: i for i, path in enumerate(places)}
    usable = [(number[one], number[other], same) for one, other, same in rows]
    usable = [row for row in usable if seen[row[0]] and seen[row[1]]]
    first, second, same = (np.array(column) for column in zip(*usable, strict=True))
    pairs = PhotoPairs(judged, first, second, same)
    limits = {name: THRESHOLDS[name]["fmr-0.1%"] for name in PARTS}
    folk = np.arange(len(learned.who)) < learned.of_folder
    points = {
        source: dims_curve(counts, learned.photos[use], learned.who[use], others, pairs, limits, scatter_ridge=ridge)
        for source, use, others in (
            ("people of the folder", folk, None),
            ("those and people of LFW", np.ones_like(folk), learned.others),
        )
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
    write_json(output, {source: [asdict(point) for point in walked] for source, walked in points.items()})


@app.command()
@takes_photos
def encoder(
    photos: Annotated[list[Path], typer.Argument(help="Photos, or folders of photos.")],
    limit: Annotated[int, typer.Option(help="Photos at most, spread evenly.", min=10)] = 204,
    output: JsonFile = None,
) -> None:
    """Measure how well the shipped encoder reads photos: pixels, perception, identity, pose, light."""
    from dataclasses import asdict

    from anonymix_lab.studies.reconstruction import measure_reconstruction
    from anonymix_plugin.encoder import load_encoder
    from anonymix_plugin.faces import YuNet
    from anonymix_plugin.generator import load_generator
    from anonymix_plugin.mixer.refine.attributes import load_attribute_distance
    from anonymix_plugin.mixer.weights import load_mixer_weights
    from anonymix_plugin.models import locate
    from anonymix_plugin.recognisers import load_recogniser

    found = [path for place in photos for path in (sorted(place.rglob("*.jpg")) if place.is_dir() else [place])]
    chosen = found[:: max(1, -(-len(found) // limit))]
    with bars() as bar:
        report = staged(bar)
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
    typer.echo(write_json(output, asdict(result)))


@app.command()
@takes_photos
def leak(
    photos: Annotated[Path, typer.Argument(help="Folder with NAME_neutral.jpg and NAME_smiling.jpg.")],
    limit: Annotated[int, typer.Option(help="People at most, the first ones.", min=3)] = 102,
    seed: Annotated[int, typer.Option(help="Of the keys, which are for this alone.")] = 1,
    output: JsonFile = None,
) -> None:
    """Measure how much of a person an encoder reads back from a protected face, layer group by layer group.

    The paper's layer swap beside the three policies; the encoder is the shipped one.
    """
    from contextlib import ExitStack
    from dataclasses import asdict

    from rich.table import Table

    from anonymix_lab.data.keys import SeededKeys
    from anonymix_lab.protections import LayerSwap, MixerProtection, Protection
    from anonymix_lab.studies.leak import measure_leak
    from anonymix_lab.studies.london import london_photos
    from anonymix_plugin import Anonymixer
    from anonymix_plugin.encoder import load_encoder
    from anonymix_plugin.faces import YuNet
    from anonymix_plugin.mixer.policy import AttributePolicy, MixingPolicy
    from anonymix_plugin.mixer.weights import load_mixer_weights
    from anonymix_plugin.models import locate

    people, keys = london_photos(photos, limit), SeededKeys(seed)
    detector, reader = YuNet(locate("yunet")), load_encoder()
    with ExitStack() as stack, bars() as bar:
        report = staged(bar)
        mixers = {
            kept: stack.enter_context(Anonymixer(keys, policy=MixingPolicy(attributes=kept)))
            for kept in AttributePolicy
        }
        generator = mixers[AttributePolicy.NONE].generator
        tried: list[Protection] = [
            LayerSwap(detector, reader, generator, load_mixer_weights().centre, keys, seed),
            *(MixerProtection(it, seed, title=f"Anonymix, {kept.value}") for kept, it in mixers.items()),
        ]
        figures = measure_leak(people, reader, detector, tried, lambda done, total: report("faces", done, total))
    table = Table("protection", "layers", "found by the same photo", "by another photo", "similarity", "strangers")
    for title, groups in figures.leaks.items():
        for group in groups:
            found = (f"{group.same_photo:.1%}", f"{group.other_photo:.1%}")
            table.add_row(title, group.group, *found, f"{group.similarity:.2f}", f"{group.strangers:.2f}")
    console = Console()
    console.print(table)
    console.print(f"{figures.people} people; blind guessing finds {1 / figures.people:.1%}.")
    for title, count in figures.failures.items():
        if count:
            console.print(f"{title}: {count} people fell out, because no face could be made or found.")
    write_json(output, asdict(figures))


@app.command()
@takes_photos
def quality(
    people: Annotated[Path, typer.Argument(help="Folder with one sub-folder of photos per person.")],
    limit: Annotated[int, typer.Option(help="People at most, spread evenly.", min=2)] = 160,
    output: JsonFile = None,
) -> None:
    """Measure what the quality gate refuses: photos that are blurred, small, covered, dark, noisy."""
    from dataclasses import asdict

    from rich.table import Table

    from anonymix_lab.studies.quality_gate import measure_gate, pairs_of_people
    from anonymix_plugin.faces import YuNet
    from anonymix_plugin.mixer.weights import load_mixer_weights
    from anonymix_plugin.models import locate
    from anonymix_plugin.quality import LEAST_QUALITY
    from anonymix_plugin.recognisers import ArcFace, SFace

    with bars() as bar:
        report = staged(bar)
        figures = measure_gate(
            pairs_of_people(people, limit),
            YuNet(locate("yunet")),
            ArcFace(locate("arcface-mbf")),
            SFace(locate("sface")),
            load_mixer_weights().subspace,
            LEAST_QUALITY,
            lambda done, total: report("people", done, total),
        )
    table = Table("photo", "face found", "quality", "similarity of codes", f"refused at {LEAST_QUALITY}")
    for row in figures.spoilt:
        table.add_row(row.name, f"{row.found:.0%}", f"{row.quality:.2f}", f"{row.similarity:.2f}", f"{row.refused:.0%}")
    console = Console()
    console.print(table)
    table = Table("limit", "ordinary photos refused", "unusable among those that pass")
    for discard in figures.discard:
        table.add_row(f"{discard.limit:.2f}", f"{discard.ordinary_refused:.1%}", f"{discard.unusable_left:.1%}")
    console.print(table)
    write_json(output, asdict(figures))
