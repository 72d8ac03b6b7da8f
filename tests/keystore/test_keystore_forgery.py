"""Rows that bear a valid code but make no sense: what a bug, or someone with the keys, could leave."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from anonymix_keystore import DamagedError, KeyFileUnlock, Keystore, KeystoreError
from anonymix_keystore._audit import ChainCheck, Line, canonical, chain
from anonymix_keystore._core import Change
from anonymix_keystore._crypto import KeyRing, encode, seal
from anonymix_keystore._rows import ENROLMENTS, HEADS, JOBS, KEYS, ORIGINALS, SCOPES
from anonymix_keystore._slots import Slot, lock, open_slot, params, read

OTHER = b"o" * 32
Forgery = Callable[[Change], object]


def first(change: Change, table):
    return next(iter(table.every(change.db, change.keys)))


def replaced(table, **fields: object) -> Forgery:
    def forge(change: Change) -> None:
        row, weight = first(change, table)
        change.update_all(table, [(row._replace(**fields), weight)])

    return forge


def deleted(table) -> Forgery:
    return lambda change: change.delete_all(table, [first(change, table)])


def wrapped_under_another_key(change: Change) -> None:
    row, weight = first(change, KEYS)
    change.update_all(KEYS, [(row._replace(wrapped=seal(OTHER, b"m" * 32, b"")), weight)])


def named_under_another_key(change: Change) -> None:
    row, weight = first(change, HEADS)
    change.update_all(HEADS, [(row._replace(name=seal(OTHER, b"eve", b"")), weight)])


def named_as_another(change: Change) -> None:
    row, weight = first(change, HEADS)
    context = encode(("name", change.keys.store_id, row.tag))
    change.update_all(HEADS, [(row._replace(name=seal(change.keys.name, b"eve", context)), weight)])


FORGERIES: dict[str, Forgery] = {
    "living key without material": replaced(KEYS, wrapped=None),
    "key under another wrapping key": wrapped_under_another_key,
    "destroyed key with material": replaced(KEYS, state=4),
    "a head that names a version which is not active": replaced(HEADS, active=0),
    "a head with more versions than there are": replaced(HEADS, latest=2),
    "a subject in a scope that is not there": replaced(HEADS, scope=9),
    "a name under another key": named_under_another_key,
    "another one's name": named_as_another,
    "a key without a head": deleted(HEADS),
    "a head without a key": deleted(KEYS),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_senseless_rows_are_found_by_the_full_check(store: Keystore, name: str) -> None:
    store.issue("alice")
    with store._core.change() as change:
        FORGERIES[name](change)
        change.note("forgery")
    found = store.verify()
    assert {finding.code for finding in found.findings} == {"damaged"}, found


@pytest.mark.parametrize(
    "name",
    [
        "living key without material",
        "key under another wrapping key",
        "a key without a head",
        "a head without a key",
    ],
)
def test_senseless_keys_are_never_handed_out(store: Keystore, name: str) -> None:
    store.issue("alice")
    with store._core.change() as change:
        FORGERIES[name](change)
    for ask in (
        lambda: store.current("alice"),
        lambda: store.at("alice", 1),
        lambda: store.current_or_issue("alice"),
    ):
        with pytest.raises(DamagedError):
            ask()


def test_listings_refuse_senseless_rows(store: Keystore) -> None:
    store.issue("alice")
    with store._core.change() as change:
        replaced(HEADS, scope=9)(change)
    with pytest.raises(DamagedError):
        list(store.list())


def test_history_and_rotation_refuse_missing_versions(store: Keystore) -> None:
    store.issue("alice")
    with store._core.change() as change:
        replaced(HEADS, latest=2)(change)
    for ask in (
        lambda: store.history("alice"),
        lambda: store.rotate("alice"),
        lambda: store.at("alice", 2),
    ):
        with pytest.raises(DamagedError):
            ask()


def test_a_job_that_does_not_open_is_not_run(store: Keystore) -> None:
    store.issue("alice")
    store.rotate_all()
    with store._core.change() as change:
        replaced(JOBS, params=seal(OTHER, b"{}", b""), finished=0)(change)
    with pytest.raises(DamagedError):
        store.jobs()
    with pytest.raises(DamagedError):
        store.resume()


def test_rewrapping_stops_at_a_key_that_does_not_open(store: Keystore) -> None:
    store.issue("alice")
    with store._core.change() as change:
        wrapped_under_another_key(change)
    with pytest.raises(DamagedError):
        store.rewrap_all()


def test_enrolments_that_do_not_open_or_have_no_key_are_refused(store: Keystore) -> None:
    store.issue("alice")
    store.record_enrolment("alice", adapter="x", collection="c", external_id="e", version=1, fingerprint="f")
    with store._core.change() as change:
        row, weight = first(change, ENROLMENTS)
        change.update_all(ENROLMENTS, [(row._replace(detail=seal(OTHER, b"{}", b"")), weight)])
    with pytest.raises(DamagedError):
        list(store.enrolments())
    with store._core.change() as change:
        changed, weight = first(change, ENROLMENTS)
        change.update_all(ENROLMENTS, [(changed._replace(detail=row.detail, version=5), weight)])
    with pytest.raises(DamagedError):
        list(store.enrolments())


def test_originals_that_do_not_open_are_refused(store: Keystore, tmp_path: Path) -> None:
    store.originals.enable(KeyFileUnlock.generate(tmp_path / "second"))
    store.originals.keep("alice", b"face")
    with store._core.change() as change:
        replaced(ORIGINALS, wrapped=seal(OTHER, b"k" * 32, b""))(change)
    with pytest.raises(DamagedError):
        store.originals.read("alice")


def test_a_scope_that_does_not_open_is_refused(store: Keystore) -> None:
    store.issue("alice")
    with store._core.change() as change:
        replaced(SCOPES, name=seal(OTHER, b"x", b""))(change)
    with pytest.raises(DamagedError):
        store.scopes()


def test_a_chain_with_wrong_numbers_is_found_though_its_codes_fit() -> None:
    ring = KeyRing(b"r" * 32, b"s" * 16)

    def line(seq: int, before: bytes, **facts: object) -> Line:
        text = canonical({"action": "x", "seq": seq, **facts})
        return Line(seq, text, chain(ring, before, text))

    one = line(1, bytes(32))
    renumbered = line(2, one.code)._replace(seq=3)
    assert "another number" in str(_steps(ring, one, renumbered))
    assert "missing" in str(_steps(ring, one, line(3, one.code)))
    assert _steps(ring, one, line(7, one.code, action="accept-rollback")) is None
    assert "missing" in str(_steps(ring, one, line(1, one.code, action="accept-rollback")))


def _steps(ring: KeyRing, *lines: Line) -> str | None:
    check = ChainCheck(ring)
    return [check.step(line) for line in lines][-1]


class Answers:
    """A database that gives one record, of types that a damaged file can hold."""

    where = "store.db"

    def __init__(self, record: tuple[object, ...]) -> None:
        self._record = record

    def row(self, *_: object) -> tuple[object, ...]:
        return self._record

    def rows(self, *_: object) -> list[tuple[object, ...]]:
        return [self._record]


def test_records_of_impossible_types_are_damage() -> None:
    from anonymix_keystore import _audit, _header, _schema

    ring = KeyRing(b"r" * 32, b"s" * 16)
    with pytest.raises(DamagedError):
        read(Answers(("root", "k", "p", 1.5, b"c")), b"s" * 16, "root")  # type: ignore[arg-type]
    with pytest.raises(DamagedError):
        _audit.line(Answers((1, None, b"c")), ring, 1)  # type: ignore[arg-type]
    with pytest.raises(DamagedError):
        _header.load(Answers((None,)), ring)  # type: ignore[arg-type]
    with pytest.raises(DamagedError):
        _schema.digest(Answers(("table", 1.5, "x", "y")))  # type: ignore[arg-type]
    with pytest.raises(DamagedError):
        HEADS.check(ring, (1.5,) * 10)
    with pytest.raises(DamagedError):
        HEADS.check(ring, (None,) * 10)


def test_slots_with_senseless_content_are_refused(unlock: KeyFileUnlock) -> None:
    slot = lock(b"s" * 16, "root", b"too short", unlock)
    with pytest.raises(DamagedError):
        open_slot(b"s" * 16, slot, unlock, "store.db")
    for text in ("[]", "no json"):
        with pytest.raises(DamagedError):
            params(Slot("root", "key-file", text, b""))
    with pytest.raises(KeystoreError):
        open_slot(b"t" * 16, lock(b"s" * 16, "root", b"r" * 32, unlock), unlock, "store.db")
