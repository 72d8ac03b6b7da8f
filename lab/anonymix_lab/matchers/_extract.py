"""Photos and keys to embeddings, in several threads, through the cache."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
import numpy.typing as npt

from anonymix_lab.data import Sample
from anonymix_lab.matchers._matchers import Panel
from anonymix_lab.matchers._store import NO_FACE, EmbeddingStore, Entry
from anonymix_lab.protections import KeyName, Protection
from anonymix_plugin.errors import PhotoError
from anonymix_plugin.faces import FaceChoice
from anonymix_plugin.images import decode_photo
from anonymix_plugin.values import Floats, Photo

_FLUSH_COUNT = 512
_FLUSH_SECONDS = 30.0

Progress = Callable[[str, int, int], None]
"""Called with the name of a step, how many are done, and how many there are."""


@dataclass(frozen=True)
class Request:
    """A picture that is wanted: a photo as it is (no key), or protected under a key."""

    sample: Sample
    key: KeyName | None = None


@dataclass(frozen=True, eq=False)
class Table:
    """Answers about pictures, one row for each request.

    Attributes:
        vectors: Name of the matcher (or "traits") -> (n, dim) float32, NaN where there is none.
        reasons: Why there is no answer, by name: (n,) texts, "" where there is one.
        seconds: (n,) float64, what making each picture took.
    """

    vectors: Mapping[str, Floats]
    reasons: Mapping[str, npt.NDArray[np.str_]]
    seconds: npt.NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.seconds)

    def found(self, name: str) -> npt.NDArray[np.bool_]:
        """(n,) bool, where there is an answer."""
        return ~np.isnan(self.vectors[name][:, 0])

    def picked(self, which: npt.NDArray[np.generic]) -> Table:
        """Those rows that an index or a mask picks out."""
        return Table(
            {name: rows[which] for name, rows in self.vectors.items()},
            {name: rows[which] for name, rows in self.reasons.items()},
            self.seconds[which],
        )

    def failures(self) -> dict[str, int]:
        """How many pictures at least one matcher had no answer for, by reason."""
        first: dict[int, str] = {}
        for rows in self.reasons.values():
            for i in np.flatnonzero(rows != ""):
                first.setdefault(int(i), str(rows[i]))
        counts: dict[str, int] = {}
        for reason in first.values():
            counts[reason] = counts.get(reason, 0) + 1
        return counts


@dataclass
class Extractor:
    """Gets answers about pictures, from the cache or by making them.

    Attributes:
        panel: Whom to ask.
        store: The cache.
        workers: Threads; the memory is bounded by as many pictures.
        choice: Which of several faces is meant on an original photo.
        progress: Told how far it is.
        made: Pictures that were made in this run, by kind; the rest came from the cache.
    """

    panel: Panel
    store: EmbeddingStore
    workers: int = 2
    choice: FaceChoice = "largest"
    progress: Progress = lambda *_: None
    made: dict[str, int] = field(default_factory=dict)

    def table(self, requests: Sequence[Request], protection: Protection | None, step: str) -> Table:
        """Get answers of all matchers, and traits.

        Args:
            requests: Pictures; the same one may be asked for several times.
            protection: Makes the pictures; None for photos as they are.
            step: What progress calls it.

        Raises:
            OutputError: The cache can't be written.
            AnonymixError: Anything but a photo that can't be protected: weights, keys.
        """
        names = tuple(self.panel.dims)
        spaces = {name: self._space(name, protection) for name in names}
        wanted: dict[str, tuple[Request, tuple[str, ...]]] = {}
        for request in requests:
            picture = picture_name(request, protection)
            if picture not in wanted:
                missing = tuple(name for name in names if self.store.get(spaces[name], picture) is None)
                if missing:
                    wanted[picture] = (request, missing)
        self._make(wanted, protection, spaces, step)
        entries = {
            name: [self.store.get(spaces[name], picture_name(request, protection)) for request in requests]
            for name in names
        }
        vectors, reasons = {}, {}
        for name, dim in self.panel.dims.items():
            matrix = np.full((len(requests), dim), np.nan, np.float32)
            for row, entry in zip(matrix, entries[name], strict=True):
                if entry is not None and entry.vector is not None:
                    row[:] = entry.vector
            vectors[name] = matrix
            reasons[name] = np.array(["" if entry is None else entry.reason for entry in entries[name]], np.str_)
        first = next(iter(entries.values()))
        seconds = np.array([0.0 if entry is None else entry.seconds for entry in first])
        return Table(vectors, reasons, seconds)

    def _make(
        self,
        wanted: Mapping[str, tuple[Request, tuple[str, ...]]],
        protection: Protection | None,
        spaces: Mapping[str, str],
        step: str,
    ) -> None:
        if not wanted:
            return
        self.progress(step, 0, len(wanted))
        queue = iter(wanted.items())
        flushed, done = time.monotonic(), 0
        pool = ThreadPoolExecutor(self.workers)
        running: dict[Future[dict[str, Entry]], str] = {}

        def feed(entries: Iterable[tuple[str, tuple[Request, tuple[str, ...]]]]) -> None:
            for picture, (request, names) in entries:
                running[pool.submit(self._look, request, protection, names)] = picture

        try:
            feed(islice(queue, self.workers + 1))
            while running:
                finished, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in finished:
                    picture = running.pop(future)
                    for name, entry in future.result().items():
                        self.store.put(spaces[name], picture, entry)
                    done += 1
                    self.progress(step, done, len(wanted))
                feed(islice(queue, len(finished)))
                if self.store.waiting >= _FLUSH_COUNT or time.monotonic() - flushed > _FLUSH_SECONDS:
                    self.store.flush()
                    flushed = time.monotonic()
        finally:
            # An interrupt, too, leaves what was finished on the disk.
            pool.shutdown(wait=True, cancel_futures=True)
            for future, picture in running.items():
                if not future.cancelled() and future.exception() is None:
                    for name, entry in future.result().items():
                        self.store.put(spaces[name], picture, entry)
            self.store.flush()
        kind = protection.name if protection is not None else "original"
        self.made[kind] = self.made.get(kind, 0) + len(wanted)

    def _look(self, request: Request, protection: Protection | None, names: tuple[str, ...]) -> dict[str, Entry]:
        started = time.perf_counter()
        try:
            if request.key is None or protection is None:
                photo, seconds = decode_photo(request.sample.source), 0.0
            else:
                pixels = protection.protect(request.sample.source, request.key)
                photo = Photo(pixels, f"{protection.name} of {request.sample.photo.name}")
                seconds = time.perf_counter() - started
            answers = self.panel.look(photo, names, "largest" if seconds else self.choice)
        except PhotoError as error:
            return {name: Entry(None, error.code) for name in names}
        return {name: Entry(vector, "" if vector is not None else NO_FACE, seconds) for name, vector in answers.items()}

    def _space(self, name: str, protection: Protection | None) -> str:
        # The rule of `faces.meant_face`; what was cached under the one before it is not used.
        choice = "central, by size and place" if self.choice == "central" else self.choice
        made = f"original {choice}" if protection is None else f"protected {protection.fingerprint}"
        return f"{made} / {self.panel.identity(name)}"


def picture_name(request: Request, protection: Protection | None) -> str:
    """Name of a picture in the cache: the photo's hash and, where a key has a say, the key's name."""
    if request.key is None or protection is None:
        return request.sample.sha256
    key = request.key.canonical() if protection.keyed else "no key"
    return f"{request.sample.sha256} {hashlib.sha256(key.encode()).hexdigest()[:32]}"
