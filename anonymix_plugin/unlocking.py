"""Which secret opens a keystore, found without asking anybody."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from anonymix_keystore import (
    AnchorFile,
    EnvironmentUnlock,
    KeyFileUnlock,
    KeyringUnlock,
    Keystore,
    PassphraseUnlock,
    Unlock,
    UnlockUnavailableError,
)
from anonymix_plugin.places import named_by

PASSPHRASE_VARIABLE = "ANONYMIX_PASSPHRASE"  # noqa: S105 - the name of a variable
KEYFILE_VARIABLE = "ANONYMIX_KEYFILE"
SECOND_PASSPHRASE_VARIABLE = "ANONYMIX_SECOND_PASSPHRASE"  # noqa: S105 - as above
SECOND_KEYFILE_VARIABLE = "ANONYMIX_SECOND_KEYFILE"
SECOND_KEY_VARIABLE = "ANONYMIX_SECOND_KEY"
SECOND_USER = "second"
ANCHOR_VARIABLE = "ANONYMIX_ANCHOR"


def anchor_in_use() -> AnchorFile | None:
    """The anchor file that the environment names, or None."""
    named = named_by(ANCHOR_VARIABLE)
    return None if named is None else AnchorFile(named)


def first_line(secret: bytes) -> bytes:
    """What counts of a secret that came from a file: its first line, without the line's end."""
    return secret.split(b"\n", 1)[0].rstrip(b"\r\n")


def passphrase_in(variable: str) -> bytes:
    """The passphrase that an environment variable holds, in a terminal's bytes, or b""."""
    return first_line(os.fsencode(os.environ.get(variable, "")))


def unlock_for(kind: str, params: dict[str, Any], passphrase: Callable[[], bytes], *, second: bool = False) -> Unlock:
    """Return the way to unlock what is locked by `kind`.

    Args:
        kind: What `Keystore.locked_by` or `Originals.locked_by` says.
        params: What it says besides.
        passphrase: Called for the passphrase where it is locked by one.
        second: Whether the second secret is meant, which opens originals and references.

    Raises:
        UnlockUnavailableError: The secret is not there, or this version does not know the kind.
    """
    if kind == "passphrase":
        return PassphraseUnlock(passphrase())
    if kind == "key-file":
        variable = SECOND_KEYFILE_VARIABLE if second else KEYFILE_VARIABLE
        named = named_by(variable)
        if named is None:
            what = "the second secret, which opens sealed references, is" if second else "the store is locked by"
            raise UnlockUnavailableError(f"{what} a key file", fix=f"name it in {variable}")
        return KeyFileUnlock(named)
    if kind == "environment":
        return EnvironmentUnlock(SECOND_KEY_VARIABLE) if second else EnvironmentUnlock()
    if kind == "keyring":
        return KeyringUnlock(user=SECOND_USER) if second else KeyringUnlock()
    if kind in {"aws-kms", "vault-transit"}:
        from anonymix_keystore import AwsKms, KmsUnlock, VaultTransit  # with HTTP and TLS

    if kind == "aws-kms":
        return KmsUnlock(AwsKms(str(params.get("key_id", ""))))
    if kind == "vault-transit":
        return KmsUnlock(VaultTransit(str(params.get("key", "")), mount=str(params.get("mount", ""))))
    raise UnlockUnavailableError(f"this version can't unlock by {kind}", fix="update anonymix-plugin")


def unlock_without_asking(path: str | os.PathLike[str], passphrase: str | None = None) -> Unlock:
    """Return the way to unlock the store at `path` with what the caller and the environment give.

    Raises:
        KeystoreError: There is no store, or its secret is not there.
    """
    kind, params = Keystore.locked_by(path)

    def from_environment() -> bytes:
        found = passphrase_in(PASSPHRASE_VARIABLE) if passphrase is None else os.fsencode(passphrase)
        if not found:
            raise UnlockUnavailableError(
                "the store is locked by a passphrase and none was given",
                where=str(path),
                fix=f"pass passphrase=..., or set {PASSPHRASE_VARIABLE}",
            )
        return found

    return unlock_for(kind, params, from_environment)


def unlock_references(store: Keystore, passphrase: Callable[[], bytes]) -> None:
    """Unlock a store's second secret by what the environment gives.

    Args:
        store: A store that has one.
        passphrase: Called for it where it is a passphrase.

    Raises:
        KeystoreError: The secret is not there, or wrong.
    """
    kind, params = store.originals.locked_by()
    store.originals.unlock(unlock_for(kind, params, passphrase, second=True))


def unlock_references_without_asking(store: Keystore) -> bool:
    """The same with the environment alone, if a scope of the store keeps references.

    Returns:
        Whether references can be read. Where the environment does not give the secret they stay locked, and
        whoever needs one is refused.

    Raises:
        KeystoreError: The secret is wrong.
    """
    if not store.references.scopes():
        return False

    def from_environment() -> bytes:
        found = passphrase_in(SECOND_PASSPHRASE_VARIABLE)
        if not found:
            what = "the second secret, which opens sealed references, is a passphrase"
            raise UnlockUnavailableError(what, fix=f"set {SECOND_PASSPHRASE_VARIABLE}")
        return found

    try:
        unlock_references(store, from_environment)
    except UnlockUnavailableError:
        return False
    return True
