"""Times of something that is done again and again."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

Out = TypeVar("Out")


@dataclass(frozen=True)
class Times:
    """What runs took, in seconds.

    Attributes:
        runs: How many there were.
        p50: Median.
        p95: What 95 % of the runs stay below.
        p99: What 99 % stay below; of fewer than 100 runs it is close to the longest.
        least: The shortest run.
        cpu: Mean processor seconds of a run, all threads together: a proxy of its energy.
    """

    runs: int
    p50: float
    p95: float
    p99: float
    least: float
    cpu: float


class Clock:
    """Collects runs."""

    def __init__(self) -> None:
        self.wall: list[float] = []
        self.cpu: list[float] = []

    def run(self, function: Callable[[], Out]) -> Out:
        """Call a function and remember how long it took."""
        cpu, wall = time.process_time(), time.perf_counter()
        result = function()
        self.add(time.perf_counter() - wall, time.process_time() - cpu)
        return result

    def add(self, wall: float, cpu: float = 0.0) -> None:
        """Remember a run that was timed elsewhere."""
        self.wall.append(wall)
        self.cpu.append(cpu)

    def times(self) -> Times:
        """Sum it up."""
        p50, p95, p99 = (float(value) for value in np.percentile(self.wall, [50, 95, 99]))
        return Times(len(self.wall), p50, p95, p99, min(self.wall), float(np.mean(self.cpu)))
