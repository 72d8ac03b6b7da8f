"""Benchmark of the keystore: ``anonymix measure keystore [--subjects N] [--json FILE]``.

Prints each figure beside what bare SQLite takes for the same rows, and beside what bare SQLite takes with the
cryptography that the file format asks for, in the same run, and its target for a million subjects. Rates are from
the median time of equal pieces of work.
"""

from __future__ import annotations

import functools
import random
import secrets
import shutil
import sqlite3
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from anonymix_keystore import KeyFileUnlock, Keystore
from anonymix_lab.bench.rotation import Times, Yardstick
from anonymix_plugin.guiding import Guide, GuideSettings
from anonymix_plugin.mixer.guide import GuidingCurve

Figures = dict[str, float]

# name -> (limit, whether the figure has to stay below it)
TARGETS: dict[str, tuple[float, bool]] = {
    "open_s": (1.0, True),
    "cached_p50_us": (20.0, True),
    "uncached_p50_us": (1_000.0, True),
    "uncached_p99_us": (5_000.0, True),
    "guided_p50_us": (1_000.0, True),
    "rotate_keys_per_s": (10_000.0, False),
    "rotate_to_raw_with_cryptography_cpu_s": (0.75, False),
}
SAMPLES = 5_000
REFERENCES = 200
ISSUED_AT_ONCE = 50_000
ROTATED_AT_ONCE = 2_000
BESIDE = 200_000  # subjects that the yardsticks rotate, too


def percentiles(call: Callable[[int], object], numbers: Sequence[int]) -> tuple[float, float]:
    """Median and 99th percentile of a call's time, in microseconds."""
    times = []
    for number in numbers:
        began = time.perf_counter_ns()
        call(number)
        times.append((time.perf_counter_ns() - began) / 1_000)
    times.sort()
    return times[len(times) // 2], times[min(len(times) - 1, len(times) * 99 // 100)]


def memory_mib() -> float:
    """Resident memory of this process in MiB (0 where the system does not say)."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return 0.0
    return pages * 4096 / 2**20


def raw_reads(copy: Path, count: int) -> Figures:
    """What bare SQLite takes to read a subject's two rows from a copy of the store's file."""
    db = sqlite3.connect(copy)
    tags = [
        found[0]
        for found in (
            db.execute("SELECT tag FROM heads WHERE tag >= ? LIMIT 1", (secrets.token_bytes(32),)).fetchone()
            for _ in range(count)
        )
        if found is not None
    ]
    query = "SELECT h.*, k.* FROM heads h JOIN keys k ON k.tag = h.tag AND k.version = h.active WHERE h.tag = ?"
    median, tail = percentiles(lambda number: db.execute(query, (tags[number],)).fetchone(), range(len(tags)))
    db.close()
    return {"raw_read_p50_us": median, "raw_read_p99_us": tail}


def measure(folder: Path, subjects: int) -> Figures:
    """Run the benchmark in an empty folder, which takes three times the store's size for a while."""
    figures: Figures = {"subjects": subjects}
    unlock = KeyFileUnlock.generate(folder / "key")
    path = folder / "store.db"
    issuing, piece = Times(), min(ISSUED_AT_ONCE, subjects)
    with Keystore.create(path, unlock) as store:
        for start in range(0, subjects, piece):
            names = [f"subject-{number}" for number in range(start, min(start + piece, subjects))]
            issuing.time(functools.partial(store.issue_many, names))
    wall, cpu = issuing.medians
    figures |= {"issue_many_keys_per_s": piece / wall, "issue_many_keys_per_cpu_s": piece / cpu}
    figures["file_mib"] = path.stat().st_size / 2**20
    copies = [folder / "without.db", folder / "with.db"]
    for copy in copies:
        shutil.copy(path, copy)

    began = time.perf_counter()
    store = Keystore.open(path, unlock, cache_age=3600)
    figures["open_s"] = time.perf_counter() - began
    with store:
        dice = random.Random(7)  # noqa: S311 - picks samples
        numbers = dice.sample(range(subjects), min(SAMPLES, subjects))
        few = numbers[:1000]

        def look(number: int) -> object:
            return store.current(f"subject-{number}")

        figures["uncached_p50_us"], figures["uncached_p99_us"] = percentiles(look, numbers)
        percentiles(look, few)
        figures["cached_p50_us"], figures["cached_p99_us"] = percentiles(look, few)
        figures |= raw_reads(copies[0], len(numbers))
        figures |= _guided(store, folder, [f"subject-{number}" for number in numbers[:REFERENCES]])
        figures |= rotation(store, subjects, copies)
    figures["file_after_rotation_mib"] = path.stat().st_size / 2**20
    return figures


def rotation(store: Keystore, subjects: int, copies: Sequence[Path]) -> Figures:
    """Rotate all keys after a breach, the first half of them side by side with the two yardsticks.

    Memory is looked at in the second half, in which the store is alone.

    Args:
        store: The store.
        subjects: How many it holds.
        copies: Two copies of its file.
    """
    batch = min(ROTATED_AT_ONCE, subjects // 4)
    sticks = [
        Yardstick(copy, batch, cryptography=cryptography)
        for copy, cryptography in zip(copies, (False, True), strict=True)
    ]
    memory: list[float] = []
    own, beside = Times(), min(BESIDE, subjects // 2) // batch

    def between(_: object) -> None:
        own.stop()
        if len(own.wall) <= beside:
            for stick in sticks:
                stick.step()
        else:
            for stick in sticks:
                stick.close()
            memory.append(memory_mib())
        own.start()

    began = time.perf_counter()
    store.rotate_all(reason="breach", batch=batch, progress=between)
    figures = {"rotation_with_yardsticks_s": time.perf_counter() - began}
    own.wall, own.cpu, whole = own.wall[:beside], own.cpu[:beside], own.wall[: subjects // batch]
    figures["rotate_all_keys_per_s"] = batch / statistics.median(whole)
    names = ("rotate", "raw", "raw_with_cryptography")
    seconds = {name: times.medians for name, times in zip(names, (own, *(s.times for s in sticks)), strict=True)}
    # On a machine that does other work, too, processor seconds tell what it would be alone.
    for place, unit in enumerate(("s", "cpu_s")):
        figures |= {f"{name}_keys_per_{unit}": batch / spent[place] for name, spent in seconds.items()}
        for name in names[1:]:
            figures[f"rotate_to_{name}_{unit}"] = seconds[name][place] / seconds["rotate"][place]
    figures["rotate_memory_mib"] = max(memory)
    figures["rotate_memory_growth_mib"] = max(memory) - memory[0]
    return figures


def _guided(store: Keystore, folder: Path, subjects: Sequence[str]) -> Figures:
    """What guiding adds to a face: reading the sealed reference, and turning the code by it."""
    store.originals.enable(KeyFileUnlock.generate(folder / "second"))
    store.references.enable(reason="benchmark")
    guide = Guide(GuideSettings(GuidingCurve(), "fingerprint", "subspace"), store)
    numbers = np.random.default_rng(7).standard_normal((len(subjects), 32))
    codes = list(numbers / np.linalg.norm(numbers, axis=1, keepdims=True))
    keys = [store.current(subject) for subject in subjects]
    for key, code in zip(keys, codes, strict=True):
        guide.turned(code, key, enrol=True)

    def probe(number: int) -> object:
        return guide.turned(codes[(number + 1) % len(codes)], keys[number % len(keys)], enrol=False)

    median, tail = percentiles(probe, range(1000))
    return {"guided_p50_us": median, "guided_p99_us": tail}


def verdict(name: str, value: float) -> str:
    """The target of a figure and whether it is met, or ""."""
    if name not in TARGETS:
        return ""
    limit, below = TARGETS[name]
    met = value <= limit if below else value >= limit
    return f"target {'<=' if below else '>='} {limit:,g}: {'met' if met else 'MISSED'}"
