"""What millions of faces cost, computed from measured figures, and a run of the planner in virtual time."""

from __future__ import annotations

import heapq
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from anonymix_keystore import KeyFileUnlock, Keystore
from anonymix_plugin.bulk import Block, Fault, Ledger, Result, Row

DAY = 86_400.0
CALLS_OF_A_RENEWAL = 3  # enrol, verify, delete


@dataclass(frozen=True)
class Measured:
    """The figures that the plan is computed from; docs/scale.md says where each default comes from.

    Attributes:
        cpu_rate: Faces a second of one machine with two cores.
        gpu_rate: Faces a second that one GPU draws.
        reading_rate: Photos a second that 16 cores decode and detect.
        face_bytes: Bytes of a cancelable face, as a PNG file.
        original_bytes: Bytes of a sealed original.
        key_bytes: Bytes of the keystore for a subject, after a rotation.
        rotation_rate: Keys a second that `rotate_all` replaces.
        driver_rate: Rows a second that one driver of bulk work plans and writes down.
        renewal_rate: The same of a renewal, on one core, for a back end that takes JPEG files and answers at once.
    """

    cpu_rate: float
    gpu_rate: float
    reading_rate: float
    face_bytes: float
    original_bytes: float
    key_bytes: float
    rotation_rate: float
    driver_rate: float
    renewal_rate: float


@dataclass(frozen=True)
class Limit:
    """A back end's published limit.

    Attributes:
        name: The back end, and the plan or region.
        calls_per_s: Calls a second.
        together: Whether all calls of a renewal count against it, or each kind has a limit of its own.
        source: Who says so, and as of when.
    """

    name: str
    calls_per_s: float
    together: bool
    source: str


LIMITS = (
    Limit(
        "Rekognition, most regions (default)",
        5,
        together=False,
        source="at second hand: sightradar.com by dev.to, read 2026-11; AWS lists it at"
        " docs.aws.amazon.com/general/latest/gr/rekognition.html",
    ),
    Limit(
        "Rekognition, us-east-1, us-west-2, eu-west-1 (default)", 50, together=False, source="the same, read 2026-11"
    ),
    Limit(
        "Azure Face, S0 (default, a resource)",
        10,
        together=True,
        source="learn.microsoft.com, Azure Face service quotas and limits, read 2026-11",
    ),
    Limit(
        "Azure Face, S0, all resources of a region",
        200,
        together=True,
        source="learn.microsoft.com, the same page, read 2026-11",
    ),
    Limit(
        "Tencent, charged by call (each group of calls)",
        50,
        together=False,
        source="cloud.tencent.com/document/product/867/50269, of 2025-02-21",
    ),
)


@dataclass(frozen=True)
class Plan:
    """What a number of faces costs.

    Attributes:
        faces: How many.
        cpu_days: Days of one machine with two cores.
        cpu_machines: Such machines that make them in eight hours.
        gpu_hours: Hours of one GPU with as many readers as it needs.
        readers: Cores that read photos for one GPU.
        gpus: GPUs that make them in eight hours.
        rotation_hours: Hours in which the keystore replaces the keys.
        keystore_gib: The keystore's file.
        faces_tib: All faces as files.
        originals_tib: All sealed originals.
        driver_hours: Hours that one driver plans and writes for.
        renewal_hours: Hours of one of its cores for a renewal.
        back_ends: Days of a renewal, all calls, at each of ``LIMITS``.
    """

    faces: int
    cpu_days: float
    cpu_machines: float
    gpu_hours: float
    readers: float
    gpus: float
    rotation_hours: float
    keystore_gib: float
    faces_tib: float
    originals_tib: float
    driver_hours: float
    renewal_hours: float
    back_ends: tuple[float, ...]


def plan(faces: int, measured: Measured) -> Plan:
    """Compute what a number of faces costs; everything but the calls of back ends grows with their number alone."""
    cpu, gpu = faces / measured.cpu_rate, faces / measured.gpu_rate
    shift = 8 * 3600
    return Plan(
        faces,
        cpu_days=cpu / DAY,
        cpu_machines=cpu / shift,
        gpu_hours=gpu / 3600,
        readers=16 * measured.gpu_rate / measured.reading_rate,
        gpus=gpu / shift,
        rotation_hours=faces / measured.rotation_rate / 3600,
        keystore_gib=faces * measured.key_bytes / 2**30,
        faces_tib=faces * measured.face_bytes / 2**40,
        originals_tib=faces * measured.original_bytes / 2**40,
        driver_hours=faces / measured.driver_rate / 3600,
        renewal_hours=faces / measured.renewal_rate / 3600,
        back_ends=tuple(
            faces * (CALLS_OF_A_RENEWAL if limit.together else 1) / limit.calls_per_s / DAY for limit in LIMITS
        ),
    )


@dataclass(frozen=True)
class Simulated:
    """A run of the planner in which no network draws.

    Attributes:
        items: Rows done in this run.
        done: Rows in the ledger, those of earlier runs included.
        seconds: How long the run takes, in virtual time.
        driver_s: How long the driver works in it: measured, all of it.
        driver_cpu_s: Processor seconds of that; the rest are waits for disk and processor.
        rows_per_s: Rows a second of virtual time.
        driver_rows_per_s: Rows a second that the driver could plan.
        workers_busy: Share of the time in which the workers draw.
    """

    items: int
    done: int
    seconds: float
    driver_s: float
    driver_cpu_s: float
    rows_per_s: float
    driver_rows_per_s: float
    workers_busy: float


def simulate(
    folder: Path, items: int, *, workers: int, rate: float, block: int = 32, limit: int | None = None
) -> Simulated:
    """Plan rows as the driver of bulk work does, with keystore and ledger, and let workers draw in virtual time.

    The driver's part is done and timed: keys are looked up as a block is handed out and once more as it is written,
    and its outcomes go into the ledger, one transaction a block. A worker takes ``1 / rate`` seconds of virtual time a
    row. Photos and faces are left out: outcomes say that nothing was drawn. The same call again goes on.

    Args:
        folder: Where keystore and ledger lie, or are to.
        items: Rows, each with a subject of its own.
        workers: How many workers there are.
        rate: Rows a second of one of them.
        block: Rows in a block.
        limit: Begin no further block once as many rows were begun in this run.
    """
    nobody = Result(fault=Fault("simulated", "no network draws in a simulated run"))
    waited, drawn, begun, done = 0.0, 0.0, 0, 0
    with (
        opened(folder, items) as store,
        Ledger(folder / "ledger", {"items": items, "block": block}) as ledger,
    ):
        free, drawing = list(range(workers)), list[tuple[float, int, int, Block]]()
        blocks = _blocks(items, block)
        began, used = time.perf_counter(), time.process_time()

        def now() -> float:
            return time.perf_counter() - began + waited

        more = True
        while more or drawing:
            while more and free:
                todo = next((each for each in blocks if not ledger.has(each)), None)
                more = todo is not None and (limit is None or begun < limit)
                if todo is not None and more:
                    begun += len(todo.rows)
                    _look_up(store, todo)
                    took = len(todo.rows) / rate
                    drawn += took
                    heapq.heappush(drawing, (now() + took, todo.number, free.pop(), todo))
            if drawing:
                at, _, worker, ready = heapq.heappop(drawing)
                waited += max(0.0, at - now())  # nothing to do until then
                _look_up(store, ready)
                ready.results.update((place, nobody) for place in range(len(ready.rows)))
                ledger.write(ready)
                done += len(ready.rows)
                free.append(worker)
        total, driver_cpu = now(), time.process_time() - used
        summary = ledger.summary(finished=not more)
    driver = total - waited
    return Simulated(
        items=done,
        done=summary.made + summary.failed,
        seconds=total,
        driver_s=driver,
        driver_cpu_s=driver_cpu,
        rows_per_s=done / total,
        driver_rows_per_s=done / driver,
        workers_busy=drawn / (workers * total),
    )


@contextmanager
def opened(folder: Path, items: int) -> Iterator[Keystore]:
    """The keystore of a simulated run, which is made with as many subjects where it is not there."""
    path, key = folder / "scale.db", folder / "scale.key"
    there = path.exists()
    unlock = KeyFileUnlock(key) if there else KeyFileUnlock.generate(key)
    with Keystore.open(path, unlock) if there else Keystore.create(path, unlock) as store:
        if next(store.subjects(), None) is None:
            store.issue_many(map(subject_name, range(items)))
        yield store


def subject_name(number: int) -> str:
    """The subject of a row."""
    return f"subject-{number}"


def block_of(first: int, items: int, size: int) -> list[Row]:
    """The rows of a block that begins with a certain one."""
    numbers = range(first, min(first + size, items))
    return [Row(f"{n}.jpg", subject_name(n), "default", Path(f"{n}.png")) for n in numbers]


def _blocks(items: int, size: int) -> Iterator[Block]:
    for number, first in enumerate(range(0, items, size)):
        yield Block(number, first, block_of(first, items, size))


def _look_up(store: Keystore, block: Block) -> None:
    for row in block.rows:
        if row.subject is not None:
            store.current(row.subject, row.scope)
