"""The audit trail: one sealed canonical JSON line per change, in an HMAC chain."""

from __future__ import annotations

import hmac
import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from anonymix_keystore._crypto import KeyRing, encode, seal, unseal
from anonymix_keystore._database import Database
from anonymix_keystore._errors import RESTORE, DamagedError, RolledBackError, WrongKeyError
from anonymix_keystore._header import GENESIS, Header

PAGE = 500
# The one action that may leave a gap in the numbers: a rollback that was knowingly accepted.
ACCEPT_ROLLBACK = "accept-rollback"
ERASE_DAMAGED = "erase-damaged"  # rows that failed authentication were erased with what they belonged to
ACCEPT_DAMAGE = "accept-damage"  # somebody took the store as it is, knowingly
Revoked = tuple[bytes, int]  # alias of the subject, version; version 0 stands for every version


class Line(NamedTuple):
    """One line of the trail and its chain code, HMAC-SHA256 over the code before it and the line."""

    seq: int
    text: str
    code: bytes

    @property
    def content(self) -> dict[str, Any]:
        """The line's fields."""
        content: dict[str, Any] = json.loads(self.text)
        return content


def canonical(content: Mapping[str, Any]) -> str:
    """JSON with sorted keys, no blanks, ASCII only, integers but no fractions."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def chain(keys: KeyRing, before: bytes, text: str) -> bytes:
    """The chain code of a line."""
    return hmac.digest(keys.audit, before + text.encode(), "sha256")


def _context(keys: KeyRing, seq: int) -> bytes:
    return encode(("audit", keys.store_id, seq))


def append(db: Database, keys: KeyRing, seq: int, before: bytes, content: Mapping[str, Any]) -> bytes:
    """Append a line, inside the caller's transaction; returns its chain code."""
    text = canonical({**content, "seq": seq})
    code = chain(keys, before, text)
    sealed = seal(keys.audit_seal, text.encode(), _context(keys, seq))
    db.rows("INSERT INTO audit VALUES (?, ?, ?)", (seq, sealed, code))
    return code


def _opened(keys: KeyRing, record: tuple[Any, ...], where: str) -> Line:
    seq, sealed, code = record
    if not isinstance(sealed, bytes) or not isinstance(code, bytes):
        raise DamagedError(f"line {seq} of the audit trail is damaged", where=where)
    try:
        text = unseal(keys.audit_seal, sealed, _context(keys, seq)).decode()
    except (DamagedError, WrongKeyError) as error:
        raise DamagedError(f"line {seq} of the audit trail: {error.what}", where=where) from None
    return Line(seq, text, code)


def lines(db: Database, keys: KeyRing, after: int = 0) -> Iterator[Line]:
    """The lines after a number, opened one by one; the chain is not checked.

    Raises:
        DamagedError: A line does not open.
    """
    while records := _page(db, after):
        for record in records:
            yield _opened(keys, record, db.where)
        after = records[-1][0]


def page(db: Database, keys: KeyRing, after: Line) -> list[Line]:
    """Up to ``PAGE`` lines after a line."""
    return [_opened(keys, record, db.where) for record in _page(db, after.seq)]


def _page(db: Database, after: int) -> list[tuple[Any, ...]]:
    return db.rows("SELECT seq, sealed, mac FROM audit WHERE seq > ? ORDER BY seq LIMIT ?", (after, PAGE))


def line(db: Database, keys: KeyRing, seq: int) -> Line | None:
    """One line, or ``None``."""
    record = db.row("SELECT seq, sealed, mac FROM audit WHERE seq = ?", (seq,))
    return None if record is None else _opened(keys, record, db.where)


def check_tail(db: Database, header: Header) -> None:
    """See that the trail ends where the header says; cheap, done before each change.

    Raises:
        RolledBackError: The tail was cut off or exchanged.
    """
    record = db.row("SELECT seq, mac FROM audit ORDER BY seq DESC LIMIT 1")
    last = (0, GENESIS) if record is None else tuple(record)
    if last != (header.epoch, header.head):
        raise RolledBackError("the audit trail does not end where the header says", where=db.where, fix=RESTORE)


def revoked(content: Mapping[str, Any]) -> Iterator[Revoked]:
    """What a line of the trail says was erased, so that the trail alone tells an anchor all of it."""
    action = content["action"]
    for alias, before, after in content.get("keys", ()):
        name = bytes.fromhex(alias)
        if action in {"forget", "take-back"}:
            yield name, 0
        elif action == "rotate" and content["old"] != "retired":
            # Not only the key that was active: those retired before went with it.
            yield from ((name, version) for version in range(1, after))
        elif action in {"revoke", "expire", ACCEPT_ROLLBACK}:
            yield name, before


class ChainCheck:
    """Follows a chain line by line and tells the first thing that is wrong with each.

    Args:
        keys: The store's keys.
    """

    def __init__(self, keys: KeyRing) -> None:
        self._keys = keys
        self.seq, self.head, self.count = 0, GENESIS, 0

    def step(self, line: Line) -> str | None:
        """Take the next line; returns what is wrong, or ``None``."""
        problem = None
        if not hmac.compare_digest(line.code, chain(self._keys, self.head, line.text)):
            problem = f"line {line.seq} does not continue the chain"
        else:
            content = line.content
            gap = line.seq != self.seq + 1
            if content.get("seq") != line.seq:
                problem = f"line {line.seq} bears another number"
            elif gap and not (line.seq > self.seq and content.get("action") == ACCEPT_ROLLBACK):
                problem = f"lines are missing before {line.seq}"
        self.seq, self.head, self.count = line.seq, line.code, self.count + 1
        return problem
