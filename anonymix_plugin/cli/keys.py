"""`anonymix keys`: look after the keystore."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import platformdirs
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from anonymix_keystore import (
    AwsKms,
    EnvironmentUnlock,
    KeyFileUnlock,
    KeyInfo,
    KeyringUnlock,
    Keystore,
    KmsUnlock,
    PassphraseUnlock,
    RotationReason,
    StoreMissingError,
    Unlock,
    UnlockUnavailableError,
    VaultTransit,
)
from anonymix_plugin.errors import UsageError

__all__ = ["app", "default_keystore", "open_keystore"]

app = typer.Typer(no_args_is_help=True, help="Make, show and look after the keys of subjects.")

PASSPHRASE_VARIABLE = "ANONYMIX_PASSPHRASE"  # noqa: S105 - a name
KEYFILE_VARIABLE = "ANONYMIX_KEYFILE"
_MOST_PASSPHRASE_BYTES = 65_536

_Store = Annotated[
    Path | None,
    typer.Option(
        "--keystore",
        envvar="ANONYMIX_KEYSTORE",
        metavar="PATH",
        help="The keystore's file.",
        show_default=False,
    ),
]
_Descriptor = Annotated[
    int | None,
    typer.Option(
        "--passphrase-fd",
        metavar="N",
        min=0,
        help=f"Read the passphrase from this file descriptor; otherwise {PASSPHRASE_VARIABLE} or a prompt.",
        show_default=False,
    ),
]
_Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
_Yes = Annotated[bool, typer.Option("--yes", help="Don't ask before doing what can't be undone.")]
_Scope = Annotated[str, typer.Option(help="The application or gallery that the key belongs to.")]
_ScopeFilter = Annotated[str | None, typer.Option("--scope", help="This scope alone.", show_default=False)]
_Subject = Annotated[str, typer.Argument(metavar="SUBJECT", help="The subject's id in your application.")]
_Reason = Annotated[str, typer.Option(help="Why, for the audit trail.")]


# --- opening ----------------------------------------------------------------------------------------


def default_keystore() -> Path:
    """Where the keystore lies unless told otherwise: ``ANONYMIX_HOME``, or the user's data folder."""
    home = os.environ.get("ANONYMIX_HOME")
    folder = Path(home) if home else platformdirs.user_data_path("anonymix")
    return folder / "keystore.db"


def open_keystore(path: Path | None = None, passphrase_fd: int | None = None) -> Keystore:
    """Open the keystore, asking for what it is locked up with.

    A passphrase comes from the file descriptor, else from ``ANONYMIX_PASSPHRASE``, else from a
    prompt; a key file is named by ``ANONYMIX_KEYFILE``; other ways find their secret themselves.

    Args:
        path: The file; by default ``ANONYMIX_KEYSTORE``, else ``default_keystore()``.
        passphrase_fd: File descriptor with the passphrase on its first line.

    Raises:
        KeystoreError: It is missing, can't be unlocked, or is damaged.
        UsageError: The file descriptor can't be read.
    """
    place = _place(path)
    try:
        kind, params = Keystore.locked_by(place)
    except StoreMissingError as error:
        raise StoreMissingError(
            error.what, where=error.where, fix="make one with: anonymix keys init"
        ) from None
    return Keystore.open(place, _unlock_for(kind, params, passphrase_fd))


def _place(path: Path | None) -> Path:
    if path is not None:
        return path
    named = os.environ.get("ANONYMIX_KEYSTORE")
    return Path(named) if named else default_keystore()


def _unlock_for(kind: str, params: dict[str, Any], passphrase_fd: int | None) -> Unlock:
    if kind == "passphrase":
        return PassphraseUnlock(_passphrase(passphrase_fd))
    if kind == "key-file":
        named = os.environ.get(KEYFILE_VARIABLE)
        if not named:
            raise UnlockUnavailableError(
                "the store is locked by a key file", fix=f"name it in {KEYFILE_VARIABLE}"
            )
        return KeyFileUnlock(named)
    if kind == "environment":
        return EnvironmentUnlock()
    if kind == "keyring":
        return KeyringUnlock()
    if kind == "aws-kms":
        return KmsUnlock(AwsKms(str(params.get("key_id", ""))))
    if kind == "vault-transit":
        return KmsUnlock(VaultTransit(str(params.get("key", "")), mount=str(params.get("mount", ""))))
    raise UnlockUnavailableError(f"this version can't unlock by {kind}", fix="update anonymix-plugin")


def _passphrase(descriptor: int | None, *, prompt: str = "Passphrase", confirm: bool = False) -> bytes:
    if descriptor is not None:
        return _read_line(descriptor)
    # In bytes, so that a passphrase is the same however the terminal decodes it.
    text = os.environ.get(PASSPHRASE_VARIABLE)
    if text:
        return os.fsencode(text)
    if not sys.stdin.isatty():
        raise UnlockUnavailableError(
            "no passphrase, and no terminal to ask on", fix=f"use --passphrase-fd or {PASSPHRASE_VARIABLE}"
        )
    typed: str = typer.prompt(prompt, hide_input=True, confirmation_prompt=confirm, err=True)
    return typed.encode()


def _read_line(descriptor: int) -> bytes:
    try:
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            line = file.readline(_MOST_PASSPHRASE_BYTES)
    except OSError as error:
        raise UsageError(
            f"can't read the passphrase: {error.strerror}", where=f"--passphrase-fd {descriptor}"
        ) from None
    return line.rstrip(b"\r\n")


# --- output -----------------------------------------------------------------------------------------


def _print_json(content: object) -> None:
    typer.echo(json.dumps(content, indent=2, ensure_ascii=False, default=str))


def _described(info: KeyInfo) -> dict[str, object]:
    return {
        "subject": info.subject,
        "scope": info.scope,
        "kind": "subject" if info.subject else "gallery",
        "version": info.version,
        "state": info.state.value,
        "created": info.created.isoformat(),
        "until": info.until.isoformat() if info.until else None,
        "ended": info.ended.isoformat() if info.ended else None,
        "alias": info.alias,
    }


_COLOURS = {"active": "green", "retired": "yellow", "compromised": "bold red", "destroyed": "dim"}


def _print_keys(infos: Iterable[KeyInfo], as_json: bool) -> None:
    if as_json:
        _print_json([_described(info) for info in infos])
        return
    table = Table("subject", "scope", "version", "state", "created", "until", "ended")
    for info in infos:
        state = info.state.value
        dates = (
            f"{moment:%Y-%m-%d %H:%M}" if moment else "" for moment in (info.created, info.until, info.ended)
        )
        table.add_row(
            escape(info.subject) or "[italic](gallery)",
            escape(info.scope),
            str(info.version),
            f"[{_COLOURS[state]}]{state}",
            *dates,
        )
    Console().print(table)


def _say(as_json: bool, sentence: str, **facts: object) -> None:
    if as_json:
        _print_json(facts)
    else:
        typer.echo(sentence)


def _confirm(yes: bool, question: str) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise UsageError(f"{question} Nobody is there to answer", fix="say --yes")
    typer.confirm(question, abort=True, err=True)


# --- commands ---------------------------------------------------------------------------------------


@app.command("init")
def init(
    *,
    keystore: _Store = None,
    passphrase_fd: _Descriptor = None,
    key_file: Annotated[
        Path | None,
        typer.Option("--key-file", help="Lock by this key file (made if it is missing).", show_default=False),
    ] = None,
    environment: Annotated[
        bool, typer.Option("--environment", help="Lock by the variable ANONYMIX_KEY.")
    ] = False,
    keyring: Annotated[bool, typer.Option("--keyring", help="Lock by the system's keyring.")] = False,
    as_json: _Json = False,
) -> None:
    """Make a new keystore; locked by a passphrase unless told otherwise."""
    if sum((key_file is not None, environment, keyring)) > 1:
        raise UsageError(
            "a keystore is locked in one way", fix="choose one of --key-file, --environment, --keyring"
        )
    place = _place(keystore)
    place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    unlock: Unlock
    if key_file is not None:
        unlock = KeyFileUnlock(key_file) if key_file.exists() else KeyFileUnlock.generate(key_file)
    elif environment:
        unlock = EnvironmentUnlock()
    elif keyring:
        unlock = KeyringUnlock().generate()
    else:
        unlock = PassphraseUnlock(_passphrase(passphrase_fd, prompt="New passphrase", confirm=True))
    Keystore.create(place, unlock).close()
    _say(as_json, f"Made {place}, locked by {unlock.kind}.", keystore=str(place), unlock=unlock.kind)


@app.command("status")
def status(keystore: _Store = None, passphrase_fd: _Descriptor = None, as_json: _Json = False) -> None:
    """Show how many keys there are and how the store is locked."""
    kind, _ = Keystore.locked_by(_place(keystore))
    with open_keystore(keystore, passphrase_fd) as store:
        states: dict[str, int] = {}
        for info in store.list():
            states[info.state.value] = states.get(info.state.value, 0) + 1
        facts: dict[str, object] = {
            "keystore": str(store.path),
            "unlock": kind,
            "epoch": store.epoch,
            "scopes": list(store.scopes()),
            "keys": states,
        }
    if as_json:
        _print_json(facts)
        return
    table = Table(show_header=False)
    for name, value in facts.items():
        shown = value
        if isinstance(value, dict):
            shown = ", ".join(f"{count} {state}" for state, count in value.items()) or "none"
        elif isinstance(value, list):
            shown = ", ".join(value) or "none"
        table.add_row(name, escape(str(shown)))
    Console().print(table)


@app.command("list")
def list_keys(
    scope: _ScopeFilter = None,
    keystore: _Store = None,
    passphrase_fd: _Descriptor = None,
    as_json: _Json = False,
) -> None:
    """List the latest key of every subject."""
    with open_keystore(keystore, passphrase_fd) as store:
        infos = sorted(store.list(scope), key=lambda info: (info.scope, info.subject))
    _print_keys(infos, as_json)


@app.command("show")
def show(
    subject: _Subject,
    *,
    scope: _Scope = "default",
    keystore: _Store = None,
    passphrase_fd: _Descriptor = None,
    as_json: _Json = False,
) -> None:
    """Show all versions of a subject's key (never its material)."""
    with open_keystore(keystore, passphrase_fd) as store:
        infos = store.history(subject, scope)
    _print_keys(infos, as_json)


@app.command("issue")
def issue(
    subject: _Subject,
    *,
    scope: _Scope = "default",
    reason: _Reason = "",
    keystore: _Store = None,
    passphrase_fd: _Descriptor = None,
    as_json: _Json = False,
) -> None:
    """Issue a key to a subject who has no active one."""
    with open_keystore(keystore, passphrase_fd) as store:
        key = store.issue(subject, scope, reason=reason)
    _say(
        as_json,
        f"Issued version {key.version} for {key.subject}.",
        subject=key.subject,
        scope=key.scope,
        version=key.version,
    )


@app.command("rotate")
def rotate(
    subject: _Subject,
    *,
    scope: _Scope = "default",
    reason: _Reason = RotationReason.ROUTINE.value,
    grace_days: Annotated[
        float | None,
        typer.Option("--grace-days", min=0, help="Days that probes may use the old key.", show_default=False),
    ] = None,
    yes: _Yes = False,
    keystore: _Store = None,
    passphrase_fd: _Descriptor = None,
    as_json: _Json = False,
) -> None:
    """Replace a subject's key; with --reason breach the old one is erased at once."""
    if reason == RotationReason.BREACH or grace_days == 0:
        _confirm(yes, f"Erase the old keys of {subject} for good?")
    grace = None if grace_days is None else timedelta(days=grace_days)
    with open_keystore(keystore, passphrase_fd) as store:
        key = store.rotate(subject, scope, reason=reason, grace=grace)
    _say(
        as_json,
        f"{key.subject} now has version {key.version}.",
        subject=key.subject,
        scope=key.scope,
        version=key.version,
    )


@app.command("revoke")
def revoke(
    subject: _Subject,
    *,
    scope: _Scope = "default",
    version: Annotated[int | None, typer.Option(help="This version alone.", show_default=False)] = None,
    reason: _Reason = "",
    yes: _Yes = False,
    keystore: _Store = None,
    passphrase_fd: _Descriptor = None,
    as_json: _Json = False,
) -> None:
    """Destroy a subject's keys at once and for good."""
    _confirm(yes, f"Destroy the keys of {subject} for good?")
    with open_keystore(keystore, passphrase_fd) as store:
        versions = store.revoke(subject, scope, version=version, reason=reason)
    numbers = ", ".join(str(number) for number in versions)
    sentence = f"Destroyed version {numbers} of {subject}." if versions else f"{subject} had no living key."
    _say(as_json, sentence, subject=subject, scope=scope, destroyed=list(versions))
