"""Commands for the store as a whole: init, status, backup, restore, change-unlock."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from anonymix_keystore import (
    AnchorFile,
    DamagedError,
    KeyFileUnlock,
    Keystore,
    PassphraseUnlock,
    Unlock,
    check_free,
)
from anonymix_plugin.cli.keys._app import (
    ClockOption,
    DescriptorOption,
    JsonOption,
    RollbackOption,
    StoreOption,
    app,
)
from anonymix_plugin.cli.keys._opening import (
    asked,
    new_unlock,
    open_keystore,
    passphrase_from,
    place_of,
    read_line,
    second_passphrase,
)
from anonymix_plugin.cli.keys._output import end_with, say
from anonymix_plugin.cli.report import print_json
from anonymix_plugin.unlocking import ANCHOR_VARIABLE, passphrase_in, unlock_for

NEW_PASSPHRASE_VARIABLE = "ANONYMIX_NEW_PASSPHRASE"  # noqa: S105 - a name


_LockByKeyFile = Annotated[
    Path | None, typer.Option("--key-file", help="Lock by this key file (made if it is missing).", show_default=False)
]
_LockByVariable = Annotated[bool, typer.Option("--environment", help="Lock by the variable ANONYMIX_KEY.")]
_LockByKeyring = Annotated[bool, typer.Option("--keyring", help="Lock by the system's keyring.")]
_LockByAwsKms = Annotated[
    str | None, typer.Option("--aws-kms", metavar="KEY_ID", help="Lock by an AWS KMS key.", show_default=False)
]
_LockByVault = Annotated[
    str | None, typer.Option("--vault", metavar="KEY", help="Lock by a Vault transit key.", show_default=False)
]


@app.command("init")
def init(
    *,
    keystore: StoreOption = None,
    passphrase_fd: DescriptorOption = None,
    key_file: _LockByKeyFile = None,
    environment: _LockByVariable = False,
    keyring: _LockByKeyring = False,
    aws_kms: _LockByAwsKms = None,
    vault: _LockByVault = None,
    anchor: Annotated[
        Path | None,
        typer.Option("--anchor", help="Make an anchor here and tie the store to it.", show_default=False),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Make a new keystore; locked by a passphrase unless told otherwise."""
    place = place_of(keystore)
    check_free(place)
    unlock = new_unlock(key_file, environment, keyring, aws_kms, vault)
    if unlock is None:
        unlock = PassphraseUnlock(passphrase_from(passphrase_fd, prompt="New passphrase", confirm=True))
    place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    Keystore.create(place, unlock, anchor=AnchorFile.create(anchor) if anchor else None).close()
    tied = f" Set {ANCHOR_VARIABLE}={anchor} from now on." if anchor else ""
    say(as_json, f"Made {place}, locked by {unlock.kind}.{tied}", keystore=str(place), unlock=unlock.kind)


@app.command("status")
def status(
    *,
    accept_rollback: RollbackOption = "",
    accept_clock: ClockOption = False,
    keystore: StoreOption = None,
    passphrase_fd: DescriptorOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show how many keys there are and how the store is locked."""
    kind, _ = Keystore.locked_by(place_of(keystore))
    with open_keystore(keystore, passphrase_fd, accept_clock=accept_clock, accept_rollback=accept_rollback) as store:
        states: Counter[str] = Counter()
        damage = None
        try:
            states.update(info.state.value for info in store.list())
        except DamagedError as error:  # of some; the others are counted all the same
            damage = error
        facts: dict[str, object] = {
            "keystore": str(store.path),
            "unlock": kind,
            "epoch": store.epoch,
            "scopes": None,
            "references_in": None,
            "keys": states,
            "erased_bytes_in_log": store.unscrubbed,
        }
        for name, named in (("scopes", store.scopes), ("references_in", store.references.scopes)):
            try:
                facts[name] = list(named())
            except DamagedError as error:
                damage = damage or error
    if as_json:
        if damage is not None:
            end_with(damage, as_json, facts)
        print_json(facts)
        return
    table = Table(show_header=False)
    for name, value in facts.items():
        shown = value
        if isinstance(value, dict):
            shown = ", ".join(f"{count} {state}" for state, count in value.items()) or "none"
        elif isinstance(value, bool):
            shown = "yes, until whoever reads the store lets go of it" if value else "no"
        elif isinstance(value, list):
            shown = ", ".join(value) or "none"
        elif value is None:
            shown = "can't be told: rows are damaged"
        table.add_row(name.replace("_", " "), escape(str(shown)))
    Console().print(table)
    if damage is not None:
        raise damage


@app.command("tie-anchor")
def tie_anchor(
    anchor: Annotated[Path, typer.Argument(metavar="FILE", help="The anchor; made if it is missing.")],
    *,
    accept_clock: ClockOption = False,
    keystore: StoreOption = None,
    passphrase_fd: DescriptorOption = None,
    as_json: JsonOption = False,
) -> None:
    """Tie the store to an anchor, and tell it all that was ever revoked."""
    with open_keystore(keystore, passphrase_fd, accept_clock=accept_clock) as store:
        store.tie_anchor(AnchorFile(anchor) if anchor.exists() else AnchorFile.create(anchor))
    say(as_json, f"Tied. Set {ANCHOR_VARIABLE}={anchor} from now on.", anchor=str(anchor))


@app.command("backup")
def backup(
    output: Annotated[Path, typer.Argument(metavar="FILE", help="The backup to make.")],
    *,
    key_file: Annotated[
        Path | None,
        typer.Option(
            "--key-file", help="Lock the backup by this key file (made if it is missing).", show_default=False
        ),
    ] = None,
    keystore: StoreOption = None,
    passphrase_fd: DescriptorOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write an encrypted backup, locked by a key file or by the passphrase."""
    unlock: Unlock
    with open_keystore(keystore, passphrase_fd) as store:
        if key_file is not None:
            unlock = KeyFileUnlock(key_file) if key_file.exists() else KeyFileUnlock.generate(key_file)
        else:
            unlock = PassphraseUnlock(passphrase_from(None, prompt="Passphrase of the backup", confirm=True))
        info = store.backup(output, unlock)
    say(
        as_json,
        f"Wrote {output} (epoch {info.epoch}), locked by {info.unlock}.",
        **asdict(info),
        file=str(output),
    )


@app.command("restore")
def restore(
    source: Annotated[Path, typer.Argument(metavar="FILE", help="The backup.")],
    *,
    key_file: Annotated[
        Path | None, typer.Option("--key-file", help="What the backup is locked by.", show_default=False)
    ] = None,
    accept_rollback: RollbackOption = "",
    keystore: StoreOption = None,
    passphrase_fd: DescriptorOption = None,
    as_json: JsonOption = False,
) -> None:
    """Put the store from a backup in place, where there must be none."""
    place = place_of(keystore)
    unlock = KeyFileUnlock(key_file) if key_file else PassphraseUnlock(passphrase_from(passphrase_fd))
    info = Keystore.restore(source, place, unlock)
    if accept_rollback:
        open_keystore(place, None, accept_rollback=accept_rollback).close()
    say(as_json, f"Restored {place} (epoch {info.epoch}).", **asdict(info), keystore=str(place))


@app.command("change-unlock")
def change_unlock(
    *,
    key_file: _LockByKeyFile = None,
    environment: _LockByVariable = False,
    keyring: _LockByKeyring = False,
    aws_kms: _LockByAwsKms = None,
    vault: _LockByVault = None,
    new_passphrase_fd: Annotated[
        int | None,
        typer.Option(
            "--new-passphrase-fd",
            metavar="N",
            min=0,
            help="Read the new passphrase here.",
            show_default=False,
        ),
    ] = None,
    second: Annotated[
        bool,
        typer.Option("--second", help="Exchange the second secret, which opens originals and references."),
    ] = False,
    accept_clock: ClockOption = False,
    keystore: StoreOption = None,
    passphrase_fd: DescriptorOption = None,
    as_json: JsonOption = False,
) -> None:
    """Lock the store up in another way, by a new passphrase unless told otherwise."""
    with open_keystore(keystore, passphrase_fd, accept_clock=accept_clock) as store:
        old = _second_unlock(store) if second else None
        unlock = new_unlock(key_file, environment, keyring, aws_kms, vault, second=second)
        if unlock is None:
            if new_passphrase_fd is not None:
                text = read_line(new_passphrase_fd)
            else:
                text = passphrase_in(NEW_PASSPHRASE_VARIABLE) or asked("New passphrase", confirm=True)
            unlock = PassphraseUnlock(text)
        if old is None:
            store.change_unlock(unlock)
        else:
            store.originals.change_unlock(old, unlock)
    what = "second secret" if second else "store"
    say(as_json, f"The {what} is locked by {unlock.kind} now.", unlock=unlock.kind)


def _second_unlock(store: Keystore) -> Unlock:
    kind, params = store.originals.locked_by()
    return unlock_for(kind, params, second_passphrase, second=True)
