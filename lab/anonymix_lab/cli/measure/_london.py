"""`anonymix measure london`: the London figures as a table and as JSON."""

from __future__ import annotations

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
from anonymix_plugin.cli.options import GeneratorOption, RefinementOption, takes_photos
from anonymix_plugin.cli.report import print_json

if TYPE_CHECKING:
    from anonymix_lab.studies.london import LondonFigures, MatcherFigures, Recalibrated


@app.command()
@takes_photos
def london(
    data: Annotated[Path, typer.Option(help="Folder with NAME_neutral.jpg and NAME_smiling.jpg.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Where the JSON goes.")] = Path("out/london.json"),
    policy: Annotated[str, typer.Option(help="What is kept of the photo: none, pose or full.")] = "",
    shared_keys: Annotated[int, typer.Option(help="How many keys for everybody are tried.", min=1)] = 2,
    seed: Annotated[int, typer.Option(help="Seed of all keys.")] = 1,
    limit: Annotated[int | None, typer.Option(help="Only the first N people.", min=2)] = None,
    person: Annotated[float | None, typer.Option(help="How far the person's code moves the face.")] = None,
    key: Annotated[float | None, typer.Option(help="Truncation of the key's synthetic code.")] = None,
    kept: Annotated[float | None, typer.Option(help="Share of the photo's own code that is kept.")] = None,
    generator: GeneratorOption = None,
    refinement: RefinementOption = None,
    matchers: Annotated[
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
    panel = [load_recogniser(name.strip()) for name in matchers.split(",")]
    with bars() as bar:
        result = london_figures(
            photos,
            panel,
            YuNet(locate("yunet")),
            shared_keys=shared_keys,
            seed=seed,
            policy=settings,
            generator=generator,
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
        print_json(content, indent=None)
        return
    Console().print(_table(result, f"policy {settings.attributes}, method {result.method}", output))


def _table(result: LondonFigures, how: str, output: Path) -> Table:
    """A column a matcher, so that four of them fit a terminal of 80 characters."""
    table = Table(
        title=f"London, {result.people} people, {how}, mixer {result.fingerprint[:8]}",
        box=SIMPLE,
        caption=f"{result.seconds:.0f} s, {result.undetected} protected faces not detected, JSON in {output}",
    )
    table.add_column("")
    for matcher in result.matchers:
        table.add_column(matcher.matcher.removesuffix("-recognition"), justify="right", overflow="fold")

    def row(heading: str, tell: Callable[[MatcherFigures], str]) -> None:
        table.add_row(heading, *(tell(matcher) for matcher in result.matchers))

    def share(value: float | None) -> str:
        return "-" if value is None else f"{value:.2%}"

    def spread(values: Sequence[float]) -> str:
        return f"{values[0]:.2f} ± {values[1]:.2f}"

    def recalibrated(tell: Callable[[Recalibrated], float]) -> Callable[[MatcherFigures], str]:
        return lambda matcher: share(None if matcher.recalibrated is None else tell(matcher.recalibrated))

    row("in the mixer", lambda matcher: "yes" if matcher.seen_by_mixer else "no")
    row("EER unprotected", lambda matcher: f"{matcher.unprotected.eer:.4f}")
    row("EER one key", lambda matcher: f"{matcher.one_key_eer:.4f}")
    row("EER own key", lambda matcher: f"{matcher.own_key.eer:.4f}")
    row("threshold, FMR .1 %", lambda matcher: f"{matcher.threshold:.3f}")
    row("- FNMR own key", lambda matcher: share(matcher.own_key.fnmr_at_threshold))
    row("- FMR own key", lambda matcher: share(matcher.own_key.fmr_at_threshold))
    row("- original below", lambda matcher: share(matcher.below_threshold))
    row("- old = new key", lambda matcher: share(matcher.renewal_match_rate))
    row("LFW's: original below", lambda matcher: share(matcher.below_street_threshold))
    row("- old = new key", lambda matcher: share(matcher.renewal_at_street_threshold))
    row("cancelable threshold", lambda j: "-" if j.recalibrated is None else f"{j.recalibrated.threshold:.3f}")
    row("- FNMR one key", recalibrated(lambda found: found.one_key[1]))
    row("- FMR one key", recalibrated(lambda found: found.one_key[0]))
    row("- FNMR own key", recalibrated(lambda found: found.own_key[1]))
    row("- FMR own key", recalibrated(lambda found: found.own_key[0]))
    row("- old = new key", recalibrated(lambda found: found.renewal_match_rate))
    row("highest original", lambda matcher: f"{matcher.highest_original:.3f}")
    row("one person", lambda matcher: spread(matcher.one_person))
    row(
        "impostors",
        lambda matcher: spread((matcher.one_key[0].impostor_mean, matcher.one_key[0].impostor_std)),
    )
    row("quality", lambda matcher: "-" if matcher.quality is None else f"{matcher.quality:.2f}")
    row("- the least", lambda matcher: "-" if matcher.least_quality is None else f"{matcher.least_quality:.2f}")
    return table
