"""The command group, and the options that most of its commands have."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated, overload

import typer

from anonymix_plugin.errors import UsageError
from anonymix_plugin.unlocking import PASSPHRASE_VARIABLE

app = typer.Typer(no_args_is_help=True, help="Make, show and look after the keys of subjects.")

StoreOption = Annotated[
    Path | None,
    typer.Option(
        "--keystore",
        envvar="ANONYMIX_KEYSTORE",
        metavar="PATH",
        help="The keystore's file.",
        show_default=False,
    ),
]
DescriptorOption = Annotated[
    int | None,
    typer.Option(
        "--passphrase-fd",
        metavar="N",
        min=0,
        help=f"Read the passphrase from this file descriptor; otherwise {PASSPHRASE_VARIABLE} or a prompt.",
        show_default=False,
    ),
]
ClockOption = Annotated[
    bool,
    typer.Option(
        "--accept-clock",
        help="Take the clock as right, though it stands before the last change or far after it.",
    ),
]
RollbackOption = Annotated[
    str,
    typer.Option(
        "--accept-rollback",
        metavar="REASON",
        help="Go on from a file that is older than its anchor; what was revoked since stays revoked.",
        show_default=False,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
YesOption = Annotated[bool, typer.Option("--yes", help="Don't ask before doing what can't be undone.")]
ScopeOption = Annotated[str, typer.Option(help="The application or gallery that the key belongs to.")]
ScopeFilter = Annotated[str | None, typer.Option("--scope", help="This scope alone.", show_default=False)]
SubjectArgument = Annotated[str, typer.Argument(metavar="SUBJECT", help="The subject's id in your application.")]
ReasonOption = Annotated[str, typer.Option(help="Why, for the audit trail.")]
_MOST_DAYS = 2_900_000  # the calendar's end: no date lies further off


@overload
def days_of(number: float, option: str) -> timedelta: ...
@overload
def days_of(number: float | None, option: str) -> timedelta | None: ...
def days_of(number: float | None, option: str) -> timedelta | None:
    """What an option says in days.

    Raises:
        UsageError: No calendar has so many.
    """
    if number is None:
        return None
    if not 0 <= number <= _MOST_DAYS:
        raise UsageError(f"it takes 0 to {_MOST_DAYS:,} days, not {number:g}", where=option)
    return timedelta(days=number)
