"""Benchmark of the keystore: ``anonymix measure keystore [--subjects N] [--json FILE]``.

Prints each figure beside the raw cost of the same number of SQLite accesses and AES-GCM operations
on the same machine, and its target for a million subjects.
"""

from __future__ import annotations

import random
import secrets
import sqlite3
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from anonymix_keystore import KeyFileUnlock, Keystore
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
}
SAMPLES = 5_000
BATCH = 1_000
REFERENCES = 200


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


def raw(folder: Path, subjects: int, numbers: Sequence[int]) -> Figures:
    """What bare SQLite and bare AES-GCM take for the same work."""
    figures: Figures = {}
    db = sqlite3.connect(folder / "raw.db", isolation_level=None)
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("PRAGMA synchronous=FULL")
    for name in ("a", "b"):
        db.execute(f"CREATE TABLE {name} (id BLOB PRIMARY KEY, value BLOB) WITHOUT ROWID")
    rows = min(subjects, 100_000)
    ids = sorted(secrets.token_bytes(32) for _ in range(rows))
    for table in ("a", "b"):
        for start in range(0, rows, BATCH):
            db.execute("BEGIN IMMEDIATE")
            db.executemany(
                f"INSERT INTO {table} VALUES (?, ?)",  # noqa: S608 - a constant
                [(key, bytes(200)) for key in ids[start : start + BATCH]],
            )
            db.execute("COMMIT")
    both = "SELECT * FROM a JOIN b USING (id) WHERE id BETWEEN ? AND ?"
    # A rotation reads two rows, changes two and adds one.
    began = time.perf_counter()
    for start in range(0, rows, BATCH):
        page = ids[start : start + BATCH]
        db.execute("BEGIN IMMEDIATE")
        db.execute(both, (page[0], page[-1])).fetchall()
        for table in ("a", "b"):
            db.executemany(
                f"UPDATE {table} SET value = ? WHERE id = ?",  # noqa: S608 - a constant
                [(bytes(200), key) for key in page],
            )
        db.executemany("INSERT INTO b VALUES (?, ?)", [(key + b"2", bytes(200)) for key in page])
        db.execute("COMMIT")
    figures["raw_rotation_accesses_per_s"] = rows / (time.perf_counter() - began)
    query = "SELECT * FROM a JOIN b USING (id) WHERE id = ?"
    figures["raw_read_p50_us"], figures["raw_read_p99_us"] = percentiles(
        lambda number: db.execute(query, (ids[number % rows],)).fetchone(), numbers
    )
    db.close()
    key = secrets.token_bytes(32)
    count = 20_000
    began = time.perf_counter()
    for _ in range(count):
        AESGCM(key).encrypt(secrets.token_bytes(12), key, b"associated data")
    figures["raw_aes_gcm_per_s"] = count / (time.perf_counter() - began)
    return figures


def measure(folder: Path, subjects: int) -> Figures:
    """Run the benchmark in an empty folder."""
    figures: Figures = {"subjects": subjects}
    unlock = KeyFileUnlock.generate(folder / "key")
    path = folder / "store.db"
    began = time.perf_counter()
    with Keystore.create(path, unlock) as store:
        store.issue_many(f"subject-{number}" for number in range(subjects))
    figures["issue_many_keys_per_s"] = subjects / (time.perf_counter() - began)
    figures["file_mib"] = path.stat().st_size / 2**20

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
        figures |= _guided(store, folder, [f"subject-{number}" for number in numbers[:REFERENCES]])
        before = memory_mib()
        peak = before

        def watch(_: object) -> None:
            nonlocal peak
            peak = max(peak, memory_mib())

        began, used = time.perf_counter(), time.process_time()
        store.rotate_all(reason="breach", progress=watch)
        figures["rotate_keys_per_s"] = subjects / (time.perf_counter() - began)
        # On a machine that does other work, too, this tells what it would be alone.
        figures["rotate_keys_per_cpu_s"] = subjects / (time.process_time() - used)
        figures["rotate_memory_growth_mib"] = peak - before
    figures.update(raw(folder, subjects, numbers))
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
