"""`anonymix drill`: what happens when templates leak, rehearsed in front of one back end."""

from __future__ import annotations

from enum import StrEnum
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from anonymix_plugin.cli.options import JsonOption, takes_photos
from anonymix_plugin.errors import UsageError
from anonymix_plugin.files import write_text

_GROUP = "anonymix.drill"  # adapters import the plug-in, never the other way: they are found by name


class Keys(StrEnum):
    """Whose keys are used."""

    OWN = "own"
    GALLERY = "gallery"


@takes_photos
def drill(
    adapter: Annotated[str, typer.Option("--adapter", "-a", metavar="NAME", help="The adapter.")],
    photos: Annotated[
        Path,
        typer.Option(
            "--photos",
            "-p",
            metavar="DIR",
            help="Photos, two a person: a folder for each, or files NAME_1.jpg, NAME_2.jpg.",
        ),
    ],
    people: Annotated[int, typer.Option(help="How many people take part.", min=2)] = 20,
    keys: Annotated[Keys, typer.Option(help="A key each, or the gallery key.")] = Keys.OWN,
    originals: Annotated[
        bool, typer.Option("--originals", help="Enrol again from sealed originals, not from new photos.")
    ] = False,
    references: Annotated[
        bool, typer.Option("--references", help="Keep sealed references: probes are guided by them.")
    ] = False,
    option: Annotated[
        list[str] | None,
        typer.Option("--option", metavar="NAME=VALUE", help="For the adapter, an endpoint say."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Where the report goes, as JSON.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Rehearse a breach in front of one back end.

    People are enrolled and verified, templates leak, all keys are rotated, old entries are deleted, people
    are enrolled again and verified again. Keystore and back end are made for it; nothing of yours is touched.
    """
    found = list(entry_points(group=_GROUP, name="run"))
    if not found:
        raise UsageError("no adapters are installed", where="drill", fix="pip install anonymix-plugin")
    run: Any = found[0].load()
    console = Console(stderr=True)
    with console.status("opening the mixer") as status:
        report = run(
            adapter,
            photos,
            people=people,
            keys=keys.value,
            originals=originals,
            references=references,
            options=_options(option or []),
            progress=lambda name, done, of: status.update(f"{name}: {done} of {of}"),
        )
    if output is not None:
        write_text(output, report.to_json() + "\n")
    typer.echo(report.to_json() if as_json else report.to_text())
    if not report.passed:
        raise typer.Exit(1)


def _options(given: list[str]) -> dict[str, str]:
    pairs = [item.partition("=") for item in given]
    bad = [name for name, equals, _ in pairs if not equals or not name.isidentifier()]
    if bad:
        raise UsageError(f"{bad[0]!r} is no NAME=VALUE", where="--option")
    return {name: value for name, _, value in pairs}
