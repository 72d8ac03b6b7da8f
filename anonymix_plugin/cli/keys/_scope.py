"""Commands for scopes: whether they keep sealed references."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from anonymix_keystore import Keystore, PassphraseUnlock
from anonymix_plugin.cli.keys._app import (
    ClockOption,
    DescriptorOption,
    JsonOption,
    ReasonOption,
    ScopeOption,
    StoreOption,
    SubjectArgument,
    YesOption,
    app,
)
from anonymix_plugin.cli.keys._opening import new_unlock, open_keystore, second_passphrase
from anonymix_plugin.cli.keys._output import confirm, say
from anonymix_plugin.cli.report import print_json
from anonymix_plugin.errors import UsageError
from anonymix_plugin.unlocking import SECOND_KEY_VARIABLE, SECOND_KEYFILE_VARIABLE, SECOND_PASSPHRASE_VARIABLE

scopes = typer.Typer(no_args_is_help=True, help="Say what a scope keeps of its subjects.")
app.add_typer(scopes, name="scope")

COST = (
    "A thief who gets the store's file and both secrets then holds 32 numbers of each person of the scope. "
    "With them he can test photos against people, and link them with those of another such store. Without "
    "references an opened store tells nothing biometric."
)


_WHERE = {
    "key-file": f", and name it in {SECOND_KEYFILE_VARIABLE} where photos are protected",
    "passphrase": f", and give it in {SECOND_PASSPHRASE_VARIABLE} where photos are protected",
    "environment": f", and give it in {SECOND_KEY_VARIABLE} where photos are protected",
}


class Kept(StrEnum):
    """What a scope keeps."""

    SEALED = "sealed"
    OFF = "off"


@scopes.command("list")
def list_scopes(
    *, keystore: StoreOption = None, passphrase_fd: DescriptorOption = None, as_json: JsonOption = False
) -> None:
    """List the scopes, and whether they keep sealed references."""
    with open_keystore(keystore, passphrase_fd) as store:
        keeping = set(store.references.scopes())
        rows = [
            {"scope": name, "references": (Kept.SEALED if name in keeping else Kept.OFF).value}
            for name in sorted(store.scopes())
        ]
    if as_json:
        print_json(rows)
        return
    table = Table("scope", "references")
    for row in rows:
        table.add_row(escape(row["scope"]), row["references"])
    Console().print(table)


@scopes.command("set")
def set_scope(
    scope: Annotated[str, typer.Argument(metavar="SCOPE", help="The application or gallery.")],
    *,
    references: Annotated[
        Kept,
        typer.Option(
            help="sealed: keep each subject's 32 numbers, sealed under a second secret: strangers who "
            "claim a name are told apart better. off: erase them. The price: " + COST
        ),
    ],
    second_key_file: Annotated[
        Path | None,
        typer.Option(
            "--second-key-file",
            help="Lock the second secret by this key file (made if it is missing).",
            show_default=False,
        ),
    ] = None,
    second_environment: Annotated[
        bool,
        typer.Option("--second-environment", help="Lock it by the variable ANONYMIX_SECOND_KEY."),
    ] = False,
    second_keyring: Annotated[bool, typer.Option("--second-keyring", help="Lock it by the system's keyring.")] = False,
    second_aws_kms: Annotated[
        str | None,
        typer.Option("--second-aws-kms", metavar="KEY_ID", help="Lock it by an AWS KMS key.", show_default=False),
    ] = None,
    second_vault: Annotated[
        str | None,
        typer.Option("--second-vault", metavar="KEY", help="Lock it by a Vault transit key.", show_default=False),
    ] = None,
    reason: ReasonOption = "",
    yes: YesOption = False,
    accept_clock: ClockOption = False,
    keystore: StoreOption = None,
    passphrase_fd: DescriptorOption = None,
    as_json: JsonOption = False,
) -> None:
    """Switch sealed references of a scope on or off.

    The first scope that is switched on makes the store's second secret, locked by a passphrase unless told
    otherwise. Subjects get their reference when they are enrolled next.
    """
    given = (second_key_file, second_environment, second_keyring, second_aws_kms, second_vault)
    if references is Kept.OFF:
        if any(given):
            raise UsageError("references are switched off without the second secret", fix="leave it out")
        confirm(yes, f"Erase the references of all subjects of {scope} for good?")
        with open_keystore(keystore, passphrase_fd, accept_clock=accept_clock) as store:
            count = store.references.disable(scope, reason=reason)
        say(
            as_json,
            f"{scope} keeps no references; {count} were erased.",
            scope=scope,
            references=references.value,
            erased=count,
        )
        return
    confirm(yes, f"{COST} Switch them on for {scope}?")
    with open_keystore(keystore, passphrase_fd, accept_clock=accept_clock) as store:
        made = _second_secret(store, *given)
        changed = store.references.enable(scope, reason=reason)
    how = (
        f" The second secret was made, locked by {made}: keep it in another place{_WHERE.get(made, '')}."
        if made
        else ""
    )
    sentence = "keeps references from now on" if changed else "kept references already"
    say(as_json, f"{scope} {sentence}.{how}", scope=scope, references=references.value, second_secret=made)


def _second_secret(
    store: Keystore,
    key_file: Path | None,
    environment: bool,
    keyring: bool,
    aws_kms: str | None,
    vault: str | None,
) -> str:
    """Make the second secret if there is none; returns how it was locked, "" if it was there."""
    if store.originals.enabled():
        if any((key_file, environment, keyring, aws_kms, vault)):
            raise UsageError(
                "the store has its second secret already",
                fix="leave the --second options out; anonymix keys change-unlock --second exchanges it",
            )
        return ""
    unlock = new_unlock(key_file, environment, keyring, aws_kms, vault, second=True)
    if unlock is None:
        unlock = PassphraseUnlock(second_passphrase(confirm=True))
    store.originals.enable(unlock)
    return str(unlock.kind)


@app.command("drop-reference")
def drop_reference(
    subject: SubjectArgument,
    *,
    scope: ScopeOption = "default",
    accept_clock: ClockOption = False,
    keystore: StoreOption = None,
    passphrase_fd: DescriptorOption = None,
    as_json: JsonOption = False,
) -> None:
    """Erase a subject's sealed reference: the next enrolment makes a new one."""
    with open_keystore(keystore, passphrase_fd, accept_clock=accept_clock) as store:
        count = store.references.drop(subject, scope)
    say(as_json, f"Erased {count} references of {subject}.", subject=subject, scope=scope, erased=count)
