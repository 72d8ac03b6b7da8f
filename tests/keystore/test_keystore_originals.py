from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from anonymix_keystore import (
    InvalidRequestError,
    KeyFileUnlock,
    Keystore,
    LockedError,
    OriginalsError,
    WrongKeyError,
    _slots,
)

FACE = b"face of alice " * 400


@pytest.fixture
def second(tmp_path: Path) -> KeyFileUnlock:
    return KeyFileUnlock.generate(tmp_path / "second.key")


def test_originals_are_off_by_default(store: Keystore, second: KeyFileUnlock) -> None:
    assert not store.originals.enabled()
    for attempt in (
        lambda: store.originals.keep("alice", FACE),
        lambda: store.originals.read("alice"),
        lambda: store.originals.unlock(second),
        store.originals.locked_by,
        lambda: store.originals.change_unlock(second, second),
    ):
        with pytest.raises(OriginalsError):
            attempt()


def test_closing_forgets_the_second_root(store: Keystore, second: KeyFileUnlock) -> None:
    store.originals.enable(second)
    assert store.originals._opened is not None
    store.close()
    assert store.originals._opened is None


def test_an_original_comes_back_whole(
    store: Keystore, second: KeyFileUnlock, path: Path, reopen: Callable[..., Keystore]
) -> None:
    store.originals.enable(second)
    store.originals.keep("alice", FACE)
    store.originals.keep("alice", b"other", label="second photo")
    store.close()
    assert FACE[:14] not in path.read_bytes()
    store = reopen()
    assert store.originals.enabled()
    with pytest.raises(OriginalsError):
        store.originals.read("alice")
    store.originals.unlock(second)
    assert store.originals.read("alice") == FACE
    assert store.originals.labels("alice") == ("face", "second photo")
    assert store.originals.locked_by()[0] == "key-file"
    store.originals.lock()
    with pytest.raises(OriginalsError):
        store.originals.read("alice")
    assert store.verify().ok


def test_the_second_root_needs_a_secret_of_its_own(
    store: Keystore, unlock: KeyFileUnlock, second: KeyFileUnlock, tmp_path: Path
) -> None:
    with pytest.raises(InvalidRequestError):
        store.originals.enable(unlock)
    store.originals.enable(second)
    with pytest.raises(OriginalsError):
        store.originals.enable(second)
    third = KeyFileUnlock.generate(tmp_path / "third.key")
    with pytest.raises(WrongKeyError):
        store.originals.unlock(third)
    with pytest.raises(InvalidRequestError):
        store.originals.change_unlock(second, unlock)
    store.originals.keep("alice", FACE)
    store.originals.change_unlock(second, third)
    with pytest.raises(LockedError):
        store.originals.unlock(second)
    store.originals.unlock(third)
    assert store.originals.read("alice") == FACE


def test_originals_are_replaced_dropped_and_missed(store: Keystore, second: KeyFileUnlock) -> None:
    store.originals.enable(second)
    store.originals.keep("alice", FACE)
    store.originals.keep("alice", b"new")
    assert store.originals.read("alice") == b"new"
    assert store.originals.drop("alice")
    assert not store.originals.drop("alice")
    with pytest.raises(OriginalsError):
        store.originals.read("alice")
    for data in (b"", b"x" * (16 * 1024 * 1024 + 1)):
        with pytest.raises(InvalidRequestError):
            store.originals.keep("alice", data)


def test_switching_off_erases_all(store: Keystore, second: KeyFileUnlock) -> None:
    store.originals.enable(second)
    for name in ("alice", "bob"):
        store.originals.keep(name, FACE)
    assert store.originals.disable() == 2
    assert not store.originals.enabled()
    store.originals.enable(second)
    assert store.originals.labels("alice") == ()
    assert store.verify().ok


def test_keys_do_not_depend_on_originals(store: Keystore, second: KeyFileUnlock) -> None:
    key = store.issue("alice")
    store.originals.enable(second)
    store.originals.keep("alice", FACE)
    store.rotate("alice")
    assert store.originals.read("alice") == FACE
    assert store.at("alice", 1).material == key.material


def test_a_second_root_that_another_process_ended_seals_nothing_any_more(
    store: Keystore, reopen: Callable[..., Keystore], tmp_path: Path
) -> None:
    second = KeyFileUnlock.generate(tmp_path / "second.key")
    store.originals.enable(second)
    other = reopen()
    other.originals.unlock(second)
    other.originals.keep("alice", b"face")
    store.originals.disable()
    for again in (lambda: None, lambda: store.originals.enable(second)):
        again()
        for use in (lambda: other.originals.keep("alice", b"face"), lambda: other.originals.read("alice")):
            with pytest.raises(OriginalsError, match="switched off or locked"):
                use()
    other.originals.unlock(second)
    other.originals.keep("alice", b"new face")
    assert store.originals.read("alice") == b"new face"
    assert store.verify().ok


def test_a_second_secret_that_is_changed_in_two_places_at_once_is_changed_once(
    store: Keystore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    second, third = (KeyFileUnlock.generate(tmp_path / f"{name}.key") for name in ("second", "third"))
    store.originals.enable(second)
    genuine = _slots.lock

    def meanwhile(*arguments: object) -> object:
        monkeypatch.undo()
        store.originals.change_unlock(second, third)
        return genuine(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(_slots, "lock", meanwhile)
    with pytest.raises(OriginalsError, match="meanwhile"):
        store.originals.change_unlock(second, second)
    store.originals.unlock(third)
    store.originals.lock()
    store.originals.change_unlock(third, second)  # locked, it stays so
    with pytest.raises(OriginalsError):
        store.originals.read("alice")
