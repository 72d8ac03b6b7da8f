"""Doing two things at once to a long row of items: in order, with bounded memory, and stopping cleanly."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from queue import Empty, Full, Queue
from typing import Any, NoReturn, TypeVar

In = TypeVar("In")
Mid = TypeVar("Mid")
Out = TypeVar("Out")


class Stream(Generator[Out, None, None]):
    """Results one after the other; its `close` stops whoever makes them, and so does forgetting it.

    It can't be pickled: whoever works in several processes opens an `Anonymixer` in each.
    """

    def __init__(self, results: Generator[Out, None, None]) -> None:
        self._results = results

    def send(self, value: None) -> Out:
        """Return the next result; as of a generator."""
        return self._results.send(value)

    def throw(self, *error: Any) -> Out:
        """Raise an error where the results are made; as of a generator."""
        return self._results.throw(*error)

    def close(self) -> None:
        """Stop whoever makes the results, and wait until they have."""
        self._results.close()

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a stream can't be pickled or copied: open an Anonymixer in each process")


_POLL_SECONDS = 0.1  # how long a worker may take to notice that nobody wants its items any more


def in_two_stages(
    items: Iterable[In],
    first: Callable[[In], Mid],
    second: Callable[[Mid], Out],
    *,
    ahead: int = 2,
) -> Generator[Out, None, None]:
    """Map items by two functions that run at the same time, each in a thread of its own.

    While `second` works on one item, `first` works on the next and the caller uses the one before.

    - Results come in the order of the items.
    - Between two stations at most `ahead` items wait; whoever is faster then waits too. Nothing is read
      from `items` that nobody will need soon, so that memory does not grow with their number.
    - What `items`, `first` or `second` raise is raised here, in its turn, after the results before it.
      Nothing after it is worked on.
    - If the caller stops (leaves the loop, closes the iterator, is interrupted), the threads finish what
      they are at, drop everything else and end before the iterator is closed.

    Args:
        items: Read by another thread than the caller's.
        first: Run in that thread, too.
        second: Run in a third one.
        ahead: How many items may wait between two stations, at least 1.

    Yields:
        `second(first(item))` for each item. Nothing is started before the first one is asked for.
    """
    pipeline = _Pipeline(max(1, ahead))
    middle, results = pipeline.queue(), pipeline.queue()
    pipeline.start("read", _each(items, first), middle)
    pipeline.start("draw", _each(pipeline.taken(middle), second), results)
    try:
        yield from pipeline.taken(results)
    finally:
        pipeline.stop()


def _each(items: Iterable[Any], function: Callable[[Any], Any]) -> Iterator[Any]:
    for item in items:
        yield function(item)
        del item  # or it would stay in memory while the next one is awaited


class _End:
    """After the last item."""


class _Raised:
    """In the place of an item that could not be made."""

    def __init__(self, error: BaseException) -> None:
        self.error = error


class _Pipeline:
    """Threads, the queues between them, and the wish to stop."""

    def __init__(self, ahead: int) -> None:
        self._ahead = ahead
        self._stopped = threading.Event()
        self._threads: list[threading.Thread] = []
        self._queues: list[Queue[Any]] = []

    def queue(self) -> Queue[Any]:
        """A queue of bounded length."""
        made: Queue[Any] = Queue(self._ahead)
        self._queues.append(made)
        return made

    def start(self, name: str, source: Iterator[Any], target: Queue[Any]) -> None:
        """Let a thread put what a source gives into a queue."""
        thread = threading.Thread(target=self._work, args=(source, target), name=f"anonymix-{name}", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _work(self, source: Iterator[Any], target: Queue[Any]) -> None:
        try:
            for item in source:
                if not self._put(target, item):
                    return
                del item
        except BaseException as error:  # noqa: BLE001 - whatever it is, the caller is told
            self._put(target, _Raised(error))
        else:
            self._put(target, _End())

    def _put(self, target: Queue[Any], item: Any) -> bool:
        """Put an item as soon as there is room; False if nobody wants it any more."""
        while not self._stopped.is_set():
            try:
                target.put(item, timeout=_POLL_SECONDS)
            except Full:
                continue
            return True
        return False

    def taken(self, source: Queue[Any]) -> Iterator[Any]:
        """The items of a queue until its end, or until somebody wants to stop."""
        while not self._stopped.is_set():
            try:
                item = source.get(timeout=_POLL_SECONDS)
            except Empty:
                continue
            if isinstance(item, _End):
                return
            if isinstance(item, _Raised):
                raise item.error
            yield item
            del item

    def stop(self) -> None:
        """Tell everybody to stop, and wait until they have."""
        self._stopped.set()
        for thread in self._threads:
            thread.join()
        for queue in self._queues:
            while not queue.empty():
                queue.get_nowait()
