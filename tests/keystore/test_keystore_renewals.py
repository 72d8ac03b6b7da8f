"""The ledger of renewals stands beside the enrolment records, and goes with the person."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from anonymix_keystore import (
    DamagedError,
    InvalidRequestError,
    KeyFileUnlock,
    Keystore,
    RenewalInfo,
    RenewalState,
)
from anonymix_keystore import _renewals as renewals
from anonymix_keystore._crypto import seal

PLACE = {"adapter": "dlib", "collection": "doors"}


def enrolled(store: Keystore, subject: str, entry: str, version: int = 1) -> str:
    return store.record_enrolment(subject, external_id=entry, version=version, fingerprint="f1", **PLACE)


def renewal(subject: str, state: RenewalState, **more: str) -> RenewalInfo:
    return RenewalInfo(subject, "default", "dlib", "doors", 2, "f1", state, **more)


def test_a_renewal_is_found_by_its_subject_and_by_its_state(store: Keystore) -> None:
    for name in ("alice", "bob"):
        store.issue(name)
        enrolled(store, name, f"{name}-1")
    assert store.renewal("alice", **PLACE) is None
    store.write_renewals([renewal("alice", RenewalState.BEGUN), renewal("bob", RenewalState.BEGUN)])
    failed = renewal("bob", RenewalState.FAILED, error="no_face", what="there is no face", fix="another photo")
    store.write_renewals([failed])
    assert store.renewal("bob", **PLACE) == failed
    assert [it.subject for it in store.renewals(only=RenewalState.BEGUN, **PLACE)] == ["alice"]
    assert {it.subject for it in store.renewals(**PLACE)} == {"alice", "bob"}
    assert list(store.renewals(adapter="dlib", collection="other")) == []
    first, second = store.renewals(**PLACE)
    assert list(store.renewals(beyond=first.name, **PLACE)) == [second]
    with pytest.raises(InvalidRequestError, match="beyond"):
        list(store.renewals(beyond="alice", **PLACE))
    assert store.verify().ok
    assert list(store.audit())[-1]["action"] == "renew"


def test_outcome_and_deletion_are_one_step(store: Keystore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.issue("alice")
    old = enrolled(store, "alice", "old")
    store.rotate("alice", reason="breach")
    enrolled(store, "alice", "new", version=2)
    done = renewal("alice", RenewalState.DONE, entry="new")
    with monkeypatch.context() as broken:
        broken.setattr(renewals, "canonical", lambda _: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            store.write_renewals([done], removed=[old])
    assert [it.external_id for it in store.due()] == ["old"]
    assert store.renewal("alice", **PLACE) is None
    store.write_renewals([done, done], removed=[old, "00" * 32])
    assert list(store.due()) == []
    assert store.renewal("alice", **PLACE) == done


def test_pages_follow_each_other(store: Keystore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(renewals, "PAGE", 2)
    names = [f"s{number}" for number in range(7)]
    store.issue_many(names)
    for name in names:
        enrolled(store, name, name)
    store.write_renewals([renewal(name, RenewalState.DONE) for name in names])
    assert sorted(it.subject for it in store.renewals(**PLACE)) == names


def test_who_is_forgotten_leaves_no_renewal_and_gets_none(store: Keystore) -> None:
    store.issue("alice")
    enrolled(store, "alice", "a")
    store.write_renewals([renewal("alice", RenewalState.BEGUN)])
    assert store.forget("alice").clean
    epoch = store.epoch
    store.write_renewals([renewal("alice", RenewalState.DONE)])
    assert store.renewal("alice", **PLACE) is None
    assert store.epoch == epoch
    assert store.verify().ok


def test_a_forged_renewal_is_noticed(store: Keystore, path: Path, unlock: KeyFileUnlock) -> None:
    for name in ("alice", "bob"):
        store.issue(name)
        enrolled(store, name, name)
    store.write_renewals([renewal("alice", RenewalState.BEGUN), renewal("bob", RenewalState.BEGUN)])
    with store._core.change() as change:  # as one who holds the row key alone could
        (one, weight), (other, second) = renewals.RENEWALS.every(change.db, change.keys)
        exchanged = one._replace(detail=other.detail), other._replace(detail=seal(bytes(32), b"{}", b""))
        change.update_all(renewals.RENEWALS, list(zip(exchanged, (weight, second), strict=True)))
    for name in ("alice", "bob"):
        with pytest.raises(DamagedError, match=rf"renewal of subject '{name}' in scope 'default' fails"):
            store.renewal(name, **PLACE)
    store.close()
    with sqlite3.connect(path) as raw:
        raw.execute("UPDATE renewals SET state = 2")
    raw.close()
    with Keystore.open(path, unlock) as again, pytest.raises(DamagedError, match="renewal of subject"):
        again.renewal("alice", **PLACE)


def test_a_damaged_renewal_hides_no_other_and_is_told_at_the_end(store: Keystore, path: Path) -> None:
    names = ["alice", "bob", "carol", "dave"]
    for name in names:
        store.issue(name)
        enrolled(store, name, name)
    store.write_renewals([renewal(name, RenewalState.BEGUN) for name in names])
    tags = {it.subject: bytes.fromhex(it.name) for it in store.renewals(**PLACE)}
    with sqlite3.connect(path) as raw:
        raw.execute("UPDATE renewals SET version = 9 WHERE subject = ?", (tags["bob"],))
        raw.execute("UPDATE renewals SET detail = x'05' WHERE subject = ?", (tags["carol"],))
    raw.close()
    heard = []
    with pytest.raises(DamagedError, match="renewal of") as told:
        heard.extend(store.renewals(only=RenewalState.BEGUN, **PLACE))
    assert {it.subject for it in heard} == {"alice", "dave"}
    assert "subject 'bob' in scope 'default'" in str(told.value)
    assert "somebody whose name can't be read" in str(told.value)
    passed: list[DamagedError] = []
    assert {it.subject for it in store.renewals(**PLACE, damaged=passed.append)} == {"alice", "dave"}
    assert len(passed) == 2


def test_what_is_no_renewal_is_refused(store: Keystore) -> None:
    good = renewal("alice", RenewalState.DONE)
    with pytest.raises(InvalidRequestError, match="no RenewalInfo"):
        store.write_renewals(["alice"])  # type: ignore[list-item]
    with pytest.raises(InvalidRequestError, match="no RenewalState"):
        list(store.renewals(only="over", **PLACE))  # type: ignore[arg-type]
    with pytest.raises(InvalidRequestError):
        store.write_renewals([replace(good, subject="")])
