"""First keys, and references, that are taken back where nothing came of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from anonymix_keystore import (
    AnchorFile,
    KeyFileUnlock,
    KeyRevokedError,
    Keystore,
    RolledBackError,
    UnknownSubjectError,
    _core,
)

MIXER = {"fingerprint": "mixer", "subspace": "space"}


def test_a_first_key_that_was_taken_back_was_never_there(store: Keystore, path: Path) -> None:
    old = store.current_or_issue("alice", "door")
    assert store.take_back("alice", "door")
    assert (list(store.subjects()), store.scopes()) == ([], ())
    with pytest.raises(UnknownSubjectError):
        store.current("alice", "door")
    last = list(store.audit())[-1]
    assert (last["action"], last["keys"][0][1:]) == ("take-back", [1, 0])
    assert store.verify().ok
    assert not store.unscrubbed
    new = store.current_or_issue("alice", "door")
    assert (new.version, new.material == old.material) == (1, False)


@pytest.mark.parametrize(
    "came",
    [
        lambda store: store.rotate("alice"),
        lambda store: store.revoke("alice"),
        lambda store: store.forget("alice"),
        lambda store: store.originals.keep("alice", b"face"),
        lambda store: store.record_enrolment(
            "alice", adapter="a", collection="c", external_id="e", version=1, fingerprint="f"
        ),
        lambda store: store.take_back("alice"),
    ],
)
def test_a_key_that_something_came_of_is_not_taken_back(
    store: Keystore, tmp_path: Path, came: Callable[[Keystore], object]
) -> None:
    store.originals.enable(KeyFileUnlock.generate(tmp_path / "second.key"))
    store.current_or_issue("alice")
    came(store)
    assert not store.take_back("alice")
    assert store.verify().ok


def test_only_a_key_that_this_object_issued_at_first_use_is_taken_back(
    store: Keystore, reopen: Callable[..., Keystore], monkeypatch: pytest.MonkeyPatch
) -> None:
    store.issue("alice")
    store.current_or_issue("alice")
    reopen().current_or_issue("bob")
    store.current_or_issue("bob")
    assert not store.take_back("alice")
    assert not store.take_back("bob")
    assert not store.take_back("nobody")
    monkeypatch.setattr(_core, "ISSUED_KEPT", 2)
    for name in ("one", "two", "three"):
        store.current_or_issue(name)
    assert [store.take_back(name) for name in ("one", "two", "three")] == [False, True, True]


def test_the_scope_stays_where_somebody_else_is_in_it_or_it_keeps_references(store: Keystore, tmp_path: Path) -> None:
    store.originals.enable(KeyFileUnlock.generate(tmp_path / "second.key"))
    store.references.enable("kept")
    store.gallery("shared")
    for scope in ("kept", "shared", "new"):
        key = store.current_or_issue("alice", scope)
        if scope == "kept":
            store.references.keep(key, b"code", **MIXER)
        assert store.take_back("alice", scope)
    assert sorted(store.scopes()) == ["kept", "shared"]
    assert store.verify().ok


def test_a_key_that_was_taken_back_is_not_brought_back_by_an_old_file(tmp_path: Path, unlock: KeyFileUnlock) -> None:
    anchor = AnchorFile.create(tmp_path / "anchor")
    with Keystore.create(tmp_path / "a.db", unlock, anchor=anchor) as store:
        store.current_or_issue("alice")
        store.backup(tmp_path / "backup", unlock)
        assert store.take_back("alice")
    Keystore.restore(tmp_path / "backup", tmp_path / "b.db", unlock)
    with pytest.raises(RolledBackError):
        Keystore.open(tmp_path / "b.db", unlock, anchor=anchor)
    store = Keystore.open(tmp_path / "b.db", unlock, anchor=anchor, accept_rollback="lost")
    with store, pytest.raises(KeyRevokedError):
        store.current("alice")


@pytest.fixture
def keeping(store: Keystore, tmp_path: Path) -> Keystore:
    store.originals.enable(KeyFileUnlock.generate(tmp_path / "second.key"))
    store.references.enable()
    return store


def test_a_reference_that_was_replaced_comes_back_and_a_first_one_goes(keeping: Keystore) -> None:
    key = keeping.issue("alice")
    keeping.references.keep(key, b"one", **MIXER)
    assert keeping.references.put_back(key)
    assert keeping.references.read(key, **MIXER) is None
    keeping.references.keep(key, b"one", **MIXER)
    keeping.references.keep(key, b"two", **MIXER)
    assert keeping.references.put_back(key)
    assert keeping.references.read(key, **MIXER) == b"one"
    assert not keeping.references.put_back(key)  # one step, no more
    assert keeping.verify().ok
    assert list(keeping.audit())[-1]["action"] == "put-reference-back"


def test_a_reference_that_somebody_else_replaced_stays(
    keeping: Keystore, reopen: Callable[..., Keystore], tmp_path: Path
) -> None:
    key = keeping.issue("alice")
    keeping.references.keep(key, b"one", **MIXER)
    other = reopen()
    other.originals.unlock(KeyFileUnlock(tmp_path / "second.key"))
    other.references.keep(key, b"theirs", **MIXER)
    assert not keeping.references.put_back(key)
    assert keeping.references.read(key, **MIXER) == b"theirs"
    keeping.references.keep(key, b"mine", **MIXER)
    keeping.references.drop("alice")
    assert not keeping.references.put_back(key)
    keeping.references.keep(key, b"mine", **MIXER)
    assert not keeping.references.put_back(keeping.rotate("alice"))


def test_only_the_last_keepings_can_be_undone(keeping: Keystore, monkeypatch: pytest.MonkeyPatch) -> None:
    from anonymix_keystore import _references

    monkeypatch.setattr(_references, "_REPLACED_KEPT", 1)
    one, two = keeping.issue("alice"), keeping.issue("bob")
    keeping.references.keep(one, b"one", **MIXER)
    keeping.references.keep(two, b"two", **MIXER)
    assert (keeping.references.put_back(one), keeping.references.put_back(two)) == (False, True)
