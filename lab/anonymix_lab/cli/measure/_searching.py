"""`anonymix measure searching`: how well `search_candidates` finds people."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from anonymix_lab.cli._common import PAIRS, JsonFile, PairsFolder, bars, staged, write_json
from anonymix_lab.cli.measure._app import app
from anonymix_lab.cli.measure._codes import counts_in, drawn_answers, read_codes
from anonymix_plugin.cli.options import takes_photos

if TYPE_CHECKING:
    from anonymix_lab.studies.searching import Drawn, SearchCost, SearchFigures


@app.command()
@takes_photos
def searching(
    lfw: Annotated[Path, typer.Argument(metavar="LFW", help="Folder of Labeled Faces in the Wild.")],
    folds: Annotated[
        str, typer.Option(help="Folds of its view 2 whose people are taken: none that were learned from.")
    ] = "6-10",
    candidates: Annotated[str, typer.Option(help="How many candidates, separated by commas.")] = "10,50,100,1000",
    probes: Annotated[int, typer.Option(help="Probes of candidates, and of others, at most.", min=10)] = 500,
    drawn: Annotated[int, typer.Option(help="Probes that are drawn, against the nearest candidates.", min=0)] = 0,
    nearest: Annotated[int, typer.Option(help="Other candidates that a drawn probe is held against.", min=1)] = 3,
    timed: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Photos, two a person, of 50 people: time searches through the OpenCV adapter.",
            show_default=False,
        ),
    ] = None,
    keys: Annotated[int, typer.Option(help="As for `anonymix measure guiding`.", min=10)] = 150,
    seed: Annotated[int, typer.Option(help="Of the choice of people, and of keys.", min=0)] = 1,
    folder: PairsFolder = PAIRS,
    output: JsonFile = None,
) -> None:
    """Measure the search over candidates (`search_candidates`), each under a key of their own.

    What recognisers say is computed from the cosines of codes, with references and without; --drawn draws some
    probes for real.
    """
    from dataclasses import asdict

    import numpy as np

    from anonymix_adapters.drill import people_in, temporary_mixer
    from anonymix_adapters.registry import load
    from anonymix_lab.data import parse_folds
    from anonymix_lab.studies.guiding import CodeCosines, Prediction, look_at
    from anonymix_lab.studies.searching import draw_searches, galleries_of, searched, timed_searches
    from anonymix_plugin.errors import UsageError
    from anonymix_plugin.faces import YuNet
    from anonymix_plugin.generator import load_generator
    from anonymix_plugin.mixer.fast import FastMixer
    from anonymix_plugin.mixer.guide import GuidingCurve
    from anonymix_plugin.mixer.policy import MixingPolicy
    from anonymix_plugin.mixer.weights import load_mixer_weights
    from anonymix_plugin.models import locate
    from anonymix_plugin.recognisers import load_recogniser
    from anonymix_plugin.verification import THRESHOLDS

    sizes, chosen = counts_in(candidates, "--candidates"), parse_folds(folds)
    weights, generator = load_mixer_weights(), load_generator()
    if learned := sorted(set(chosen) & set(weights.subspace.lfw_folds)):
        raise UsageError(f"the subspace was learned from fold {learned[0]}", where="--folds", fix="leave it out")
    thresholds = {name: values["fmr-0.1%"] for name, values in THRESHOLDS.items()}
    curves = {"guided": GuidingCurve(), "not guided": None}
    folder.mkdir(parents=True, exist_ok=True)
    computed, checked = [], []
    with bars() as bar:
        report = staged(bar)
        _, who, codes, seen = read_codes(lfw, chosen, weights.subspace, folder, report)
        who, codes = who[seen], codes[seen]
        answers = drawn_answers(weights, generator, list(thresholds), keys, seed, folder, report)
        prediction = Prediction(answers, CodeCosines(np.zeros(1), np.zeros(1)), thresholds)
        recognisers = [load_recogniser(name) for name in thresholds] if drawn else []
        detector, mixer = YuNet(locate("yunet")), FastMixer(generator, weights, MixingPolicy())
        for size in sizes:
            galleries = galleries_of(who, size, probes, seed=seed)
            for title, curve in curves.items():
                computed += searched(codes, galleries, prediction, curve, thresholds, seed=seed)
                if drawn:
                    checked += draw_searches(
                        codes,
                        galleries[0],
                        generator,
                        mixer,
                        curve,
                        lambda photo: look_at(photo, detector, recognisers),
                        thresholds,
                        probes=drawn,
                        nearest=nearest,
                        seed=seed,
                        progress=lambda done, total, at=f"{size}, {title}": report(at, done, total),  # type: ignore[misc]
                    )
    costs = []
    if timed is not None:
        with temporary_mixer(second_secret=True) as mixer_in_use:
            costs = timed_searches(load("opencv"), mixer_in_use, people_in(timed, 50), (1, 10, 50))
    _print(computed, checked, costs)
    rows: dict[str, list[Any]] = {"computed": computed, "drawn": checked, "cost": costs}
    write_json(output, {name: [asdict(row) for row in part] for name, part in rows.items()})


def _print(computed: Sequence[SearchFigures], checked: Sequence[Drawn], costs: Sequence[SearchCost]) -> None:
    from rich.table import Table

    console = Console()
    table = Table(
        *("of", "guided", "matcher", "probes", "rank 1", "missed", "alone", "alarms", "missed at 1 % alarms"),
    )
    for row in computed:
        rates = (row.rank1, row.missed, row.alone, row.alarms, row.missed_at_alarm)
        mark = "yes" if row.guided else "no"
        table.add_row(str(row.candidates), mark, row.matcher, str(row.probes), *(f"{rate:.1%}" for rate in rates))
    console.print(table)
    if checked:
        table = Table("drawn, of", "guided", "matcher", "probes", "rank 1", "own accepted", "others accepted")
        for it in checked:
            others = f"{it.others} of {it.probes * it.nearest}"
            mark = "yes" if it.guided else "no"
            table.add_row(
                *(str(it.candidates), mark, it.matcher, str(it.probes), str(it.rank1), str(it.accepted), others)
            )
        console.print(table)
    console.print("Missed, alone, alarms, accepted: at thresholds for photos, FMR .1 %.")
    for cost in costs:
        each = cost.ms / cost.candidates
        found = "found" if cost.found else "not found"
        console.print(f"{cost.candidates} candidates: {cost.ms:.0f} ms, {each:.0f} ms each; {found}.")
