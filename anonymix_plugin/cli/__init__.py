"""The command line, `anonymix`.

Commands live in modules of their own and are imported when they are run; importing this one costs little.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from importlib.metadata import entry_points
from types import FrameType
from typing import Annotated, Any, Final

import typer
from typer.main import get_command

from anonymix_plugin.cli.lazy import LazyCommand, LazyGroup
from anonymix_plugin.cli.report import (
    EXIT_BROKEN_PIPE,
    EXIT_INTERRUPTED,
    Fault,
    show_error,
    show_fault,
)
from anonymix_plugin.words import clean

__all__ = ["COMMANDS", "LazyCommand", "app", "main"]

_GROUP = "anonymix.commands"
_FACES, _CARE = "Faces", "Keys and weights"

_EXIT_CODES = (
    "Exit codes: 0 all is well; 1 some photos failed, or a question was answered with no; "
    "2 the command makes no sense as it stands; 3 photo; 4 keys; 5 models; 6 output; "
    "7 the faces are not one person's; 8 adapters; 70 a bug; 130 interrupted."
)


COMMANDS: Final[Mapping[str, LazyCommand]] = {
    "protect": LazyCommand("anonymix_plugin.cli.protect:protect", "Turn photos into cancelable faces.", _FACES),
    "bulk": LazyCommand("anonymix_plugin.cli.bulk:app", "Many photos, in several processes.", _FACES),
    "verify": LazyCommand("anonymix_plugin.cli.verify:verify", "Compare two photos through the mixer.", _FACES),
    "keys": LazyCommand("anonymix_plugin.cli.keys:app", "Make, show and look after the keys of subjects.", _CARE),
    "models": LazyCommand(
        "anonymix_plugin.cli.models:app", "List, fetch and check the weights that Anonymix uses.", _CARE
    ),
    "drill": LazyCommand("anonymix_plugin.cli.drill:drill", "Rehearse a breach in front of one back end.", _CARE),
    # By its name, as adapters import the plug-in and never the other way.
    "gateway": LazyCommand(
        "anonymix_adapters.gateway.command:app", "Stand in front of a recogniser's API, as a server.", _FACES
    ),
    "generators": LazyCommand(
        "anonymix_plugin.cli.generators:app", "Look at StyleGAN2 checkpoints of your own.", _CARE
    ),
}


@cache
def _all_commands() -> Mapping[str, LazyCommand]:
    found: dict[str, LazyCommand] = {}
    for point in entry_points(group=_GROUP):
        with suppress(ImportError):
            found |= point.load()
    return {**found, **COMMANDS}


class _Commands(LazyGroup):
    def available(self) -> Mapping[str, LazyCommand]:
        """The product's commands and those that other packages add by the entry points `anonymix.commands`.

        A package that cannot be loaded adds nothing, and a product's command is never replaced.
        """
        return _all_commands()

    def invoke(self, ctx: Any) -> Any:
        """Run a command; end with a word when somebody interrupts."""
        as_json = bool(ctx.obj and ctx.obj.get("json"))
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            what = "interrupted; what was finished is whole, nothing is half written"
            show_fault(Fault("interrupted", what, "", "", EXIT_INTERRUPTED), as_json=as_json)
            raise typer.Exit(EXIT_INTERRUPTED) from None


# Without typer's own tracebacks, which print the values of local variables.
app = typer.Typer(cls=_Commands, no_args_is_help=True, epilog=_EXIT_CODES, pretty_exceptions_enable=False)


def _print_version(wanted: bool) -> None:
    if wanted:
        from anonymix_plugin import __version__

        typer.echo(f"anonymix {__version__}")
        raise typer.Exit


@app.callback()
def anonymix(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Cancelable faces in front of any face recogniser: keyed, revocable, photoreal."""


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        args: Arguments; those of the process by default.

    Returns:
        The exit code; docs/exit-codes.md lists them.
    """
    given = sys.argv[1:] if args is None else list(args)
    options = given[: given.index("--")] if "--" in given else given
    as_json = "--json" in options
    usage_error: Any = typer.BadParameter.__base__  # base of all errors of parsing
    try:
        with _ended_by_sigterm():
            ended = get_command(app).main(given, "anonymix", standalone_mode=False, obj={"json": as_json})
            with suppress(ValueError):  # closed: nothing is waiting in it
                sys.stdout.flush()
    except usage_error as error:
        return _show_usage_error(error, as_json=as_json)
    except typer.Abort:
        show_fault(Fault("aborted", "stopped: nothing was changed", "", "", 1), as_json=as_json)
        return 1
    except BrokenPipeError:
        return _stop_writing()
    except SystemExit as stop:
        # What typer and rich make of a reader who stopped reading.
        if isinstance(stop.__context__, BrokenPipeError):
            return _stop_writing()
        raise
    except Exception as error:  # noqa: BLE001 - here and nowhere else: every error becomes a message
        return show_error(error, as_json=as_json)
    return ended if isinstance(ended, int) else 0


def _show_usage_error(error: Any, *, as_json: bool) -> int:
    error.message = clean(error.message)  # it quotes what was typed, which may be a photo
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()
    elif as_json:
        command = error.ctx.command_path if error.ctx else "anonymix"
        fault = Fault("usage", error.format_message(), command, f"see {command} --help", 2)
        show_fault(fault, as_json=True)
    else:
        from typer.rich_utils import rich_format_error

        rich_format_error(error)
    return 2


def _stop_writing() -> int:
    # What is still in the buffer would raise once more when the interpreter flushes it at its end.
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
    return EXIT_BROKEN_PIPE


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Let SIGTERM unwind the stack, so that drafts of files are removed, instead of ending at once."""

    def end(number: int, _: FrameType | None) -> None:
        raise SystemExit(128 + number)

    try:
        before = signal.signal(signal.SIGTERM, end)
    except ValueError:  # not the main thread: whoever runs us there looks after signals
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
