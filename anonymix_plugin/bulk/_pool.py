"""The workers of a bulk job on this machine: spawned processes, each at one end of a pipe."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any, Final, TypeAlias

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey

from anonymix_keystore import SubjectKey
from anonymix_plugin.bulk._sealed import seal_block
from anonymix_plugin.bulk._values import Block, BulkError, Mixer
from anonymix_plugin.bulk._worker import get, put, work
from anonymix_plugin.images import ImageFormat
from anonymix_plugin.options import MixerOptions

_MOST_FAILED_STARTS: Final = 3
_LOADING: Final = 600.0  # seconds that loading weights may take
_POLL: Final = 1.0
_LAST_WORD: Final = 2.0  # seconds that a worker has to end by itself


Secrets: TypeAlias = tuple[Sequence[tuple[str | None, SubjectKey]], Mapping[int, Sequence[bytes]]]
"""Keys, each with the subject it was asked for by, and photos by place."""


@dataclass(eq=False)
class Task:
    """Rows of a block for one worker.

    Attributes:
        block: The block.
        places: Places of the rows in the block.
        tries: How many workers died while they had this one row alone.
    """

    block: Block
    places: list[int]
    tries: int = 0


@dataclass(eq=False)
class Hand:
    """A worker as the driver sees it."""

    process: SpawnProcess
    connection: Connection
    public: X25519PublicKey | None = None
    task: Task | None = None
    heard: float = field(default_factory=time.monotonic)


@dataclass(frozen=True)
class Said:
    """A message about one row of a worker's task."""

    task: Task
    place: int
    told: dict[str, Any]
    image: bytes


@dataclass(frozen=True)
class Died:
    """A worker is gone, and what it had not done of its task."""

    task: Task
    alone: bool


class Workers:
    """Spawned processes that are replaced when they die.

    Args:
        count: How many.
        options: What their mixers are to be like.
        patience: Seconds for one photo; a worker that is silent for longer is ended.
        ready: Called with what each new worker's mixer is; what it raises ends the job.
    """

    def __init__(self, count: int, options: MixerOptions, patience: float, ready: Callable[[Mixer], None]) -> None:
        self._count, self._options, self._patience, self._ready = count, options, patience, ready
        self._spawn = multiprocessing.get_context("spawn")
        self._hands: list[Hand] = []
        self._failed_starts = 0

    def fill(self) -> None:
        """Start workers until there are as many as there should be."""
        while len(self._hands) < self._count:
            mine, theirs = self._spawn.Pipe()
            process = self._spawn.Process(target=work, args=(theirs, self._options), daemon=True)
            process.start()
            theirs.close()  # or its end would never be seen
            self._hands.append(Hand(process, mine))

    @property
    def idle(self) -> list[Hand]:
        """Those that can take a task."""
        return [hand for hand in self._hands if hand.public is not None and hand.task is None]

    @property
    def all_ready(self) -> bool:
        """Whether every worker has loaded its weights."""
        return all(hand.public is not None for hand in self._hands)

    @property
    def busy(self) -> bool:
        """Whether any has a task."""
        return any(hand.task is not None for hand in self._hands)

    @property
    def processes(self) -> list[int]:
        """Their process ids."""
        return [hand.process.pid or 0 for hand in self._hands]

    def give(self, hand: Hand, task: Task, secrets: Secrets, format_: ImageFormat) -> None:
        """Hand a task to an idle worker, with the secrets of its rows sealed for it."""
        if hand.public is None:
            raise RuntimeError("the worker is not ready")
        rows = [(task.block.rows[place], place) for place in task.places]
        told = [[place, str(row.source), row.subject, row.scope] for row, place in rows]
        hand.task, hand.heard = task, time.monotonic()
        with suppress(OSError):  # it died just now, which is seen when it is listened to
            put(hand.connection, {"rows": told, "format": format_}, seal_block(*secrets, hand.public))

    def events(self) -> Iterator[Said | Died]:
        """What happened, once something has or a second has passed.

        Raises:
            BulkError: Workers can't be started.
        """
        by_connection = {hand.connection: hand for hand in self._hands}
        for connection in wait(list(by_connection), _POLL):
            hand = by_connection[connection]  # type: ignore[index]
            try:
                told, body = get(hand.connection)
            except (EOFError, OSError):
                yield from self._gone(hand)
                continue
            hand.heard = time.monotonic()
            if hand.task is None:
                self._started(hand, told, body)
            else:
                task, place = hand.task, told.pop("place")
                task.places.remove(place)
                if not task.places:
                    hand.task = None
                yield Said(task, place, told, body)
        for hand in list(self._hands):
            waiting = hand.task is not None or hand.public is None
            patience = self._patience if hand.task is not None else max(self._patience, _LOADING)
            if waiting and time.monotonic() - hand.heard > patience:
                hand.process.kill()
                yield from self._gone(hand)

    def _started(self, hand: Hand, told: dict[str, Any], body: bytes) -> None:
        if (fault := told.get("fault")) is not None:
            error = BulkError(fault["what"], where=fault["where"], fix=fault["fix"])
            error.exit_code = told["exit_code"]
            raise error
        self._ready(Mixer(**told))
        hand.public = X25519PublicKey.from_public_bytes(body)
        self._failed_starts = 0

    def _gone(self, hand: Hand) -> Iterator[Died]:
        self._hands.remove(hand)
        hand.connection.close()
        hand.process.join(_LAST_WORD)
        if hand.public is None:
            self._failed_starts += 1
            if self._failed_starts >= _MOST_FAILED_STARTS:
                raise BulkError("workers die while they load the weights", fix="take fewer: --workers 1")
        self.fill()
        if hand.task is not None:
            yield Died(hand.task, alone=len(hand.task.places) == 1)

    def close(self) -> None:
        """End all of them."""
        for hand in self._hands:
            hand.connection.close()
            hand.process.terminate()
        for hand in self._hands:
            hand.process.join(_LAST_WORD)
            if hand.process.is_alive():
                hand.process.kill()
                hand.process.join()
        self._hands.clear()
