"""Whose turn it is to renew a collection: a lease that its holder asks for again and again, and that ends by itself."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from anonymix_keystore import BusyError, KeystoreError
from anonymix_plugin.keyservice.memory import ticking
from anonymix_plugin.locks import alone, renewal_lock

SECONDS: Final = 30.0  # a lease lasts so long without being asked for
_SURE: Final = 20.0  # its holder counts on it for so long: what was begun then has time to end
_EVERY: Final = 5.0
_MOST: Final = 64


@dataclass
class _Held:
    holder: str
    lock: ExitStack
    until: float = 0.0


class Leases:
    """The leases of one store, in its service. Many threads may use it.

    A lease holds the lock file that a renewal on the store's own machine holds, so that each keeps the other out.

    Args:
        store: The store's file.
        seconds: How long a lease lasts.
    """

    def __init__(self, store: Path, seconds: float = SECONDS) -> None:
        self._store, self._seconds = store, seconds
        self._lock = threading.Lock()
        self._held: dict[tuple[str, str], _Held] = {}

    def hold(self, place: tuple[str, str], holder: str) -> bool:
        """Give or prolong a lease; whether the holder has it.

        Args:
            place: Adapter and collection.
            holder: Who asks; the same text each time.

        Raises:
            BusyError: There are as many leases as there may be.
        """
        with self._lock:
            self._sweep()
            held = self._held.get(place)
            if held is None:
                if len(self._held) >= _MOST:
                    raise BusyError("as many renewals as may be are at work", fix="wait for the end of one")
                with ExitStack() as stack:
                    if not stack.enter_context(alone(renewal_lock(self._store, *place))):
                        return False
                    held = self._held[place] = _Held(holder, stack.pop_all())
            if held.holder != holder:
                return False
            held.until = ticking() + self._seconds
            timer = threading.Timer(self._seconds, self._due)  # where nobody asks, the file is let go all the same
            timer.daemon = True
            timer.start()
            return True

    def end(self, place: tuple[str, str], holder: str) -> None:
        """End a lease, if it is the holder's."""
        with self._lock:
            if (held := self._held.get(place)) is not None and held.holder == holder:
                self._held.pop(place).lock.close()

    def close(self) -> None:
        """End all."""
        with self._lock:
            while self._held:
                self._held.popitem()[1].lock.close()

    def _due(self) -> None:
        with self._lock:
            self._sweep()

    def _sweep(self) -> None:
        now = ticking()
        for place in [place for place, held in self._held.items() if held.until <= now]:
            self._held.pop(place).lock.close()


class Lease:
    """A lease as its holder has it, who asks for it in the background; a context manager.

    Args:
        ask: Asks the service: takes the holder's name, and whether to end the lease; returns whether it is held.
    """

    def __init__(self, ask: Callable[[str, bool], bool]) -> None:
        self._ask, self._holder = ask, secrets.token_hex(16)
        self._until = 0.0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._go_on, name="anonymix-lease", daemon=True)

    def __enter__(self) -> Self:
        asked = ticking()
        if self._ask(self._holder, False):
            self._until = asked + _SURE
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()
        if self._until:
            with suppress(KeystoreError):  # it ends by itself
                self._ask(self._holder, True)

    @property
    def held(self) -> bool:
        """Whether nobody else can have it now. Once it was lost, it stays so."""
        return ticking() < self._until

    def _go_on(self) -> None:
        while not self._ended.wait(_EVERY):
            asked = ticking()
            if asked >= self._until:
                return
            with suppress(KeystoreError):  # the service may answer again before it is too late
                self._until = asked + _SURE if self._ask(self._holder, False) else 0.0
