"""A full check of a store: every row, every key, the whole audit trail, the anchor."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from anonymix_keystore import _audit, _header, _lifecycle, _slots
from anonymix_keystore._anchor import Anchor, compare
from anonymix_keystore._core import check_form
from anonymix_keystore._crypto import KeyRing
from anonymix_keystore._database import Database
from anonymix_keystore._errors import DamagedError, KeystoreError
from anonymix_keystore._header import MODULUS, Header
from anonymix_keystore._lifecycle import Who
from anonymix_keystore._rows import HEADS, KEYS, SCOPES, TABLES, Head, Key, Purpose, State


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is wrong.

    Attributes:
        code: Stable name of the kind of error.
        what: In words.
    """

    code: str
    what: str


@dataclass(frozen=True, slots=True)
class Verification:
    """What a full check found.

    Attributes:
        epoch: Number of the last audit line.
        lines: Audit lines checked.
        keys: Living keys opened.
        rows: Rows authenticated.
        anchored: Whether an anchor was there to compare with; without one a rollback of the whole
            file can't be told.
        findings: What is wrong; empty if all is well.
    """

    epoch: int
    lines: int
    keys: int
    rows: int
    anchored: bool
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.findings


def verify(db: Database, keys: KeyRing, anchor: Anchor | None) -> Verification:
    """Check a store; the connection must be its own, since one read transaction spans it all."""
    check = _Check(db, keys)
    # The anchor is read first: changes made meanwhile can only put the store ahead of it.
    state = check.attempt(lambda: anchor.read() if anchor is not None else None)
    db.patiently("BEGIN")
    try:
        header = check.attempt(lambda: _header.load(db, keys)) or Header(0, "")
        check.attempt(lambda: check_form(db, header))
        check.attempt(lambda: _slots.need(db, keys.store_id, _slots.ROOT))
        check.attempt(check.pages)
        check.attempt(lambda: check.tables(header))
        check.attempt(check.subjects)
        check.attempt(check.references)
        check.attempt(lambda: check.trail(header))
        if state is not None:
            check.attempt(lambda: compare(state, db, keys, header))
    finally:
        db.rows("ROLLBACK")
    return Verification(header.epoch, check.lines, check.opened, check.rows, state is not None, tuple(check.findings))


class _Check:
    def __init__(self, db: Database, keys: KeyRing) -> None:
        self._db, self._keys = db, keys
        self.findings: list[Finding] = []
        self.rows = self.opened = self.lines = 0
        self._erased: list[Finding] = []

    def attempt(self, step: Callable[[], Any]) -> Any:
        """Take a step; what it raises becomes a finding."""
        try:
            return step()
        except KeystoreError as error:
            self.findings.append(Finding(error.code, str(error)))
            return None

    def pages(self) -> None:
        """SQLite's own check of its pages and indices."""
        for (words,) in self._db.rows("PRAGMA integrity_check(20)"):
            if words != "ok":
                raise DamagedError(f"SQLite: {words}", where=self._db.where)

    def tables(self, header: Header) -> None:
        """Every row's code, and the sum of all weights."""
        tally = 0
        for table in TABLES:
            for _, weight in table.every(self._db, self._keys):
                tally += weight
                self.rows += 1
        if tally % MODULUS != header.tally:
            raise DamagedError("rows were removed, doubled or put back to an older state", where=self._db.where)

    def subjects(self) -> None:
        """Heads and keys fit together, and every living key and every name opens."""
        scopes = SCOPES.every(self._db, self._keys)
        names = _lifecycle.scope_names(scopes, self._keys, self._db.where)
        keys = KEYS.every(self._db, self._keys)
        waiting = next(keys, None)
        for head, _ in HEADS.every(self._db, self._keys):
            own: list[Key] = []
            while waiting is not None and waiting[0].tag == head.tag:
                own.append(waiting[0])
                waiting = next(keys, None)
            self.attempt(lambda head=head, own=own: self._subject(head, own, names))  # type: ignore[misc]
        if waiting is not None:
            raise DamagedError("there are keys without a subject", where=self._db.where)

    def _subject(self, head: Head, own: list[Key], names: dict[int, str]) -> None:
        if [key.version for key in own] != list(range(1, head.latest + 1)):
            raise DamagedError("versions of a key are missing", where=self._db.where)
        if [key.version for key in own if key.state == State.ACTIVE] != [head.active][: head.active]:
            raise DamagedError("a subject's active key is not the one its head names", where=self._db.where)
        if head.scope not in names:
            raise DamagedError("a subject's scope is missing", where=self._db.where)
        name = _lifecycle.open_name(self._keys, head.tag, head.name, self._db.where)
        kind = "gallery" if head.purpose == Purpose.GALLERY else "subject"
        fields = (kind, names[head.scope]) if kind == "gallery" else (kind, names[head.scope], name)
        if self._keys.tag(*fields) != head.tag:
            raise DamagedError("a subject's name is not its own", where=self._db.where)
        who = Who(name, names[head.scope], Purpose(head.purpose), head.tag)
        for key in own:
            if (key.wrapped is not None) != (key.state in {State.ACTIVE, State.RETIRED}):
                raise DamagedError("a key's material does not fit its state", where=self._db.where)
            if key.wrapped is not None:
                _lifecycle.unwrap(self._db, self._keys, who, head, key)
                self.opened += 1

    def references(self) -> None:
        """No reference outlives its key."""
        left = self._db.row(
            "SELECT count(*) FROM sealed_references r LEFT JOIN keys k"
            " ON k.tag = r.tag AND k.version = r.version WHERE k.wrapped IS NULL"
        )
        if left is not None and left[0]:
            raise DamagedError("there are references of keys that are gone", where=self._db.where)

    def trail(self, header: Header) -> None:
        """The audit trail from its first line to the one that the header names."""
        chain = _audit.ChainCheck(self._keys)
        for problem in self._problems(chain):
            raise DamagedError(problem, where=self._db.where)
        self.lines = chain.count
        self.findings += self._erased
        if (chain.seq, chain.head) != (header.epoch, header.head):
            raise DamagedError("the audit trail does not end where the header says", where=self._db.where)

    def _problems(self, chain: _audit.ChainCheck) -> Iterator[str]:
        for line in _audit.lines(self._db, self._keys):
            problem = chain.step(line)
            if problem is not None:
                yield problem
            action = line.content.get("action")
            if action == _audit.ACCEPT_DAMAGE:
                self._erased.clear()
            elif action == _audit.ERASE_DAMAGED:
                what = ", ".join(f"{count} of {table}" for table, count in line.content["rows"].items())
                self._erased.append(
                    Finding(
                        DamagedError.code,
                        f"rows that failed authentication were erased: {what} (audit line {line.seq})",
                    )
                )
