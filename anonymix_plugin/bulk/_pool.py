"""The workers of a bulk job as its driver sees them: what each has in hand, and what becomes of it when one dies."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeAlias, TypeVar

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey

from anonymix_plugin.bulk._sealed import Asked, Secrets, seal_block
from anonymix_plugin.bulk._values import Block, BulkError, Mixer, Row
from anonymix_plugin.images import ImageFormat

_MOST_FAILED_STARTS: Final = 3
_LOADING: Final = 600.0  # seconds that finding a place and loading weights may take
_POLL: Final = 1.0

Message: TypeAlias = tuple[dict[str, Any], bytes]


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

    @property
    def rows(self) -> list[tuple[int, Row]]:
        """Its rows, with their places."""
        return [(place, self.block.rows[place]) for place in self.places]


@dataclass(eq=False, kw_only=True)
class Hand:
    """A worker as the driver sees it."""

    pid: int = 0
    public: X25519PublicKey | None = None
    task: Task | None = None
    heard: float = field(default_factory=time.monotonic)


H = TypeVar("H", bound=Hand)


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


class Pool(ABC, Generic[H]):
    """Workers that are replaced when they die.

    Args:
        count: How many.
        patience: Seconds for one photo; a worker that is silent for longer is ended.
        ready: Called with what each new worker's mixer is; what it raises ends the job.
    """

    def __init__(self, count: int, patience: float, ready: Callable[[Mixer], None]) -> None:
        self._count, self._patience, self._ready = count, patience, ready
        self._hands: list[H] = []
        self._failed_starts = 0

    @abstractmethod
    def _start(self) -> H:
        """Start a worker. Its first message tells what its mixer is, and its public key."""

    @abstractmethod
    def _send(self, hand: H, format_: ImageFormat, sealed: bytes) -> None:
        """Hand over a task. That the worker is gone is seen when it is listened to."""

    @abstractmethod
    def _heard(self, seconds: float) -> Iterator[tuple[H, Message | None]]:
        """What workers say, once one does or the time is over; None where one is gone."""

    @abstractmethod
    def _end(self, hand: H) -> None:
        """End a worker, which may be gone already."""

    @abstractmethod
    def close(self) -> None:
        """End all of them."""

    def fill(self) -> None:
        """Start workers until there are as many as there should be."""
        while len(self._hands) < self._count:
            self._hands.append(self._start())

    @property
    def idle(self) -> list[H]:
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
        """Their process ids, on whatever machine they are; 0 for those that are starting elsewhere."""
        return [hand.pid for hand in self._hands]

    def give(self, hand: H, task: Task, told: Sequence[Asked], secrets: Secrets, format_: ImageFormat) -> None:
        """Hand a task to an idle worker, all of it sealed for it."""
        if hand.public is None:
            raise RuntimeError("the worker is not ready")
        hand.task, hand.heard = task, time.monotonic()
        self._send(hand, format_, seal_block(told, secrets, hand.public))

    def events(self) -> Iterator[Said | Died]:
        """What happened, once something has or a second has passed.

        Raises:
            BulkError: Workers can't be started.
        """
        for hand, message in self._heard(_POLL):
            if message is None:
                yield from self._gone(hand)
                continue
            told, body = message
            hand.heard = time.monotonic()
            if hand.task is None:
                self._started(hand, told, body)
            else:
                task, place = hand.task, told.pop("place")
                task.places.remove(place)
                if not task.places:
                    hand.task = None
                yield Said(task, place, told, body)
        at_work = any(hand.public is not None for hand in self._hands)
        for hand in list(self._hands):
            silent = time.monotonic() - hand.heard
            if hand.public is None:  # while others work, one may wait for a place
                late = not at_work and silent > max(self._patience, _LOADING)
            else:
                late = hand.task is not None and silent > self._patience
            if late:
                yield from self._gone(hand)

    def _started(self, hand: H, told: dict[str, Any], body: bytes) -> None:
        if (fault := told.get("fault")) is not None:
            error = BulkError(fault["what"], where=fault["where"], fix=fault["fix"])
            error.exit_code = told["exit_code"]
            raise error
        hand.pid = told.pop("pid")
        self._ready(Mixer(**told))
        hand.public = X25519PublicKey.from_public_bytes(body)
        self._failed_starts = 0

    def _gone(self, hand: H) -> Iterator[Died]:
        self._hands.remove(hand)
        self._end(hand)
        if hand.public is None:
            self._failed_starts += 1
            if self._failed_starts >= _MOST_FAILED_STARTS:
                raise BulkError("workers die while they load the weights", fix="take fewer: --workers 1")
        self.fill()
        if hand.task is not None:
            yield Died(hand.task, alone=len(hand.task.places) == 1)
