"""Keys of tests are the same in every run: what holds for nearly every key must not fail once in a hundred runs.

A key follows from its subject, scope and version, and the number of its store among those of the test.
So it does not matter which tests ran before, or which of several workers runs one.
"""

from __future__ import annotations

import hashlib
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from anonymix_keystore import _lifecycle
from anonymix_keystore._crypto import KeyRing


class SameKeys:
    """Makes the keys of all stores of this process."""

    def __init__(self) -> None:
        self._owners: dict[bytes, str] = {}  # by tag, which nobody else can tell
        self._stores: dict[bytes, int] = {}
        self._issued: Counter[str] = Counter()
        self._names = threading.local()
        self._genuine = False

    def begin(self, *, genuine: bool) -> None:
        """Another test begins: its stores are counted anew.

        Args:
            genuine: Whether its keys are drawn as they are for everybody.
        """
        self._genuine = genuine
        self._stores.clear()
        self._issued.clear()

    @contextmanager
    def given(self) -> Iterator[None]:
        """Keys are made here, for a block."""
        tag, insert, draw = KeyRing.tag, _lifecycle.insert_keys, _lifecycle.random_values

        def tagged(ring: KeyRing, *fields: Any) -> bytes:
            found = tag(ring, *fields)
            self._owners[found] = repr(fields)
            return found

        def inserted(change: Any, tags: Any, scopes: Any, purposes: Any, versions: Any) -> list[bytes]:
            store = self._stores.setdefault(change.keys.store_id, len(self._stores))
            owners = [self._owners.get(one, f"number {at}") for at, one in enumerate(tags)]
            self._names.all = [f"{store} {owner} {each}" for owner, each in zip(owners, versions, strict=True)]
            return insert(change, tags, scopes, purposes, versions)

        def drawn(count: int, length: int) -> list[bytes]:
            if self._genuine or length != _lifecycle.KEY_BYTES:
                return draw(count, length)
            names: list[str] = self._names.all
            assert len(names) == count
            self._issued.update(names)
            return [hashlib.sha512(f"{name} {self._issued[name]}".encode()).digest()[:length] for name in names]

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(KeyRing, "tag", tagged)
            patch.setattr(_lifecycle, "insert_keys", inserted)
            patch.setattr(_lifecycle, "random_values", drawn)
            yield
