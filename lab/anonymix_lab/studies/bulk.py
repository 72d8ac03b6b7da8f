"""What bulk work costs beside the mixer: one worker, two, and Ray, against the stream of one process.

Each worker is held to a core of its own, as far as its threads are there when it is ready: those that draw, which
OpenVINO starts later, go where there is room. The ways take turns; ratios are of medians.
"""

from __future__ import annotations

import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anonymix_keystore import KeyFileUnlock, Keystore
from anonymix_plugin import Anonymixer
from anonymix_plugin.bulk import Block, Cluster, Mixer, Progress, Row, Work, draw_in_bulk
from anonymix_plugin.images import encode_cancelable
from anonymix_plugin.options import MixerOptions
from anonymix_plugin.production import PhotoRequest

_OPTIONS = MixerOptions(threads=1)
STREAM, ONE, TWO, RAY = "stream", "one worker", "two workers", "one worker on Ray"


@dataclass(frozen=True)
class Measured:
    """What one way of drawing took in one round.

    Attributes:
        way: Which way.
        faces: How many faces were made.
        seconds: Seconds on the clock, without loading weights.
        cpu: Seconds of the processor, of all workers.
    """

    way: str
    faces: int
    seconds: float
    cpu: float

    @property
    def rate(self) -> float:
        """Faces a second."""
        return self.faces / self.seconds


def measure_bulk(
    photos: Sequence[Path], rounds: int, *, ray: bool, report: Callable[[str], None] = lambda _: None
) -> list[Measured]:
    """Draw the photos in each way, round after round.

    Args:
        photos: The photos.
        rounds: How many rounds.
        ray: Whether Ray, which has to be installed, takes part.
        report: Called with what is done next.
    """
    with tempfile.TemporaryDirectory() as folder:
        unlock = KeyFileUnlock.generate(Path(folder) / "bulk.key")
        Keystore.create(Path(folder) / "bulk.db", unlock).close()
        found = []
        for number in range(rounds):
            ways: dict[str, Callable[[Keystore], Measured]] = {
                STREAM: lambda keys: _stream(photos, keys),
                ONE: lambda keys: _in_bulk(ONE, photos, keys, Work(1, block=len(photos))),
                TWO: lambda keys: _in_bulk(TWO, photos, keys, Work(2, block=(len(photos) + 1) // 2)),
            }
            if ray:
                work = Work(1, block=len(photos), cluster=Cluster())
                ways[RAY] = lambda keys, work=work: _in_bulk(RAY, photos, keys, work)  # type: ignore[misc]
            for way, measure in ways.items():
                report(f"round {number + 1} of {rounds}: {way}")
                with Keystore.open(Path(folder) / "bulk.db", unlock) as keys:
                    found.append(measure(keys))
        return found


def ratios(found: Sequence[Measured]) -> dict[str, float]:
    """Ratios of median rates, and of the processor's seconds a face."""
    ways = {each.way for each in found}
    rate = {way: statistics.median(it.rate for it in found if it.way == way) for way in ways}
    cpu = {way: statistics.median(it.cpu / it.faces for it in found if it.way == way) for way in ways}
    told = {
        "two workers / one worker": rate[TWO] / rate[ONE],
        "one worker / stream": rate[ONE] / rate[STREAM],
        "cpu a face, two workers / one worker": cpu[TWO] / cpu[ONE],
        "cpu a face, one worker / stream": cpu[ONE] / cpu[STREAM],
    }
    if RAY in ways:
        told["one worker on Ray / stream"] = rate[RAY] / rate[STREAM]
        told["cpu a face, one worker on Ray / stream"] = cpu[RAY] / cpu[STREAM]
    return told


def _stream(photos: Sequence[Path], keys: Keystore) -> Measured:
    before = os.sched_getaffinity(0)
    _hold(os.getpid(), 0)  # threads that start from now on are held, too
    try:
        with Anonymixer(keys, _OPTIONS) as mixer:
            _hold(os.getpid(), 0)
            requests = [PhotoRequest(photo) for photo in photos]
            start, cpu = time.perf_counter(), time.process_time()
            faces = sum(_size(outcome.faces) > 0 for outcome in mixer.protect_stream(requests))
            return Measured(STREAM, faces, time.perf_counter() - start, time.process_time() - cpu)
    finally:
        for thread in Path(f"/proc/{os.getpid()}/task").iterdir():
            os.sched_setaffinity(int(thread.name), before)


def _size(faces: Sequence[Any]) -> int:
    return sum(len(encode_cancelable(face)) for face in faces)


class _Watched:
    """Takes the faces, holds the workers to their cores, and looks at the clocks."""

    def __init__(self) -> None:
        self.faces = 0
        self.start = self.seconds = 0.0
        self._workers: dict[int, float] = {}
        self.cpu = 0.0

    def ready(self, _: Mixer) -> None:
        """All workers have loaded their weights."""
        self._know([child.pid or 0 for child in multiprocessing.active_children()])
        self.start = time.perf_counter()

    def heard(self, progress: Progress) -> None:
        """A face is done."""
        if not self._workers:  # an actor is no child of this process
            self._know([process for process in progress.workers if process])
            self.start, self.faces = time.perf_counter(), -1
        self.cpu = sum(_cpu_of(process) - before for process, before in self._workers.items())
        self.seconds = time.perf_counter() - self.start

    def has(self, _: Block) -> bool:
        """See `Sink`."""
        return False

    def write(self, block: Block) -> None:
        """See `Sink`."""
        self.faces += sum(result.image is not None for result in block.results.values())

    def _know(self, processes: Sequence[int]) -> None:
        for core, process in enumerate(processes):
            _hold(process, core)
        self._workers = {process: _cpu_of(process) for process in processes}


def _in_bulk(way: str, photos: Sequence[Path], keys: Keystore, work: Work) -> Measured:
    watched = _Watched()
    draw_in_bulk(_rows(photos), keys, watched, _OPTIONS, work, ready=watched.ready, progress=watched.heard)
    return Measured(way, watched.faces, watched.seconds, watched.cpu)


def _rows(photos: Sequence[Path]) -> Iterator[Row]:
    return (Row(photo, None, "default", Path(photo.stem)) for photo in photos)


def _hold(process: int, core: int) -> None:
    with suppress(OSError):
        for thread in Path(f"/proc/{process}/task").iterdir():
            os.sched_setaffinity(int(thread.name), {core % (os.cpu_count() or 1)})


def _cpu_of(process: int) -> float:
    with suppress(OSError):
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return 0.0
