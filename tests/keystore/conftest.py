from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from keystore_clock import Clock

from anonymix_keystore import KeyFileUnlock, Keystore


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def unlock(tmp_path: Path) -> KeyFileUnlock:
    return KeyFileUnlock.generate(tmp_path / "unlock.key")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keystore.db"


@pytest.fixture
def store(path: Path, unlock: KeyFileUnlock, clock: Clock) -> Iterator[Keystore]:
    with Keystore.create(path, unlock, clock=clock, actor="tester", busy_timeout=60) as made:
        yield made


@pytest.fixture
def reopen(path: Path, unlock: KeyFileUnlock, clock: Clock) -> Iterator[Callable[..., Keystore]]:
    opened: list[Keystore] = []

    def again(**options: object) -> Keystore:
        opened.append(Keystore.open(path, unlock, **{"clock": clock, "actor": "tester", **options}))
        return opened[-1]

    yield again
    for keystore in opened:
        keystore.close()
