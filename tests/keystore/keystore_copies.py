"""Helpers of the tests that damage a store: a small one, and what it should say."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from keystore_clock import Clock

from anonymix_keystore import KeyFileUnlock, KeyState, Keystore, KeystoreError

SUBJECTS = ("alice", "bob", "carol")


@dataclass(frozen=True)
class Truth:
    """What a sound store answers."""

    materials: dict[tuple[str, int], bytes]
    current: dict[str, int]
    refused: frozenset[str]
    entries: frozenset[tuple[str, str]]


def build(path: Path, unlock: KeyFileUnlock) -> Truth:
    """Make a small store with every kind of row in it, closed."""
    with Keystore.create(path, unlock, clock=Clock(), actor="tester") as store:
        materials = {(key.subject, key.version): key.material for key in map(store.issue, SUBJECTS)}
        key = store.rotate("bob")
        materials["bob", 2] = key.material
        store.revoke("carol")
        store.record_enrolment("alice", adapter="x", collection="c", external_id="e", version=1, fingerprint="f")
        store.rotate_all(subjects=["alice"])
        materials["alice", 2] = store.current("alice").material
    return Truth(materials, {"alice": 2, "bob": 2}, frozenset({"carol"}), frozenset({("alice", "e")}))


def examine(path: Path, unlock: KeyFileUnlock, truth: Truth) -> str:
    """Use a damaged store as an application would.

    Returns:
        ``"sound"`` if every answer and the full check were right, ``"noticed"`` if anything was
        refused by a typed error or found. A wrong answer fails the test.
    """
    noticed = False
    try:
        with Keystore.open(path, unlock, clock=Clock(), busy_timeout=0.2) as store:
            for name, version in truth.current.items():
                try:
                    key = store.current(name)
                    assert (key.subject, key.version) == (name, version)
                    assert key.material == truth.materials[name, version], "a wrong key"
                    assert key.state is KeyState.ACTIVE
                except KeystoreError:
                    noticed = True
            for (name, version), material in truth.materials.items():
                try:
                    assert store.at(name, version).material == material, "a wrong key"
                except KeystoreError:
                    noticed = noticed or name not in truth.refused
            for name in truth.refused:
                try:
                    store.current_or_issue(name)
                except KeystoreError:
                    pass
                else:
                    raise AssertionError("a revoked subject got a key")
            # A subject that is there never looks new.
            for name in truth.current:
                try:
                    assert store.current_or_issue(name).material == truth.materials[name, truth.current[name]]
                except KeystoreError:
                    noticed = True
            try:
                assert {info.subject for info in store.list()} <= set(SUBJECTS), "a wrong subject"
                found = {(info.subject, info.external_id) for info in store.enrolments()}
                assert found <= truth.entries, "a wrong enrolment"
            except KeystoreError:
                noticed = True
            noticed = noticed or not store.verify().ok
    except KeystoreError:
        noticed = True
    return "noticed" if noticed else "sound"
