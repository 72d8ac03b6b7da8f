"""A worker of bulk work: a process with a mixer of its own, which gets rows and keys and gives image files."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

from anonymix_keystore import KeystoreError
from anonymix_plugin.anonymixer import Anonymixer
from anonymix_plugin.bulk._sealed import BlockKeys
from anonymix_plugin.bulk._values import Fault
from anonymix_plugin.errors import AnonymixError
from anonymix_plugin.images import ImageFormat, encode_cancelable
from anonymix_plugin.options import MixerOptions
from anonymix_plugin.production import Outcome, PhotoRequest

_SOMETHING_BROKE: Final = 70


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


class Worker:
    """Turns the rows of a block into results.

    Args:
        options: What the mixer is to be like.
    """

    def __init__(self, options: MixerOptions) -> None:
        self.keys = BlockKeys()
        self.mixer = Anonymixer(self.keys, options)

    def results(
        self, rows: list[tuple[str, str | None, str]], format_: ImageFormat, sealed: bytes
    ) -> Iterator[tuple[dict[str, Any], bytes]]:
        """For each row (source, subject, scope), in order, its result as a message."""
        self.keys.take(sealed)
        try:
            requests = (PhotoRequest(Path(source), subject, scope) for source, subject, scope in rows)
            for outcome in self.mixer.protect_stream(requests):
                yield _told(outcome, format_)
        finally:
            self.keys.forget()
            self.mixer.close()  # what was derived from the keys; the mixer itself stays usable


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
    }
    return told, image


def work(connection: Connection, options: MixerOptions) -> None:
    """The life of a worker's process; it ends when the driver does.

    What nobody foresaw ends the process without a word: a traceback could quote a photo.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the driver ends its workers
    try:
        with suppress(EOFError, ConnectionError):
            _serve(connection, options)
    except Exception:  # noqa: BLE001 - the driver sees that the process is gone, and takes another
        os._exit(_SOMETHING_BROKE)
    os._exit(0)  # without waiting for threads that still read photos for a driver who is gone


def _serve(connection: Connection, options: MixerOptions) -> None:
    try:
        worker = Worker(options)
    except (AnonymixError, KeystoreError) as error:
        put(connection, {"fault": vars(Fault.of(error)), "exit_code": getattr(error, "exit_code", 1)})
        return
    ready = {"fingerprint": worker.mixer.fingerprint, "engine": worker.mixer.engine}
    put(connection, ready, worker.keys.public)
    while True:
        task, sealed = get(connection)
        rows = [(source, subject, scope) for _, source, subject, scope in task["rows"]]
        results = worker.results(rows, task["format"], sealed)
        for (place, *_), (told, image) in zip(task["rows"], results, strict=True):
            put(connection, {"place": place, **told}, image)
