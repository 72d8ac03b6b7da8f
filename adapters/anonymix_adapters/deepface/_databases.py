"""Databases of `register`, `search` and `identify`: the name of each in the records, and how to erase.

DeepFace has fifteen kinds. Entries are deleted from SQLite here; into the others nothing is enrolled unless
the host says that it erases there itself.
"""

from __future__ import annotations

import os
import re
import secrets
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from anonymix_adapters.deepface._calls import Call
from anonymix_adapters.errors import AdapterError
from anonymix_adapters.interceptor import Interceptor
from anonymix_plugin.errors import UsageError

SQLITE: Final = "sqlite"
_TABLE: Final = "anonymix"
_VARIABLES: Final = {  # where DeepFace looks for details; of the others the kind is in the name
    "sqlite": "DEEPFACE_SQLITE_PATH",
    "pinecone": "DEEPFACE_PINECONE_API_KEY",
    "pgvector": "DEEPFACE_POSTGRES_URI",
}
_PLACES: Final = (  # what tells where a database is; everything else in its details may be a secret
    *("url", "uri", "host", "hostname", "server", "hosts", "contact_points", "cloud_id", "port", "http_port"),
    *(
        "unix_socket",
        "path",
        "location",
        "dsn",
        "service_name",
        "sid",
        "database",
        "dbname",
        "db",
        "keyspace",
    ),
    *("db_name", "index", "index_name", "namespace", "tenant", "collection", "prefix", "key_prefix"),
)
_PLAIN: Final = re.compile(r"(?:(?:[\w.-]+|\[[0-9A-Fa-f:]+\])?(?::\d+)?,?)*(?:/[\w.%/~+-]*)?")
_PAIR: Final = re.compile(r"([A-Za-z_ ]+?)\s*=\s*('[^']*'|\{[^}]*\}|[^;\s]*)")


@dataclass(frozen=True)
class Database:
    """The database of a call.

    Attributes:
        kind: DeepFace's `database_type`.
        details: DeepFace's `connection_details`, or what its environment variable says.
        connection: A connection of the host's, or None.
    """

    kind: str
    details: Any
    connection: Any

    @classmethod
    def of(cls, options: Mapping[str, Any] | Call) -> Database:
        """The database that a call names."""

        def option(name: str) -> Any:
            return options.get(name) if isinstance(options, Mapping) else options[name]

        kind, connection = str(option("database_type") or "postgres"), option("connection")
        details = option("connection_details")
        if not details and connection is None:
            details = os.environ.get(_VARIABLES.get(kind, f"DEEPFACE_{kind.upper()}_URI"), "")
        return cls(kind, details, connection)

    @property
    def erasable(self) -> bool:
        """Whether entries can be deleted from it here."""
        return self.kind == SQLITE

    def name(self, interceptor: Interceptor, *, given: str = "", settle: bool = False) -> str:
        """Its name in the records: the kind and where it is. No secret is in it.

        Args:
            interceptor: Whose records count.
            given: What the host calls databases whose place can't be told.
            settle: Whether an SQLite database without a name gets one for good, in a table of its own.

        Raises:
            UsageError: It can't be told which database this is.
        """
        if self.kind == SQLITE:
            with self.sqlite() as connection:
                return _sqlite_name(connection, interceptor, settle=settle)
        place = _connected(self.connection) or _place(self.details)
        if place or given:
            return f"{self.kind}:{given or place}"
        raise UsageError(
            f"it can't be told which {self.kind} database this is, and two that share a name would share "
            "their records and keys",
            where="connection" if self.connection is not None else "connection_details",
            fix="name it: protect(DeepFace, mixer, database='...')",
        )

    @contextmanager
    def sqlite(self) -> Iterator[sqlite3.Connection]:
        """The host's SQLite connection, or one for the block."""
        if self.connection is not None:
            yield self.connection
            return
        if not self.details or self.details == ":memory:":
            raise UsageError(
                "this SQLite database would be gone after the call",
                where="connection_details",
                fix="give the path of a file in connection_details, or an open database in connection",
            )
        details = self.details if isinstance(self.details, dict) else {"database": self.details}
        with closing(sqlite3.connect(**details)) as opened:
            yield opened

    def last_row(self) -> int:
        """The number of the newest entry; 0 where there is none, and where rows have no numbers."""
        if not self.erasable:
            return 0
        with self.sqlite() as connection:
            if not _has(connection, "embeddings"):
                return 0
            (last,) = connection.execute("SELECT coalesce(max(id), 0) FROM embeddings").fetchone()
            return int(last)

    def erase(self, name: str, *, after: int = 0, until: int | None = None) -> int:
        """Delete the entries of a name, and the indexes, which hold their embeddings.

        Args:
            name: DeepFace's `img_name`.
            after: Entries up to this one stay.
            until: Entries after this one stay.

        Returns:
            How many were deleted.

        Raises:
            AdapterError: It is no SQLite database.
        """
        if not self.erasable:
            raise AdapterError(
                f"entries of {self.kind} are deleted in the database itself",
                where="deepface",
                fix="delete the rows of this img_name there, then call interceptor_of(client).forget_entry",
            )
        with self.sqlite() as connection, connection:
            if not _has(connection, "embeddings"):
                return 0
            connection.execute("PRAGMA secure_delete = ON")  # or the embedding stays in the file's free pages
            gone = connection.execute(
                "DELETE FROM embeddings WHERE img_name = ? AND id > ? AND id <= ?",
                (name, after, 2**63 - 1 if until is None else until),
            ).rowcount
            if _has(connection, "embeddings_index"):
                connection.execute("DELETE FROM embeddings_index")
        return int(gone)


def _sqlite_name(connection: sqlite3.Connection, interceptor: Interceptor, *, settle: bool) -> str:
    if _has(connection, _TABLE):
        row = connection.execute(f"SELECT name FROM {_TABLE}").fetchone()  # noqa: S608 - a constant
        if row:
            return str(row[0])
    files = [row[2] for row in connection.execute("PRAGMA database_list") if row[1] == "main"]
    if not files or not files[0]:
        name = f"{SQLITE}:memory-{secrets.token_hex(8)}"
    else:
        name = f"{SQLITE}:{Path(files[0]).resolve()}"
        if not settle:
            return name
        # Records of this path are those of a database that stood here before and was moved.
        recorded = {item.external_id for item in interceptor.entries(name)}
        if recorded and not recorded & _names(connection):
            name = f"{name}#{secrets.token_hex(4)}"
    with connection:
        connection.execute(f"CREATE TABLE IF NOT EXISTS {_TABLE} (name TEXT NOT NULL)")
        connection.execute(f"INSERT INTO {_TABLE} VALUES (?)", (name,))  # noqa: S608 - a constant
    return name


def _names(connection: sqlite3.Connection) -> set[str]:
    if not _has(connection, "embeddings"):
        return set()
    return {str(row[0]) for row in connection.execute("SELECT DISTINCT img_name FROM embeddings")}


def _has(connection: sqlite3.Connection, table: str) -> bool:
    query = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?"
    return connection.execute(query, (table,)).fetchone() is not None


def _place(details: Any) -> str:
    """Where a database is, by its details, without user, password, key or any other option."""
    if isinstance(details, Mapping):
        known = {str(key).lower(): value for key, value in details.items()}
        parts = [f"{key}={_part(known[key])}" for key in _PLACES if known.get(key)]
        return ",".join(parts)
    # A text that is no address, no list of options and no file may be a key, as Pinecone's.
    told = isinstance(details, str) and ("://" in details or "=" in details or details.endswith(".db"))
    return _part(details) if told else ""


def _part(value: Any) -> str:
    if isinstance(value, list | tuple):
        return "+".join(_part(it) for it in value)
    if not isinstance(value, str):
        return str(value) if isinstance(value, int) else ""
    if "://" in value:
        parts = urlsplit(value)
        place = parts.netloc.rpartition("@")[2] + parts.path
        # A password with a slash in it makes an address that can't be taken apart for certain.
        return place.rstrip("/").lower() if _PLAIN.fullmatch(place) else ""
    pairs = {key.strip().lower(): text.strip("'{}") for key, text in _PAIR.findall(value)}
    if pairs:
        return ",".join(f"{key}={pairs[key]}" for key in _PLACES if pairs.get(key))
    return value


def _connected(connection: Any) -> str:
    """Where an open connection leads to, as psycopg tells it; "" where that can't be told."""
    info = getattr(connection, "info", None)
    host, name = getattr(info, "host", None), getattr(info, "dbname", None)
    if isinstance(host, str) and isinstance(name, str):
        return f"{host}:{getattr(info, 'port', '')}/{name}"
    return ""
