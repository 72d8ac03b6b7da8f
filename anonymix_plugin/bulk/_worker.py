"""A worker of bulk work: a process with a mixer of its own, which gets rows and keys and gives image files."""

from __future__ import annotations

import io
import json
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import groupby
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

from anonymix_keystore import KeystoreError
from anonymix_plugin.anonymixer import Anonymixer
from anonymix_plugin.bulk._places import PhotoAt, is_address
from anonymix_plugin.bulk._sealed import Asked, BlockKeys
from anonymix_plugin.bulk._values import Fault
from anonymix_plugin.errors import AnonymixError
from anonymix_plugin.images import ImageFormat, PhotoSource, encode_cancelable
from anonymix_plugin.options import MixerOptions
from anonymix_plugin.production import Outcome, PhotoRequest

SOMETHING_BROKE: Final = 70


def put(connection: Connection, head: dict[str, Any], body: bytes = b"") -> None:
    """Send a message: a line of JSON, then bytes. Nothing is pickled."""
    connection.send_bytes(json.dumps(head).encode() + b"\n" + body)


def get(connection: Connection) -> tuple[dict[str, Any], bytes]:
    """The next message.

    Raises:
        EOFError: The other side is gone.
    """
    head, _, body = connection.recv_bytes().partition(b"\n")
    return json.loads(head), body


class _Numbered(io.BytesIO):
    """One of several photos; a face says by this name in which of them it was found."""

    def __init__(self, data: bytes, number: int) -> None:
        super().__init__(data)
        self.name = str(number)


class Worker:
    """Turns the rows of a block into results.

    Args:
        options: What the mixer is to be like.
    """

    def __init__(self, options: MixerOptions) -> None:
        self.keys = BlockKeys()
        self.mixer = Anonymixer(self.keys, options)

    @property
    def ready(self) -> dict[str, str]:
        """What the driver is told once the weights are there."""
        mixer = self.mixer
        told = {"fingerprint": mixer.fingerprint, "guided": mixer.guided_fingerprint, "engine": mixer.engine}
        return {**told, "subspace": mixer.subspace}

    def results(self, format_: ImageFormat, sealed: bytes) -> Iterator[tuple[dict[str, Any], bytes]]:
        """For each row of a block, in order, its result as a message; `sealed` is the bundle of the block."""
        rows, photos = self.keys.take(sealed)
        asked = iter(rows)
        try:
            for several, group in groupby(rows, lambda row: len(photos.get(row[0], ())) > 1):
                for outcome in self._together(group, photos) if several else self._stream(group, photos):
                    told, image = _told(outcome, format_)
                    if several and image:
                        told["photo"] = int(outcome.faces[0].source)
                    place, _, subject, scope, _ = next(asked)
                    if image and (made := self.keys.made(subject, scope)):
                        told["reference"] = made.hex()
                    yield {"place": place, **told}, image
        finally:
            self.keys.forget()
            self.mixer.close()  # what was derived from the keys; the mixer itself stays usable

    def _stream(self, rows: Iterable[Asked], photos: dict[int, list[bytes]]) -> Iterator[Outcome]:
        def requests() -> Iterator[PhotoRequest]:
            for place, source, subject, scope, enrols in rows:
                photo: PhotoSource = PhotoAt(source) if is_address(source) else Path(source)  # type: ignore[assignment]
                if place in photos:
                    photo = photos[place].pop()
                yield PhotoRequest(photo, subject, scope, enrol=enrols)

        return self.mixer.protect_stream(requests())

    def _together(self, rows: Iterable[Asked], photos: dict[int, list[bytes]]) -> Iterator[Outcome]:
        """Rows of several photos, each of which is one enrolment."""
        for place, source, subject, scope, _ in rows:
            images: list[PhotoSource] = [_Numbered(data, n) for n, data in enumerate(photos.pop(place))]
            try:
                face = self.mixer.protect(images, subject=subject, scope=scope, enrol=True)[0]
            except (AnonymixError, KeystoreError) as error:
                yield Outcome(source, (), error)
            else:
                yield Outcome(source, (face,), None)


def _told(outcome: Outcome, format_: ImageFormat) -> tuple[dict[str, Any], bytes]:
    try:
        if outcome.error is not None:
            raise outcome.error
        face = outcome.faces[0]
        image = encode_cancelable(face, format_)
    except (AnonymixError, KeystoreError) as error:
        return {"fault": vars(Fault.of(error))}, b""
    told = {
        "key_version": face.key_version,
        "fingerprint": face.fingerprint,
        "method": face.method,
        "engine": face.engine,
        "quality": face.quality,
        "box": face.box,
    }
    return told, image


def work(connection: Connection, make: Callable[[MixerOptions], Worker], options: MixerOptions) -> None:
    """The life of a worker's process; it ends when the driver does.

    What nobody foresaw ends the process without a word: a traceback could quote a photo.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the driver ends its workers
    try:
        with suppress(EOFError, ConnectionError):
            _serve(connection, make, options)
    except Exception:  # noqa: BLE001 - the driver sees that the process is gone, and takes another
        os._exit(SOMETHING_BROKE)
    os._exit(0)  # without waiting for threads that still read photos for a driver who is gone


def _serve(connection: Connection, make: Callable[[MixerOptions], Worker], options: MixerOptions) -> None:
    try:
        worker = make(options)
    except (AnonymixError, KeystoreError) as error:
        put(connection, {"fault": vars(Fault.of(error)), "exit_code": getattr(error, "exit_code", 1)})
        return
    put(connection, {**worker.ready, "pid": os.getpid()}, worker.keys.public)
    while True:
        task, sealed = get(connection)
        for told, image in worker.results(task["format"], sealed):
            put(connection, told, image)
