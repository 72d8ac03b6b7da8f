"""`anonymix verify`: do two photos match, seen through the mixer?"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from anonymix_plugin.cli.options import (
    ClockOption,
    DescriptorOption,
    GalleryOption,
    JsonOption,
    KeystoreOption,
    MixerChoice,
    ScopeOption,
    Several,
    SubjectOption,
    VersionOption,
    check_owner,
    mixes,
    takes_photos,
)
from anonymix_plugin.cli.report import EXIT_DIFFERENT, print_json, printable
from anonymix_plugin.errors import UsageError
from anonymix_plugin.words import shown

if TYPE_CHECKING:
    from anonymix_plugin.verification import Comparison

_RECOGNISERS = ("arcface-mbf", "sface", "facenet")


@takes_photos
@mixes("size")
def verify(
    a: Annotated[
        Path | None, typer.Argument(metavar="A", help="The photo that was enrolled.", show_default=False)
    ] = None,
    b: Annotated[Path | None, typer.Argument(metavar="B", help="The photo that probes.", show_default=False)] = None,
    *,
    subject: SubjectOption = None,
    scope: ScopeOption = "default",
    gallery: GalleryOption = False,
    version: VersionOption = None,
    other_subject: Annotated[
        str | None,
        typer.Option("--other-subject", metavar="ID", help="B is protected under this subject's key."),
    ] = None,
    version_b: Annotated[
        int | None,
        typer.Option("--version-b", metavar="N", min=1, help="B is protected under this version of the key."),
    ] = None,
    against_original: Annotated[
        bool, typer.Option("--against-original", help="B is taken as it is, photo or cancelable face.")
    ] = False,
    recogniser: Annotated[str, typer.Option(metavar="|".join(_RECOGNISERS), help="Who compares.")] = "arcface-mbf",
    threshold: Annotated[
        str,
        typer.Option(
            metavar="fmr-1%|fmr-0.1%|cancelable-fmr-1%|cancelable-fmr-0.1%|NUMBER",
            help="From which cosine on two faces match: where unprotected photos of different people match "
            "in 1 or .1 % of comparisons, where their cancelable faces under one key do, or a number.",
        ),
    ] = "fmr-0.1%",
    mixing: MixerChoice,
    accept_clock: ClockOption = False,
    keystore: KeystoreOption = None,
    passphrase_fd: DescriptorOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare two photos through the mixer: both become cancelable faces, and a recogniser compares those.

    Ends with exit code 0 if they match and with 7 if they don't.
    """
    if a is None or b is None:
        raise UsageError("two photos are compared", fix="name both: anonymix verify A B --subject ID")
    check_owner(subject, gallery, version)
    if against_original and (other_subject is not None or version_b is not None):
        raise UsageError("B is either taken as it is, or protected", fix="choose one of the options")
    if gallery and (other_subject is not None or version_b is not None):
        raise UsageError("the gallery key is one for everybody", fix="give --subject instead of --gallery")
    if mixing.faces is Several.ALL:
        raise UsageError("one face is compared with one face", where="--faces", fix="use largest or error")

    from anonymix_plugin.cli.keys import open_keys
    from anonymix_plugin.verification import Verifier, named_threshold

    named_threshold(recogniser, threshold)  # a mistyped one should not cost seconds of loading
    owner_b = subject if other_subject is None else other_subject
    used_b = version if version_b is None and other_subject is None else version_b
    with (
        open_keys(keystore, passphrase_fd, accept_clock=accept_clock, references_of=scope) as store,
        mixing.opened(store) as mixer,
    ):
        verifier = Verifier(recogniser, threshold)
        face_a = mixer.protect(a, subject=subject, scope=scope, version=version)
        face_b = None if against_original else mixer.protect(b, subject=owner_b, scope=scope, version=used_b)
        result = verifier.compare(face_a, b if face_b is None else face_b)
        fingerprint = face_a.fingerprint
    facts: dict[str, Any] = {
        "match": result.match,
        "similarity": round(result.similarity, 6),
        "threshold": {"name": result.threshold.name, "value": result.threshold.value},
        "recogniser": recogniser,
        "seen_by_mixer": result.seen_by_mixer,
        "fingerprint": fingerprint,
        "a": {"source": shown(a), "subject": subject, "key_version": face_a.key_version},
        "b": {
            "source": shown(b),
            "subject": None if face_b is None else owner_b,
            "key_version": None if face_b is None else face_b.key_version,
        },
    }
    if as_json:
        print_json(facts)
    else:
        _print(result, facts)
    if not result.match:
        raise typer.Exit(EXIT_DIFFERENT)


def _print(result: Comparison, facts: Mapping[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    def side(of: Mapping[str, Any]) -> str:
        version = of["key_version"]
        return printable(of["source"]) + (", as it is" if version is None else f", protected under key v{version}")

    name = result.threshold.name
    table = Table(show_header=False, box=None)
    table.add_row("A", Text(side(facts["a"]), overflow="fold"))
    table.add_row("B", Text(side(facts["b"]), overflow="fold"))
    table.add_row("similarity", f"[bold]{result.similarity:.4f}[/] (cosine, {result.threshold.recogniser})")
    table.add_row("threshold", f"{result.threshold.value:.4f} ({name})")
    verdict = "[bold green]same person" if result.match else "[bold red]different people"
    table.add_row("verdict", verdict)
    Console(highlight=False).print(table)
