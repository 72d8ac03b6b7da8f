"""The yardsticks of a rotation: bare SQLite that writes the same rows, without and with the cryptography.

Both work on copies of the store's own file, so tables, rows, page layout and settings are the store's. A step is
one transaction of the rotation after a breach: it reads a page of subjects with their keys, changes both rows of
each, adds a row, an audit line and the header, and empties the log, since material was erased.
"""

from __future__ import annotations

import os
import sqlite3
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hmac import HMAC
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

_PAGE = (
    "SELECT h.*, k.* FROM heads h JOIN keys k ON k.tag = h.tag AND k.version = h.active"
    " WHERE h.tag > ? ORDER BY h.tag LIMIT ?"
)
_TAG, _LATEST, _WRAPPED = 0, 5, 18  # places in a record of the page
_HEAD = "UPDATE heads SET latest = ?, active = ?, mac = ? WHERE tag = ?"
_ENDED = "UPDATE keys SET state = 3, ended = ?, wrap = 0, wrapped = NULL, mac = ? WHERE tag = ? AND version = ?"
_NEW = "INSERT INTO keys VALUES (?, ?, 1, ?, ?, 0, 0, 1, ?, ?)"
# Bytes of a move in the audit line (["<32 hex digits>",1,2],), of a code, of what sealing adds, of a key, of
# the header (docs/keystore-format.md).
_MOVE, _MAC, _SEAL, _MATERIAL, _HEADER = 42, 32, 97, 32, 500
_SHA256, _SHA512 = hashes.SHA256(), hashes.SHA512()


class Times:
    """Wall and processor seconds of equal pieces of work, of which the median counts."""

    def __init__(self) -> None:
        self.wall: list[float] = []
        self.cpu: list[float] = []
        self.start()

    def start(self) -> None:
        """The next piece begins."""
        self._began, self._used = time.perf_counter(), time.process_time()

    def stop(self) -> None:
        """It ended."""
        self.wall.append(time.perf_counter() - self._began)
        self.cpu.append(time.process_time() - self._used)

    def time(self, work: Callable[[], object]) -> None:
        """Time one piece."""
        self.start()
        work()
        self.stop()

    @property
    def medians(self) -> tuple[float, float]:
        """Median wall and processor seconds of a piece."""
        return statistics.median(self.wall), statistics.median(self.cpu)


class Yardstick:
    """Rotates the keys in a copy of a store's file as fast as SQLite alone can.

    Args:
        path: The copy. It is no keystore any more afterwards: what is written is of the right size alone.
        batch: Subjects a step.
        cryptography: Whether each row also costs what the file format asks for: HMAC-SHA512 of each row read
            and written, and for a new key HKDF-SHA256, HMAC-SHA256 and AES-256-GCM. Encoding the fields and
            comparing the codes are left out, so no implementation of the format in Python can be faster.
    """

    def __init__(self, path: Path, batch: int, *, cryptography: bool) -> None:
        self._db = sqlite3.connect(path, isolation_level=None)
        for pragma in ("secure_delete=ON", "cache_size=-16384", "synchronous=FULL", "journal_mode=WAL"):
            self._db.execute(f"PRAGMA {pragma}")
        self._batch, self._cryptography, self._after = batch, cryptography, b""
        self._mac = HMAC(os.urandom(64), _SHA512)
        self.times = Times()

    def close(self) -> None:
        """Close the copy."""
        self._db.close()

    def step(self) -> None:
        """Rotate and time the next subjects, of whom there must be enough for a batch."""
        self.times.time(self._rotate)

    def _rotate(self) -> None:
        db, now = self._db, int(time.time())
        db.execute("BEGIN IMMEDIATE")
        records = db.execute(_PAGE, (self._after, self._batch)).fetchall()
        head_macs, old_macs, new_macs, sealed = self._values(records)
        tags = [record[_TAG] for record in records]
        old = [record[_LATEST] for record in records]
        new = [version + 1 for version in old]
        same = [now] * len(records)
        db.executemany(_HEAD, zip(new, new, head_macs, tags, strict=True))
        db.executemany(_ENDED, zip(same, old_macs, tags, old, strict=True))
        db.executemany(_NEW, zip(tags, new, same, same, sealed, new_macs, strict=True))
        line = os.urandom(_SEAL + _MOVE * len(records))
        db.execute("INSERT INTO audit SELECT max(seq) + 1, ?, ? FROM audit", (line, bytes(_MAC)))
        db.execute("UPDATE header SET sealed = ?", (os.urandom(_HEADER),))
        db.execute("COMMIT")
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        self._after = tags[-1]

    def _values(self, records: list[Any]) -> tuple[list[bytes], list[bytes], list[bytes], list[bytes]]:
        """The codes of the three rows written for each record, and the sealed keys."""
        count = len(records)
        if not self._cryptography:
            macs = [os.urandom(_MAC)] * count
            return macs, macs, macs, [os.urandom(_SEAL + _MATERIAL)] * count
        heads, olds, news, sealed = [], [], [], []
        wrap, context, random = os.urandom(32), os.urandom(80), os.urandom(64 * count)
        code = self._code
        for number, record in enumerate(records):
            salt, material = random[64 * number : 64 * number + 32], random[64 * number + 32 : 64 * number + 64]
            head, key = b"".join(record[:_LATEST:2]) + bytes(30), record[_TAG] + bytes(40)
            code(head)  # as it was read
            code(key + record[_WRAPPED])
            parts = HKDF(_SHA256, 108, salt, b"anonymix/keystore/1/seal").derive(wrap)
            binding = HMAC(parts[76:], _SHA256)
            binding.update(context)
            box = AESGCM(parts[:32]).encrypt(parts[32:44], material, context)
            value = b"\1" + salt + parts[44:76] + binding.finalize()[:16] + box
            heads.append(code(head))
            olds.append(code(key))
            news.append(code(key + value))
            sealed.append(value)
        return heads, olds, news, sealed

    def _code(self, row: bytes) -> bytes:
        mac = self._mac.copy()
        mac.update(row)
        return mac.finalize()[:_MAC]
