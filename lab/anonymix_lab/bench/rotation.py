"""The yardsticks of a rotation: bare SQLite that writes the same rows, without and with the cryptography.

Both work on copies of the store's own file, so tables, rows, page layout and settings are the store's. A step is
one transaction of the rotation after a breach: it reads a page of subjects with their keys, changes both rows of
each, adds a row, an audit line and the header, and empties the log, since material was erased.
"""

from __future__ import annotations

import os
import sqlite3
import time
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hmac import HMAC
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

SEAL_OVERHEAD = 97

_PAGE = (
    "SELECT h.*, k.* FROM heads h JOIN keys k ON k.tag = h.tag AND k.version = h.active"
    " WHERE h.tag > ? ORDER BY h.tag LIMIT ?"
)
_HEAD = "UPDATE heads SET latest = ?, active = ?, mac = ? WHERE tag = ?"
_ENDED = "UPDATE keys SET state = 3, ended = ?, wrap = 0, wrapped = NULL, mac = ? WHERE tag = ? AND version = ?"
_NEW = "INSERT INTO keys VALUES (?, ?, 1, ?, ?, 0, 0, 1, ?, ?)"
_MOVE_BYTES = 41  # ["<32 hex digits>",1,2], of the audit line
_MATERIAL, _MAC = 32, 32
_SHA256, _SHA512 = hashes.SHA256(), hashes.SHA512()


class Yardstick:
    """Rotates the keys in a copy of a store's file as fast as SQLite alone can.

    Args:
        path: The copy. It is no keystore any more afterwards: what is written is of the right size alone.
        batch: Subjects a step.
        cryptography: Whether each row also costs what the file format asks for and no way round it is known:
            HMAC-SHA512 of each row read and written, and for a new key HKDF, HMAC-SHA256 and AES-256-GCM.
    """

    def __init__(self, path: Path, batch: int, *, cryptography: bool) -> None:
        self._db = sqlite3.connect(path, isolation_level=None)
        for pragma in ("secure_delete=ON", "cache_size=-16384", "synchronous=FULL", "journal_mode=WAL"):
            self._db.execute(f"PRAGMA {pragma}")
        self._batch, self._cryptography, self._after = batch, cryptography, b""
        self._mac = HMAC(os.urandom(64), _SHA512)
        self.rows, self.seconds, self.cpu_seconds = 0, 0.0, 0.0

    def close(self) -> None:
        """Close the copy."""
        self._db.close()

    def step(self) -> None:
        """Rotate the next subjects, and add to ``rows``, ``seconds`` and ``cpu_seconds``."""
        began, used = time.perf_counter(), time.process_time()
        self.rows += self._rotate()
        self.seconds += time.perf_counter() - began
        self.cpu_seconds += time.process_time() - used

    def _rotate(self) -> int:
        db, now = self._db, int(time.time())
        db.execute("BEGIN IMMEDIATE")
        records = db.execute(_PAGE, (self._after, self._batch)).fetchall()
        macs, sealed = self._bytes(records)
        # Fields of a record: tag, scope, alias, purpose, name, latest, ...
        versions = [record[5] + 1 for record in records]
        db.executemany(
            _HEAD, [(new, new, mac[0], record[0]) for record, new, mac in zip(records, versions, macs, strict=True)]
        )
        db.executemany(_ENDED, [(now, mac[1], record[0], record[5]) for record, mac in zip(records, macs, strict=True)])
        db.executemany(
            _NEW,
            [
                (record[0], new, now, now, value, mac[2])
                for record, new, value, mac in zip(records, versions, sealed, macs, strict=True)
            ],
        )
        line = os.urandom(SEAL_OVERHEAD + _MOVE_BYTES * len(records))
        db.execute("INSERT INTO audit SELECT max(seq) + 1, ?, ? FROM audit", (line, bytes(_MAC)))
        db.execute("UPDATE header SET sealed = ?", (os.urandom(400),))
        db.execute("COMMIT")
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        self._after = records[-1][0] if records else self._after
        return len(records)

    def _bytes(self, records: list[Any]) -> tuple[list[tuple[bytes, bytes, bytes]], list[bytes]]:
        """The codes of the three rows written for each record, and the sealed keys."""
        count = len(records)
        if not self._cryptography:
            mac = os.urandom(_MAC)
            return [(mac, mac, mac)] * count, [os.urandom(SEAL_OVERHEAD + _MATERIAL)] * count
        macs, sealed = [], []
        wrap, context = os.urandom(32), os.urandom(80)
        random = os.urandom(64 * count)
        code = self._code
        for number, record in enumerate(records):
            head, key = b"".join(record[:5:2]) + bytes(30), record[0] + bytes(40)
            code(head)
            code(key + record[18])
            parts = HKDF(_SHA256, 108, random[64 * number : 64 * number + 32], b"anonymix/keystore/1/seal").derive(wrap)
            binding = HMAC(parts[76:], _SHA256)
            binding.update(context)
            box = AESGCM(parts[:32]).encrypt(parts[32:44], random[64 * number + 32 : 64 * number + 64], context)
            value = b"\1" + parts[:64] + binding.finalize()[:16] + box
            macs.append((code(head), code(key), code(key + value)))
            sealed.append(value)
        return macs, sealed

    def _code(self, row: bytes) -> bytes:
        mac = self._mac.copy()
        mac.update(row)
        return mac.finalize()[:_MAC]
