"""What the processes of one gateway know together: how often callers asked, and what was done under which key.

It lies in a small SQLite file beside the tokens. It holds no name, no address and no photo: callers are hashed,
and an answer is sealed under the very request that it was made for, so that nobody else can read it there.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final
from weakref import WeakValueDictionary

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from anonymix_plugin.errors import ConfigurationError

_REMEMBERED: Final = 1024
_DAY: Final = 86_400
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS asked (who BLOB PRIMARY KEY, left REAL NOT NULL, at REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS done (name BLOB PRIMARY KEY, sealed BLOB NOT NULL, at REAL NOT NULL);
"""


class AnotherRequestError(Exception):
    """Something else was done under this key."""


class Shared:
    """The memory of a gateway. Made before its processes are, and used in the event loop of each.

    Args:
        path: The file; None for this process alone, until it ends.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._opened: sqlite3.Connection | None = None
        self._lock = -1
        self._doing: WeakValueDictionary[bytes, asyncio.Lock] = WeakValueDictionary()

    def take(self, who: str, rate: float, most: float) -> float:
        """Take one from a bucket that fills again.

        Args:
            who: Whose bucket.
            rate: What flows in each second.
            most: What it holds.

        Returns:
            Seconds until there is one again; 0 where one was taken.
        """
        name, now, rows = _hashed(who), time.time(), self._rows()
        rows.execute("BEGIN IMMEDIATE")
        try:
            found = rows.execute("SELECT left, at FROM asked WHERE who = ?", (name,)).fetchone()
            left, at = found or (most, now)
            left = min(most, left + max(0.0, now - at) * rate)
            if left >= 1:
                rows.execute("INSERT OR REPLACE INTO asked VALUES (?, ?, ?)", (name, left - 1, now))
            if found is None:  # full buckets need not be kept
                rows.execute("DELETE FROM asked WHERE at < ?", (now - most / rate,))
        finally:
            rows.execute("COMMIT")
        return 0.0 if left >= 1 else (1 - left) / rate

    @asynccontextmanager
    async def alone(self, *name: str) -> AsyncIterator[bytes]:
        """Wait until nobody else, in whatever process, does what has this name; one that dies lets go.

        Yields:
            The name for `recall` and `remember`.
        """
        hashed = _hashed(*name)
        async with self._doing.setdefault(hashed, asyncio.Lock()):
            place = int.from_bytes(hashed[:7])
            while not self._locked(place):
                await asyncio.sleep(0.02)
            try:
                yield hashed
            finally:
                if self._path is not None:
                    fcntl.lockf(self._lock, fcntl.LOCK_UN, 1, place)

    def recall(self, name: bytes, request: bytes) -> bytes | None:
        """What was answered to a request that had this name; None where there was none within a day.

        Raises:
            AnotherRequestError: It was another request.
        """
        row = self._rows().execute("SELECT sealed FROM done WHERE name = ? AND at > ?", (name, time.time() - _DAY))
        found = row.fetchone()
        if found is None:
            return None
        try:
            return _cipher(request).decrypt(found[0][:12], found[0][12:], name)
        except InvalidTag:
            raise AnotherRequestError from None

    def remember(self, name: bytes, request: bytes, answer: bytes) -> None:
        """Keep an answer for a day, or until 1,024 others were kept."""
        nonce = os.urandom(12)
        sealed = nonce + _cipher(request).encrypt(nonce, answer, name)
        rows = self._rows()
        rows.execute("INSERT OR REPLACE INTO done VALUES (?, ?, ?)", (name, sealed, time.time()))
        rows.execute(
            "DELETE FROM done WHERE at < ? OR name NOT IN (SELECT name FROM done ORDER BY at DESC LIMIT ?)",
            (time.time() - _DAY, _REMEMBERED),
        )

    def close(self) -> None:
        """Close the file."""
        if self._opened is not None:
            self._opened.close()
            self._opened = None
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _locked(self, place: int) -> bool:
        if self._path is None:
            return True
        self._rows()
        try:
            fcntl.lockf(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
        except BlockingIOError:
            return False
        return True

    def _rows(self) -> sqlite3.Connection:
        if self._opened is None:
            place = ":memory:" if self._path is None else str(self._path)
            try:
                if self._path is not None:
                    self._path.parent.mkdir(parents=True, exist_ok=True)
                    os.close(os.open(self._path, os.O_CREAT | os.O_RDWR, 0o600))
                    lock = self._path.with_name(self._path.name + ".lock")
                    self._lock = os.open(lock, os.O_CREAT | os.O_RDWR, 0o600)
                made = sqlite3.connect(place, timeout=10, isolation_level=None)
                made.execute("PRAGMA journal_mode = WAL")
                made.execute("PRAGMA synchronous = NORMAL")
                made.executescript(_SCHEMA)
            except (OSError, sqlite3.Error) as error:
                raise ConfigurationError(
                    f"the gateway's memory can't be used ({type(error).__name__})",
                    where=place,
                    fix="remove the file, or make its folder writable",
                ) from None
            self._opened = made
        return self._opened


def _hashed(*parts: str) -> bytes:
    digest = hashlib.sha256()
    for part in parts:
        content = part.encode("utf-8", "surrogatepass")
        digest.update(len(content).to_bytes(4) + content)
    return digest.digest()


def _cipher(request: bytes) -> ChaCha20Poly1305:
    return ChaCha20Poly1305(hashlib.sha256(b"anonymix gateway answer" + request).digest())
