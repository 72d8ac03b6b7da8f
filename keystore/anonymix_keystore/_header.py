"""The store's header: one sealed row that every change moves forward."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import Any

from anonymix_keystore._crypto import KeyRing, encode, seal, unseal
from anonymix_keystore._database import Database
from anonymix_keystore._errors import RESTORE, DamagedError, WrongKeyError

ID_BYTES = 16
GENESIS = bytes(32)
MODULUS = 1 << 256


@dataclass(frozen=True, slots=True)
class Header:
    """What the store says of itself.

    Attributes:
        schema: Number of the last migration applied.
        digest: SHA-256 of the table definitions.
        epoch: Sequence number of the last line of the audit trail; only ever grows.
        head: Chain code of that line.
        clock: The latest time (Unix seconds) at which the store was changed.
        wrap: Version of the wrapping key that new rows use.
        tally: Sum of the weights of all authenticated rows mod 2**256.
        leap: When (Unix seconds) a change came suspiciously long after the one before, 0 if the clock is
            believed.
        unscrubbed: From a change that erased something until the first one that finds the write-ahead
            log emptied since: if the log is not empty, erased bytes may be in it.
    """

    schema: int
    digest: str
    epoch: int = 0
    head: bytes = GENESIS
    clock: int = 0
    wrap: int = 1
    tally: int = field(default=0, repr=False)
    leap: int = 0
    unscrubbed: bool = False


def read_id(db: Database) -> bytes:
    """The store's id, not yet authenticated (unlocking needs it first).

    Raises:
        DamagedError: There is none.
    """
    record = db.row("SELECT store_id FROM header WHERE id = 1")
    if record is None or not isinstance(record[0], bytes) or len(record[0]) != ID_BYTES:
        raise DamagedError("the header is damaged", where=db.where, fix=RESTORE)
    return record[0]


def _context(keys: KeyRing) -> bytes:
    return encode(("header", keys.store_id))


def load(db: Database, keys: KeyRing) -> Header:
    """Read and authenticate the header.

    Raises:
        DamagedError: It is missing or was changed.
    """
    record = db.row("SELECT sealed FROM header WHERE id = 1 AND store_id = ?", (keys.store_id,))
    if record is None or not isinstance(record[0], bytes):
        raise DamagedError("the header is damaged", where=db.where, fix=RESTORE)
    try:
        content: dict[str, Any] = json.loads(unseal(keys.header, record[0], _context(keys)))
    except (WrongKeyError, DamagedError) as error:
        # The root key was proved when the slot opened; what does not open here was changed.
        raise DamagedError(f"the header fails authentication: {error.what}", where=db.where) from None
    content["head"] = bytes.fromhex(content["head"])
    content["tally"] = int(content["tally"], 16)
    return Header(**content)


def store(db: Database, keys: KeyRing, header: Header) -> None:
    """Write the header, inside the caller's transaction."""
    content: dict[str, Any] = {
        "schema": header.schema,
        "digest": header.digest,
        "epoch": header.epoch,
        "head": header.head.hex(),
        "clock": header.clock,
        "wrap": header.wrap,
        "tally": f"{header.tally:x}",
        "leap": header.leap,
    }
    if header.unscrubbed:
        content["unscrubbed"] = True
    sealed = seal(keys.header, json.dumps(content, sort_keys=True).encode(), _context(keys))
    db.rows(
        "INSERT INTO header VALUES (1, ?, ?) ON CONFLICT (id) DO UPDATE SET sealed = excluded.sealed",
        (keys.store_id, sealed),
    )


__all__ = ["GENESIS", "ID_BYTES", "MODULUS", "Header", "load", "read_id", "replace", "store"]
