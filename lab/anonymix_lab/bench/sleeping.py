"""Bulk work and renewals with the real driver, keystore and workers, in which sleeping stands for the networks."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from anonymix_adapters import Answer, Interceptor
from anonymix_adapters.bulk_renewal import BulkRenewal, Counts
from anonymix_adapters.drawn import DrawnFaces
from anonymix_keystore import NewEnrolment
from anonymix_lab.bench.scale import Simulated, block_of, opened, subject_name
from anonymix_plugin.bulk import BlockKeys, Ledger, Progress, Row, Work, Worker, protect_in_bulk
from anonymix_plugin.images import encode_cancelable
from anonymix_plugin.options import MixerOptions
from anonymix_plugin.values import CancelableFace

_ADAPTER, _COLLECTION = "simulated", "people"
_OLD, _NEW = "e" * 32, "f" * 32
_RECORDED_AT_ONCE = 5_000


class Sleeper(Worker):
    """A worker that takes the measured time for each photo, and gives the same picture for all, or none.

    Args:
        rate: Photos a second.
        draws: Whether it gives pictures; otherwise outcomes say that nothing was drawn.
    """

    def __init__(self, rate: float, draws: bool, _: MixerOptions) -> None:
        self.keys = BlockKeys()
        self._seconds = 1 / rate
        noise = np.random.default_rng(7).integers(0, 16, (512, 512, 3), np.uint8)  # as large a file as a face
        face = CancelableFace(noise, (0, 0, 1, 1), "", "", 1, _NEW, "fast")
        self._image = encode_cancelable(face) if draws else b""

    @property
    def ready(self) -> dict[str, str]:
        """See `Worker`."""
        return {"fingerprint": _NEW, "guided": "", "engine": "none"}

    def results(self, _: str, sealed: bytes) -> Iterator[tuple[dict[str, Any], bytes]]:
        """See `Worker`."""
        rows, _photos = self.keys.take(sealed)
        nothing = {"fault": {"code": "simulated", "what": "no network draws in a simulated run"}}
        drawn = {"fingerprint": _NEW, "engine": "none", "method": "fast", "quality": 1.0, "box": [0, 0, 1, 1]}
        due = time.monotonic()
        for place, _source, subject, scope, _enrols in rows:
            due += self._seconds  # what waking up takes is not added up
            time.sleep(max(0.0, due - time.monotonic()))
            version = self.keys.current(subject, scope).version
            yield {"place": place, **(drawn | {"key_version": version} if self._image else nothing)}, self._image
        self.keys.forget()


def protect_asleep(folder: Path, items: int, work: Work, rate: float) -> Simulated:
    """`anonymix bulk protect` of as many rows, each with a subject of its own; the same call again goes on.

    Args:
        folder: Where keystore and ledger lie, or are to.
        items: Rows.
        work: How it is done.
        rate: Rows a second of a worker.
    """
    with opened(folder, items) as store, Ledger(folder / "ledger", {"items": items, "block": work.block}) as ledger:
        starts = range(0, items, work.block)
        rows: Iterator[Row] = (row for first in starts for row in block_of(first, items, work.block))
        watch = _Watch()
        asleep = _asleep(work, rate, draws=False)
        summary = protect_in_bulk(rows, store, ledger, MixerOptions(), asleep, progress=watch.heard)
    return watch.told(summary.made + summary.failed, rate, work)


def renewal_asleep(folder: Path, items: int, work: Work, rate: float) -> Simulated:
    """`anonymix bulk renew` of as many people after a breach, in front of a back end that answers at once.

    Args:
        folder: Where the keystore is to lie.
        items: People, with one entry each.
        work: How it is done.
        rate: As for `protect_asleep`.
    """
    with opened(folder, items) as store:
        for first in range(0, items, _RECORDED_AT_ONCE):
            store.record_enrolments(
                NewEnrolment(subject_name(n), "default", _ADAPTER, _COLLECTION, f"old-{n}", 1, _OLD)
                for n in range(first, min(first + _RECORDED_AT_ONCE, items))
            )
        store.rotate_all(reason="breach")
        faces = DrawnFaces(store)
        watch = _Watch()

        def heard(counts: Counts) -> None:
            if counts.total:  # the workers are ready
                watch.heard(Progress(counts.renewed, counts.failed, ()))

        with BulkRenewal(store, faces, _AtOnce(faces), lambda _: [b"photo"]) as job:
            counts = job.run(MixerOptions(), _asleep(work, rate, draws=True), heard)
    return watch.told(counts.renewed, rate, work)


def _asleep(work: Work, rate: float, *, draws: bool) -> Work:
    return replace(work, make=functools.partial(Sleeper, rate, draws))


class _Watch:
    """Looks at the clocks from the first row to the last."""

    def __init__(self) -> None:
        self._began = self._used = 0.0
        self._first = self._last = 0
        self._end = (0.0, 0.0)

    def heard(self, progress: Progress) -> None:
        """Rows are done."""
        if not self._began:
            self._began, self._used, self._first = time.perf_counter(), time.process_time(), progress.done
        self._last, self._end = progress.done, (time.perf_counter(), time.process_time())

    def told(self, done: int, rate: float, work: Work) -> Simulated:
        """What it was."""
        rows, seconds, cpu = self._last - self._first, self._end[0] - self._began, self._end[1] - self._used
        return Simulated(
            items=rows,
            done=done,
            seconds=seconds,
            driver_s=seconds,
            driver_cpu_s=cpu,
            rows_per_s=rows / seconds,
            driver_rows_per_s=rows / cpu,
            workers_busy=rows / rate / (work.workers * seconds),
        )


class _AtOnce:
    """A back end in memory, which is sent JPEG files."""

    collection = _COLLECTION

    def __init__(self, faces: DrawnFaces) -> None:
        self.interceptor = Interceptor(faces, _ADAPTER)
        self._held: dict[str, str] = {}

    def enrol(self, subject: str, photo: Any) -> str:
        def send(face: CancelableFace) -> str:
            encode_cancelable(face, "JPEG")
            entry = f"new-{len(self._held)}"
            self._held[entry] = subject
            return entry

        whose = self.interceptor.whose(argument=subject, enrol=True)
        how: dict[str, Any] = {"send": send, "external_id": str, "undo": self.delete}
        return str(self.interceptor.enrol(photo, whose, collection=self.collection, **how))

    def verify(self, subject: str, photo: Any) -> Answer:
        encode_cancelable(self.interceptor.protect(photo, self.interceptor.whose(argument=subject)), "JPEG")
        return Answer(True, 1.0)

    def delete(self, entry: str) -> None:
        self._held.pop(entry, None)

    def entries(self) -> Mapping[str, str]:
        return self._held
