"""`anonymix measure formats`: the same face in every format that photos come in."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from anonymix_lab.cli._common import JsonFile, bars, staged, write_json
from anonymix_lab.cli.measure._app import app
from anonymix_plugin.cli.options import takes_photos


@app.command()
@takes_photos
def formats(
    photos: Annotated[list[Path], typer.Argument(help="Photos, or folders of photos.")],
    limit: Annotated[int, typer.Option(help="Photos at most, spread evenly.", min=1)] = 24,
    side: Annotated[int, typer.Option(help="Pixels of the longer side.", min=128)] = 1000,
    memory: Annotated[bool, typer.Option("--memory", help="Measure memory at the largest size, too.")] = False,
    output: JsonFile = None,
) -> None:
    """Measure how alike recognisers find a photo in each format and the same photo as PNG.

    Photos are written as phones and cameras write them: compressed, turned, in other colour spaces, with 10
    or 16 bits. Needs the extra [heif].
    """
    from dataclasses import asdict

    import numpy as np
    from PIL import Image
    from rich.table import Table

    from anonymix_lab.studies.formats import LARGEST, measure_formats, measure_peak
    from anonymix_plugin.errors import UsageError
    from anonymix_plugin.faces import YuNet
    from anonymix_plugin.images import PHOTO_SUFFIXES, ImageLimits, decode_photo
    from anonymix_plugin.models import locate
    from anonymix_plugin.recognisers import available_recognisers, load_recogniser

    found = [
        path
        for place in photos
        for path in (sorted(place.rglob("*")) if place.is_dir() else [place])
        if path.suffix.lower() in PHOTO_SUFFIXES
    ]
    if not found:
        raise UsageError("there are no photos", where=", ".join(map(str, photos)), fix="name other ones")
    chosen = found[:: max(1, -(-len(found) // limit))]
    names = [name for name in available_recognisers() if name != "sface-int8"]
    with bars() as bar:
        report = staged(bar)
        figures = measure_formats(
            chosen,
            YuNet(locate("yunet")),
            [load_recogniser(name) for name in names],
            side,
            lambda done, total: report("photos", done, total),
        )
    table = Table("format", "size", *names, title=f"least cosine to the PNG, {len(chosen)} photos")
    for one in figures:
        table.add_row(one.format, f"{one.size:.0%}", *(f"{one.least[name]:.4f}" for name in names))
    console = Console()
    console.print(table)
    peaks: dict[str, tuple[float, int]] = {}
    if memory:
        most = ImageLimits().max_pixels
        shape = (8 * (int(most**0.5) // 8),) * 2
        pixels = np.asarray(Image.fromarray(decode_photo(chosen[0]).pixels).resize(shape))
        shown = Table("format", "bytes a pixel", "decoded", title=f"peak at {shape[0]:,} x {shape[1]:,} pixels")
        for name, write in LARGEST.items():
            peaks[name] = measure_peak(pixels, write)
            shown.add_row(name, f"{peaks[name][0]:.1f}", "whole" if peaks[name][1] == 1 else f"1/{peaks[name][1]}")
        console.print(shown)
    write_json(output, {"formats": [asdict(one) for one in figures], "peaks": peaks})
