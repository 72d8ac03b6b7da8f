"""`anonymix measure london`: the London figures as a table and as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from anonymix_lab.cli._common import bars, staged, write_json
from anonymix_lab.cli.measure._app import app
from anonymix_lab.machine import machine
from anonymix_plugin.cli.options import RefinementOption, takes_photos

if TYPE_CHECKING:
    from anonymix_lab.studies.london import JudgeFigures, LondonFigures, SetAnew


@app.command()
@takes_photos
def london(
    data: Annotated[Path, typer.Option(help="Folder with NAME_neutral.jpg and NAME_smiling.jpg.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Where the JSON goes.")] = Path(
        "out/london.json"
    ),
    policy: Annotated[str, typer.Option(help="What is kept of the photo: none, pose or full.")] = "",
    shared_keys: Annotated[int, typer.Option(help="How many keys for everybody are tried.", min=1)] = 2,
    seed: Annotated[int, typer.Option(help="Seed of all keys.")] = 1,
    limit: Annotated[int | None, typer.Option(help="Only the first N people.", min=2)] = None,
    person: Annotated[float | None, typer.Option(help="How far the person's code moves the face.")] = None,
    key: Annotated[float | None, typer.Option(help="Truncation of the key's synthetic code.")] = None,
    kept: Annotated[float | None, typer.Option(help="Share of the photo's own code that is kept.")] = None,
    refinement: RefinementOption = None,
    judges: Annotated[
        str, typer.Option(metavar="NAMES", help="Recognisers of the registry, with commas.")
    ] = "facenet,dlib-recognition,arcface-mbf,sface",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure accuracy, anonymity and renewal on the London set, by recognisers seen and not seen."""
    from dataclasses import replace

    from anonymix_lab.studies.london import london_figures, london_photos
    from anonymix_plugin.faces import YuNet
    from anonymix_plugin.mixer.policy import AttributePolicy, MixingPolicy
    from anonymix_plugin.models import locate
    from anonymix_plugin.recognisers import load_recogniser

    settings = MixingPolicy()
    if policy:
        settings = replace(settings, attributes=AttributePolicy(policy))
    settings = replace(
        settings,
        person=settings.person if person is None else person,
        key=settings.key if key is None else key,
        kept=settings.kept if kept is None else kept,
    )
    photos = london_photos(data, limit)
    panel = [load_recogniser(name.strip()) for name in judges.split(",")]
    with bars() as bar:
        result = london_figures(
            photos,
            panel,
            YuNet(locate("yunet")),
            shared_keys=shared_keys,
            seed=seed,
            policy=settings,
            refinement=None if refinement is None else refinement.value,
            progress=staged(bar),
        )
    content = result.as_json() | {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "seed": seed,
    }
    write_json(output, content)
    if as_json:
        typer.echo(json.dumps(content))
        return
    Console().print(_table(result, f"policy {settings.attributes}, road {result.road}", output))


def _table(result: LondonFigures, how: str, output: Path) -> Table:
    """A column a judge, so that four of them fit a terminal of 80 characters."""
    table = Table(
        title=f"London, {result.people} people, {how}, mixer {result.fingerprint[:8]}",
        box=SIMPLE,
        caption=f"{result.seconds:.0f} s, {result.undetected} protected faces not detected, JSON in {output}",
    )
    table.add_column("")
    for judge in result.judges:
        table.add_column(judge.judge.removesuffix("-recognition"), justify="right", overflow="fold")

    def row(heading: str, tell: Callable[[JudgeFigures], str]) -> None:
        table.add_row(heading, *(tell(judge) for judge in result.judges))

    def share(value: float | None) -> str:
        return "-" if value is None else f"{value:.2%}"

    def spread(values: Sequence[float]) -> str:
        return f"{values[0]:.2f} ± {values[1]:.2f}"

    def anew(tell: Callable[[SetAnew], float]) -> Callable[[JudgeFigures], str]:
        return lambda judge: share(None if judge.set_anew is None else tell(judge.set_anew))

    row("in the mixer", lambda judge: "yes" if judge.seen_by_mixer else "no")
    row("EER unprotected", lambda judge: f"{judge.unprotected.eer:.4f}")
    row("EER one key", lambda judge: f"{judge.one_key_eer:.4f}")
    row("EER own key", lambda judge: f"{judge.own_key.eer:.4f}")
    row("threshold, FMR .1 %", lambda judge: f"{judge.threshold:.3f}")
    row("- FNMR own key", lambda judge: share(judge.own_key.fnmr_at_threshold))
    row("- FMR own key", lambda judge: share(judge.own_key.fmr_at_threshold))
    row("- original below", lambda judge: share(judge.below_threshold))
    row("- old = new key", lambda judge: share(judge.renewal_match_rate))
    row("LFW's: original below", lambda judge: share(judge.below_street_threshold))
    row("- old = new key", lambda judge: share(judge.renewal_at_street_threshold))
    row("cancelable threshold", lambda j: "-" if j.set_anew is None else f"{j.set_anew.threshold:.3f}")
    row("- FNMR one key", anew(lambda found: found.one_key[1]))
    row("- FMR one key", anew(lambda found: found.one_key[0]))
    row("- FNMR own key", anew(lambda found: found.own_key[1]))
    row("- FMR own key", anew(lambda found: found.own_key[0]))
    row("- old = new key", anew(lambda found: found.renewal_match_rate))
    row("highest original", lambda judge: f"{judge.highest_original:.3f}")
    row("one person", lambda judge: spread(judge.one_person))
    row(
        "impostors",
        lambda judge: spread((judge.one_key[0].impostor_mean, judge.one_key[0].impostor_deviation)),
    )
    row("quality", lambda judge: "-" if judge.quality is None else f"{judge.quality:.2f}")
    row("- the least", lambda judge: "-" if judge.least_quality is None else f"{judge.least_quality:.2f}")
    return table
