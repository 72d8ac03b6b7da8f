"""`anonymix measure codes | guiding | enrolment`: codes of people, what guides them, and from how many photos."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from anonymix_lab.cli._common import PAIRS, JsonFile, PairsFolder, PeopleFolder, bars, embedder, staged, write_json
from anonymix_lab.cli.measure._app import app
from anonymix_plugin.cli.options import takes_photos

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from anonymix_lab.studies.codes import Array, Compared, Integers
    from anonymix_lab.studies.guiding import Answers
    from anonymix_plugin.generator import Generator
    from anonymix_plugin.mixer.subspace import IdentitySubspace
    from anonymix_plugin.mixer.weights import MixerWeights

    Truths = npt.NDArray[np.bool_]

LfwFolder = Annotated[Path, typer.Option(help="Folder of Labeled Faces in the Wild.")]


@app.command()
@takes_photos
def codes(
    lfw: Annotated[Path, typer.Argument(metavar="LFW", help="Folder of Labeled Faces in the Wild.")],
    folds: Annotated[
        str, typer.Option(help="Folds of its view 2 to measure on: none that were learned from.")
    ] = "6-10",
    subspace: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Of `anonymix train subspace`; the shipped one by default.", show_default=False
        ),
    ] = None,
    enrolled: Annotated[str, typer.Option(help="From how many photos people are enrolled, separated by commas.")] = (
        "1,2,3,5"
    ),
    mirrored: Annotated[
        bool, typer.Option("--mirrored", help="Read each photo and its mirror image. The mixer does not.")
    ] = False,
    folder: PairsFolder = PAIRS,
    output: JsonFile = None,
) -> None:
    """Measure how well codes alone tell people apart: no face that is drawn from them does better.

    A pair of photos of one person is compared, and up to a million pairs of strangers. No face is drawn.
    """
    from dataclasses import asdict

    from rich.table import Table

    from anonymix_lab.data import parse_folds
    from anonymix_plugin.errors import UsageError
    from anonymix_plugin.mixer.subspace import IdentitySubspace
    from anonymix_plugin.mixer.weights import load_mixer_weights

    counts = counts_in(enrolled, "--enrolled")
    chosen = parse_folds(folds)
    passed = load_mixer_weights().subspace if subspace is None else IdentitySubspace.read(subspace)
    if learned := sorted(set(chosen) & set(passed.lfw_folds)):
        raise UsageError(f"the subspace was learned from fold {learned[0]}", where="--folds", fix="leave it out")
    folder.mkdir(parents=True, exist_ok=True)
    with bars() as bar:
        found = _compared(lfw, chosen, passed, counts, folder, staged(bar), mirrored=mirrored)
    figures = [row.figures() for row in found]
    table = Table("codes alone", "genuine", "EER", "FNMR at FMR 1 %", "at .1 %", "at .01 %")
    for row in figures:
        table.add_row(row.title, str(row.genuine), f"{row.eer:.4f}", *(f"{rate:.2%}" for rate in row.fnmr))
    Console().print(table)
    write_json(output, [asdict(row) for row in figures])


@app.command()
@takes_photos
def guiding(
    people: PeopleFolder,
    lfw: LfwFolder,
    folds: Annotated[str, typer.Option(help="Folds of its view 2 that are learned from.")] = "1-5",
    keys: Annotated[int, typer.Option(help="Keys that faces are drawn under, 13 faces each.", min=10)] = 150,
    ridge: Annotated[float, typer.Option(help="Of the subspaces, as for `anonymix train subspace`.", min=0.0)] = 2.0,
    mixer_weights: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Weights of `anonymix train mapper` in the place of the shipped ones.",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of keys and codes, which are for this alone.", min=0)] = 1,
    folder: PairsFolder = PAIRS,
    output: JsonFile = None,
) -> None:
    """Learn the curve that references guide codes along, and tell what it brings beside others.

    Faces are drawn from codes at known angles; the angles between people's codes come from people whom their
    subspace was not learned from. Nobody of the other folds has a say in the curve: what it brings them is told
    at the end, for those who are enrolled from one photo and from three.
    """
    from dataclasses import asdict, replace

    import numpy as np
    from rich.table import Table

    from anonymix_lab.data import LFW_FOLDS, parse_folds
    from anonymix_lab.studies.guiding import CodeCosines, Prediction, best_curve, held_out_cosines
    from anonymix_lab.training.street import embed_street
    from anonymix_plugin.generator import load_generator
    from anonymix_plugin.mixer.guide import GuidingCurve
    from anonymix_plugin.mixer.subspace import fit_subspace
    from anonymix_plugin.mixer.weights import SHIPPED, load_mixer_weights
    from anonymix_plugin.verification import THRESHOLDS

    chosen = parse_folds(folds)
    weights, generator = load_mixer_weights(mixer_weights or SHIPPED), load_generator()
    dims = weights.subspace.dims
    thresholds = {name: values["fmr-0.1%"] for name, values in THRESHOLDS.items()}

    def fit(photos: np.ndarray, who: np.ndarray, others: np.ndarray) -> IdentitySubspace:
        return fit_subspace(photos, who, dims=dims, ridge=ridge, population=others)

    folder.mkdir(parents=True, exist_ok=True)
    with bars() as bar:
        report = staged(bar)
        learned = embed_street(embedder(), embedder("central"), people, lfw, chosen, folder, report)
        street = np.arange(len(learned.who)) >= learned.of_folder
        cosines = held_out_cosines(learned.photos, learned.who, learned.others, fit, tested=street, seed=seed)
        answers = drawn_answers(weights, generator, list(thresholds), keys, seed, folder, report)
        others = [fold for fold in range(1, LFW_FOLDS + 1) if fold not in {*chosen, *weights.subspace.lfw_folds}]
        compared = _compared(lfw, others, weights.subspace, (1, 3), folder, report) if others else []
    prediction = Prediction(answers, cosines, thresholds)
    tried = best_curve(prediction)
    shown = [
        ("not guided", None),
        ("in use", GuidingCurve()),
        ("in use, up to 1", replace(GuidingCurve(), top=1.0)),
        *((f"{n}.", row[1]) for n, row in enumerate(tried[:5], 1)),
    ]
    table = Table(
        "curve",
        "low, high, floor, top",
        "matcher",
        "EER",
        "genuine refused",
        "strangers accepted",
        "FNMR at FMR .1 %",
        ".01 %",
    )
    told = [(title, curve, prediction) for title, curve in shown]
    for part in compared:
        known = Prediction(answers, CodeCosines(part.genuine, part.impostor), thresholds)
        told += [(f"{part.title}: {title}", curve, known) for title, curve in shown[:3]]
    made = []
    for title, curve, computed in told:
        numbers = "" if curve is None else f"{curve.low:g}, {curve.high:g}, {curve.floor:g}, {curve.top:g}"
        for name, row in computed.figures(curve).items():
            rates = (f"{row.refused:.2%}", f"{row.accepted:.2%}", f"{row.fnmr:.2%}", f"{row.fnmr_low:.2%}")
            table.add_row(title, numbers, name, f"{row.eer:.4f}", *rates)
            made.append(
                {"title": title, "curve": None if curve is None else curve.describe(), "matcher": name, **asdict(row)}
            )
    console = Console()
    console.print(table)
    console.print(
        f"{len(cosines.genuine)} genuine and {len(cosines.impostor)} other comparisons of codes; "
        f"{len(answers.cosines)} of drawn faces. Refused and accepted: at thresholds for photos, FMR .1 %."
    )
    write_json(output, made)


@app.command()
@takes_photos
def enrolment(
    lfw: Annotated[Path, typer.Argument(metavar="LFW", help="Folder of Labeled Faces in the Wild.")],
    folds: Annotated[str, typer.Option(help="Folds of its view 2 whose people are taken.")] = "6-10",
    photos: Annotated[
        str, typer.Option(help="From how many photos people are enrolled, separated by commas.")
    ] = "1,2,3,5",
    limit: Annotated[int, typer.Option(help="People at most, spread evenly.", min=2)] = 60,
    references: Annotated[
        bool, typer.Option("--references", help="Keep references, and guide probes by the claimed person's.")
    ] = False,
    output: JsonFile = None,
) -> None:
    """Measure enrolment from one photo and from several, under one key for everybody.

    Three other photos of each person are probes; strangers are other people of the same number.
    """
    from dataclasses import asdict

    import numpy as np
    from rich.table import Table

    from anonymix_lab.data import lfw_folds, parse_folds
    from anonymix_lab.data.keys import SeededKeys
    from anonymix_lab.matchers import Panel, load_matchers
    from anonymix_lab.studies.enrolment import measure_enrolment
    from anonymix_lab.training.embedding import people_of
    from anonymix_plugin import Anonymixer
    from anonymix_plugin.faces import YuNet
    from anonymix_plugin.models import locate
    from anonymix_plugin.verification import THRESHOLDS

    counts = counts_in(photos, "--photos")
    tested = {name for number in parse_folds(folds) for name in lfw_folds(lfw)[number - 1]}
    paths, who = people_of(lfw / "images")
    random = np.random.Generator(np.random.Philox(1))
    groups = [
        [paths[int(row)] for row in random.permutation(rows)]
        for name in np.unique(who)
        if len(rows := np.flatnonzero(who == name)) >= max(counts) + 3 and paths[rows[0]].parent.name in tested
    ]
    chosen = groups[:: max(1, -(-len(groups) // limit))]
    thresholds = {name: values["fmr-0.1%"] for name, values in THRESHOLDS.items()}
    with bars() as bar, Anonymixer(SeededKeys(1), faces="central") as mixer:
        report = staged(bar)
        figures = measure_enrolment(
            chosen,
            mixer,
            Panel(load_matchers(list(thresholds)), YuNet(locate("yunet")), "yunet"),
            counts,
            thresholds,
            guided=references,
            progress=lambda done, total: report("faces", done, total),
        )
    table = Table("enrolled from", "matcher", "EER", "FNMR at FMR 1 %", "genuine refused", "strangers accepted")
    for row in figures:
        rates = (f"{row.fnmr:.1%}", f"{row.refused:.1%}", f"{row.accepted:.1%}")
        table.add_row(str(row.photos), row.matcher, f"{row.eer:.4f}", *rates)
    console = Console()
    console.print(table)
    console.print(
        f"{figures[0].people} people, {figures[0].genuine} genuine and {figures[0].impostor} other comparisons. "
        "Refused and accepted: at thresholds for photos, FMR .1 %."
    )
    write_json(output, [asdict(row) for row in figures])


def _compared(
    lfw: Path,
    folds: Sequence[int],
    subspace: IdentitySubspace,
    counts: Sequence[int],
    folder: Path,
    report: Callable[[str, int, int], None],
    *,
    mirrored: bool = False,
) -> list[Compared]:
    """Codes of the people of some folds, compared pair by pair and with enrolments from several photos."""
    import numpy as np

    from anonymix_lab.studies.codes import code_pairs, compared_enrolments, compared_pairs

    everybody, who, read, seen = read_codes(lfw, folds, subspace, folder, report, mirrored=mirrored)
    place = {path: row for row, path in enumerate(everybody)}
    found = []
    for pairs in code_pairs(lfw, folds):
        rows = np.array([place[path] for path in pairs.paths])
        found.append(compared_pairs(pairs, read[rows], seen[rows]))
    return found + compared_enrolments(read[seen], who[seen], counts)


def read_codes(
    lfw: Path,
    folds: Sequence[int],
    subspace: IdentitySubspace,
    folder: Path,
    report: Callable[[str, int, int], None],
    *,
    mirrored: bool = False,
) -> tuple[list[Path], Integers, Array, Truths]:
    """The photos of the people of some folds, who is on each, their codes, and whether a face was found."""
    import numpy as np

    from anonymix_lab.data import lfw_folds
    from anonymix_lab.training.embedding import embed_files, people_of

    tested = {name for number in folds for name in lfw_folds(lfw)[number - 1]}
    paths, who = people_of(lfw / "images")
    kept = np.array([path.parent.name in tested for path in paths])
    everybody, who = [path for path, used in zip(paths, kept, strict=True) if used], who[kept]
    embeddings, seen = embed_files(
        embedder("central", mirrored=mirrored),
        everybody,
        folder / f"codes-{'-'.join(map(str, folds))}{'-mirrored' if mirrored else ''}.npz",
        lambda done, total: report("photos", done, total),
    )
    read = np.zeros((len(everybody), subspace.dims))
    read[seen] = subspace.project(embeddings[seen])
    return everybody, who, read, seen


def drawn_answers(
    weights: MixerWeights,
    generator: Generator,
    recognisers: Sequence[str],
    keys: int,
    seed: int,
    folder: Path,
    report: Callable[[str, int, int], None],
) -> Answers:
    """What recognisers say of drawn faces; drawn once for each mixer."""
    from anonymix_lab.studies.guiding import Answers, draw_answers
    from anonymix_plugin.faces import YuNet
    from anonymix_plugin.mixer.fast import FastMixer
    from anonymix_plugin.mixer.policy import MixingPolicy
    from anonymix_plugin.models import locate
    from anonymix_plugin.recognisers import load_recogniser

    cache = folder / f"answers-{weights.sha256[:16]}-{keys}-{seed}.safetensors"
    if not cache.exists():
        draw_answers(
            generator,
            FastMixer(generator, weights, MixingPolicy()),
            weights.subspace.dims,
            YuNet(locate("yunet")),
            [load_recogniser(name) for name in recognisers],
            keys=keys,
            seed=seed,
            progress=lambda done, total: report("faces", done, total),
        ).save(cache)
    return Answers.read(cache)


def counts_in(text: str, option: str) -> list[int]:
    from anonymix_plugin.errors import UsageError

    words = text.split(",")
    if not all(word.strip().isdecimal() and int(word) > 0 for word in words):
        raise UsageError(f"{text!r} is no list of whole numbers above 0", where=option, fix="write it so: 1,2,3,5")
    return [int(word) for word in words]
