"""What an anchor is told, and when: all that was revoked, whatever came between."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path

import pytest
from keystore_clock import Clock

from anonymix_keystore import (
    AnchorError,
    AnchorFile,
    AnchorState,
    KeyFileUnlock,
    KeyRevokedError,
    Keystore,
    RolledBackError,
    _anchor,
)
from anonymix_keystore._anchor import Revoked

NAMES = ("revoked", "breached", "forgotten", "replaced", "expired", "one version", "kept")


class Recording:
    """An anchor in memory that notes each call."""

    def __init__(self) -> None:
        self.state: AnchorState | None = None
        self.calls: list[list[Revoked]] = []
        self.away = False

    def read(self) -> AnchorState | None:
        if self.away:
            raise ConnectionError("away")
        return self.state

    def advance(self, state: AnchorState, revoked: Sequence[Revoked]) -> None:
        self.calls.append(list(revoked))
        if self.state is None or state.epoch > self.state.epoch:
            self.state = state

    def revoked(self) -> list[Revoked]:
        return [item for call in self.calls for item in call]


@pytest.fixture
def anchor(tmp_path: Path) -> AnchorFile:
    return AnchorFile.create(tmp_path / "anchor.db")


@pytest.fixture
def tied(path: Path, unlock: KeyFileUnlock, clock: Clock, anchor: AnchorFile):
    with Keystore.create(path, unlock, clock=clock, anchor=anchor, actor="tester") as made:
        for name in NAMES:
            made.issue(name)
        made.rotate("one version")
        made.rotate("expired", grace=timedelta(days=1))
        yield made


def end_all(store: Keystore, clock: Clock) -> None:
    """End keys in every way that there is."""
    store.revoke("revoked")
    store.rotate("breached", reason="breach")
    store.forget("forgotten")
    store.rotate_all(subjects=["replaced"], grace=timedelta(0))
    store.revoke("one version", version=1)
    clock.forward(days=1)
    store.expire()


def dead_in(store: Keystore) -> None:
    for name in ("revoked", "breached", "forgotten", "replaced", "expired", "one version"):
        with pytest.raises(KeyRevokedError):
            store.at(name, 1)
    assert store.at("one version", 2).version == store.at("expired", 2).version == 2
    assert store.current("kept").version == 1
    assert store.verify().ok


@pytest.mark.parametrize("away", ["missing", "unknown", "crashed"])
@pytest.mark.parametrize("then", ["change", "opening", "another process"])
def test_a_revocation_that_the_anchor_missed_is_told_it_later(
    tied: Keystore, path: Path, tmp_path: Path, reopen: Callable[..., Keystore], anchor: AnchorFile,
    clock: Clock, away: str, then: str, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    tied.close()
    shutil.copy(path, tmp_path / "old.db")
    if away == "missing":
        (tmp_path / "anchor.db").rename(tmp_path / "elsewhere")
        store = reopen()
        store._core.anchor = anchor
        with pytest.raises(AnchorError, match="the change was made"):
            store.revoke("revoked")
        store._core.anchor = None
        end_all(store, clock)
        (tmp_path / "elsewhere").rename(tmp_path / "anchor.db")
    elif away == "unknown":
        store = reopen()
        end_all(store, clock)
    else:
        store = reopen(anchor=anchor)
        with monkeypatch.context() as patch:
            patch.setattr(_anchor, "advance", lambda *_, **__: None)  # the process dies between the two
            end_all(store, clock)
    store._core.anchor = anchor
    if then == "change":
        store.issue("new")
    store.close()
    if then == "opening":
        reopen(anchor=anchor).close()
    elif then == "another process":
        with reopen(anchor=anchor) as other:
            other.issue("other")
    shutil.copy(tmp_path / "old.db", path)
    with pytest.raises(RolledBackError):
        reopen(anchor=anchor)
    dead_in(reopen(anchor=anchor, accept_rollback="the disk died"))


def test_each_change_tells_what_other_processes_revoked(
    tied: Keystore, reopen: Callable[..., Keystore], anchor: AnchorFile
) -> None:
    alias = bytes.fromhex(tied.history("revoked")[0].alias)
    with reopen() as other:
        other.revoke("revoked")
    assert (alias, 1) not in anchor.revoked()
    tied.issue("new")
    assert (alias, 1) in anchor.revoked()


def test_a_breach_ends_retired_versions_in_the_anchor_too(
    tied: Keystore, path: Path, tmp_path: Path, reopen: Callable[..., Keystore], anchor: AnchorFile
) -> None:
    tied.close()
    shutil.copy(path, tmp_path / "old.db")
    with reopen(anchor=anchor) as store:
        assert store.at("one version", 1).version == 1  # retired, still good for probes
        store.rotate("one version", reason="breach")
    shutil.copy(tmp_path / "old.db", path)
    restored = reopen(anchor=anchor, accept_rollback="known")
    for version in (1, 2):
        with pytest.raises(KeyRevokedError):
            restored.at("one version", version)


def test_an_anchor_that_was_away_for_long_is_told_in_steps(
    path: Path, unlock: KeyFileUnlock, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_anchor, "STEP", 5)
    anchor = Recording()
    with Keystore.create(path, unlock, clock=clock, anchor=anchor, actor="tester") as store:
        names = [f"s{number}" for number in range(23)]
        store.issue_many(names)
        anchor.away = True
        for name in names:
            with pytest.raises(AnchorError, match="ConnectionError"):
                store.revoke(name)
        anchor.away = False
        anchor.calls.clear()
        store.issue("new")
        assert [len(call) for call in anchor.calls] == [5, 5, 5, 5, 3]
        aliases = {bytes.fromhex(store.history(name)[0].alias) for name in names}
        assert set(anchor.revoked()) == {(alias, 1) for alias in aliases}
        assert anchor.state == store.anchor_state()


def test_tying_a_store_again_tells_the_whole_trail(
    tied: Keystore, anchor: AnchorFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alias = bytes.fromhex(tied.history("revoked")[0].alias)
    with monkeypatch.context() as patch:  # an anchor that an earlier revision left with a gap
        patch.setattr("anonymix_keystore._audit.revoked", lambda _: ())
        tied.revoke("revoked")
    assert (alias, 1) not in anchor.revoked()
    tied.tie_anchor(anchor)
    assert (alias, 1) in anchor.revoked()
    another = AnchorFile.create(tmp_path / "another.db")
    tied.tie_anchor(another)
    assert (alias, 1) in another.revoked()


def test_a_server_on_an_exchanged_old_file_is_told_at_its_next_change(
    tied: Keystore, reopen: Callable[..., Keystore], anchor: AnchorFile
) -> None:
    before = anchor.read()
    assert before is not None
    ahead = AnchorState.of(tied._core.keys, before.epoch + 9, bytes(32))
    anchor.advance(ahead, [])
    with pytest.raises(RolledBackError):
        tied.issue("new")
    assert anchor.read() == ahead


def test_a_rollback_accepted_before_a_crash_stays_accepted(
    tied: Keystore, path: Path, tmp_path: Path, reopen: Callable[..., Keystore], anchor: AnchorFile,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    tied.close()
    shutil.copy(path, tmp_path / "old.db")
    with reopen(anchor=anchor) as store:
        store.revoke("revoked")
    shutil.copy(tmp_path / "old.db", path)
    with monkeypatch.context() as patch:
        patch.setattr(_anchor, "advance", lambda *_, **__: None)
        reopen(anchor=anchor, accept_rollback="known").close()
    again = reopen(anchor=anchor)
    assert anchor.read() == again.anchor_state()
    with pytest.raises(KeyRevokedError):
        again.current("revoked")


def test_an_opening_that_can_not_move_the_anchor_goes_on(
    path: Path, unlock: KeyFileUnlock, clock: Clock, reopen: Callable[..., Keystore]
) -> None:
    anchor = Recording()
    Keystore.create(path, unlock, clock=clock, anchor=anchor).close()
    with reopen() as other:
        other.issue("alice")

    def refuse(*_: object) -> None:
        raise PermissionError

    anchor.advance = refuse  # type: ignore[method-assign]
    assert reopen(anchor=anchor).current("alice").version == 1


def test_a_change_that_comes_while_the_anchor_is_told_is_left_to_whoever_makes_it(
    tied: Keystore, reopen: Callable[..., Keystore], anchor: AnchorFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = reopen()
    load = _anchor._header.load

    def meanwhile(*arguments: object) -> object:
        header = load(*arguments)
        monkeypatch.setattr(_anchor._header, "load", load)
        other.issue("meanwhile")
        return header

    before = tied.epoch
    with tied._core._writing() as (db, _):
        monkeypatch.setattr(_anchor._header, "load", meanwhile)
        _anchor.advance(anchor, db, tied._core.keys)
    state = anchor.read()
    assert state is not None
    assert state.epoch == before
    assert tied.epoch == before + 1
