"""The tables, as a list of migrations, and the check that a file has them and nothing else."""

from __future__ import annotations

import hashlib

import sqlite_utils
from sqlite_utils import Migrations

from anonymix_keystore._crypto import encode
from anonymix_keystore._database import APPLICATION_ID, Database
from anonymix_keystore._errors import DamagedError, ForeignFileError, NewerSchemaError

migrations = Migrations("anonymix-keystore")


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
        raise DamagedError("the schema number is impossible", where=db.where, fix="restore a backup")
    return int(schema)


def digest(db: Database) -> str:
    """SHA-256 over the definitions of all tables, indices, triggers and views of a file.

    The header keeps it, so that a trigger or view that was slipped in, or a renamed column, is
    noticed before any statement touches it.
    """
    rows = db.rows("SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY type, name")
    try:
        return hashlib.sha256(b"".join(encode(row) for row in rows)).hexdigest()
    except TypeError:
        raise DamagedError("the table definitions are damaged", where=db.where) from None
