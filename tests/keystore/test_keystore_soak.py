"""Eight processes do all that the keystore has, some are killed, and a model outside knows what was told.

``make soak`` runs it for 20 minutes (``ANONYMIX_SOAK_SECONDS``); among the long tests it takes 20 seconds.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import threading
import time
import traceback
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import pytest
from keystore_calls import CALLS, Scene, public

from anonymix_keystore import (
    BusyError,
    KeyExistsError,
    KeyFileUnlock,
    KeyRevokedError,
    Keystore,
    OriginalsError,
    UnfinishedJobError,
    UnknownSubjectError,
)

PROCESSES = 8
CACHE_AGE = 0.05
LIMIT_MS = 250.0
# What the model follows, name by name; each name belongs to one process.
FOLLOWED = {
    "issue": 10,
    "current": 40,
    "rotate": 8,
    "retire": 2,
    "revoke": 4,
    "forget": 2,
    "record_enrolment": 3,
}
# Calls whose time grows with the store by their documentation, or that stretch or copy something.
LONG = {
    *("create", "open", "verify", "backup", "restore", "inspect_backup", "audit", "export_audit"),
    *(
        "check_audit_export",
        "list",
        "subjects",
        "enrolments",
        "gallery_enrolments",
        "due",
        "unused_since",
        "forget_unused",
        "forget",
    ),
    *("rotate_all", "rewrap_all", "resume", "report", "jobs", "tie_anchor", "change_unlock", "expire"),
    *("originals.enable", "originals.disable", "originals.change_unlock", "issue_many", "accept_damage", "renewals"),
}
QUICK = {
    *("path", "epoch", "unlock_outdated", "unscrubbed", "originals", "locked_by", "scopes", "history", "at"),
    *("issue", "current", "current_or_issue", "gallery", "rotate", "rotate_gallery", "retire", "revoke"),
    *(
        "revoke_gallery",
        "record_enrolment",
        "mark_removed",
        "enrolment",
        "enrolment_named",
        "enrolments_of",
        "gallery_history",
        "acting_for",
        "anchor_state",
        "check_state",
        "originals.enabled",
        "close",
    ),
    *("originals.unlock", "originals.lock", "originals.keep", "originals.read", "originals.labels"),
    "originals.drop",
    *(
        "originals.locked_by",
        "originals.unlocked",
        "references",
        "references.scopes",
        "references.enabled",
        "references.enable",
    ),
    *("references.disable", "references.keep", "references.read", "references.drop", "references.put_back"),
    *("take_back", "renewal", "write_renewals", "record_enrolments"),
}
RARE = {
    "tie_anchor",
    "change_unlock",
    "verify",
    "rewrap_all",
    "restore",
    "create",
    "backup",
    "inspect_backup",
}
# What another process may have done in between, or a killed one left undone.
EXPECTED = (OriginalsError, UnfinishedJobError, KeyExistsError, KeyRevokedError, UnknownSubjectError)


def test_every_public_method_is_classified() -> None:
    assert public() == QUICK | LONG
    assert not QUICK & LONG


def digest(material: bytes) -> str:
    return hashlib.sha256(material).hexdigest()[:16]


@dataclass
class Worker:
    """What one process does, and what it says of it."""

    store: Keystore
    folder: Path
    unlock: KeyFileUnlock
    number: int
    said: IO[str]
    dice: random.Random
    mine: dict[str, tuple[int, str]] = field(default_factory=dict)

    def say(self, *words: object) -> None:
        self.said.write(json.dumps(words) + "\n")
        self.said.flush()

    def run(self, until: float) -> None:
        scene = Scene(self.store, self.folder, self.unlock, KeyFileUnlock(self.folder.parent / "second.key"), self.dice)
        others = sorted(set(CALLS) - set(FOLLOWED) - {"close"})
        with contextlib.suppress(*EXPECTED):
            self.store.originals.unlock(scene.second)
        while time.monotonic() < until:
            if self.dice.random() < 0.8:
                what = self.dice.choices(list(FOLLOWED), list(FOLLOWED.values()))[0]
                self.follow(what)
            else:
                what = self.dice.choice(others)
                if what in RARE and self.dice.random() < 0.8:
                    continue
                began = time.monotonic()
                try:
                    CALLS[what](scene)
                except EXPECTED:
                    pass
                except BusyError:
                    self.say("busy", what)
                self.took(what, began)
            if self.dice.random() < 0.05:
                self.revoked_elsewhere()
        began = time.monotonic()
        self.store.close()
        self.took("close", began)

    def took(self, what: str, began: float) -> None:
        self.say("took", what, (time.monotonic() - began) * 1000)

    def follow(self, what: str) -> None:
        name = f"w{self.number}-{self.dice.getrandbits(48):x}"
        if what != "issue":
            if not self.mine:
                return
            name = self.dice.choice(list(self.mine))
        self.say("begin", what, name)
        began = time.monotonic()
        done: list[object] = []
        match what:
            case "issue" | "rotate":
                change = self.store.issue if what == "issue" else self.store.rotate
                key = change(name, **({} if what == "issue" else {"reason": self.dice.choice(["routine", "breach"])}))
                done = [key.version, digest(key.material)]
                self.mine[name] = (key.version, digest(key.material))
            case "current":
                key = self.store.current(name)
                assert (key.version, digest(key.material)) == self.mine[name], f"{name} has another key"
            case "record_enrolment":
                self.store.record_enrolment(
                    name,
                    adapter="a",
                    collection="c",
                    external_id=name,
                    version=self.mine[name][0],
                    fingerprint="f",
                )
            case _:
                getattr(self.store, what)(name)
                del self.mine[name]
        self.took(what, began)
        self.say("done", what, name, *done)
        if what in {"revoke", "retire", "forget"}:
            with (self.folder.parent / "ended").open("a") as file:
                file.write(f"{time.monotonic()} {name}\n")

    def revoked_elsewhere(self) -> None:
        """No process gives out a key that was revoked in another, once its cache is older."""
        ended = self.folder.parent / "ended"
        lines = ended.read_text().splitlines()[-40:] if ended.exists() else []
        for line in self.dice.sample(lines, min(3, len(lines))):
            moment, _, name = line.partition(" ")
            if name and time.monotonic() - float(moment) > CACHE_AGE:
                try:
                    self.store.current(name)
                except (KeyRevokedError, UnknownSubjectError):
                    continue
                self.say("failed", f"{name} was given out after it was ended")


@dataclass
class Model:
    """What must be true, by what the processes were told."""

    known: dict[str, tuple[int, str] | None] = field(default_factory=dict)  # None: ended
    pending: set[str] = field(default_factory=set)
    times: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    failed: list[str] = field(default_factory=list)
    busy: int = 0
    kills: int = 0

    def hear(self, said: IO[str]) -> None:
        """Take in what one process says until it ends."""
        under_way = ""
        for line in said:
            if not line.endswith("\n"):
                break  # killed in the middle of a word
            kind, *words = json.loads(line)
            if kind == "begin":
                under_way = words[1]
            elif kind == "done":
                what, name, *key = words
                under_way = ""
                if key:
                    self.known[name] = (key[0], key[1])
                elif what in {"revoke", "retire", "forget"}:
                    self.known[name] = None
            elif kind == "took":
                self.times[words[0]].append(words[1])
            elif kind == "busy":
                self.busy += 1
            else:
                self.failed.append(words[0])
        if under_way:
            self.pending.add(under_way)

    def check(self, store: Keystore) -> dict[str, int]:
        """Compare the store with it; how many keys were lost, wrong, or are living again."""
        wrong = {"lost": 0, "wrong": 0, "revived": 0}
        for name, expected in self.known.items():
            try:
                key = store.current(name)
            except (KeyRevokedError, UnknownSubjectError):
                wrong["lost"] += expected is not None and name not in self.pending
                continue
            if name not in self.pending:
                wrong["revived"] += expected is None
                wrong["wrong"] += expected is not None and expected != (key.version, digest(key.material))
        return wrong


def start(folder: Path, number: int, until: float) -> tuple[int, IO[str]]:
    """Fork a process that works on the store."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:  # pragma: no cover - another process
        code = 1
        own = folder / f"process{number}"
        said = os.fdopen(writing, "w")
        try:
            os.close(reading)
            own.mkdir()
            unlock = KeyFileUnlock(folder / "unlock.key")
            store = Keystore.open(folder / "store.db", unlock, cache_age=CACHE_AGE, busy_timeout=60)
            Worker(store, own, unlock, number, said, random.Random(number)).run(until)
            code = 0
        except BaseException:  # noqa: BLE001 - told to the parent
            said.write(json.dumps(["failed", traceback.format_exc()]) + "\n")
            said.flush()
        finally:
            shutil.rmtree(own, ignore_errors=True)
            os._exit(code)
    os.close(writing)
    return child, os.fdopen(reading)


def soak(folder: Path, seconds: float) -> tuple[Model, dict[str, int]]:
    scene = Scene.make(folder)
    scene.store.close()
    model, numbers = Model(), iter(range(1, 1_000_000))
    until = time.monotonic() + seconds
    dice = random.Random(1)
    running: dict[int, threading.Thread] = {}

    def another() -> None:
        child, said = start(folder, next(numbers), until)

        def listen() -> None:
            with said:
                model.hear(said)

        running[child] = threading.Thread(target=listen)
        running[child].start()

    def ended(child: int) -> int:
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        running.pop(child).join()
        return code

    for _ in range(PROCESSES):
        another()
    while time.monotonic() < until - 2:
        time.sleep(dice.uniform(0.5, 2))
        victim = dice.choice(list(running))
        os.kill(victim, signal.SIGKILL)
        model.kills += 1
        ended(victim)
        another()
    for child in list(running):
        if ended(child) != 0:
            model.failed.append(f"process {child} failed")
    with Keystore.open(folder / "store.db", scene.unlock) as store:
        while store.resume() is not None:
            pass
        wrong = model.check(store)
        wrong["damaged"] = len(store.verify().findings)
    return model, wrong


def shown(model: Model, wrong: dict[str, int]) -> Iterator[str]:
    """The figures, slowest first."""
    yield f"kills {model.kills}, names followed {len(model.known)}, busy {model.busy}, wrong {wrong}"
    for what, times in sorted(model.times.items(), key=lambda item: -max(item[1])):
        times.sort()
        middle, high, top = times[len(times) // 2], times[len(times) * 99 // 100], times[-1]
        late = sum(time > LIMIT_MS for time in times)
        kind = "documented" if what in LONG else "quick"
        spread = f"p50 {middle:8.2f} p99 {high:8.2f} max {top:8.2f} ms"
        yield f"{what:24} {len(times):7} {spread}, {late} over {LIMIT_MS:.0f}, {kind}"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")
@pytest.mark.long
def test_eight_processes_lose_nothing_whatever_they_do(tmp_path: Path) -> None:
    model, wrong = soak(tmp_path, float(os.environ.get("ANONYMIX_SOAK_SECONDS", "20")))
    print("\n".join(shown(model, wrong)))  # noqa: T201 - the evidence of the long run
    assert model.failed == [], "\n".join(model.failed)
    assert wrong == {"lost": 0, "wrong": 0, "revived": 0, "damaged": 0}
    assert model.kills > 0
