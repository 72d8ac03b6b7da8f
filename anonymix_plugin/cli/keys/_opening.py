"""Opening the keystore: where it lies, and what it is locked up with."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import platformdirs
import typer

from anonymix_keystore import (
    EnvironmentUnlock,
    KeyFileUnlock,
    KeyringUnlock,
    Keystore,
    OriginalsError,
    Unlock,
    UnlockUnavailableError,
)
from anonymix_plugin.configuration import load_configuration
from anonymix_plugin.errors import UsageError
from anonymix_plugin.keyservice import service_address
from anonymix_plugin.places import by_default, named_by, needed
from anonymix_plugin.unlocking import (
    PASSPHRASE_VARIABLE,
    SECOND_KEY_VARIABLE,
    SECOND_PASSPHRASE_VARIABLE,
    SECOND_USER,
    anchor_in_use,
    first_line,
    passphrase_in,
    unlock_for,
    unlock_references,
)

if TYPE_CHECKING:
    from anonymix_plugin.keyservice import RemoteKeystore

_MOST_PASSPHRASE_BYTES = 65_536


def default_keystore() -> Path:
    """Where the keystore lies unless told otherwise: ``ANONYMIX_HOME``, or the user's data folder."""
    folder = named_by("ANONYMIX_HOME") or by_default(lambda: platformdirs.user_data_path("anonymix"))
    return needed(folder, "ANONYMIX_KEYSTORE", "the keystore lies") / "keystore.db"


def open_keystore(
    path: Path | None = None,
    passphrase_fd: int | None = None,
    *,
    accept_clock: bool = False,
    accept_rollback: str = "",
    references_of: str | None = None,
    cache_size: int = 4096,
    originals: bool = False,
) -> Keystore:
    """Open the keystore, asking for what it is locked up with.

    A passphrase comes from the file descriptor, else from ``ANONYMIX_PASSPHRASE``, else from a
    prompt; a key file is named by ``ANONYMIX_KEYFILE``; other ways find their secret themselves.
    Where ``ANONYMIX_ANCHOR`` names an anchor file, the store is compared with it.

    Args:
        path: The file; by default ``ANONYMIX_KEYSTORE``, else ``default_keystore()``.
        passphrase_fd: File descriptor with the passphrase on its first line.
        accept_clock: Take the clock as right, though it stands before the last change or far after it.
        accept_rollback: A reason to take an old file as the current one.
        references_of: A scope; if it keeps references, the second secret is unlocked, too. "" stands for any scope.
        cache_size: Keys kept in memory, 0 for none.
        originals: Unlock the second secret, which opens sealed originals.

    Raises:
        KeystoreError: It is missing, can't be unlocked, or is damaged.
        UsageError: The file descriptor can't be read.
    """
    place = place_of(path)
    kind, params = Keystore.locked_by(place)
    unlock = unlock_for(kind, params, lambda: passphrase_from(passphrase_fd))
    store = Keystore.open(
        place,
        unlock,
        anchor=anchor_in_use(),
        busy_timeout=load_configuration().busy_timeout,
        accept_clock=accept_clock,
        accept_rollback=accept_rollback,
        cache_size=cache_size,
    )
    try:
        if originals and not store.originals.enabled():
            raise OriginalsError("this keystore keeps no originals", where=str(place), fix="give --photos PLACE")
        if originals or (references_of is not None and _keeps_references(store, references_of)):
            unlock_references(store, second_passphrase)
    except BaseException:
        store.close()
        raise
    return store


def _keeps_references(store: Keystore, scope: str) -> bool:
    return store.references.enabled(scope) if scope else bool(store.references.scopes())


def open_keys(
    path: Path | None = None,
    passphrase_fd: int | None = None,
    *,
    accept_clock: bool = False,
    references_of: str | None = None,
    originals: bool = False,
) -> Keystore | RemoteKeystore:
    """Open the keystore as `open_keystore` does, or the key service whose address stands in its place.

    Raises:
        KeystoreError: It is missing, can't be unlocked, or is damaged.
        ConfigurationError: It is a key service, and no client certificate is named.
    """
    place = _named(path)
    if service_address(place) is None:
        how: dict[str, Any] = {"accept_clock": accept_clock, "references_of": references_of, "originals": originals}
        return open_keystore(path, passphrase_fd, **how)
    if originals:
        raise OriginalsError("a key service gives no sealed originals", fix="give --photos PLACE")
    if passphrase_fd is not None or accept_clock:
        raise UsageError(
            "a key service opens its store itself",
            where="--keystore",
            fix="leave --passphrase-fd and --accept-clock out",
        )
    from anonymix_plugin.keyservice import RemoteKeystore

    return RemoteKeystore(str(place))


def passphrase_of(path: Path | None, passphrase_fd: int | None) -> bytes | None:
    """The passphrase of a keystore, for processes that can't ask for it themselves.

    Args:
        path: See `open_keystore`.
        passphrase_fd: See `open_keystore`.

    Returns:
        None where the store is locked in another way.
    """
    if service_address(_named(path)) is not None:
        return None
    kind, _ = Keystore.locked_by(place_of(path))
    return passphrase_from(passphrase_fd) if kind == "passphrase" else None


def place_of(path: Path | None) -> Path:
    """The keystore's file.

    Raises:
        UsageError: The address of a key service is named in its place.
    """
    place = _named(path)
    if service_address(place) is not None:
        raise UsageError(
            "this works on the keystore's file, and a key service is named",
            where="--keystore",
            fix="run it on the machine of the store",
        )
    return place


def _named(path: Path | None) -> Path:
    if path is not None:  # from an option, or by it from ANONYMIX_KEYSTORE, whose line end counts for nothing
        return Path(str(path).rstrip("\r\n"))
    address = Path(os.environ.get("ANONYMIX_KEYSTORE", "").rstrip("\r\n"))
    if service_address(address) is not None:
        return address
    return named_by("ANONYMIX_KEYSTORE") or default_keystore()


def passphrase_from(descriptor: int | None, *, prompt: str = "Passphrase", confirm: bool = False) -> bytes:
    if descriptor is not None:
        return read_line(descriptor)
    # In bytes, so that a passphrase is the same however the terminal decodes it.
    return passphrase_in(PASSPHRASE_VARIABLE) or asked(prompt, confirm=confirm)


def second_passphrase(*, confirm: bool = False) -> bytes:
    """The second secret, which opens originals and references, where it is a passphrase."""
    if found := passphrase_in(SECOND_PASSPHRASE_VARIABLE):
        return found
    if not on_terminal():
        raise UnlockUnavailableError(
            "no second passphrase, and no terminal to ask on", fix=f"set {SECOND_PASSPHRASE_VARIABLE}"
        )
    return asked("Second passphrase", confirm=confirm)


def on_terminal() -> bool:
    return sys.stdin.isatty()


def asked(prompt: str, *, confirm: bool) -> bytes:
    if not on_terminal():
        raise UnlockUnavailableError(
            "no passphrase, and no terminal to ask on", fix=f"use --passphrase-fd or {PASSPHRASE_VARIABLE}"
        )
    typed: str = typer.prompt(prompt, hide_input=True, confirmation_prompt=confirm, err=True)
    return typed.encode()


def read_line(descriptor: int) -> bytes:
    try:
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            line = file.readline(_MOST_PASSPHRASE_BYTES)
    except (OSError, OverflowError, TypeError) as error:
        reason = getattr(error, "strerror", None) or "there is no such descriptor"
        raise UsageError(f"can't read the passphrase: {reason}", where=f"--passphrase-fd {descriptor}") from None
    return first_line(line)


def new_unlock(
    key_file: Path | None,
    environment: bool,
    keyring: bool,
    aws_kms: str | None = None,
    vault: str | None = None,
    *,
    second: bool = False,
) -> Unlock | None:
    """The unlock that options name, or ``None`` for a passphrase; of the store, or of its second secret."""
    if sum((key_file is not None, environment, keyring, aws_kms is not None, vault is not None)) > 1:
        raise UsageError("a keystore is locked in one way", fix="choose one of the options")
    if key_file is not None:
        return KeyFileUnlock(key_file) if key_file.exists() else KeyFileUnlock.generate(key_file)
    if environment:
        return EnvironmentUnlock(SECOND_KEY_VARIABLE) if second else EnvironmentUnlock()
    if keyring:
        return (KeyringUnlock(user=SECOND_USER) if second else KeyringUnlock()).generate()
    from anonymix_keystore import AwsKms, KmsUnlock, VaultTransit  # with HTTP and TLS

    if aws_kms is not None:
        return KmsUnlock(AwsKms(aws_kms))
    return None if vault is None else KmsUnlock(VaultTransit(vault))
