from __future__ import annotations

import hashlib
import json
import os
import random
import sqlite3
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

from anonymix_keystore import (
    AnchorFile,
    BusyError,
    KeyExistsError,
    KeyFileUnlock,
    KeyRevokedError,
    Keystore,
    LockedError,
    UnknownSubjectError,
    _header,
    _lifecycle,
)

SUBJECTS = 40


def mixed(path: Path, unlock: KeyFileUnlock, seed: int, operations: int) -> dict[str, object]:
    """Mixed operations of one process; returns what it was told."""
    dice = random.Random(seed)
    told: dict[str, str] = {}
    busy = revoked = 0
    with Keystore.open(path, unlock, busy_timeout=60, cache_age=0.05) as store:
        for step in range(operations):
            name = f"s{dice.randrange(SUBJECTS)}"
            try:
                key = None
                match dice.choices(["look", "issue", "rotate", "own", "list"], [60, 10, 12, 8, 1])[0]:
                    case "look":
                        key = store.current_or_issue(name)
                    case "issue":
                        key = store.issue(name)
                    case "rotate":
                        key = store.rotate(name)
                    case "own":
                        mine = f"own-{seed}-{step}"
                        store.issue(mine)
                        store.revoke(mine)
                        revoked += 1
                    case "list":
                        assert sum(1 for _ in store.list()) > 0
                if key is not None:
                    told[f"{key.subject}/{key.version}"] = hashlib.sha256(key.material).hexdigest()
            except BusyError:
                busy += 1
            except (KeyExistsError, UnknownSubjectError):
                pass
    return {"told": told, "busy": busy, "revoked": revoked}


def race(path: Path, unlock: KeyFileUnlock, processes: int, operations: int) -> list[dict[str, object]]:
    children = []
    for seed in range(processes):
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:  # pragma: no cover - another process
            code = 1
            try:
                result = json.dumps(mixed(path, unlock, seed, operations)).encode()
                with os.fdopen(writing, "wb") as file:
                    file.write(result)
                code = 0
            except BaseException:  # noqa: BLE001 - told to the parent, which fails
                os.write(writing, traceback.format_exc().encode())
            finally:
                os._exit(code)
        os.close(writing)
        children.append((child, reading))
    results = []
    for child, reading in children:
        with os.fdopen(reading, "rb") as file:
            content = file.read()
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, content.decode()
        results.append(json.loads(content))
    return results


def check_race(path: Path, unlock: KeyFileUnlock, results: list[dict[str, object]]) -> None:
    agreed: dict[str, str] = {}
    for result in results:
        for name, digest in result["told"].items():  # type: ignore[attr-defined]
            assert agreed.setdefault(name, digest) == digest, "two processes were told different keys"
    with Keystore.open(path, unlock) as store:
        for name, digest in agreed.items():
            subject, version = name.split("/")
            assert hashlib.sha256(store.at(subject, int(version)).material).hexdigest() == digest
        own = [info for info in store.list() if info.subject.startswith("own-")]
        assert len(own) == sum(int(str(result["revoked"])) for result in results)
        assert store.verify().ok


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


@needs_fork
def test_processes_share_one_store(path: Path, unlock: KeyFileUnlock) -> None:
    Keystore.create(path, unlock).close()
    results = race(path, unlock, 4, 50)
    assert [result["busy"] for result in results] == [0, 0, 0, 0]
    check_race(path, unlock, results)


@needs_fork
@pytest.mark.long
def test_eight_processes_with_a_thousand_operations_each(path: Path, unlock: KeyFileUnlock) -> None:
    Keystore.create(path, unlock).close()
    results = race(path, unlock, 8, 1000)
    print("busy:", [result["busy"] for result in results])  # noqa: T201 - the evidence of the long run
    check_race(path, unlock, results)


def test_threads_share_one_object(store: Keystore) -> None:
    failures: list[BaseException] = []

    def work(seed: int) -> None:
        dice = random.Random(seed)
        try:
            for _ in range(40):
                name = f"s{dice.randrange(10)}"
                if dice.random() < 0.3:
                    store.current_or_issue(name)
                    store.rotate(name)
                else:
                    assert store.current_or_issue(name).subject == name
        except BaseException as error:  # noqa: BLE001 - reported by the main thread
            failures.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert store.verify().ok


def test_a_held_store_is_busy_after_the_timeout_and_not_changed(
    store: Keystore, path: Path, reopen: Callable[..., Keystore]
) -> None:
    impatient = reopen(busy_timeout=0.1)
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    epoch = impatient.epoch
    began = time.monotonic()
    with pytest.raises(BusyError):
        impatient.issue("alice")
    assert time.monotonic() - began >= 0.1
    holder.execute("ROLLBACK")
    holder.close()
    assert impatient.epoch == epoch
    assert impatient.issue("alice").version == 1


def test_uses_that_can_not_be_written_now_do_not_fail_a_lookup(
    store: Keystore, path: Path, clock, reopen: Callable[..., Keystore]
) -> None:
    key = store.issue("alice")
    clock.forward(days=1)
    impatient = reopen(busy_timeout=0.05)
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    assert impatient.current("alice") == key
    impatient.close()
    holder.close()


# --- the cache --------------------------------------------------------------------------------------


def test_a_revocation_elsewhere_is_honoured_within_the_cache_age(
    store: Keystore, reopen: Callable[..., Keystore]
) -> None:
    other = reopen(cache_age=0.2)
    key = store.issue("alice")
    assert other.current("alice") == key
    store.revoke("alice")
    deadline = time.monotonic() + 0.25
    while time.monotonic() < deadline:
        try:
            assert other.current("alice") == key
        except KeyRevokedError:
            break
        time.sleep(0.01)
    with pytest.raises(KeyRevokedError):
        other.current("alice")


def test_a_revocation_here_is_honoured_at_once(store: Keystore) -> None:
    for end in (
        lambda: store.revoke("alice"),
        lambda: store.retire("alice"),
        lambda: store.forget("alice"),
    ):
        store.issue("alice")
        store.current("alice")
        end()
        with pytest.raises((KeyRevokedError, UnknownSubjectError)):
            store.current("alice")


def test_the_cache_is_bounded_and_lets_the_oldest_go(reopen: Callable[..., Keystore], store: Keystore) -> None:
    store.issue_many(f"s{number}" for number in range(10))
    small = reopen(cache_size=3, cache_age=60)
    for name in ("s0", "s1", "s2", "s0", "s3"):
        small.current(name)
    cache = small._core.cache
    assert len(cache) == 3
    kept = {name for name in (f"s{number}" for number in range(10)) if cache.get(small._who(name, "default").tag)}
    assert kept == {"s0", "s2", "s3"}
    none = reopen(cache_size=0)
    none.current("s0")
    assert len(none._core.cache) == 0


def test_a_store_opened_before_a_fork_is_refused_after_it(store: Keystore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.issue("alice")
    monkeypatch.setattr("anonymix_keystore._core.os.getpid", lambda: -1)
    with pytest.raises(LockedError, match="forked"):
        store.current("alice")
    store.close()  # leaves the parent's connection alone
    monkeypatch.undo()
    assert store.current("alice").version == 1


# --- reads that have to fit together ----------------------------------------------------------------


def meanwhile(monkeypatch: pytest.MonkeyPatch, owner: object, name: str, act: Callable[[], object]) -> None:
    """Let another writer act once, right after the next call of a function."""
    genuine = getattr(owner, name)
    waiting = [act]

    def call(*arguments: object, **options: object) -> object:
        result = genuine(*arguments, **options)
        if waiting:
            waiting.pop()()
        return result

    monkeypatch.setattr(owner, name, call)


def test_a_store_can_be_opened_while_another_writes(
    store: Keystore, reopen: Callable[..., Keystore], monkeypatch: pytest.MonkeyPatch
) -> None:
    meanwhile(monkeypatch, _header, "load", lambda: store.issue("alice"))
    assert reopen().current("alice").version == 1


def test_a_subject_who_is_issued_a_key_during_a_lookup_is_no_damage(
    store: Keystore, reopen: Callable[..., Keystore], monkeypatch: pytest.MonkeyPatch
) -> None:
    other = reopen()
    meanwhile(monkeypatch, other._core._db, "row", lambda: store.issue("alice"))
    assert other.current_or_issue("alice") == store.current("alice")


def test_a_new_version_during_a_reading_of_the_history_is_no_damage(
    store: Keystore, reopen: Callable[..., Keystore], monkeypatch: pytest.MonkeyPatch
) -> None:
    store.issue("alice")
    other = reopen()
    for read in (lambda: other.history("alice"), lambda: other.at("alice", 1)):
        with monkeypatch.context() as patch:
            meanwhile(patch, _lifecycle, "need_head", lambda: store.rotate("alice"))
            assert read()
    assert len(other.history("alice")) == 3


def test_a_subject_retired_and_issued_again_during_a_lookup_is_no_damage(
    store: Keystore, reopen: Callable[..., Keystore], monkeypatch: pytest.MonkeyPatch
) -> None:
    store.issue("alice")
    store.retire("alice")
    other = reopen()
    meanwhile(monkeypatch, other._core._db, "row", lambda: store.issue("alice"))
    assert other.current("alice").version == 2
    store.revoke("alice")
    meanwhile(monkeypatch, _lifecycle, "find_keys", lambda: store.issue("alice"))
    with pytest.raises(KeyRevokedError):
        reopen().current("alice")


def test_an_anchor_is_compared_with_one_state_of_the_store(
    path: Path, unlock: KeyFileUnlock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    anchor = AnchorFile.create(tmp_path / "anchor")
    with Keystore.create(path, unlock, anchor=anchor) as store:
        meanwhile(monkeypatch, anchor, "read", lambda: store.issue("alice"))
        with Keystore.open(path, unlock, anchor=anchor) as other:
            assert other.current("alice").version == 1
