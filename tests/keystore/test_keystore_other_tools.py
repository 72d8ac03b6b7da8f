"""What other tools leave in the store's file: told apart by name, with a cure, and never with a loss."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from anonymix_keystore import DamagedError, ForeignObjectsError, KeyFileUnlock, Keystore

LITESTREAM = (
    "CREATE TABLE _litestream_seq (id INTEGER PRIMARY KEY, seq INTEGER);CREATE TABLE _litestream_lock (id INTEGER)"
)
FOREIGN = {
    "_litestream_lock": "CREATE TABLE _litestream_lock (tag BLOB REFERENCES heads (tag))",
    "android_metadata": "CREATE TABLE android_metadata (locale TEXT);CREATE INDEX im ON android_metadata (locale)",
    "copy": "CREATE TABLE copy (tag BLOB REFERENCES heads (tag))",
    "search": "CREATE VIRTUAL TABLE search USING fts5 (words)",
    "everybody": "CREATE VIEW everybody AS SELECT * FROM heads",
    "faster": "CREATE INDEX faster ON keys (created)",
    "one_only": "CREATE UNIQUE INDEX one_only ON heads (scope)",
    "log_changes": "CREATE TABLE changes (tag BLOB); CREATE TRIGGER log_changes AFTER UPDATE ON keys BEGIN"
    " INSERT INTO changes VALUES (new.tag); END",
}
HARMLESS = {
    "Litestream": LITESTREAM,
    "ANALYZE": "ANALYZE",
    "VACUUM": "VACUUM",
    "REINDEX": "REINDEX",
    "optimize": "ANALYZE; PRAGMA optimize",
    "page size": "PRAGMA journal_mode=DELETE; PRAGMA page_size=8192; VACUUM",
}


@pytest.fixture(autouse=True)
def _attentive(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reads look at the tables' definitions 20 times a second; here each time."""
    monkeypatch.setattr("anonymix_keystore._database._LOOK_SECONDS", 0)


def told_by_tool(path: Path, script: str) -> None:
    db = sqlite3.connect(path, isolation_level=None)
    db.executescript(script)
    db.close()


@pytest.fixture
def opening(store: Keystore, reopen: Callable[..., Keystore]) -> Callable[[], None]:
    store.issue("alice")
    return lambda: reopen().close()


@pytest.mark.parametrize("what", HARMLESS)
def test_what_sqlite_itself_does_is_nobodys_change(
    store: Keystore, path: Path, opening: Callable[[], None], what: str
) -> None:
    if what == "page size":
        store.close()
    told_by_tool(path, HARMLESS[what])
    opening()
    if what != "page size":
        store.issue("bob")
        assert store.verify().ok


@pytest.mark.parametrize("name", FOREIGN)
def test_foreign_objects_are_named_by_the_running_server_and_the_next_opening_alike(
    store: Keystore, path: Path, opening: Callable[[], None], name: str
) -> None:
    told_by_tool(path, FOREIGN[name])
    errors = []
    for use in (
        lambda: store.issue("bob"),
        lambda: store.current("alice"),
        lambda: list(store.list()),
        opening,
    ):
        with pytest.raises(ForeignObjectsError) as told:
            use()
        errors.append(str(told.value))
    assert len(set(errors)) == 1
    assert name in errors[0]
    assert "restore" not in errors[0]
    if "TRIGGER" in FOREIGN[name]:
        assert "could change rows" in errors[0]
    found = store.verify()
    assert [finding.code for finding in found.findings if finding.code != "damaged"] == ["foreign_objects"]
    # The cure works as it stands.
    cure = re.findall(r'DROP \w+ IF EXISTS "[^"]+";', errors[0])
    told_by_tool(path, " ".join(cure))
    opening()
    assert store.issue("bob").version == 1
    assert store.verify().ok


CHANGED = {
    "keys was changed": (
        "ALTER TABLE keys RENAME COLUMN wrapped TO w",
        "ALTER TABLE keys RENAME COLUMN w TO wrapped",
    ),
    "enrolments_holder is missing": ("DROP INDEX enrolments_holder", None),
    "schema number was changed": ("PRAGMA user_version=2", None),
    "schema number is impossible": ("PRAGMA user_version=0", None),
    "originals is missing": ("DROP TABLE originals", ""),
}


@pytest.mark.parametrize("what", CHANGED)
def test_what_was_changed_or_taken_away_is_named(
    store: Keystore, path: Path, opening: Callable[[], None], what: str
) -> None:
    harm, cure = CHANGED[what]
    told_by_tool(path, harm)
    for use in (lambda: store.current("alice"), lambda: store.issue("bob"), opening):
        if use is opening or "user_version" not in harm:
            with pytest.raises(DamagedError, match=what) as told:
                use()
    assert ("restore a backup" in told.value.fix) == (cure == "")
    if cure != "":
        told_by_tool(path, cure or told.value.fix.split(": ", 1)[1])
        opening()
        assert store.verify().ok


def test_a_backup_is_advised_only_where_content_is_lost_or_fails_authentication(
    store: Keystore, path: Path, unlock: KeyFileUnlock
) -> None:
    store.issue("alice")
    store.close()
    told_by_tool(path, "UPDATE heads SET latest = 9")
    with Keystore.open(path, unlock) as again, pytest.raises(DamagedError) as told:
        again.current("alice")
    assert "restore a backup" in told.value.fix
    assert "anchor" in told.value.fix
