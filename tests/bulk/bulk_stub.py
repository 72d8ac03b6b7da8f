"""A worker without networks: its face is a hash of key and photo. And a driver to be killed, as a program."""

from __future__ import annotations

import hashlib
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from anonymix_keystore import KeyFileUnlock, Keystore, SubjectKey
from anonymix_plugin.bulk import (
    LEDGER,
    BlockKeys,
    Cluster,
    Ledger,
    Progress,
    Row,
    Summary,
    Work,
    _spawned,
    protect_in_bulk,
)
from anonymix_plugin.images import encode_cancelable
from anonymix_plugin.options import MixerOptions
from anonymix_plugin.values import CancelableFace

PHOTOS = 43


def face_of(key: SubjectKey, content: bytes) -> bytes:
    """The image file of the face of a photo under a key."""
    pixels = np.frombuffer(hashlib.sha512(key.material + content).digest()[:48], np.uint8).reshape(4, 4, 3)
    face = CancelableFace(pixels, (0, 0, 1, 1), "", "", key.version, "f" * 32, "fast")
    return encode_cancelable(face)


class StubWorker:
    """Does what a photo's content says.

    b"poison" kills the process; b"hang" stops it, and a file tells whom; b"slow ..." takes a while; b"bad" is no photo.
    Where the scope keeps references, a face is also a hash of the subject's.
    """

    def __init__(self, _: MixerOptions) -> None:
        self.keys = BlockKeys()
        self.ready = {"fingerprint": "f" * 32, "guided": "e" * 32, "engine": "stub", "subspace": "numbers"}

    def results(self, _: str, sealed: bytes) -> Iterator[tuple[dict[str, Any], bytes]]:
        rows, photos = self.keys.take(sealed)
        for place, source, subject, scope, enrols in rows:
            key = self.keys.gallery(scope) if subject is None else self.keys.current(subject, scope)
            content = photos[place][0] if place in photos else Path(source).read_bytes()
            if content == b"poison":
                os.kill(os.getpid(), signal.SIGKILL)
            if content == b"hang":
                hanging(Path(source).parent).write_text(str(os.getpid()))
                time.sleep(600)
            time.sleep(0.3 if content.startswith(b"slow") else 0.004)
            if content == b"bad":
                yield {"place": place, "fault": {"code": "unreadable_image", "what": "it is no photo"}}, b""
                continue
            reference = self.keys.references.read(key)
            if enrols and reference is None and self.keys.references.enabled(scope):
                self.keys.references.keep(key, reference := b"code of " + content, replace=False)
            told = {"engine": "stub", "method": "fast", "quality": 1.0, "box": [0, 0, 1, 1]}
            told |= {"fingerprint": "f" * 32 if reference is None else "e" * 32, "key_version": key.version}
            if made := self.keys.made(subject, scope):
                told["reference"] = made.hex()
            yield {"place": place, **told}, face_of(key, content + (reference or b""))
        self.keys.forget()


def hanging(photos: Path) -> Path:
    """The file that says which worker of a job hangs."""
    return photos.with_name("hanging")


def photos_in(folder: Path) -> Path:
    """The folder, with what stands for photos in it."""
    folder.mkdir()
    for number in range(PHOTOS):
        (folder / f"{number:03d}.jpg").write_bytes(b"photo %d" % number)
    return folder


def store_at(path: Path) -> Path:
    """The path, with a store of all people there."""
    with Keystore.create(path, KeyFileUnlock.generate(path.with_suffix(".key"))) as made:
        made.issue_many(f"person{number}" for number in range(7))
    return path


def contents(target: Path) -> dict[str, bytes]:
    """All of a target but its ledger, which SQLite lays out as it likes."""
    files = (path for path in target.rglob("*") if path.is_file() and not path.name.startswith(LEDGER))
    return {str(path.relative_to(target)): path.read_bytes() for path in files}


def rows_of(folder: Path) -> Iterator[Row]:
    for number, path in enumerate(sorted(folder.iterdir())):
        yield Row(path, f"person{number % 7}", "default", Path(f"{number % 7}") / f"{path.stem}.png")


def open_store(path: Path) -> Keystore:
    store = Keystore.open(path, KeyFileUnlock(path.with_suffix(".key")))
    if path.with_suffix(".second").exists():
        store.originals.unlock(KeyFileUnlock(path.with_suffix(".second")))
    return store


def keep_references(path: Path) -> Path:
    """The path of a store, whose default scope keeps references from now on."""
    with open_store(path) as store:
        store.originals.enable(KeyFileUnlock.generate(path.with_suffix(".second")))
        store.references.enable()
    return path


def references_in(path: Path, people: Iterable[str]) -> dict[str, bytes | None]:
    """The references of people."""
    with open_store(path) as store:
        how = {"fingerprint": "e" * 32, "subspace": "numbers"}
        return {name: store.references.read(store.current(name), **how) for name in people}


def drive(
    source: Path,
    store: Path,
    target: Path,
    workers: int = 2,
    progress: Callable[[Progress], None] | None = None,
    **options: Any,
) -> Summary:
    work = Work(workers, block=5, **options)
    with open_store(store) as keys, Ledger(target, {"block": 5}) as ledger:
        summary = protect_in_bulk(rows_of(source), keys, ledger, MixerOptions(), work, progress=progress)
        if summary.finished:
            ledger.export()
        return summary


def drive_until_the_first_face(source: Path, store: Path, target: Path) -> None:
    """A process that enrols, and is killed when it is told of its first photo: no block is complete then."""
    from forks import FORKS

    _spawned.multiprocessing = SimpleNamespace(get_context=lambda _: FORKS)  # type: ignore[assignment, attr-defined]
    end: Callable[[Progress], None] = lambda _: os.kill(os.getpid(), signal.SIGKILL)  # noqa: E731
    drive(source, store, target, workers=1, enrol=True, make=StubWorker, progress=end)


def _tell(progress: Progress) -> None:
    sys.stdout.write(f"{' '.join(map(str, progress.workers))}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    from bulk_stub import StubWorker as Importable

    cluster = Cluster() if sys.argv[4:] else None
    drive(*map(Path, sys.argv[1:4]), progress=_tell, cluster=cluster, make=Importable)  # type: ignore[arg-type]
