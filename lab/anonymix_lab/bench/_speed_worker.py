"""One side of `anonymix measure speed`: makes faces in a process of its own, when it is told to.

It runs as a script on the revision that its path leads to, an old one or this one, so it uses nothing of the
laboratory and only what all revisions have. A command is a line of JSON on standard input, and its answer a line
on standard output. The command line's first argument holds the options of `Anonymixer` as JSON.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

STARTED = time.perf_counter()

import numpy as np  # noqa: E402 - what is imported counts

import anonymix_plugin  # noqa: E402
from anonymix_keystore import KeyState, SubjectKey  # noqa: E402
from anonymix_plugin import Anonymixer, PhotoRequest  # noqa: E402


class Keys:
    """Keys that anybody can make again."""

    def at(self, subject: str, version: int, scope: str = "default") -> SubjectKey:
        """Return the key of a version."""
        material = hashlib.sha256(f"speed {scope} {subject} {version}".encode()).digest()
        return SubjectKey(subject, scope, version, KeyState.ACTIVE, material)

    def current(self, subject: str, scope: str = "default") -> SubjectKey:
        """Return version 1."""
        return self.at(subject, 1, scope)

    current_or_issue = current

    def gallery(self, scope: str = "default") -> SubjectKey:
        """Return the key of a scope."""
        return self.at("", 1, scope)

    def close(self) -> None:
        """Do nothing; there is nothing to close."""


class Worker:
    """What can be asked for, by name."""

    def __init__(self, mixer: Anonymixer) -> None:
        self._mixer = mixer
        self._photos: list[bytes] = []
        self._code: Any = None

    def photos(self, paths: list[str]) -> dict[str, Any]:
        """Read the photos that all else is done with."""
        self._photos = [Path(path).read_bytes() for path in paths]
        return {"fingerprint": self._mixer.fingerprint}

    def faces(self, start: int, count: int) -> dict[str, Any]:
        """Make faces one by one; says what they are, and how long they took."""
        wall, cpu, numbers = time.perf_counter(), time.process_time(), range(start, start + count)
        pixels = [self._mixer.protect(self._photo(number), subject="speed").pixels for number in numbers]
        times = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
        faces = [hashlib.sha256(face.tobytes()).hexdigest() for face in pixels]
        return times | {"faces": faces, "spent": time.process_time()}

    def passes(self, count: int) -> dict[str, Any]:
        """Draw a code that is always the same: the generator's pass alone."""
        generator: Any = self._mixer.generator
        if self._code is None:
            self._code = np.zeros((1, generator.layers.total, generator.w_dim), np.float32)
        size = min(512, max(generator.sizes))
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in range(count):
            generator.draw(self._code, size)
        return {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}

    def stream(self, start: int, count: int) -> dict[str, Any]:
        """Make faces as a stream."""
        requests = (PhotoRequest(self._photo(number), "speed") for number in range(start, start + count))
        wall, cpu = time.perf_counter(), time.process_time()
        for outcome in self._mixer.protect_stream(requests):
            if outcome.error is not None:
                raise outcome.error
        return {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}

    def callers(self, count: int, each: int) -> dict[str, Any]:
        """Make so many faces for each of several callers at the same time; says how long each face took."""

        def call(caller: int) -> list[float]:
            times = []
            for number in range(caller, caller + each):
                begun = time.perf_counter()
                self._mixer.protect(self._photo(number), subject="speed")
                times.append(time.perf_counter() - begun)
            return times

        wall, cpu = time.perf_counter(), time.process_time()
        with ThreadPoolExecutor(count) as threads:
            times = [one for found in threads.map(call, range(count)) for one in found]
        return {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu, "times": times}

    def memory(self) -> dict[str, float]:
        """MB that the process holds: resident, its share of them, and its own alone."""
        names = {"Rss": "resident", "Pss": "proportional", "Private_Clean": "own", "Private_Dirty": "own"}
        found = dict.fromkeys(names.values(), 0.0)
        for line in Path("/proc/self/smaps_rollup").read_text(encoding="utf-8").splitlines()[1:]:
            name, _, rest = line.partition(":")
            if name in names:
                found[names[name]] += int(rest.split()[0]) / 1000
        return found

    def _photo(self, number: int) -> bytes:
        return self._photos[number % len(self._photos)]


def commands() -> Iterator[dict[str, Any]]:
    """What is asked for, until the input ends."""
    for line in sys.stdin:
        yield json.loads(line)


def main() -> None:
    """Open a mixer, tell how long that took, and do what is asked for."""
    options = json.loads(sys.argv[1])
    with Anonymixer(Keys(), **options) as mixer:
        worker = Worker(mixer)
        where, spent = anonymix_plugin.__file__, time.process_time()
        _tell({"wall": time.perf_counter() - STARTED, "cpu": spent, "where": where, "engine": mixer.engine})
        for command in commands():
            _tell(getattr(worker, command.pop("do"))(**command))


def _tell(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
