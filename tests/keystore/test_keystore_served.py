"""What a service needs that opens the store for others: their names in the trail, and states that they keep of it."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from keystore_clock import Clock

from anonymix_keystore import (
    AnchorError,
    AnchorFile,
    InvalidRequestError,
    KeyFileUnlock,
    KeyRevokedError,
    Keystore,
    RolledBackError,
    UnknownSubjectError,
)


def actors(store: Keystore) -> list[str]:
    return [line["actor"] for line in store.audit()]


def test_the_trail_names_for_whom_a_change_was_made(store: Keystore) -> None:
    with store.acting_for("gate-1"):
        store.issue("alice")
    store.issue("bob")
    assert actors(store)[-2:] == ["gate-1", "tester"]


def test_a_name_counts_in_its_own_thread_alone(store: Keystore) -> None:
    with store.acting_for("gate-1"):
        other = threading.Thread(target=lambda: store.issue("alice"))
        other.start()
        other.join()
    assert actors(store)[-1] == "tester"


def test_nobody_acts_for_an_empty_name(store: Keystore) -> None:
    with pytest.raises(InvalidRequestError):
        store.acting_for("")


def test_a_state_that_somebody_keeps_tells_an_older_file(
    store: Keystore, path: Path, reopen: Callable[..., Keystore]
) -> None:
    store.issue("alice")
    store.close()
    shutil.copy(path, path.with_name("old"))
    with reopen() as newer:
        newer.revoke("alice")
        kept = newer.anchor_state()
        newer.issue("bob")
        newer.check_state(kept)
    shutil.copy(path.with_name("old"), path)
    older = reopen()
    with pytest.raises(RolledBackError, match="an old file"):
        older.check_state(kept)
    older.issue("eve")
    older.issue("mallory")
    with pytest.raises(RolledBackError, match="history"):  # it went on, and is past the number
        older.check_state(kept)
    with pytest.raises(AnchorError, match="another store"):
        older.check_state(replace(kept, store_id=bytes(16)))


def test_states_of_a_stretch_whose_loss_was_accepted_are_taken(
    path: Path, unlock: KeyFileUnlock, tmp_path: Path, clock: Clock
) -> None:
    anchor = AnchorFile.create(tmp_path / "anchor")
    with Keystore.create(path, unlock, anchor=anchor, clock=clock) as store:
        store.issue("alice")
        before = store.anchor_state()
    shutil.copy(path, path.with_name("old"))
    with Keystore.open(path, unlock, anchor=anchor, clock=clock) as store:
        store.revoke("alice")
        between = store.anchor_state()
        store.issue("bob")
        last = store.anchor_state()
    shutil.copy(path.with_name("old"), path)
    with Keystore.open(path, unlock, anchor=anchor, clock=clock, accept_rollback="disk lost") as store:
        for state in (before, between, last, store.anchor_state()):
            store.check_state(state)
        with pytest.raises(KeyRevokedError):
            store.current("alice")


def test_a_gallery_key_is_not_made_where_that_is_not_wanted(store: Keystore) -> None:
    with pytest.raises(UnknownSubjectError):
        store.gallery("staff", issue=False)
    made = store.gallery("staff")
    assert store.gallery("staff", issue=False) == made


def test_a_record_is_found_by_its_name(store: Keystore) -> None:
    version = store.issue("alice").version
    how = {"adapter": "a", "collection": "c", "external_id": "1"}
    entry = store.record_enrolment("alice", **how, version=version, fingerprint="f")
    assert store.enrolment_named(entry) == store.enrolment(**how)
    assert store.enrolment_named("00" * 32) is None
    with pytest.raises(InvalidRequestError):
        store.enrolment_named("no hex")


def test_records_are_listed_from_one_on(store: Keystore) -> None:
    version = store.issue("alice").version
    for number in range(5):
        how = {"adapter": "a", "collection": "c", "external_id": number}
        store.record_enrolment("alice", **how, version=version, fingerprint="f")
    names = [item.entry for item in store.enrolments()]
    assert names == sorted(names)
    assert [item.entry for item in store.enrolments(beyond=names[2])] == names[3:]
    with pytest.raises(InvalidRequestError, match="beyond"):
        list(store.enrolments(beyond="no hex"))
