"""Slots: the root key of a store (and that of its sealed originals), locked up by an unlock method."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from anonymix_keystore._crypto import KEY_BYTES, encode, seal, unseal
from anonymix_keystore._database import Database
from anonymix_keystore._errors import RESTORE, DamagedError, LockedError, WrongKeyError, WrongPassphraseError
from anonymix_keystore._unlock import Unlock

ROOT = "root"
ORIGINALS = "originals"


class Slot(NamedTuple):
    """One locked root key: which method, its parameters in the clear, the sealed root."""

    purpose: str
    kind: str
    params: str
    sealed: bytes

    def checksum(self, store_id: bytes) -> bytes:
        """SHA-256 that tells a damaged slot from a wrong passphrase. It protects against nothing."""
        return hashlib.sha256(encode((store_id, *self))).digest()


def _context(store_id: bytes, purpose: str, kind: str, params: str) -> bytes:
    return encode(("slot", store_id, purpose, kind, params))


def _label(store_id: bytes, purpose: str) -> Mapping[str, str]:
    # What a key service logs and checks beside the wrapped key (encryption context).
    return {"anonymix-store": store_id.hex(), "anonymix-purpose": purpose}


_RIGHT = "give the one that locks it; nothing else opens it"
_KEYS = {"aws-kms": "AWS KMS key", "vault-transit": "transit key"}


def lock(store_id: bytes, purpose: str, root: bytes, unlock: Unlock) -> Slot:
    """Lock up a root key.

    Raises:
        LockedError: The method's secret can't be had.
    """
    key, params = unlock.new_key(_label(store_id, purpose))
    text = json.dumps(params, sort_keys=True)
    return Slot(purpose, unlock.kind, text, seal(key, root, _context(store_id, purpose, unlock.kind, text)))


def open_slot(store_id: bytes, slot: Slot, unlock: Unlock, where: str) -> bytes:
    """Unlock a root key.

    Raises:
        LockedError: The store is locked in another way, or the method's secret can't be had.
        WrongKeyError: The secret is not the right one.
        DamagedError: The slot was changed.
    """
    what = "the store's second secret" if slot.purpose == ORIGINALS else "the store"
    if slot.kind != unlock.kind:
        raise LockedError(
            f"{what} is unlocked by {slot.kind}, not by {unlock.kind}", where=where, fix=f"use {slot.kind}"
        )
    refused = WrongKeyError(f"this {_KEYS.get(slot.kind, slot.kind)} does not open {what}", where=where, fix=_RIGHT)
    try:
        key = unlock.key(params(slot), _label(store_id, slot.purpose))
    except WrongKeyError as error:  # a key service says so itself, and does not know what it was asked for
        raise WrongKeyError(refused.what, where=error.where) from None
    except LockedError as error:
        if slot.purpose == ORIGINALS:
            raise type(error)(f"{what}: {error.what}", where=error.where, fix=error.fix) from None
        raise
    try:
        root = unseal(key, slot.sealed, _context(store_id, slot.purpose, slot.kind, slot.params))
    except WrongKeyError:
        if slot.kind == "passphrase":
            second = "second " if slot.purpose == ORIGINALS else ""
            raise WrongPassphraseError(f"wrong {second}passphrase", where=where, fix=_RIGHT) from None
        raise refused from None
    if len(root) != KEY_BYTES:
        raise DamagedError("the root key has a wrong size", where=where)
    return root


def params(slot: Slot) -> dict[str, Any]:
    """The slot's parameters.

    Raises:
        DamagedError: They are no JSON object.
    """
    try:
        content = json.loads(slot.params)
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise DamagedError("the unlocking parameters are damaged")
    return content


def read(db: Database, store_id: bytes, purpose: str) -> Slot | None:
    """Read a slot, or ``None`` where there is none.

    Raises:
        DamagedError: It was changed.
    """
    record = db.row("SELECT purpose, kind, params, sealed, checksum FROM slots WHERE purpose = ?", (purpose,))
    if record is None:
        return None
    slot = Slot(*record[:4])
    try:
        fine = record[4] == slot.checksum(store_id)
    except TypeError:
        fine = False
    if not fine:
        raise DamagedError("the unlocking slot is damaged", where=db.where, fix=RESTORE)
    return slot


def need(db: Database, store_id: bytes, purpose: str) -> Slot:
    """Read a slot.

    Raises:
        DamagedError: There is none, or it was changed.
    """
    slot = read(db, store_id, purpose)
    if slot is None:
        raise DamagedError("the unlocking slot is missing", where=db.where, fix=RESTORE)
    return slot


def write(db: Database, store_id: bytes, slot: Slot) -> None:
    """Write a slot over the one of its purpose, inside the caller's transaction."""
    db.rows("DELETE FROM slots WHERE purpose = ?", (slot.purpose,))
    db.rows("INSERT INTO slots VALUES (?, ?, ?, ?, ?)", (*slot, slot.checksum(store_id)))
