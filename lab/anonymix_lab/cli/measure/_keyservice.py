"""`anonymix measure keyservice`: keys over the key service, beside a local store."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer

from anonymix_lab.cli._common import JsonFile, write_json
from anonymix_lab.cli.measure._app import app


@app.command()
def keyservice(
    photos: Annotated[
        list[Path], typer.Argument(metavar="PHOTO...", help="The photos that are protected.", exists=True)
    ],
    mixers: Annotated[int, typer.Option(help="How many mixers, each a process; 0 for keys alone.", min=0)] = 2,
    faces: Annotated[int, typer.Option(help="Faces of one mixer in one round.", min=1)] = 20,
    rounds: Annotated[int, typer.Option(help="Rounds over the store, and as many over the service.", min=1)] = 8,
    subjects: Annotated[int, typer.Option(help="How many subjects the store holds.", min=1000)] = 10_000,
    samples: Annotated[int, typer.Option(help="How many keys are timed.", min=1000)] = 5_000,
    output: JsonFile = None,
) -> None:
    """Measure keys over the key service beside a local store: latency, faces a second, revocation.

    `anonymix keys serve` is started on this machine, over a keystore made for it. Both sources take turns in one run.
    """
    from dataclasses import asdict

    from anonymix_lab.studies.keyservice import latencies, revocations, served, throughput
    from anonymix_plugin.images import decode_photo

    for photo in photos:  # what can't be read is told here, and not by the mixers
        decode_photo(photo)
    found: dict[str, Any] = {}
    with TemporaryDirectory() as folder, served(Path(folder), subjects) as place:
        for name, each in latencies(place, samples).items():
            found[name] = asdict(each)
            typer.echo(
                f"{name}: a key that is kept {each.cached_p50:.1f} us, p99 {each.cached_p99:.1f} us; "
                f"one that is fetched {each.uncached_p50 / 1000:.2f} ms, p99 {each.uncached_p99 / 1000:.2f} ms"
            )
        if mixers:
            rate = throughput(place, photos, mixers=mixers, faces=faces, rounds=rounds)
            found["faces_a_second"] = asdict(rate)
            typer.echo(
                f"{mixers} mixers: {rate.service:.2f} faces a second over the service, {rate.local:.2f} over the "
                f"store; {rate.ratio:.3f} of it in the median round"
            )
        late = revocations(place, 5)
        found["revocation_seconds"] = late
        typer.echo(f"a key revoked elsewhere was refused after {max(late):.2f} s at most, of {len(late)}")
    if output is not None:
        write_json(output, found)
