"""How the cores are best shared out: all of them to one face, a face to each, or a process to each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, Final

import numpy as np

from anonymix_lab.bench.sides import Side, Worker
from anonymix_plugin.pool import CORES

CALLERS: Final = (1, 2, 4)
_EACH: Final = 4  # faces of a caller in a round
_MOST: Final = 8  # processes


@dataclass(frozen=True)
class Mode:
    """What one way of sharing out the cores made of photos that come from several callers at once.

    Attributes:
        way: Which way.
        callers: How many callers wait for a face at any time.
        rate: Faces a second, median of the rounds.
        ratio: The same as a multiple of the first way's with one caller, median of the rounds.
        p50: Milliseconds until a caller has its face, median.
        p95: What 95 % of them stay below.
        cpu: Processor milliseconds a face, mean.
    """

    way: str
    callers: int
    rate: float
    ratio: float
    p50: float
    p95: float
    cpu: float


def measure_modes(
    side: Side, photos: Sequence[Path], rounds: int, progress: Callable[[str], None] = lambda _: None
) -> list[Mode]:
    """Let all ways take turns.

    Args:
        side: The revision.
        photos: What faces are made of.
        rounds: How often each way has its turn, after one that is not counted.
        progress: Told what comes next.
    """
    with ExitStack() as stack:

        def start(**options: Any) -> Worker:
            return stack.enter_context(Worker(side, photos, **options))

        shared = {"all cores a face": [start()], f"a core a face: at_once={CORES}": [start(at_once=CORES)]}
        alone = [start(threads=1) for _ in range(min(CORES, _MOST))]
        turns = [_Turn(way, workers, callers) for way, workers in shared.items() for callers in CALLERS]
        turns.append(_Turn(f"{len(alone)} processes of one thread", alone, len(alone)))
        turns.append(_Turn("1 process of one thread", alone[:1], 1))
        for number in range(-1, rounds):
            for turn in turns:
                progress(f"round {max(0, number + 1)} of {rounds}: {turn.way}, {turn.callers} callers")
                turn.take(counted=number >= 0)
        return [turn.mode(turns[0]) for turn in turns]


@dataclass
class _Turn:
    """A way and so many callers, and what came of it, round by round."""

    way: str
    workers: list[Worker]
    callers: int
    rates: list[float] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def take(self, *, counted: bool) -> None:
        """Have each caller's faces made, by all workers at the same time."""
        count = self.callers // len(self.workers)
        with ThreadPoolExecutor(len(self.workers)) as threads:
            answers = list(threads.map(lambda worker: worker.ask("callers", count=count, each=_EACH), self.workers))
        if not counted:
            return
        self.rates.append(self.callers * _EACH / max(answer["wall"] for answer in answers))
        self.cpu.append(sum(answer["cpu"] for answer in answers) / self.callers / _EACH)
        self.times += chain.from_iterable(answer["times"] for answer in answers)

    def mode(self, first: _Turn) -> Mode:
        """Sum it up."""
        ratio = float(np.median(np.array(self.rates) / np.array(first.rates)))
        p50, p95 = (1000 * float(value) for value in np.percentile(self.times, [50, 95]))
        cpu = 1000 * float(np.mean(self.cpu))
        return Mode(self.way, self.callers, float(np.median(self.rates)), ratio, p50, p95, cpu)
