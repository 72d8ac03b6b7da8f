"""The driver of bulk work: it holds the keystore, hands out blocks and writes what comes back."""

from __future__ import annotations

import math
import secrets
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

from anonymix_keystore import KeyState, Keystore, KeystoreError, SubjectKey, UnknownSubjectError
from anonymix_plugin.bulk._actors import Actors, Cluster
from anonymix_plugin.bulk._ledger import Ledger
from anonymix_plugin.bulk._pool import Died, Hand, Pool, Said, Task
from anonymix_plugin.bulk._references import References
from anonymix_plugin.bulk._spawned import Processes
from anonymix_plugin.bulk._values import Block, BulkError, Fault, Figures, Mixer, Result, Row, Summary, blocks_of
from anonymix_plugin.bulk._worker import Worker
from anonymix_plugin.errors import AnonymixError, UsageError
from anonymix_plugin.first_keys import TakesBack
from anonymix_plugin.images import ImageFormat
from anonymix_plugin.keys import KeyChoice, KeySource
from anonymix_plugin.keyservice import RemoteKeystore
from anonymix_plugin.options import MixerOptions

_MOST_TRIES: Final = 3  # one that was killed together with another may have been handed the photo when it was dead
_DEADLY: Final = Fault(
    "worker_died",
    "three workers ended, or were silent for too long, while they worked on this photo",
    fix="look at the file with another program; if many photos fail so, take fewer workers: memory may be short",
)
PATIENCE: Final = 600.0


@dataclass(frozen=True)
class Progress:
    """How far a job is.

    Attributes:
        done: Rows done in this run and before.
        failed: Rows of this run that failed.
        workers: Process ids of the workers.
    """

    done: int
    failed: int
    workers: tuple[int, ...]


class Sink(Protocol):
    """Where blocks go that are complete."""

    def meet(self, mixer: Mixer) -> None:
        """Hear what the workers' mixer is, before any block is handed out."""
        ...

    def has(self, block: Block) -> bool:
        """Whether a block is done already."""
        ...

    def write(self, block: Block) -> None:
        """Take the results of a block, which are gone from it afterwards."""
        ...


@dataclass(frozen=True)
class Work:
    """How bulk work is done.

    Attributes:
        workers: How many processes.
        block: Rows in a block; what is lost by a kill is at most a block for each worker.
        format_: Format of the image files.
        enrol: Photos enrol: issue first keys to subjects without one.
        limit: Hand out no further block once as many rows were begun in this run.
        patience: Seconds for one photo; a worker that is silent for longer is replaced.
        cluster: A Ray cluster that the workers run on; None: they are processes of this machine.
        make: Makes a worker, in its process, where that is to be another than `Worker`; it can be pickled.
    """

    workers: int = 1
    block: int = 32
    format_: ImageFormat = "PNG"
    enrol: bool = False
    limit: int | None = None
    patience: float = PATIENCE
    cluster: Cluster | None = None
    make: Callable[[MixerOptions], Worker] | None = None


def protect_in_bulk(
    rows: Iterable[Row],
    keys: Keystore | RemoteKeystore,
    ledger: Ledger,
    options: MixerOptions,
    work: Work,
    *,
    progress: Callable[[Progress], None] | None = None,
) -> Summary:
    """Turn the photos of all rows into cancelable faces, in several processes, and go on where a run was left.

    The faces are the bytes that `Anonymixer.protect` makes. A photo or key that can't be used is an outcome. So is
    a photo that two workers die of, each with nothing else in hand. A face is written only if its key is still the
    one in use; otherwise it is drawn anew. Where a scope keeps references, faces are guided by them; where the job
    enrols, the first photo of a subject that gives a face makes the reference.

    Args:
        rows: The rows, the same ones in every run; they are read as they are needed.
        keys: The keystore, or the line to a key service. Workers get the keys of their block alone, sealed.
        ledger: Where faces and outcomes go.
        options: What the mixers are to be like; without `progress`.
        work: How it is done.
        progress: Called after each row.

    Returns:
        How the whole job stands.

    Raises:
        BulkError: The source or the settings changed since the job was begun, or workers can't be started.
        OutputError: A face or the ledger can't be written.
    """
    finished = draw_in_bulk(rows, keys, ledger, options, work, progress=progress)
    return ledger.summary(finished=finished)


def draw_in_bulk(
    rows: Iterable[Row],
    keys: KeySource,
    sink: Sink,
    options: MixerOptions,
    work: Work,
    *,
    ready: Callable[[Mixer], None] | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> bool:
    """`protect_in_bulk` with whatever takes the faces.

    Args:
        rows: As for `protect_in_bulk`.
        keys: As for `protect_in_bulk`.
        sink: Where complete blocks go.
        options: As for `protect_in_bulk`.
        work: As for `protect_in_bulk`.
        ready: Called once, when the workers have loaded their weights, before the first row is asked for.
            Without it, no worker is started where there is nothing to do.
        progress: As for `protect_in_bulk`.

    Returns:
        Whether all rows are done.
    """
    return _Job(rows, keys, sink, options, work, ready).run(progress)


def rehearse(
    rows: Iterable[Row],
    options: MixerOptions,
    work: Work,
) -> Figures:
    """Protect a few rows under keys that nobody keeps, write nothing, and measure.

    Args:
        rows: The rows.
        options: As for `protect_in_bulk`.
        work: As for `protect_in_bulk`.

    Raises:
        BulkError: Workers can't be started.
    """
    sink = _Counted()
    sample = list(rows)
    each = max(1, math.ceil(len(sample) / work.workers))  # a worker reads ahead within its block, as in a real job
    job = _Job(sample, _KeysOfNobody(), sink, options, replace(work, block=each, enrol=True, limit=None), None)
    job.run(None)
    return Figures(sink.photos, sink.made, time.perf_counter() - job.began, sink.size)


class _Counted:
    """Counts faces instead of writing them."""

    def __init__(self) -> None:
        self.photos = self.made = self.size = 0

    def meet(self, mixer: Mixer) -> None:
        pass

    def has(self, _: Block) -> bool:
        return False

    def write(self, block: Block) -> None:
        for result in block.results.values():
            self.photos += 1
            if result.image is not None:
                self.made, self.size = self.made + 1, self.size + len(result.image)


class _KeysOfNobody:
    """Gives everybody a random key for as long as it lives."""

    def __init__(self) -> None:
        self._keys: dict[tuple[str, str], SubjectKey] = {}

    def current(self, subject: str, scope: str = "default") -> SubjectKey:
        made = SubjectKey(subject, scope, 1, KeyState.ACTIVE, secrets.token_bytes(32))
        return self._keys.setdefault((subject, scope), made)

    current_or_issue = current

    def gallery(self, scope: str = "default") -> SubjectKey:
        return self.current("", scope)

    def at(self, subject: str, version: int, scope: str = "default") -> SubjectKey:
        raise UnknownSubjectError(f"there is no version {version}", where=f"{subject} in {scope}")

    def close(self) -> None:
        self._keys.clear()


class _Job:
    """One run of a job."""

    def __init__(
        self,
        rows: Iterable[Row],
        keys: KeySource,
        sink: Sink,
        options: MixerOptions,
        work: Work,
        ready: Callable[[Mixer], None] | None,
    ) -> None:
        if options.progress is not None:
            raise UsageError("workers can't call back", where="options.progress", fix="leave it out")
        self._blocks = blocks_of(rows, work.block)
        self._keys, self._sink, self._work, self._ready = keys, sink, work, ready
        self._how = options
        self._pool: Pool[Any] | None = None
        self._again: deque[Task] = deque()
        self._mixer: Mixer | None = None
        self._references = References(keys)
        self._fresh: set[tuple[str | None, str]] = set()  # new subjects without a face
        self._done = self._failed = self._begun = 0
        self._finished = self._ended = False
        self.began = time.perf_counter()

    def run(self, progress: Callable[[Progress], None] | None) -> bool:
        """Work until all is done, or the limit is reached; returns whether all is done."""
        if self._ready is None:
            first = self._next()
            if first is None:  # nothing to do, and no weights to load for it
                return self._finished
            self._again.append(first)
        self._pool = self._workers_started()
        with closing(self._workers):
            self._workers.fill()
            started = False
            while True:
                if not started and self._workers.all_ready:
                    started, self.began = True, time.perf_counter()
                    if self._ready is not None and self._mixer is not None:
                        self._ready(self._mixer)
                if started and not self._hand_out() and not self._workers.busy:
                    return self._finished
                for event in self._workers.events():
                    self._take(event)
                    if progress is not None:
                        progress(Progress(self._done, self._failed, tuple(self._workers.processes)))

    def _workers_started(self) -> Pool[Any]:
        asked = (self._work.workers, self._work.make or Worker, self._how, self._work.patience, self._agree)
        return Processes(*asked) if self._work.cluster is None else Actors(*asked, self._work.cluster)

    @property
    def _workers(self) -> Pool[Any]:
        if self._pool is None:
            raise RuntimeError("the workers are not started yet")
        return self._pool

    @property
    def _known(self) -> Mixer:
        if self._mixer is None:
            raise RuntimeError("the workers have not said what they are yet")
        return self._mixer

    def _agree(self, mixer: Mixer) -> None:
        if self._mixer is None:
            self._sink.meet(mixer)
            self._mixer = mixer
        if self._mixer != mixer:
            raise BulkError("workers do not agree on the mixer", fix="leave the weights alone while a job runs")

    def _hand_out(self) -> bool:
        """Give idle workers something to do; False if there is nothing left that could be given."""
        most = self._work.workers * self._work.block
        for hand in self._workers.idle:
            while hand.task is None:
                if not self._again and self._references.waiting >= most:  # else the whole source might be read
                    return True
                task = self._again.popleft() if self._again else self._next()
                if task is None:
                    return bool(self._again)
                self._give(hand, task)
        return True

    def _next(self) -> Task | None:
        """All of the next block that is not done; None at the end, or at the limit."""
        while not self._ended:
            block = next(self._blocks, None)
            if block is None:
                self._ended = self._finished = True
            elif self._sink.has(block):
                self._done += len(block.rows)
            elif self._work.limit is not None and self._begun >= self._work.limit:
                self._ended = True
            else:
                self._begun += len(block.rows)
                return Task(block, list(range(len(block.rows))))
        return None

    def _give(self, hand: Hand, task: Task) -> None:
        """Hand over a task with its secrets; rows that lack one of them are done already, or wait for a reference."""
        block, secrets = task.block, self._references.secrets()
        for place in list(task.places):
            row = block.rows[place]
            try:
                key = block.keys[place] = self._key(row.subject, row.scope)
                if self._references.has_to_wait(key, task, place):
                    task.places.remove(place)
                    continue
                self._references.read(key, self._known, secrets, enrols=self._enrols(row))
                if row.load is not None:
                    secrets.photos[place] = row.load()
            except (AnonymixError, KeystoreError) as error:
                task.places.remove(place)
                self._put(block, place, Result(fault=Fault.of(error)))
            else:
                secrets.keys[row.subject, row.scope] = key
                if self._enrols(row):
                    self._references.begin(key, task, secrets)
        if task.places:
            told = [[place, str(row.source), row.subject, row.scope, self._enrols(row)] for place, row in task.rows]
            self._workers.give(hand, task, told, secrets, self._work.format_)
        self._close(block)

    def _enrols(self, row: Row) -> bool:
        return row.enrols or self._work.enrol

    def _take(self, event: Said | Died) -> None:
        block = event.task.block
        if isinstance(event, Said):
            fault = event.told.pop("fault", None)
            if fault is not None:
                self._put(block, event.place, Result(fault=Fault(**fault)))
            elif self._stays(event):
                self._put(block, event.place, _result(event))
            if not event.task.places:
                self._again.extend(self._references.freed(event.task))
            self._close(block)
            return
        # Ahead of all others: rows may lie there already that come after these in the source, and waited for them.
        if not event.alone:  # one of several photos may have done it: each is tried by itself
            self._again.extendleft(Task(block, [place]) for place in reversed(event.task.places))
        elif event.task.tries + 1 < _MOST_TRIES:
            self._again.appendleft(Task(block, event.task.places, event.task.tries + 1))
        else:
            self._put(block, event.task.places[0], Result(fault=_DEADLY))
        self._again.extend(self._references.freed(event.task))
        self._close(block)

    def _stays(self, event: Said) -> bool:
        """Keep the reference that came with a face; False if the face is to be drawn again, or is a fault already."""
        task, place = event.task, event.place
        try:
            kept = self._references.keep(event.told.pop("reference", ""), task.block.keys[place], task, self._known)
        except KeystoreError as error:
            self._put(task.block, place, Result(fault=Fault.of(error)))
            return False
        if not kept:
            self._again.append(Task(task.block, [place]))
        return kept

    def _put(self, block: Block, place: int, result: Result) -> None:
        block.results[place] = result
        self._done += 1
        self._failed += result.fault is not None

    def _close(self, block: Block) -> None:
        """Write a block that is complete, unless keys were rotated or revoked meanwhile."""
        if len(block.results) < len(block.rows):
            return
        old = [place for place in range(len(block.rows)) if self._is_outdated(block, place)]
        if old:
            for place in old:
                del block.results[place]
                self._done -= 1
            self._again.append(Task(block, old))
            return
        self._sink.write(block)
        self._take_back(block)
        block.results.clear()
        block.keys.clear()

    def _key(self, subject: str | None, scope: str) -> SubjectKey:
        """The key of a row, a first one where the job enrols."""
        choice = KeyChoice(subject, scope, None, self._work.enrol)
        if choice.checked(self._keys).enrol:
            self._fresh.add((subject, scope))
        return choice.look_up(self._keys)

    def _take_back(self, block: Block) -> None:
        """Leave no new subject whose photos all failed.

        Another block's faces of theirs that are drawn already are then outdated, and drawn anew.
        """
        whose = [(row.subject, row.scope) for row in block.rows]
        self._fresh -= {whose[place] for place, result in block.results.items() if result.image is not None}
        for subject, scope in self._fresh.intersection(whose):
            self._fresh.discard((subject, scope))
            if isinstance(self._keys, TakesBack) and subject is not None:
                self._keys.take_back(subject, scope)

    def _is_outdated(self, block: Block, place: int) -> bool:
        row = block.rows[place]
        if block.results[place].image is None:
            return False
        try:
            now = KeyChoice(row.subject, row.scope, None, False).look_up(self._keys)
        except KeystoreError:
            return True
        return now != block.keys[place]


def _result(event: Said) -> Result:
    return Result(event.image, **{**event.told, "box": tuple(event.told["box"])})
