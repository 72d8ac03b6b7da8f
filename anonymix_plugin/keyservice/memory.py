"""Keys that a mixer holds for a moment: in memory alone, each wiped when its time is over."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from anonymix_keystore import KeyState, SubjectKey

Tag = tuple[str | None, str, int]
"""Subject (None for the gallery), scope, version (0 for the one in use)."""

_CLOCK: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)  # goes on while a machine sleeps


def ticking() -> float:
    """Seconds that nobody can set, and that go on while the machine sleeps."""
    return time.clock_gettime(_CLOCK)


@dataclass(slots=True)
class Kept:
    """A key that is kept.

    Attributes:
        subject: As the store writes it.
        scope: As the store writes it.
        version: Its version.
        state: Active or retired.
        material: The key's bytes; zeros once it was wiped.
        references: Whether its scope keeps sealed references.
        until: When it ends, by `ticking`.
    """

    subject: str
    scope: str
    version: int
    state: KeyState
    material: bytearray
    references: bool
    until: float

    def key(self) -> SubjectKey:
        """The key as mixers take it; a copy, which goes when the last of them lets go of it."""
        return SubjectKey(self.subject, self.scope, self.version, self.state, bytes(self.material))

    def wipe(self) -> None:
        """Overwrite the key."""
        self.material[:] = bytes(len(self.material))


class Memory:
    """Keeps keys for a bounded time; many threads may use it.

    A key that nobody asks for any more is wiped by a timer, so that none outlasts its time. What a mixer was handed
    is a copy, and ends with the face that it is used for. Python may have copied either in between.

    Args:
        size: Keys kept, 0 for none.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._kept: OrderedDict[Tag, Kept] = OrderedDict()
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, tag: Tag) -> tuple[SubjectKey, bool] | None:
        """A key that is still good, and whether its scope keeps references."""
        with self._lock:
            kept = self._kept.get(tag)
            if kept is None:
                return None
            if ticking() >= kept.until:
                del self._kept[tag]
                kept.wipe()
                return None
            self._kept.move_to_end(tag)
            return kept.key(), kept.references

    def put(self, tag: Tag, kept: Kept) -> None:
        """Keep a key; the one used longest ago goes where there is no room."""
        with self._lock:
            if not self._size:
                kept.wipe()
                return
            before = self._kept.pop(tag, None)
            if before is None and len(self._kept) >= self._size:
                before = self._kept.popitem(last=False)[1]
            if before is not None:
                before.wipe()
            self._kept[tag] = kept
            if self._timer is None:
                self._wait(kept.until - ticking())

    def clear(self) -> None:
        """Wipe all keys."""
        with self._lock:
            for kept in self._kept.values():
                kept.wipe()
            self._kept.clear()
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    def _wait(self, seconds: float) -> None:
        self._timer = threading.Timer(max(0.0, seconds) + 0.01, self._sweep)
        self._timer.daemon = True
        self._timer.start()

    def _sweep(self) -> None:
        with self._lock:
            now = ticking()
            for tag in [tag for tag, kept in self._kept.items() if now >= kept.until]:
                self._kept.pop(tag).wipe()
            self._timer = None
            if self._kept:
                self._wait(min(kept.until for kept in self._kept.values()) - now)
