"""`anonymix gallery`: pictures for the docs, of people who do not exist."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from anonymix_plugin.cli.options import takes_photos
from anonymix_plugin.cli.report import print_json


@takes_photos
def gallery(
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="Where gallery.jpg and failures.jpg go.")
    ] = Path("out/gallery"),
) -> None:
    """Draw the gallery: photos, reconstructions and cancelable faces, and the worst of all comparisons.

    Prints what FaceNet, which the mixer never saw, says of all pictures, as JSON.
    """
    from dataclasses import asdict

    from rich.console import Console
    from rich.progress import Progress

    from anonymix_lab.demo.gallery import make_gallery
    from anonymix_plugin.encoder import load_encoder
    from anonymix_plugin.faces import YuNet
    from anonymix_plugin.files import make_folder
    from anonymix_plugin.generator import load_generator
    from anonymix_plugin.models import locate
    from anonymix_plugin.verification import Verifier

    make_folder(output)
    detector = YuNet(locate("yunet"))
    with Progress(console=Console(stderr=True)) as bar:
        task = bar.add_task("photos", total=None)
        figures = make_gallery(
            load_generator(),
            load_encoder(),
            detector,
            Verifier("facenet", "fmr-0.1%", detector=detector),
            output,
            lambda done, total: bar.update(task, completed=done, total=total),
        )
    print_json(asdict(figures))
