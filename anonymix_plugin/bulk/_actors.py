"""The workers of a bulk job on a Ray cluster: actors, each with a mixer of its own."""

from __future__ import annotations

import math
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from anonymix_keystore import KeystoreError
from anonymix_plugin.bulk._pool import Hand, Message, Pool
from anonymix_plugin.bulk._values import BulkError, Fault, Mixer
from anonymix_plugin.bulk._worker import SOMETHING_BROKE, Worker
from anonymix_plugin.errors import AnonymixError, naming_extras
from anonymix_plugin.images import ImageFormat
from anonymix_plugin.options import MixerOptions
from anonymix_plugin.pool import CORES

_LONGEST_SILENCE: Final = 60.0
_REACHING: Final = 10.0
_MOST_STARTS: Final = 3
_LOOKS: Final = 2.0  # seconds between two looks at the head, and that one may take
_HEAD_SILENCE: Final = 30.0  # after 60 Ray ends the process of the driver itself


@dataclass(frozen=True)
class Cluster:
    """A Ray cluster, and what each worker gets of it.

    Attributes:
        address: "local" starts one on this machine, for this job alone; otherwise what `ray.init` takes: "auto",
            "HOST:PORT".
        cpus: CPUs of a worker.
        gpus: GPUs of a worker.
    """

    address: str = "local"
    cpus: float = 1.0
    gpus: float = 0.0


class Actor:
    """A worker as an actor. Nothing that it is called with is in clear, and no error leaves it.

    Args:
        make: Makes the worker.
        options: What its mixer is to be like.
    """

    def __init__(self, make: Callable[[MixerOptions], Worker], options: MixerOptions) -> None:
        self._worker: Worker | None = None
        self._fault: dict[str, Any] = {}
        try:
            self._worker = make(options)
        except (AnonymixError, KeystoreError) as error:
            self._fault = {"fault": vars(Fault.of(error)), "exit_code": getattr(error, "exit_code", 1)}

    def ready(self) -> Message:
        """The first message."""
        if self._worker is None:
            return self._fault, b""
        return {**self._worker.ready, "pid": os.getpid()}, self._worker.keys.public

    def results(self, format_: ImageFormat, sealed: bytes) -> Iterator[Message]:
        """The messages about a task, one by one."""
        try:
            if self._worker is not None:
                yield from self._worker.results(format_, sealed)
        except Exception:  # noqa: BLE001 - Ray would write it into logs, and it could quote a photo
            os._exit(SOMETHING_BROKE)


@dataclass(eq=False)
class _Remote(Hand):
    actor: Any
    call: Any


class Actors(Pool[_Remote]):
    """Actors of a Ray cluster.

    Args:
        count: As for `Pool`.
        make: Makes a worker in its process.
        options: What their mixers are to be like.
        patience: As for `Pool`.
        ready: As for `Pool`.
        cluster: Where they run.

    Raises:
        MissingPackageError: Ray is not installed.
        BulkError: There is no such cluster, or it has no place for as many workers.
    """

    def __init__(
        self,
        count: int,
        make: Callable[[MixerOptions], Worker],
        options: MixerOptions,
        patience: float,
        ready: Callable[[Mixer], None],
        cluster: Cluster,
    ) -> None:
        super().__init__(count, patience, ready)
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would tell its maker of each job
        with naming_extras("ray"):
            import ray
        self._ray, self._told, self._cluster = ray, (make, options), cluster
        self._mine = not ray.is_initialized()
        if self._mine:
            self._connect()
        host, _, port = ray.get_runtime_context().gcs_address.rpartition(":")
        self._head = (host.strip("[]"), int(port))
        self._looked = self._seen = time.monotonic()
        try:
            self._check_room()
        except BaseException:
            self.close()
            raise

    def _connect(self) -> None:
        where = self._cluster.address
        host, _, port = where.rpartition(":")
        before = signal.getsignal(signal.SIGTERM)
        try:
            if host and port.isdecimal() and "/" not in host:  # Ray itself tries for minutes
                socket.create_connection((host.strip("[]"), int(port)), _REACHING).close()
            self._reach(where)
        except Exception as error:  # noqa: BLE001 - Ray raises what it likes
            what = f"Ray can't be reached or started: {type(error).__name__}"
            raise BulkError(what, where=where, fix="start it as docs/scale.md says; or --ray local") from None
        finally:
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, before)  # Ray puts its own in its place

    def _reach(self, where: str) -> None:
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
        if where != "local":
            self._ray.init(where, **quiet)
            return
        # On loopback alone; the host's own settings and clusters have no say.
        os.environ.pop("RAY_ADDRESS", None)
        cpus, gpus = CORES, math.ceil(self._cluster.gpus * self._count)
        here: dict[str, Any] = {"include_dashboard": False, "_node_ip_address": "127.0.0.1"}
        for attempt in range(_MOST_STARTS):
            try:
                self._ray.init("local", num_cpus=cpus, num_gpus=gpus or None, **here, **quiet)
            except Exception:
                self._ray.shutdown()
                if attempt + 1 == _MOST_STARTS:  # on a machine with much to do, its 30 seconds may be too few
                    raise
            else:
                return

    def _check_room(self) -> None:
        """See that there is a place for each worker: one that waits for a place would wait for good."""
        asked = {"CPU": self._cluster.cpus, "GPU": self._cluster.gpus}
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        places = sum(
            min(int(node.get(kind, 0.0) // each) for kind, each in asked.items() if each) if any(asked.values()) else 0
            for node in nodes
        )
        if places < self._count:
            each = " and ".join(f"{number:g} {kind}s" for kind, number in asked.items() if number)
            raise BulkError(
                f"{self._count} workers of {each} each are asked for, and {len(nodes)} machines have room for {places}",
                where=self._cluster.address,
                fix=f"give --workers {places}" if places else "give fewer --cpus or --gpus, or add machines",
            )

    def _start(self) -> _Remote:
        while not self._head_is_there():
            time.sleep(_LOOKS)
        shape: dict[str, Any] = {"num_cpus": self._cluster.cpus, "num_gpus": self._cluster.gpus, "max_restarts": 0}
        actor = self._ray.remote(Actor).options(**shape).remote(*self._told)
        return _Remote(actor, actor.ready.remote())

    def _send(self, hand: _Remote, format_: ImageFormat, sealed: bytes) -> None:
        hand.call = hand.actor.results.options(num_returns="streaming").remote(format_, sealed)

    def _head_is_there(self, *, every: float = 0.0) -> bool:
        """Whether the head answers, looked at anew if some seconds have passed since.

        Workers go on without it for a while, but Ray ends this process, without a word of ours, after a minute; and
        whatever it is asked of the head in that time it waits for.

        Raises:
            BulkError: It has been silent for too long.
        """
        if time.monotonic() - self._looked < every:
            return self._seen == self._looked
        try:
            socket.create_connection(self._head, _LOOKS).close()
            self._seen = self._looked = time.monotonic()
        except OSError:
            self._looked = time.monotonic()
            if self._looked - self._seen > _HEAD_SILENCE:
                raise BulkError(
                    "the head of the Ray cluster can't be reached any more",
                    where=":".join(map(str, self._head)),
                    fix="the same command goes on: start the cluster anew, or leave --ray out",
                ) from None
        return self._seen == self._looked

    def _heard(self, seconds: float) -> Iterator[tuple[_Remote, Message | None]]:
        self._head_is_there(every=_LOOKS)
        by_call = {hand.call: hand for hand in self._hands if hand.call is not None}
        if not by_call:
            time.sleep(seconds)
            return
        for call in self._ray.wait(list(by_call), num_returns=1, timeout=seconds)[0]:
            hand = by_call[call]
            try:
                if hand.public is None:
                    message, hand.call = self._ray.get(call), None
                else:
                    message = self._ray.get(next(call), timeout=_LONGEST_SILENCE)
                    if hand.task is not None and len(hand.task.places) == 1:
                        hand.call = None  # the last one
            except (self._ray.exceptions.RayError, StopIteration):
                yield hand, None
            else:
                yield hand, message

    def _end(self, hand: _Remote) -> None:
        with suppress(Exception):  # it may be gone with its machine, or with the cluster
            if self._head_is_there():
                self._ray.kill(hand.actor)

    def close(self) -> None:
        """End all of them, and the cluster if it was started for them."""
        for hand in self._hands:
            self._end(hand)
        self._hands.clear()
        if self._mine:
            self._ray.shutdown()
