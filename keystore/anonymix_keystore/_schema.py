"""The tables, as a list of migrations, and the check that a file has them and nothing else."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable
from typing import Any

import sqlite_utils
from sqlite_utils import Migrations

from anonymix_keystore._crypto import encode
from anonymix_keystore._database import APPLICATION_ID, Database
from anonymix_keystore._errors import (
    RESTORE,
    DamagedError,
    ForeignFileError,
    ForeignObjectsError,
    NewerSchemaError,
)

migrations = Migrations("anonymix-keystore")
_MIGRATIONS = "_sqlite_migrations"  # sqlite-utils' own, whose definition its versions may change
_OBJECTS = "SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY type, name"
# What Litestream puts into a file that it replicates: two tables of its own, with no say over ours.
_REPLICATION = {
    "_litestream_seq": "CREATE TABLE _litestream_seq (id INTEGER PRIMARY KEY, seq INTEGER)",
    "_litestream_lock": "CREATE TABLE _litestream_lock (id INTEGER)",
}
_SQLITES_OWN = {"sqlite_sequence", "sqlite_stat1", "sqlite_stat2", "sqlite_stat3", "sqlite_stat4"}


@migrations(name="1-keys")
def _keys(db: sqlite_utils.Database) -> None:
    """Header, unlocking slots, scopes, subjects (heads), keys, audit trail."""
    for statement in (
        """CREATE TABLE header (
            id INTEGER PRIMARY KEY CHECK (id = 1), store_id BLOB NOT NULL, sealed BLOB NOT NULL
        ) STRICT""",
        """CREATE TABLE slots (
            purpose TEXT PRIMARY KEY, kind TEXT NOT NULL, params TEXT NOT NULL,
            sealed BLOB NOT NULL, checksum BLOB NOT NULL
        ) STRICT, WITHOUT ROWID""",
        """CREATE TABLE scopes (
            id INTEGER PRIMARY KEY, tag BLOB NOT NULL UNIQUE, name BLOB NOT NULL, mac BLOB NOT NULL
        ) STRICT""",
        """CREATE TABLE heads (
            tag BLOB PRIMARY KEY, scope INTEGER NOT NULL, alias BLOB NOT NULL, purpose INTEGER NOT NULL,
            name BLOB NOT NULL, latest INTEGER NOT NULL, active INTEGER NOT NULL,
            created INTEGER NOT NULL, used INTEGER NOT NULL, mac BLOB NOT NULL
        ) STRICT, WITHOUT ROWID""",
        """CREATE TABLE keys (
            tag BLOB NOT NULL, version INTEGER NOT NULL, state INTEGER NOT NULL, created INTEGER NOT NULL,
            epoch INTEGER NOT NULL, until INTEGER NOT NULL, ended INTEGER NOT NULL, wrap INTEGER NOT NULL,
            wrapped BLOB, mac BLOB NOT NULL, PRIMARY KEY (tag, version)
        ) STRICT, WITHOUT ROWID""",
        """CREATE TABLE audit (
            seq INTEGER PRIMARY KEY, sealed BLOB NOT NULL, mac BLOB NOT NULL
        ) STRICT""",
    ):
        db.execute(statement)


@migrations(name="2-work")
def _work(db: sqlite_utils.Database) -> None:
    """Jobs over many keys, and which back-end entry came from which key."""
    for statement in (
        """CREATE TABLE jobs (
            id INTEGER PRIMARY KEY, kind TEXT NOT NULL, params BLOB NOT NULL, started INTEGER NOT NULL,
            finished INTEGER NOT NULL, epoch INTEGER NOT NULL, cursor BLOB NOT NULL, done INTEGER NOT NULL,
            mac BLOB NOT NULL
        ) STRICT""",
        """CREATE TABLE enrolments (
            entry BLOB PRIMARY KEY, subject BLOB NOT NULL, holder BLOB NOT NULL, version INTEGER NOT NULL,
            fingerprint TEXT NOT NULL, detail BLOB NOT NULL, created INTEGER NOT NULL,
            removed INTEGER NOT NULL, replaced INTEGER NOT NULL, mac BLOB NOT NULL
        ) STRICT, WITHOUT ROWID""",
        "CREATE INDEX enrolments_subject ON enrolments (subject)",
        "CREATE INDEX enrolments_holder ON enrolments (holder)",
    ):
        db.execute(statement)


@migrations(name="3-originals")
def _originals(db: sqlite_utils.Database) -> None:
    """Aligned faces, sealed, for those who opt in."""
    db.execute(
        """CREATE TABLE originals (
            subject BLOB NOT NULL, label BLOB NOT NULL, created INTEGER NOT NULL, name BLOB NOT NULL,
            wrapped BLOB NOT NULL, sealed BLOB NOT NULL, mac BLOB NOT NULL, PRIMARY KEY (subject, label)
        ) STRICT"""
    )


@migrations(name="4-references")
def _references(db: sqlite_utils.Database) -> None:
    """Codes of subjects, sealed, and the scopes that opt in."""
    for statement in (
        """CREATE TABLE sealed_references (
            tag BLOB NOT NULL, version INTEGER NOT NULL, created INTEGER NOT NULL,
            fingerprint TEXT NOT NULL, sealed BLOB NOT NULL, mac BLOB NOT NULL, PRIMARY KEY (tag, version)
        ) STRICT, WITHOUT ROWID""",
        """CREATE TABLE reference_scopes (
            scope INTEGER PRIMARY KEY, since INTEGER NOT NULL, mac BLOB NOT NULL
        ) STRICT""",
    ):
        db.execute(statement)


@migrations(name="5-renewals")
def _renewals(db: sqlite_utils.Database) -> None:
    """How far each subject's new enrolment in a back end is."""
    for statement in (
        """CREATE TABLE renewals (
            subject BLOB NOT NULL, place BLOB NOT NULL, version INTEGER NOT NULL, fingerprint TEXT NOT NULL,
            state INTEGER NOT NULL, changed INTEGER NOT NULL, detail BLOB NOT NULL, mac BLOB NOT NULL,
            PRIMARY KEY (subject, place)
        ) STRICT, WITHOUT ROWID""",
        "CREATE INDEX renewals_place ON renewals (place, state, subject)",
    ):
        db.execute(statement)


SCHEMA = len(migrations._migrations)


def prepare(db: Database) -> None:
    """Give an empty file the current tables, inside the caller's transaction."""
    db.rows(f"PRAGMA application_id={APPLICATION_ID}")
    advance(db)


def advance(db: Database) -> None:
    """Apply the migrations that a file lacks, inside the caller's transaction."""
    migrations.apply(db.raw)
    db.rows(f"PRAGMA user_version={SCHEMA}")


def found(db: Database) -> int:
    """The schema number of a file.

    Raises:
        ForeignFileError: An SQLite file, but not a keystore.
        NewerSchemaError: Written by a later version of the software.
        DamagedError: The number can't be right.
    """
    marks = db.row("SELECT application_id, user_version FROM pragma_application_id, pragma_user_version")
    application, schema = marks if marks is not None else (0, 0)
    if application != APPLICATION_ID:
        raise ForeignFileError("not an Anonymix keystore", where=db.where)
    if schema > SCHEMA:
        raise NewerSchemaError(
            f"written with schema {schema}; this version reads up to {SCHEMA}",
            where=db.where,
            fix="update anonymix-plugin",
        )
    if schema < 1:
        raise DamagedError(
            "the schema number is impossible",
            where=db.where,
            fix=f"set it back: PRAGMA user_version={SCHEMA}",
        )
    return int(schema)


def _keystores(rows: Iterable[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """The rows without what SQLite keeps for itself, such as ANALYZE's statistics, and without Litestream's tables."""
    return [
        (kind, name, table, sql)
        for kind, name, table, sql in rows
        if not (kind == "table" and (name in _SQLITES_OWN or (name in _REPLICATION and sql == _REPLICATION[name])))
    ]


@functools.cache
def _ours() -> dict[tuple[str, str], str | None]:
    """The definitions that the migrations make, by type and name."""
    db = sqlite_utils.Database(memory=True)
    try:
        migrations.apply(db)
        return {(kind, name): sql for kind, name, _, sql in db.conn.execute(_OBJECTS)}
    finally:
        db.close()


def number(db: Database) -> int:
    """SQLite's own number of the definitions, which grows whenever anybody changes one."""
    return int((db.row("PRAGMA schema_version") or (0,))[0])


def digest(db: Database) -> str:
    """SHA-256 over the definitions of tables, indices, triggers and views of a file but SQLite's and Litestream's own.

    The header keeps it, so that a trigger or view that was slipped in, or a renamed column, is
    noticed before any statement touches it.
    """
    rows = _keystores(db.rows(_OBJECTS))
    try:
        return hashlib.sha256(b"".join(encode(row) for row in rows)).hexdigest()
    except TypeError:
        raise DamagedError("the table definitions are damaged", where=db.where) from None


def check(db: Database, schema: int, expected: str) -> None:
    """See that a file has the tables that its header was written for, and nothing else.

    Raises:
        ForeignObjectsError: Somebody put more into it.
        DamagedError: Something was changed or taken away; the message names it.
    """
    if schema == found(db) and expected == digest(db):
        return
    rows, ours = _keystores(db.rows(_OBJECTS)), _ours()
    foreign = [(kind, name, table) for kind, name, table, _ in rows if (kind, name) not in ours]
    triggers = [f"{name} on {table}" for kind, name, table in foreign if kind == "trigger"]
    if triggers:
        raise ForeignObjectsError(
            f"somebody put a trigger into the file, which could change rows: {', '.join(triggers)}",
            where=db.where,
            fix=f"find out who did, and {_drop(foreign)}",
        )
    if foreign:
        names = ", ".join(f"{kind} {name}" for kind, name, _ in foreign)
        raise ForeignObjectsError(
            f"there is something in the file that is not the keystore's: {names}",
            where=db.where,
            fix=f"no key is lost by it; {_drop(foreign)} And give tools that leave such things a backup"
            " (Keystore.backup, anonymix keys backup) in place of the store",
        )
    there = {(kind, name): sql for kind, name, _, sql in rows}
    for (kind, name), sql in sorted(ours.items(), reverse=True):  # tables before their indices
        if (kind, name) not in there:
            cure = f"make it again: {sql}" if kind == "index" else RESTORE
            raise DamagedError(f"the {kind} {name} is missing", where=db.where, fix=cure)
        if there[kind, name] != sql and name != _MIGRATIONS:
            raise DamagedError(f"the definition of the {kind} {name} was changed", where=db.where, fix="change it back")
    raise DamagedError(
        "the schema number was changed", where=db.where, fix=f"set it back: PRAGMA user_version={schema}"
    )


def _drop(foreign: Iterable[tuple[str, str, str]]) -> str:
    # Some go together with their table, in whatever order they are named.
    statements = (f'DROP {kind.upper()} IF EXISTS "{name}";' for kind, name, _ in foreign)
    return f"take it away with: {' '.join(statements)}"
