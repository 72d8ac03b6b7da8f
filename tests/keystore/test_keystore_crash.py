"""``kill -9`` at random moments: what was acknowledged is there, and everything fits together."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from anonymix_keystore import AnchorFile, KeyFileUnlock, KeyRevokedError, Keystore, KeystoreError

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")


@dataclass
class Place:
    """A store, its anchor and a backup of it."""

    folder: Path

    def __post_init__(self) -> None:
        self.path, self.backup = self.folder / "store.db", self.folder / "backup"
        self.restored = self.folder / "restored.db"
        self.unlock = KeyFileUnlock(self.folder / "key")

    def make(self) -> None:
        KeyFileUnlock.generate(self.folder / "key")
        anchor = AnchorFile.create(self.folder / "anchor.db")
        with Keystore.create(self.path, self.unlock, anchor=anchor) as store:
            store.issue_many(f"old{number}" for number in range(40))
            store.backup(self.backup, self.unlock)

    def open(self) -> Keystore:
        return Keystore.open(self.path, self.unlock, anchor=AnchorFile(self.folder / "anchor.db"))


def digest(material: bytes) -> str:
    return hashlib.sha256(material).hexdigest()


def work(place: Place, seed: int, pipe: int) -> None:
    """What the killed process does: say what it begins and what it has been told is done."""
    dice = random.Random(seed)

    def say(*words: object) -> None:
        os.write(pipe, (json.dumps(words) + "\n").encode())

    with place.open() as store:
        store.resume(batch=4)
        names = [info.subject for info in store.list() if info.state == "active"]
        say("ready")
        for step in range(10_000):
            action = dice.choices(["issue", "rotate", "revoke", "rotate_all", "restore"], [8, 4, 2, 1, 1])[0]
            name = f"r{seed}-{step}" if action == "issue" else dice.choice(names)
            say("begin", action, name)
            if action == "issue":
                key = store.issue(name)
                names.append(name)
                say("done", action, name, key.version, digest(key.material))
            elif action == "rotate":
                key = store.rotate(name)
                say("done", action, name, key.version, digest(key.material))
            elif action == "revoke":
                store.revoke(name)
                names.remove(name)
                say("done", action, name)
            elif action == "rotate_all":
                store.rotate_all(reason="breach", batch=4)
                say("done", action, "")
            else:
                place.restored.unlink(missing_ok=True)
                Keystore.restore(place.backup, place.restored, place.unlock)
                say("done", action, "")


@dataclass
class Belief:
    """What must be true after the kill."""

    keys: dict[str, tuple[int, str | None]] = field(default_factory=dict)  # version, digest if known
    revoked: set[str] = field(default_factory=set)
    epoch: int = 0


def killed(place: Place, seed: int, delay: float) -> list[list[object]]:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:  # pragma: no cover - this process is killed
        try:
            os.close(reading)
            work(place, seed, writing)
        finally:
            os._exit(1)
    os.close(writing)
    with os.fdopen(reading, "rb") as said:
        assert json.loads(said.readline()) == ["ready"]
        time.sleep(delay)
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status), "the process ended by itself"
        return [json.loads(line) for line in said.read().splitlines()]


def check(place: Place, belief: Belief, said: list[list[object]]) -> str:  # noqa: PLR0912 - one story
    """Compare the store with what the killed process said; returns what was under way."""
    pending = said[-1] if said and said[-1][0] == "begin" else ["begin", "", ""]
    resets = False
    for words in said:
        if words[0] == "done":
            _, action, name, *rest = words
            if action in {"issue", "rotate"}:
                belief.keys[str(name)] = (int(str(rest[0])), str(rest[1]))
            elif action == "revoke":
                belief.keys.pop(str(name), None)
                belief.revoked.add(str(name))
            elif action == "rotate_all":
                belief.keys = {known: (version + 1, None) for known, (version, _) in belief.keys.items()}
        resets = resets or words[1] == "rotate_all"
    with place.open() as store:
        found = store.verify()
        assert found.ok, found.findings
        assert found.epoch >= belief.epoch
        _, under_way, whom = pending
        for name, (version, known) in belief.keys.items():
            try:
                key = store.current(name)
            except KeyRevokedError:
                assert (under_way, whom) == ("revoke", name), f"{name} lost its key"
                continue
            touched = under_way == "rotate_all" or (under_way == "rotate" and whom == name)
            assert key.version in ({version, version + 1} if touched else {version}), name
            if key.version == version and known is not None:
                assert digest(key.material) == known, f"{name} has a wrong key"
        for name in belief.revoked:
            with pytest.raises(KeyRevokedError):
                store.current(name)
        before = {info.subject: info.version for info in store.list() if info.state == "active"}
        job = store.resume(batch=4)
        if job is not None:
            assert under_way == "rotate_all"
            assert job.finished is not None
            after = {info.subject: info.version for info in store.list() if info.state == "active"}
            assert set(after) == set(before)
            assert all(after[name] - before[name] in {0, 1} for name in after)
            assert store.verify().ok
        belief.keys = {}
        for info in store.list():
            if info.state == "active":
                key = store.current(info.subject)
                belief.keys[info.subject] = (key.version, digest(key.material))
            else:
                belief.revoked.add(info.subject)
        belief.epoch = store.epoch
    if place.restored.exists():
        with Keystore.open(place.restored, place.unlock) as store:
            assert store.verify().ok
            assert len(list(store.subjects())) == 40
    # A half-written restore may leave a hidden draft, never a store.
    for draft in place.folder.glob(".restored.db.*"):
        draft.unlink()
    return str(pending[1])


def campaign(folder: Path, kills: int) -> dict[str, int]:
    place = Place(folder)
    place.make()
    belief, interrupted = Belief(), {}
    dice = random.Random(20_261_123)
    for seed in range(kills):
        if seed % 50 == 49:  # a fresh store now and then keeps each round short
            for file in folder.iterdir():
                file.unlink()
            place.make()
            belief = Belief()
        under_way = check(place, belief, killed(place, seed, dice.uniform(0, 0.25)))
        interrupted[under_way] = interrupted.get(under_way, 0) + 1
    return interrupted


def test_killed_processes_lose_nothing(tmp_path: Path) -> None:
    interrupted = campaign(tmp_path, 6)
    assert sum(interrupted.values()) == 6


@pytest.mark.long
def test_two_hundred_and_fifty_kills_lose_nothing(tmp_path: Path, record_property) -> None:
    interrupted = campaign(tmp_path, 250)
    print("killed during:", interrupted)  # noqa: T201 - the evidence of the long run
    assert {"issue", "rotate", "revoke", "rotate_all", "restore"} <= set(interrupted)


def test_a_store_does_not_follow_into_a_forked_process(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.make()
    with place.open() as store:
        store.current("old1")
        child = os.fork()
        if child == 0:  # pragma: no cover - another process
            code = 1
            try:
                store.current("old1")
            except KeystoreError as error:
                code = 0 if error.code == "locked" else 2
            finally:
                store.close()
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert store.issue("new").version == 1
