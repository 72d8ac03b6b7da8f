"""What happened in the last minute, for a person who looks: percentiles need the values, not their sums.

Each process of a gateway writes a ring of its own, which the others read. Where there is one process, the ring is
in memory; where there are several, it is a mapped file.
"""

from __future__ import annotations

import contextlib
import math
import mmap
import os
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeAlias

from anonymix_adapters.interceptor import FaceMixer, MixerAround

SECONDS: Final = 60.0
_HEAD: Final = struct.Struct("<d")  # requests that are inside now
_RECORD: Final = struct.Struct("<ddd24s")  # moment, seconds, faces, what was wrong
_RECORDS: Final = 4096
_SIZE: Final = _HEAD.size + _RECORDS * _RECORD.size
_PREFIX: Final = "recent-"

Ring: TypeAlias = "mmap.mmap | bytearray"


@dataclass
class Lately:
    """What all processes of a gateway did in the last minute.

    Attributes:
        span: Seconds that it is of.
        requests: How many requests.
        seconds: Of each request that was answered.
        refusals: How many were not, by the problem's code.
        faces: Faces that were made.
        inside: Requests that are worked on or wait now.
        processes: How many processes there are.
    """

    span: float
    requests: int = 0
    seconds: list[float] = field(default_factory=list)
    refusals: Counter[str] = field(default_factory=Counter)
    faces: int = 0
    inside: int = 0
    processes: int = 0


class Recent:
    """The last 4,096 events of each process; any thread may add.

    Args:
        folder: Where the processes of a gateway meet; None for this one alone.
        clock: Seconds, monotonic, the same for all processes.
    """

    def __init__(self, folder: Path | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._folder, self._clock, self._start = folder, clock, clock()
        self._lock, self._next = threading.Lock(), 0
        self._ring: Ring | None = None

    def request(self, seconds: float, problem: str) -> None:
        """Keep a request: how long it took, and the code of what was wrong, "" for nothing."""
        self._add(seconds, 0, problem)

    def faces(self, count: int) -> None:
        """Keep faces that were made."""
        self._add(math.nan, count, "")

    def inside(self, count: int) -> None:
        """Say how many requests this process works on or lets wait. One that says or adds nothing is not counted."""
        with self._lock:
            _HEAD.pack_into(self._own(), 0, count)

    def _add(self, seconds: float, faces: int, problem: str) -> None:
        with self._lock:
            place = _HEAD.size + self._next * _RECORD.size
            self._next = (self._next + 1) % _RECORDS
            _RECORD.pack_into(self._own(), place, self._clock(), seconds, faces, problem.encode()[:24])

    def lately(self) -> Lately:
        """What all processes did."""
        now = self._clock()
        first = now - SECONDS
        found, events = Lately(max(1.0, min(SECONDS, now - self._start))), []
        for ring in self._rings():
            found.processes += 1
            found.inside += int(_HEAD.unpack_from(ring)[0])
            own = [each for each in _RECORD.iter_unpack(memoryview(ring)[_HEAD.size :]) if now >= each[0] > first]
            if len(own) == _RECORDS:  # a full ring is of less than a minute, and so is then all that is counted
                first = min(each[0] for each in own)
            events += own
        found.span = max(1.0, min(found.span, now - first))
        for moment, seconds, faces, problem in events:
            if moment < first:
                continue
            found.faces += int(faces)
            if math.isnan(seconds):
                continue
            found.requests += 1
            if code := problem.rstrip(b"\0").decode("utf-8", "replace"):
                found.refusals[code] += 1
            else:
                found.seconds.append(seconds)
        return found

    def _own(self) -> Ring:
        if self._ring is None and self._folder is not None:
            with (self._folder / f"{_PREFIX}{os.getpid()}").open("w+b") as file:
                file.truncate(_SIZE)
                self._ring = mmap.mmap(file.fileno(), _SIZE)
        elif self._ring is None:
            self._ring = bytearray(_SIZE)
        return self._ring

    def _rings(self) -> Iterator[Ring]:
        if self._folder is None:
            with self._lock:
                own = self._own()
            yield own
            return
        for path in self._folder.glob(f"{_PREFIX}*"):
            with contextlib.suppress(OSError, ValueError):  # one that is just made, or of a process that is gone
                os.kill(int(path.name.removeprefix(_PREFIX)), 0)
                ring = bytearray(path.read_bytes())
                if len(ring) == _SIZE:
                    yield ring


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
        self.count: Callable[[int], None] = lambda _: None

    def protect(self, image: Any, **how: Any) -> Any:
        """See `FaceMixer.protect`."""
        made = self.mixer.protect(image, **how)
        self.count(len(made) if isinstance(made, list) else 1)
        return made
