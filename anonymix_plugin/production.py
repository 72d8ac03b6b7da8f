"""From photo and key to cancelable face: reading, mixing, drawing, one by one or as a stream."""

from __future__ import annotations

import collections.abc
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TypeVar, cast

import cv2
import numpy as np

from anonymix_keystore import KeystoreError, SubjectKey
from anonymix_plugin.assembly import Parts
from anonymix_plugin.errors import AnonymixError, UsageError
from anonymix_plugin.first_keys import Attempt, attempt, current_attempt
from anonymix_plugin.generator import pictures_of
from anonymix_plugin.guiding import Guide
from anonymix_plugin.images import ChannelOrder, PhotoSource
from anonymix_plugin.keys import KeyChoice, KeySource, as_text
from anonymix_plugin.mixer.key_schedule import KeySchedule
from anonymix_plugin.mixer.mean_code import mean_code
from anonymix_plugin.pool import CORES
from anonymix_plugin.reader import Stopwatch
from anonymix_plugin.streaming import in_two_stages
from anonymix_plugin.values import CancelableFace, Face, Floats, Pixels, ReadFace, Timings
from anonymix_plugin.words import shown


@dataclass(frozen=True, eq=False)
class PhotoRequest:
    """One photo of many, and whose it is; `Anonymixer.protect` says what the fields mean."""

    image: PhotoSource = field(repr=False)
    subject: str | None = field(default=None, repr=False)
    scope: str = "default"
    version: int | None = None
    enrol: bool = False
    channel_order: ChannelOrder = "rgb"

    @property
    def source(self) -> str:
        """The photo in words: a path, or what else it is (`words.shown`)."""
        return shown(self.image)


Item = TypeVar("Item")


def many(items: Iterable[Item], name: str) -> Iterable[Item]:
    """What was given as a row of photos or requests, if it is one.

    A text, bytes, an array and a file can be gone through as well: by letters, by numbers, by rows, by lines.

    Raises:
        UsageError: It is one photo, or nothing that can be gone through.
    """
    one = isinstance(items, str | bytes | bytearray | memoryview | os.PathLike | PhotoRequest)
    picture = isinstance(items, np.ndarray) and (items.ndim == 2 or items.shape[2:] in {(1,), (3,), (4,)})
    if one or picture or callable(getattr(items, "read", None)):
        raise UsageError("one photo is given where many are asked for", where=name, fix="give a list of them")
    if not (hasattr(items, "__iter__") or hasattr(items, "__getitem__")):
        what = f"a {type(items).__name__} can't be gone through"
        raise UsageError(what, where=name, fix="give a list, or another iterable")
    return items


@dataclass(frozen=True, eq=False)
class Outcome:
    """What became of one photo of many.

    Attributes:
        source: The photo in words: a path, or what else it is (`words.shown`).
        faces: Its cancelable faces; empty after an error.
        error: What went wrong, or None.
    """

    source: str
    faces: tuple[CancelableFace, ...]
    error: AnonymixError | KeystoreError | None


class Production:
    """Makes cancelable faces of photos.

    Args:
        parts: What the mixer is made of.
        keys: Where the keys are.
    """

    def __init__(self, parts: Parts, keys: KeySource) -> None:
        self._parts, self._keys = parts, keys
        self._guide = None if parts.guide is None else Guide(parts.guide, keys)

    @property
    def engine(self) -> str:
        """Which engine draws."""
        return str(getattr(self._parts.generator, "engine", type(self._parts.generator).__name__))

    def outcomes(
        self, requests: Iterable[PhotoRequest], *, ahead: int
    ) -> collections.abc.Generator[Outcome, None, None]:
        """What becomes of each request, in order; `Anonymixer.protect_stream` says how."""
        batch = int(getattr(self._parts.generator, "batch", 1))
        if batch == 1:
            yield from in_two_stages(requests, self._read, self._drawn, ahead=ahead)
            return
        # A generator that draws many at once (a GPU) is fed by several readers, group after group.
        readers = max(1, min(batch, CORES - 1))
        with ThreadPoolExecutor(readers, thread_name_prefix="anonymix-reader") as pool:

            def read_all(group: tuple[PhotoRequest, ...]) -> list[_Waiting | Outcome]:
                return list(pool.map(self._read, group))

            groups = in_two_stages(_grouped(requests, batch), read_all, self._drawn_together, ahead=1)
            with closing(groups):
                for outcomes in groups:
                    yield from outcomes

    def _read(self, request: PhotoRequest) -> _Waiting | Outcome:
        # What is about this one photo: its values, its key, the photo itself. All else ends the stream.
        if not isinstance(request, PhotoRequest):
            what = f"a {type(request).__name__} is no PhotoRequest"
            return Outcome(shown(request), (), UsageError(what, fix="give PhotoRequest(image, subject)"))
        try:
            whose = KeyChoice(request.subject, request.scope, request.version, request.enrol)
            return self.waiting(request.image, whose, request.channel_order)
        except (AnonymixError, KeystoreError) as error:
            return Outcome(request.source, (), error)

    def waiting(self, image: PhotoSource, whose: KeyChoice, order: ChannelOrder) -> _Waiting:
        """Read a photo. Its key is asked for first, so that without one nothing is looked at.

        A first key is issued when the face is drawn: a photo that can't be used leaves no subject behind.
        """
        key = whose.checked(self._keys)
        watch, known = Stopwatch(), cast("ChannelOrder", as_text(order, "channel_order"))
        photo = self._parts.reader.decode(image, watch, known)
        return _Waiting(photo.source, whose, key, self._parts.reader.read(photo, watch), watch)

    def _drawn(self, item: _Waiting | Outcome) -> Outcome:
        if isinstance(item, Outcome):
            return item
        try:
            with attempt():
                return Outcome(item.source, tuple(self.faces_of(item)), None)
        except (AnonymixError, KeystoreError) as error:
            return Outcome(item.source, (), error)

    def _drawn_together(self, group: Sequence[_Waiting | Outcome]) -> list[Outcome]:
        """Draw the faces of all photos that could be read in one call of the generator."""
        mixed = [self._mixed_or_not(item) if isinstance(item, _Waiting) else item for item in group]
        codes = [code.w_plus for item in mixed if isinstance(item, _Mixed) for code in item.codes]
        try:
            pictures, seconds = self._pictures(codes)
        except BaseException as error:
            for item in mixed:
                if isinstance(item, _Mixed):
                    item.attempt.end(error)
            raise
        outcomes = []
        for item in mixed:
            if isinstance(item, _Mixed):
                mine, pictures = pictures[: len(item.codes)], pictures[len(item.codes) :]
                outcomes.append(self._outcome(item, mine, seconds))
            else:
                outcomes.append(item)
        return outcomes

    def _mixed_or_not(self, item: _Waiting) -> _Mixed | Outcome:
        made = Attempt()
        try:
            with made.at_work():
                return _Mixed(item, [self._mixed(face, item, item.watch) for face in item.faces], made)
        except BaseException as error:
            made.end(error)
            if isinstance(error, AnonymixError | KeystoreError):
                return Outcome(item.source, (), error)
            raise

    def _outcome(self, item: _Mixed, pictures: Floats, seconds: float) -> Outcome:
        waiting = item.waiting
        try:
            faces = [
                self._face(read, code, picture, waiting.watch, seconds)
                for read, code, picture in zip(waiting.faces, item.codes, pictures, strict=True)
            ]
        except AnonymixError as error:
            item.attempt.end(error)
            return Outcome(waiting.source, (), error)
        item.attempt.end()
        return Outcome(waiting.source, tuple(faces), None)

    def faces_of(self, item: _Waiting) -> Iterator[CancelableFace]:
        """Mix and draw the faces of a photo one by one, each only when it is asked for."""
        for read in item.faces:
            yield self._drawn_alone(read, item, item.watch.copy())

    def _drawn_alone(self, read: ReadFace, item: _Waiting, watch: Stopwatch, *, again: bool = False) -> CancelableFace:
        code = self._mixed(read, item, watch, again=again)
        pictures, seconds = self._pictures([code.w_plus])
        return self._face(read, code, pictures[0], watch, seconds)

    def enrolled(self, images: Sequence[PhotoSource], whose: KeyChoice, order: ChannelOrder) -> CancelableFace:
        """The face of an enrolment from several photos: drawn from the mean of their codes.

        What a policy keeps of a photo, and what the refine method compares with, is the best photo's. Where
        the scope keeps references, the mean becomes the subject's reference. One photo alone replaces none, in a
        list or not.
        """
        reads, watch = [], Stopwatch()
        for image in images:
            item = self.waiting(image, whose, order)
            reads.append(_without_photo(item.faces[0]))
            for stage, seconds in item.watch.seconds.items():
                watch.seconds[stage] = watch.seconds.get(stage, 0.0) + seconds
        mean = mean_code([read.person for read in reads])
        kept = [read for number, read in enumerate(reads) if number not in mean.left_out]
        best = max(kept, key=lambda read: read.quality)
        face = self._drawn_alone(replace(best, person=mean.code), item, watch, again=len(reads) > 1)
        return replace(face, photos=len(kept), left_out=mean.left_out)

    def _mixed(self, read: ReadFace, item: _Waiting, watch: Stopwatch, *, again: bool = False) -> _Code:
        """The code of a face under the key that is valid when its drawing begins, and that key.

        A key that is revoked while photos wait, or while one is optimised, makes no other face than the one
        that is in drawing. A lookup costs microseconds, a face a tenth of a second.
        """
        key = item.key.look_up(self._keys)
        if item.whose.enrol and key.subject and (under_way := current_attempt()) is not None:
            under_way.join(self._keys, key.subject, key.scope)
        while True:
            turned = self._turned(read, key, watch, enrol=item.whose.enrol, again=again)
            with watch.stage("mix"):
                code = self._parts.method.code(turned or read, KeySchedule(key.material), key.material)
            now = item.whose.known.look_up(self._keys)
            if now == key:
                return _Code(key, code, turned is not None)
            key = now  # rotated meanwhile

    def _turned(
        self, read: ReadFace, key: SubjectKey, watch: Stopwatch, *, enrol: bool, again: bool
    ) -> ReadFace | None:
        """The face with its code turned by the subject's reference; None where there is none."""
        if self._guide is None:
            return None
        started = time.perf_counter()
        person = self._guide.turned(read.person, key, enrol=enrol, again=again)
        if person is None:
            return None
        watch.seconds["guide"] = watch.seconds.get("guide", 0.0) + time.perf_counter() - started
        return replace(read, person=person)

    def _pictures(self, codes: Sequence[Floats]) -> tuple[Floats, float]:
        """Draw all of them; returns pictures and seconds for each."""
        if not codes:
            return np.zeros((0, 3, self._parts.size, self._parts.size), np.float32), 0.0
        started = time.perf_counter()
        pictures = pictures_of(self._parts.generator, np.stack(codes), self._parts.size)
        return pictures, (time.perf_counter() - started) / len(codes)

    def _face(self, read: ReadFace, code: _Code, picture: Floats, watch: Stopwatch, drawing: float) -> CancelableFace:
        guide, key = self._parts.guide, code.key
        started = time.perf_counter()
        pixels = _to_pixels(picture)
        drawing += time.perf_counter() - started
        seconds = {**watch.seconds, "generate": drawing}
        seconds["total"] = sum(seconds.values())
        return CancelableFace(
            pixels=pixels,
            box=_stored(read.face),
            subject=key.subject,
            scope=key.scope,
            key_version=key.version,
            fingerprint=guide.fingerprint if code.guided and guide else self._parts.fingerprint,
            method=self._parts.method.name,
            engine=self.engine,
            quality=read.quality,
            guided=code.guided,
            source=read.face.photo.source,
            timings=Timings(seconds),
        )


def _stored(face: Face) -> tuple[float, float, float, float]:
    """The box of a face in pixels of the source, even if that was decoded smaller."""
    x0, y0, x1, y1 = (value * face.photo.shrunk for value in face.box)
    return x0, y0, x1, y1


@dataclass(frozen=True, eq=False, repr=False)
class _Waiting:
    """A photo that was read and waits for its faces to be drawn."""

    source: str
    whose: KeyChoice
    key: KeyChoice  # the same without `enrol` where a key was there when the photo was read
    faces: list[ReadFace]
    watch: Stopwatch


@dataclass(frozen=True, eq=False, repr=False)
class _Mixed:
    """A photo whose faces are mixed, and are drawn together with others'."""

    waiting: _Waiting
    codes: list[_Code]
    attempt: Attempt


@dataclass(frozen=True, eq=False, repr=False)
class _Code:
    """A face's W+ code, the key that it was made under, and whether a reference had a say."""

    key: SubjectKey
    w_plus: Floats
    guided: bool


def _without_photo(read: ReadFace) -> ReadFace:
    """What was read of a face, without the pixels of its photo: several may wait for each other."""
    photo = replace(read.face.photo, pixels=np.zeros((1, 1, 3), np.uint8))
    return replace(read, face=replace(read.face, photo=photo))


def _grouped(requests: Iterable[PhotoRequest], size: int) -> Iterator[tuple[PhotoRequest, ...]]:
    """Groups of `size`, the last one smaller."""
    rest = iter(requests)
    while group := tuple(islice(rest, size)):
        yield group


def _to_pixels(picture: Floats) -> Pixels:
    """Turn (3, S, S) float32 in [-1, 1] into (S, S, 3) uint8; refuse a picture that is no picture."""
    if not np.isfinite(picture).all():
        raise AnonymixError("the generator drew something that is no picture; nothing was made")
    scaled = picture.clip(-1, 1)
    scaled += 1
    scaled *= 127.5
    np.rint(scaled, out=scaled)
    return np.asarray(cv2.merge(list(scaled.astype(np.uint8))), np.uint8)  # four times as fast as transposing
