"""The whole life cycle against a plain model."""

from __future__ import annotations

import shutil
import tempfile
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from keystore_clock import Clock

from anonymix_keystore import (
    AnchorFile,
    KeyExistsError,
    KeyFileUnlock,
    KeyRetiredError,
    KeyRevokedError,
    KeyState,
    Keystore,
    UnknownSubjectError,
    UnknownVersionError,
)

NAMES = st.sampled_from(["alice", "bob", "Zoë"])
SCOPES = st.sampled_from(["default", "doors"])
# A disk in memory, where there is one: the model is about logic, and waiting for disks finds nothing.
MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108 - a private folder is made in it
LIVING = {KeyState.ACTIVE, KeyState.RETIRED}


class Version:
    """One version of a key in the model."""

    def __init__(self, material: bytes) -> None:
        self.material, self.state, self.until = material, KeyState.ACTIVE, 0.0

    def end(self, state: KeyState, until: float = 0) -> None:
        self.state, self.until = state, until


class Life(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(dir=MEMORY))
        self.clock = Clock()
        self.unlock = KeyFileUnlock.generate(self.folder / "key")
        self.anchor = AnchorFile.create(self.folder / "anchor.db")
        self.store = Keystore.create(self.folder / "store.db", self.unlock, clock=self.clock, anchor=self.anchor)
        self.model: dict[tuple[str, str], list[Version]] = {}
        self.epoch = self.store.epoch

    def teardown(self) -> None:
        assert self.store.verify().ok
        self.store.close()
        shutil.rmtree(self.folder)

    def _active(self, name: str, scope: str) -> Version | None:
        versions = self.model.get((name, scope), [])
        return versions[-1] if versions and versions[-1].state is KeyState.ACTIVE else None

    def _refusal(self, name: str, scope: str) -> type[Exception]:
        versions = self.model.get((name, scope))
        if not versions:
            return UnknownSubjectError
        return KeyRetiredError if versions[-1].state is KeyState.RETIRED else KeyRevokedError

    @rule(name=NAMES, scope=SCOPES)
    def issue(self, name: str, scope: str) -> None:
        if self._active(name, scope):
            with pytest.raises(KeyExistsError):
                self.store.issue(name, scope)
            return
        key = self.store.issue(name, scope)
        versions = self.model.setdefault((name, scope), [])
        versions.append(Version(key.material))
        assert key.version == len(versions)

    @rule(name=NAMES, scope=SCOPES)
    def current_or_issue(self, name: str, scope: str) -> None:
        if (name, scope) not in self.model:
            key = self.store.current_or_issue(name, scope)
            self.model[name, scope] = [Version(key.material)]
        elif self._active(name, scope):
            assert self.store.current_or_issue(name, scope).material == self.model[name, scope][-1].material
        else:
            with pytest.raises(self._refusal(name, scope)):
                self.store.current_or_issue(name, scope)

    @rule(name=NAMES, scope=SCOPES, reason=st.sampled_from(["routine", "breach"]), days=st.integers(0, 3))
    def rotate(self, name: str, scope: str, reason: str, days: int) -> None:
        grace = None if reason == "breach" else timedelta(days=days)
        versions = self.model.get((name, scope))
        if not versions or not any(version.state in LIVING for version in versions):
            with pytest.raises(self._refusal(name, scope)):
                self.store.rotate(name, scope, reason=reason, grace=grace)
            return
        key = self.store.rotate(name, scope, reason=reason, grace=grace)
        self._replaced(versions, reason, days, key.material)

    def _replaced(self, versions: list[Version], reason: str, days: int, material: bytes) -> None:
        for version in versions:
            if version.state not in LIVING:
                continue
            if reason == "breach":
                version.end(KeyState.COMPROMISED)
            elif not days:
                version.end(KeyState.DESTROYED)
            elif version.state is KeyState.ACTIVE:
                version.end(KeyState.RETIRED, self.clock.now + days * 86_400)
        versions.append(Version(material))

    @rule(reason=st.sampled_from(["routine", "breach"]), days=st.integers(0, 3), batch=st.integers(1, 4))
    def rotate_all(self, reason: str, days: int, batch: int) -> None:
        grace = None if reason == "breach" else timedelta(days=days)
        self.store.rotate_all(reason=reason, grace=grace, batch=batch)
        for (name, scope), versions in self.model.items():
            if self._active(name, scope):
                self._replaced(versions, reason, days, self.store.current(name, scope).material)

    @rule(name=NAMES, scope=SCOPES)
    def retire(self, name: str, scope: str) -> None:
        active = self._active(name, scope)
        if active is None:
            with pytest.raises(self._refusal(name, scope)):
                self.store.retire(name, scope)
            return
        self.store.retire(name, scope)
        active.end(KeyState.RETIRED, self.clock.now + 30 * 86_400)

    @rule(name=NAMES, scope=SCOPES, version=st.one_of(st.none(), st.integers(1, 4)))
    def revoke(self, name: str, scope: str, version: int | None) -> None:
        versions = self.model.get((name, scope))
        if not versions or (version is not None and version > len(versions)):
            with pytest.raises(UnknownVersionError if versions else UnknownSubjectError):
                self.store.revoke(name, scope, version=version)
            return
        chosen = [
            number
            for number, item in enumerate(versions, start=1)
            if item.state in LIVING and version in {None, number}
        ]
        assert self.store.revoke(name, scope, version=version) == tuple(chosen)
        for number in chosen:
            versions[number - 1].end(KeyState.DESTROYED)

    @rule(name=NAMES)
    def forget(self, name: str) -> None:
        known = [place for place in self.model if place[0] == name]
        if not known:
            with pytest.raises(UnknownSubjectError):
                self.store.forget(name)
            return
        receipt = self.store.forget(name)
        assert receipt.clean
        assert receipt.keys == sum(len(self.model.pop(place)) for place in known)

    @rule()
    def rewrap(self) -> None:
        self.store.rewrap_all(batch=2)

    @rule()
    def expire(self) -> None:
        due = [
            version
            for versions in self.model.values()
            for version in versions
            if version.state is KeyState.RETIRED and version.until <= self.clock.now
        ]
        assert self.store.expire() == len(due)
        for version in due:
            version.end(KeyState.DESTROYED)

    @rule(hours=st.integers(1, 60))
    def wait(self, hours: int) -> None:
        self.clock.forward(seconds=hours * 3600)

    @rule()
    def reopen(self) -> None:
        self.store.close()
        self.store = Keystore.open(self.folder / "store.db", self.unlock, clock=self.clock, anchor=self.anchor)

    @rule()
    @precondition(lambda self: self.model)
    def check_listing(self) -> None:
        assert {(info.subject, info.scope, info.version, info.state) for info in self.store.list()} == {
            (name, scope, len(versions), versions[-1].state) for (name, scope), versions in self.model.items()
        }

    @invariant()
    def every_answer_is_the_models(self) -> None:
        assert self.store.epoch >= self.epoch
        self.epoch = self.store.epoch
        for (name, scope), versions in self.model.items():
            if self._active(name, scope):
                assert self.store.current(name, scope).material == versions[-1].material
            else:
                with pytest.raises(self._refusal(name, scope)):
                    self.store.current(name, scope)
            for number, version in enumerate(versions, start=1):
                if version.state is KeyState.ACTIVE or (
                    version.state is KeyState.RETIRED and version.until > self.clock.now
                ):
                    assert self.store.at(name, number, scope).material == version.material
                else:
                    with pytest.raises(KeyRevokedError):
                        self.store.at(name, number, scope)


Life.TestCase.settings = settings(
    max_examples=20,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    derandomize=True,
)
TestLife = Life.TestCase


@pytest.mark.long
class TestLongLife(Life.TestCase):
    settings = settings(
        max_examples=300, stateful_step_count=50, deadline=None, suppress_health_check=list(HealthCheck)
    )
