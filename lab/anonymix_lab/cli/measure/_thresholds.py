"""`anonymix measure thresholds`: from which cosine on two faces match, at given false match rates."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from anonymix_lab.cli._common import bars, staged
from anonymix_lab.cli.measure._app import app
from anonymix_plugin.cli.options import (
    JsonOption,
    MixerChoice,
    Several,
    mixes,
    takes_photos,
)
from anonymix_plugin.cli.report import print_json

if TYPE_CHECKING:
    from anonymix_plugin.anonymixer import Anonymixer
    from anonymix_plugin.values import CancelableFace


@app.command()
@takes_photos
@mixes("size", "faces")
def thresholds(
    lfw: Annotated[Path, typer.Argument(metavar="LFW", help="Folder of Labeled Faces in the Wild.")],
    *,
    recogniser: Annotated[
        str, typer.Option(metavar="NAMES", help="Recognisers, with commas: all see the same faces.")
    ] = "arcface-mbf",
    cancelable: Annotated[
        bool, typer.Option("--cancelable", help="Measure on cancelable faces, not on photos.")
    ] = False,
    mixing: MixerChoice,
    as_json: JsonOption = False,
) -> None:
    """Measure recognisers' thresholds on view 1 of Labeled Faces in the Wild.

    With --cancelable, the faces are protected under twenty shared keys; the options of the mixer count then.
    """
    from anonymix_lab.data.keys import SeededKeys
    from anonymix_lab.studies.thresholds import measure_thresholds

    central = replace(mixing, faces=Several.CENTRAL)
    keys = SeededKeys(1)  # people's own are not for measuring
    with central.opened(keys) if cancelable else nullcontext() as mixer, bars() as bar:
        report = staged(bar)
        measured = measure_thresholds(
            lfw,
            [name.strip() for name in recogniser.split(",")],
            protect=None if mixer is None else partial(_under_key, mixer),
            progress=lambda done, total: report("photos", done, total),
        )
    if as_json:
        facts = [asdict(found) for found in measured]
        print_json([{"recogniser": it.pop("recogniser"), "thresholds": it.pop("values"), **it} for it in facts])
        return
    for found in measured:
        for name, value in found.values.items():
            typer.echo(f"{found.recogniser} {name} {value:.4f}")
    found = measured[0]  # the faces are the same for all
    typer.echo(
        f"{found.comparisons:,} comparisons of different people: {found.photos} photos of {found.people}, "
        f"{found.undetected} more without a face that can be used"
    )


def _under_key(mixer: Anonymixer, path: Path, key: int) -> CancelableFace:
    from anonymix_lab.data.keys import SHARED_SCOPE

    return mixer.protect(path, subject="anybody", scope=f"{SHARED_SCOPE} {key}")
