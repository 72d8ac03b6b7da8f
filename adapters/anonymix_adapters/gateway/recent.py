"""What happened in the last minutes, for a person who looks: percentiles need the values, not the sums."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Generic, TypeVar

from anonymix_adapters.interceptor import FaceMixer, MixerAround

T = TypeVar("T")

SECONDS: Final = 60.0
_MOST: Final = 10_000


class Recent(Generic[T]):
    """Values of the last seconds, at most 10,000 of them; any thread may add.

    Args:
        seconds: How long a value counts.
        clock: Seconds, monotonic.
    """

    def __init__(self, seconds: float = SECONDS, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds, self._clock, self._start = seconds, clock, clock()
        self._kept: deque[tuple[float, T]] = deque(maxlen=_MOST)
        self._lock = threading.Lock()

    def add(self, value: T) -> None:
        """Keep a value."""
        with self._lock:
            self._kept.append((self._clock(), value))

    def values(self) -> list[T]:
        """The values that count, the oldest first."""
        since = self._clock() - self._seconds
        with self._lock:
            return [value for moment, value in self._kept if moment > since]

    @property
    def span(self) -> float:
        """Seconds that the values are of: less than `seconds` after the start, and where there are too many."""
        now = self._clock()
        with self._lock:
            full = self._kept[0][0] if len(self._kept) == _MOST else self._start
        return max(1.0, min(self._seconds, now - full))


def percentile(values: list[float], share: float) -> float:
    """The smallest value that so large a share of all does not exceed (nearest rank); NaN without any."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else math.nan


class CountingMixer(MixerAround):
    """A mixer that counts the faces it made.

    Args:
        mixer: The other one.
    """

    def __init__(self, mixer: FaceMixer) -> None:
        super().__init__(mixer)
        self.faces: Recent[int] = Recent()

    def protect(self, image: Any, **how: Any) -> Any:
        """See `FaceMixer.protect`."""
        made = self.mixer.protect(image, **how)
        self.faces.add(len(made) if isinstance(made, list) else 1)
        return made
