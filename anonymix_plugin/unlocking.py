"""Which secret opens a keystore, found without asking anybody."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from anonymix_keystore import (
    AnchorFile,
    AwsKms,
    EnvironmentUnlock,
    KeyFileUnlock,
    KeyringUnlock,
    Keystore,
    KmsUnlock,
    PassphraseUnlock,
    Unlock,
    UnlockUnavailableError,
    VaultTransit,
)
from anonymix_plugin.places import named_by

PASSPHRASE_VARIABLE = "ANONYMIX_PASSPHRASE"  # noqa: S105 - the name of a variable
KEYFILE_VARIABLE = "ANONYMIX_KEYFILE"
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


def unlock_for(kind: str, params: dict[str, Any], passphrase: Callable[[], bytes]) -> Unlock:
    """Return the way to unlock a store that is locked by `kind`.

    Args:
        kind: What `Keystore.locked_by` says.
        params: What it says besides.
        passphrase: Called for the passphrase where the store is locked by one.

    Raises:
        UnlockUnavailableError: The secret is not there, or this version does not know the kind.
    """
    if kind == "passphrase":
        return PassphraseUnlock(passphrase())
    if kind == "key-file":
        named = named_by(KEYFILE_VARIABLE)
        if named is None:
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
