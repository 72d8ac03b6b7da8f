"""The rows of the store's tables, each with its authentication code."""

from __future__ import annotations

import contextlib
import hmac
from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import IntEnum
from typing import Any, Generic, NamedTuple, TypeVar

from anonymix_keystore._crypto import Columns, KeyRing
from anonymix_keystore._database import Database
from anonymix_keystore._errors import RESTORE, DamagedError
from anonymix_keystore._values import KeyState

PAGE = 500


class Purpose(IntEnum):
    """What a key is for."""

    SUBJECT = 0
    GALLERY = 1


class State(IntEnum):
    """A key's state as the file writes it."""

    ACTIVE = 1
    RETIRED = 2
    COMPROMISED = 3
    DESTROYED = 4

    @property
    def public(self) -> KeyState:
        """The same state under its public name."""
        return _PUBLIC[self]


_PUBLIC = {state: KeyState[state.name] for state in State}


class Scope(NamedTuple):
    """A scope; ``tag`` finds it by name, ``name`` is sealed."""

    id: int
    tag: bytes
    name: bytes


class Head(NamedTuple):
    """One subject in one scope: which version is the latest, which is active (0: none)."""

    tag: bytes
    scope: int
    alias: bytes
    purpose: int
    name: bytes
    latest: int
    active: int
    created: int
    used: int


class Key(NamedTuple):
    """One version of a key; ``wrapped`` is ``None`` once the material is erased."""

    tag: bytes
    version: int
    state: int
    created: int
    epoch: int
    until: int
    ended: int
    wrap: int
    wrapped: bytes | None


class Job(NamedTuple):
    """A rotation or re-wrapping of many keys: how far it is; ``params`` is sealed JSON."""

    id: int
    kind: str
    params: bytes
    started: int
    finished: int
    epoch: int
    cursor: bytes
    done: int


class Enrolment(NamedTuple):
    """One entry of a back end; ``holder`` is the tag of the head whose key made it."""

    entry: bytes
    subject: bytes
    holder: bytes
    version: int
    fingerprint: str
    detail: bytes
    created: int
    removed: int
    replaced: int


class Original(NamedTuple):
    """A sealed aligned face; ``wrapped`` is its own key under the second root."""

    subject: bytes
    label: bytes
    created: int
    name: bytes
    wrapped: bytes
    sealed: bytes


class Reference(NamedTuple):
    """A subject's sealed code, for one version of the key."""

    tag: bytes
    version: int
    created: int
    fingerprint: str
    sealed: bytes


class ReferenceScope(NamedTuple):
    """A scope that keeps references, and since when."""

    scope: int
    since: int


class Renewal(NamedTuple):
    """How far a subject's new enrolment in one collection is; ``place`` is the collection's tag."""

    subject: bytes
    place: bytes
    version: int
    fingerprint: str
    state: int
    changed: int
    detail: bytes


R = TypeVar("R", bound=tuple[Any, ...])


class Table(Generic[R]):
    """How rows of one type are written, read and authenticated.

    Args:
        name: The table.
        make: The row's type.
        columns: Its fields, in order.
        key: How many of the first columns are the primary key.
        fixed: How many of the first columns no change of a row touches, if those are more.
    """

    def __init__(
        self, name: str, make: Callable[[Iterable[Any]], R], columns: Sequence[str], key: int, fixed: int = 0
    ) -> None:
        self.name, self._make, self.width = name, make, len(columns) + 1
        every = (*columns, "mac")
        match = " AND ".join(f"{column} = ?" for column in columns[:key])
        # Names of tables and columns are constants of this module; all values are parameters.
        self.columns = ", ".join(every)
        self.insert = f"INSERT INTO {name} VALUES ({', '.join('?' * len(every))})"  # noqa: S608
        self.update = f"UPDATE {name} SET {', '.join(f'{c} = ?' for c in every[fixed or key :])} WHERE {match}"  # noqa: S608
        self.delete = f"DELETE FROM {name} WHERE {match}"  # noqa: S608
        self.select = f"SELECT {self.columns} FROM {name}"  # noqa: S608
        self.order = ", ".join(columns[:key])
        self._key, self._fixed = key, fixed or key

    def check(self, keys: KeyRing, record: Sequence[Any], where: str = "") -> tuple[R, int]:
        """The row in a database record and its weight in the tally.

        Raises:
            DamagedError: The record fails authentication.
        """
        mac = record[-1]
        try:
            expected, weight = keys.authenticate(self.name, record[:-1])
        except TypeError:
            raise DamagedError(f"a row of {self.name} is damaged", where=where) from None
        if not isinstance(mac, bytes) or not hmac.compare_digest(mac, expected):
            raise DamagedError(f"a row of {self.name} fails authentication", where=where, fix=RESTORE)
        return self._make(record[:-1]), weight

    def check_all(self, keys: KeyRing, records: Sequence[Sequence[Any]], where: str = "") -> list[tuple[R, int]]:
        """``check`` of many records, at a third of its cost.

        Raises:
            DamagedError: One of them fails authentication.
        """
        columns, weights = self.check_columns(keys, records, where)
        return list(zip(map(self._make, zip(*columns, strict=True)), weights, strict=True))

    def check_columns(
        self, keys: KeyRing, records: Sequence[Sequence[Any]], where: str = ""
    ) -> tuple[Columns, list[int]]:
        """The fields of many records column by column, so that there is no object a row, and their weights.

        Raises:
            DamagedError: One of them fails authentication.
        """
        *columns, macs = zip(*records, strict=True) if records else [()] * self.width
        with contextlib.suppress(TypeError):
            expected, weights = keys.authenticate_all(self.name, columns)
            if all(map(hmac.compare_digest, expected, macs)):
                return columns, weights
        # It finds out which one it is.
        return columns, [self.check(keys, record, where)[1] for record in records]

    def sift(self, keys: KeyRing, records: Sequence[Sequence[Any]]) -> tuple[list[tuple[R, int]], list[Sequence[Any]]]:
        """The rows in database records, with their weights, and the records that fail authentication."""
        with contextlib.suppress(DamagedError):
            return self.check_all(keys, records), []
        rows, damaged = [], []
        for record in records:
            try:
                rows.append(self.check(keys, record))
            except DamagedError:
                damaged.append(record)
        return rows, damaged

    def every(self, db: Database, keys: KeyRing) -> Iterator[tuple[R, int]]:
        """All rows with their weights, page by page in the order of the primary key.

        Raises:
            DamagedError: A row fails authentication.
        """
        after = None
        while True:
            page = self.page(db, keys, after)
            yield from page
            if len(page) < PAGE:
                return
            after = page[-1]

    def page(self, db: Database, keys: KeyRing, after: tuple[R, int] | None) -> list[tuple[R, int]]:
        """Up to ``PAGE`` rows with their weights, the first ones or those after a row."""
        return self.check_all(keys, self._records(db, None if after is None else after[0]), db.where)

    def sound(self, db: Database, keys: KeyRing) -> Iterator[tuple[R, int]]:
        """All rows that do not fail authentication, with their weights."""
        after = None
        while page := self._records(db, after):
            yield from self.sift(keys, page)[0]
            after = page[-1]

    def damaged(self, db: Database, keys: KeyRing) -> Iterator[Sequence[Any]]:
        """The records that fail authentication."""
        after = None
        while page := self._records(db, after):
            yield from self.sift(keys, page)[1]
            after = page[-1]

    def _records(self, db: Database, after: Sequence[Any] | None) -> list[tuple[Any, ...]]:
        condition = ""
        values: Sequence[Any] = ()
        if after is not None:
            condition = f" WHERE ({self.order}) > ({', '.join('?' * self._key)})"
            values = self.primary(after)
        return db.rows(f"{self.select}{condition} ORDER BY {self.order} LIMIT {PAGE}", values)

    def primary(self, row: Sequence[Any]) -> Sequence[Any]:
        """The primary key of a row or a record, as parameters; or the same columns of many."""
        return row[: self._key]

    def rest(self, row: Sequence[Any]) -> Sequence[Any]:
        """The fields of a row that a change sets, as parameters; or the same columns of many."""
        return row[self._fixed :]


SCOPES: Table[Scope] = Table("scopes", Scope._make, Scope._fields, key=1)
HEADS: Table[Head] = Table("heads", Head._make, Head._fields, key=1, fixed=5)
KEYS: Table[Key] = Table("keys", Key._make, Key._fields, key=2)
JOBS: Table[Job] = Table("jobs", Job._make, Job._fields, key=1)
ENROLMENTS: Table[Enrolment] = Table("enrolments", Enrolment._make, Enrolment._fields, key=1)
ORIGINALS: Table[Original] = Table("originals", Original._make, Original._fields, key=2)
REFERENCES: Table[Reference] = Table("sealed_references", Reference._make, Reference._fields, key=2)
REFERENCE_SCOPES: Table[ReferenceScope] = Table("reference_scopes", ReferenceScope._make, ReferenceScope._fields, key=1)
RENEWALS: Table[Renewal] = Table("renewals", Renewal._make, Renewal._fields, key=2)
TABLES: tuple[Table[Any], ...] = (
    SCOPES,
    HEADS,
    KEYS,
    JOBS,
    ENROLMENTS,
    ORIGINALS,
    REFERENCES,
    REFERENCE_SCOPES,
    RENEWALS,
)
