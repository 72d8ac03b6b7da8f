"""Errors as people and programs read them: what, where, what to do, and an exit code."""

from __future__ import annotations

import json
import os
import sys
import traceback
from dataclasses import dataclass
from typing import Any

import typer

from anonymix_plugin.errors import AnonymixError, MissingPackageError, OutputError
from anonymix_plugin.words import clean, shown

EXIT_SOME_FAILED = 1
EXIT_KEYS = 4
EXIT_DIFFERENT = 7
EXIT_INTERNAL = 70
EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141

DEBUG_VARIABLE = "ANONYMIX_DEBUG"


@dataclass(frozen=True)
class Fault:
    """An error, ready to be shown.

    Attributes:
        code: Stable name for programs.
        what: One sentence.
        where: File, subject or field, or "".
        fix: What to do, or "".
        exit_code: What the command ends with.
    """

    code: str
    what: str
    where: str
    fix: str
    exit_code: int

    def as_json(self) -> dict[str, str]:
        """The part of it that belongs into JSON."""
        return {"code": self.code, "what": self.what, "where": self.where, "fix": self.fix}


def fault_of(error: Exception) -> Fault:
    """Describe any error.

    Of an error that nobody foresaw, only the type is told: its message may hold anything.
    """
    if isinstance(error, AnonymixError):
        return Fault(error.code, error.what, error.where, error.fix, error.exit_code)
    from anonymix_keystore import KeystoreError

    if isinstance(error, KeystoreError):
        where = shown(error.where) if error.where else ""
        return Fault(error.code, clean(error.what), where, clean(error.fix), EXIT_KEYS)
    if isinstance(error, ModuleNotFoundError) and (missing := MissingPackageError.of(error)) is not None:
        return fault_of(missing)
    if isinstance(error, OSError) and error.strerror:
        return Fault(
            OutputError.code,
            f"the operating system refused: {error.strerror}",
            "" if error.filename is None else shown(error.filename),
            "check the path, its permissions and the space left",
            OutputError.exit_code,
        )
    return Fault(
        "internal",
        f"something went wrong that nobody foresaw ({type(error).__name__})",
        "",
        f"please report it, with what the same command prints under {DEBUG_VARIABLE}=1",
        EXIT_INTERNAL,
    )


def show_error(error: Exception, *, as_json: bool) -> int:
    """Print an error: as one message on standard error, or as JSON on standard output.

    Returns:
        The exit code.
    """
    fault = fault_of(error)
    if fault.exit_code == EXIT_INTERNAL and os.environ.get(DEBUG_VARIABLE) == "1":
        traceback.print_exception(error, file=sys.stderr)
    show_fault(fault, as_json=as_json)
    return fault.exit_code


def show_fault(fault: Fault, *, as_json: bool) -> None:
    """Print a fault where it belongs."""
    if as_json:
        print_json({"error": fault.as_json()})
        return
    from rich.console import Console
    from rich.text import Text

    # As plain text, never as markup: a file may well be called "[red]".
    console = Console(stderr=True, highlight=False)
    place = f"{printable(fault.where)}: " if fault.where else ""
    console.print(Text.assemble(("Error: ", "bold red"), place, printable(fault.what)), soft_wrap=True)
    if fault.fix:
        console.print(Text.assemble(("What to do: ", "bold"), printable(fault.fix)), soft_wrap=True)


def print_json(value: Any, *, indent: int | None = 2) -> None:
    """Print JSON on standard output; times and paths are written as texts."""
    text = json.dumps(value, indent=indent, ensure_ascii=False, default=str)
    try:
        text.encode()
    except UnicodeEncodeError:  # a file name that is no text; escaped, it still leads back to the file
        text = json.dumps(value, indent=indent, default=str)
    typer.echo(text)


def printable(text: object) -> str:
    """A text that may come from a file name, without what would steer or upset a terminal."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in str(text))
