"""Whose turn it is to renew a collection: a lease that its holder asks for again and again, and that ends by itself."""

from __future__ import annotations

import hashlib
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Literal, Self, TypeAlias

from anonymix_keystore import BusyError, KeystoreError
from anonymix_plugin.keyservice.memory import ticking
from anonymix_plugin.locks import lock_file, renewal_lock

SECONDS: Final = 30.0  # a lease lasts so long without being asked for
_SURE: Final = 20.0  # its holder counts on it for so long: what was begun then has time to end
_EVERY: Final = 5.0
_MOST: Final = 64
_MOST_OF_ONE: Final = 16
_MARK: Final = 64  # characters of a holder's mark

Step: TypeAlias = Literal["begin", "go on", "end"]


@dataclass
class _Held:
    client: str
    mark: str
    until: float
    stream: IO[bytes]
    lock: ExitStack


class Leases:
    """The leases of one store, in its service. Many threads may use it.

    A lease holds the lock file that a renewal on the store's own machine holds, so that each keeps the other out. The
    holder's mark in that file outlives the service: one that is started anew lets the holder go on, and nobody else
    begin before the holder's time is over.

    Args:
        store: The store's file.
        seconds: How long a lease lasts.
    """

    def __init__(self, store: Path, seconds: float = SECONDS) -> None:
        self._store, self._seconds = store, seconds
        self._lock = threading.Lock()
        self._held: dict[tuple[str, str], _Held] = {}
        self._timer: threading.Timer | None = None

    def hold(self, place: tuple[str, str], client: str, holder: str, *, begin: bool = True) -> bool:
        """Give or prolong a lease; whether the holder has it.

        Args:
            place: Adapter and collection.
            client: Whose process asks.
            holder: Which of the client's; the same text each time.
            begin: Whether a new lease may be given; otherwise one that was lost in between stays so.

        Raises:
            BusyError: There are as many leases as there may be.
            KeystoreError: The lock file can't be made.
        """
        with self.holding(place, client, holder, begin=begin) as held:
            return held

    @contextmanager
    def holding(self, place: tuple[str, str], client: str, holder: str, *, begin: bool = False) -> Iterator[bool]:
        """As `hold`, and nobody else gets the lease before the end of the block, however long it takes."""
        mark = _mark(client, holder)
        with self._lock:
            self._sweep()
            held = self._held.get(place) or self._taken(place, client, mark, begin=begin)
            mine = held is not None and held.mark == mark
            if held is not None and mine:
                held.client, held.until = client, ticking() + self._seconds
            self._wait()
            yield mine

    def _taken(self, place: tuple[str, str], client: str, mark: str, *, begin: bool) -> _Held | None:
        if len(self._held) >= _MOST or sum(it.client == client for it in self._held.values()) >= _MOST_OF_ONE:
            raise BusyError("as many renewals as may be are at work", fix="wait for the end of one")
        with ExitStack() as stack:
            try:
                stream = stack.enter_context(lock_file(renewal_lock(self._store, *place)))
                left = "" if stream is None else stream.read(_MARK).decode("ascii", "replace")
                if stream is None or not (left or begin):
                    return None
                if not left:
                    stream.write(mark.encode())
            except OSError as error:
                what = f"the lock file of the renewal can't be made ({type(error).__name__})"
                raise KeystoreError(what, fix="see to the folder of the keystore on its machine") from None
            until = ticking() + self._seconds
            self._held[place] = _Held("" if left else client, left or mark, until, stream, stack.pop_all())
        return self._held[place]

    def end(self, place: tuple[str, str], client: str, holder: str) -> None:
        """End a lease, if it is the holder's."""
        with self.holding(place, client, holder) as held:
            if held:
                self._end(place)

    def close(self) -> None:
        """Let go of all, as a service that ends: their holders may go on as soon as it is there again."""
        with self._lock:
            while self._held:
                self._held.popitem()[1].lock.close()
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    def _end(self, place: tuple[str, str]) -> None:
        held = self._held.pop(place)
        with suppress(OSError):
            held.stream.truncate(0)
        held.lock.close()

    def _wait(self) -> None:
        """Where nobody asks, the files are let go all the same."""
        if self._held and self._timer is None:
            first = min(held.until for held in self._held.values())
            self._timer = threading.Timer(max(0.0, first - ticking()) + 0.01, self._due)
            self._timer.daemon = True
            self._timer.start()

    def _due(self) -> None:
        with self._lock:
            self._timer = None
            self._sweep()
            self._wait()

    def _sweep(self) -> None:
        now = ticking()
        for place in [place for place, held in self._held.items() if held.until <= now]:
            self._end(place)


def _mark(client: str, holder: str) -> str:
    return hashlib.sha256(f"{client}\0{holder}".encode(errors="surrogatepass")).hexdigest()


@contextmanager
def renewing_beside(store: Path, adapter: str, collection: str) -> Iterator[bool]:
    """Keep other renewals of a collection out, beside the store itself; whether they are out.

    If a key service ended while a renewal was at work over it, that one's time is waited for.

    Raises:
        OSError: The lock file can't be made.
    """
    with lock_file(renewal_lock(store, adapter, collection)) as stream:
        if stream is not None and stream.read(1):
            time.sleep(SECONDS)
            stream.truncate(0)
        yield stream is not None


class Lease:
    """A lease as its holder has it, who asks for it in the background; a context manager.

    Args:
        ask: Asks the service: takes the holder's name, and what is asked; returns whether the lease is held.
        place: Adapter and collection, by their names in a request.

    Attributes:
        place: As given.
        holder: The holder's name.
    """

    def __init__(self, ask: Callable[[str, Step], bool], place: Mapping[str, str]) -> None:
        self._ask, self.place, self.holder = ask, place, secrets.token_hex(16)
        self._until, self._lost = 0.0, False
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._go_on, name="anonymix-lease", daemon=True)

    def __enter__(self) -> Self:
        asked = ticking()
        if self._ask(self.holder, "begin"):
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
                self._ask(self.holder, "end")

    @property
    def held(self) -> bool:
        """Whether nobody else can have it now. Once it was lost, it stays so."""
        self._lost = self._lost or ticking() >= self._until
        return not self._lost

    def _go_on(self) -> None:
        while not self._ended.wait(_EVERY):
            asked = ticking()
            if asked >= self._until:
                return
            with suppress(KeystoreError):  # the service may answer again before it is too late
                self._until = asked + _SURE if self._ask(self.holder, "go on") else 0.0
