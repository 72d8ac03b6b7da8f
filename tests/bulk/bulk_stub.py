"""A worker without networks: its face is a hash of key and photo. And a driver to be killed, as a program."""

from __future__ import annotations

import hashlib
import os
import signal
import sys
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

from anonymix_keystore import KeyFileUnlock, Keystore
from anonymix_plugin.bulk import Ledger, Progress, Row, Summary, _pool, protect_in_bulk
from anonymix_plugin.bulk._sealed import BlockKeys
from anonymix_plugin.bulk._worker import get, put
from anonymix_plugin.options import MixerOptions


def work(connection: Connection, options: MixerOptions) -> None:
    """Do what a photo's content says: b"poison" kills the process, b"hang" stops it."""
    keys = BlockKeys()
    put(connection, {"fingerprint": "f" * 32, "engine": "stub"}, keys.public)
    while True:
        try:
            task, sealed = get(connection)
        except (EOFError, OSError):
            return
        keys.take(sealed)
        for place, source, subject, scope in task["rows"]:
            key = keys.gallery(scope) if subject is None else keys.current(subject, scope)
            content = Path(source).read_bytes()
            if content == b"poison":
                os.kill(os.getpid(), signal.SIGKILL)
            if content == b"hang":
                time.sleep(60)
            time.sleep(0.004)
            told = {"fingerprint": "f" * 32, "engine": "stub", "method": "fast", "quality": 1.0}
            face = hashlib.sha256(key.material + content).digest()
            try:
                put(connection, {"place": place, "key_version": key.version, **told}, face)
            except OSError:  # the driver was killed
                return


def rows_of(folder: Path) -> Iterator[Row]:
    for number, path in enumerate(sorted(folder.iterdir())):
        yield Row(path, f"person{number % 7}", "default", Path(f"{number % 7}") / f"{path.stem}.png")


def open_store(path: Path) -> Keystore:
    return Keystore.open(path, KeyFileUnlock(path.with_suffix(".key")))


def drive(source: Path, store: Path, target: Path, workers: int = 2, **options: object) -> Summary:
    with open_store(store) as keys, Ledger(target, {"block": 5}) as ledger:
        summary = protect_in_bulk(rows_of(source), keys, ledger, MixerOptions(), workers=workers, block=5, **options)  # type: ignore[arg-type]
        if summary.finished:
            ledger.export()
        return summary


def _tell(progress: Progress) -> None:
    sys.stdout.write(f"{' '.join(map(str, progress.workers))}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    _pool.work = work
    drive(*map(Path, sys.argv[1:4]), progress=_tell)
