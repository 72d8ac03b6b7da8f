"""What bulk work costs beside the mixer: one worker, two, and Ray, against the stream of one process.

Everything that works is held to as many cores as its way has, before its first thread starts: OpenVINO's threads
keep to the cores that the process had at its start. The ways take turns; ratios are of medians.
"""

from __future__ import annotations

import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
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
FREE, WIDE = "one worker, two cores", "the same, at_once=2"


@dataclass(frozen=True)
class Measured:
    """What one way of drawing took in one round.

    Attributes:
        way: Which way.
        faces: How many faces were made.
        seconds: Seconds on the clock, without loading weights.
        cpu: Seconds of the processor, of all processes.
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
        alone, all_of_them = Work(1, block=len(photos)), len(photos)
        ways: dict[str, tuple[int, Callable[[Keystore], Measured]]] = {
            ONE: (1, lambda keys: _in_bulk(ONE, photos, keys, alone)),
            FREE: (2, lambda keys: _in_bulk(FREE, photos, keys, alone)),
            WIDE: (2, lambda keys: _in_bulk(WIDE, photos, keys, alone, replace(_OPTIONS, at_once=2))),
            TWO: (2, lambda keys: _in_bulk(TWO, photos, keys, Work(2, block=(all_of_them + 1) // 2))),
        }
        if ray:
            work = Work(1, block=all_of_them, cluster=Cluster())
            ways[RAY] = 1, lambda keys: _in_bulk(RAY, photos, keys, work)
        path, secret = Path(folder) / "bulk.db", Path(folder) / "bulk.key"
        for number in range(rounds):
            report(f"round {number + 1} of {rounds}: {STREAM}")
            with _on(1), ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
                found.append(process.submit(_stream, photos, path, secret).result())
            for way, (cores, measure) in ways.items():
                report(f"round {number + 1} of {rounds}: {way}")
                with _on(cores), Keystore.open(path, unlock) as keys:
                    found.append(measure(keys))
        return found


def ratios(found: Sequence[Measured]) -> dict[str, float]:
    """Ratios of median rates, and of the processor's seconds a face."""
    ways = {each.way for each in found}
    rate = {way: statistics.median(it.rate for it in found if it.way == way) for way in ways}
    cpu = {way: statistics.median(it.cpu / it.faces for it in found if it.way == way) for way in ways}
    told = {
        "two workers / one worker": rate[TWO] / rate[ONE],
        "one worker, two cores / one worker": rate[FREE] / rate[ONE],
        "the same, at_once=2 / one worker": rate[WIDE] / rate[ONE],
        "one worker / stream": rate[ONE] / rate[STREAM],
        "cpu a face, two workers / one worker": cpu[TWO] / cpu[ONE],
        "cpu a face, one worker / stream": cpu[ONE] / cpu[STREAM],
    }
    if RAY in ways:
        told["one worker on Ray / stream"] = rate[RAY] / rate[STREAM]
        told["cpu a face, one worker on Ray / stream"] = cpu[RAY] / cpu[STREAM]
    return told


@contextmanager
def _on(cores: int) -> Iterator[None]:
    """Hold this process, and so all that it starts, to the first so many of its cores."""
    before = os.sched_getaffinity(0)
    _hold(set(sorted(before)[:cores]))
    try:
        yield
    finally:
        _hold(before)


def _hold(cores: set[int]) -> None:
    for thread in Path("/proc/self/task").iterdir():
        with suppress(OSError):  # it ended meanwhile
            os.sched_setaffinity(int(thread.name), cores)


def _stream(photos: Sequence[Path], store: Path, secret: Path) -> Measured:
    with Keystore.open(store, KeyFileUnlock(secret)) as keys, Anonymixer(keys, _OPTIONS) as mixer:
        requests = [PhotoRequest(photo) for photo in photos]
        start, cpu = time.perf_counter(), time.process_time()
        faces = sum(_size(outcome.faces) > 0 for outcome in mixer.protect_stream(requests))
        return Measured(STREAM, faces, time.perf_counter() - start, time.process_time() - cpu)


def _size(faces: Sequence[Any]) -> int:
    return sum(len(encode_cancelable(face)) for face in faces)


class _Watched:
    """Takes the faces, and looks at the clocks."""

    def __init__(self) -> None:
        self.faces = 0
        self.start = self.seconds = self.before = self.cpu = 0.0

    def ready(self, _: Mixer) -> None:
        """All workers have loaded their weights."""
        self.start, self.before = time.perf_counter(), _cpu_of_all()

    def heard(self, _: Progress) -> None:
        """A face is done."""
        self.seconds, self.cpu = time.perf_counter() - self.start, _cpu_of_all() - self.before

    def meet(self, mixer: Mixer) -> None:
        """See `Sink`."""

    def has(self, _: Block) -> bool:
        """See `Sink`."""
        return False

    def write(self, block: Block) -> None:
        """See `Sink`."""
        self.faces += sum(result.image is not None for result in block.results.values())


def _in_bulk(
    way: str, photos: Sequence[Path], keys: Keystore, work: Work, options: MixerOptions = _OPTIONS
) -> Measured:
    watched = _Watched()
    draw_in_bulk(_rows(photos), keys, watched, options, work, ready=watched.ready, progress=watched.heard)
    return Measured(way, watched.faces, watched.seconds, watched.cpu)


def _rows(photos: Sequence[Path]) -> Iterator[Row]:
    return (Row(photo, None, "default", Path(photo.stem)) for photo in photos)


def _cpu_of_all() -> float:
    """Processor seconds of this process and all that it started, Ray's own included, as far as they still run."""
    used, parents = {}, {}
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            used[int(entry.name)], parents[int(entry.name)] = int(fields[11]) + int(fields[12]), int(fields[1])
    mine = {os.getpid()}
    while more := {process for process, parent in parents.items() if parent in mine} - mine:
        mine |= more
    return sum(used.get(process, 0) for process in mine) / os.sysconf("SC_CLK_TCK")
