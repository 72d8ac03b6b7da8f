"""A back end in a folder, which names its entries itself, and a renewal of it to be killed, as a program."""

from __future__ import annotations

import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import bulk_stub

from anonymix_adapters import Answer, Interceptor
from anonymix_adapters.bulk_renewal import BulkRenewal, Counts
from anonymix_adapters.drawn import DrawnFaces
from anonymix_keystore import Keystore
from anonymix_plugin.bulk import Work, photo_store
from anonymix_plugin.images import PhotoSource
from anonymix_plugin.options import MixerOptions
from anonymix_plugin.values import CancelableFace

ADAPTER, COLLECTION = "folder", "doors"


class FolderBackEnd:
    """An entry is a file: its name a random id, its content the subject and the pixels of the picture."""

    collection = COLLECTION

    def __init__(self, folder: Path, mixer: Any, scope: str = "default") -> None:
        self.folder, self.interceptor = folder, Interceptor(mixer, ADAPTER, scope=scope)
        self.log: list[str] = []

    def enrol(self, subject: str, photo: PhotoSource) -> str:
        whose = self.interceptor.whose(argument=subject, enrol=True)
        return self.interceptor.enrol(
            photo,
            whose,
            collection=COLLECTION,
            send=lambda face: self.send(subject, face),
            external_id=str,
            undo=self.delete,
        )

    def send(self, subject: str, face: CancelableFace) -> str:
        entry = uuid.uuid4().hex
        draft = self.folder.parent / f"{entry}.draft"
        draft.write_bytes(subject.encode() + b"\n" + face.pixels.tobytes())
        draft.rename(self.folder / entry)
        self.log.append(f"enrol {subject}")
        time.sleep(0.01)  # the way of the answer, on which kills hit
        return entry

    def verify(self, subject: str, photo: PhotoSource) -> Answer:
        face = self.interceptor.protect(photo, self.interceptor.whose(argument=subject))
        wanted = subject.encode() + b"\n" + face.pixels.tobytes()
        accepted = any(path.read_bytes() == wanted for path in self.folder.iterdir())
        self.log.append(f"verify {subject} {accepted}")
        return Answer(accepted, float(accepted))

    def delete(self, external_id: str) -> None:
        self.log.append(f"delete {external_id}")
        (self.folder / external_id).unlink(missing_ok=True)

    def entries(self) -> Mapping[str, str]:
        return {path.name: path.read_bytes().partition(b"\n")[0].decode() for path in self.folder.iterdir()}


@contextmanager
def open_back_end(mixer: Any) -> Iterator[FolderBackEnd]:
    """For the command: the folder that stands beside the keystore."""
    yield FolderBackEnd(mixer.keystore.path.with_name("entries"), mixer)


def renew(
    keys: Keystore, back_end: FolderBackEnd, faces: DrawnFaces, photos: Path, work: Work, progress: Any = None
) -> Counts:
    store = photo_store(str(photos), "default")
    with BulkRenewal(keys, faces, back_end, lambda item: store(item.subject, item.scope)) as job:
        return job.run(MixerOptions(), work, progress)


def drive(store: Path, photos: Path, work: Work) -> Counts:
    with bulk_stub.open_store(store) as keys:
        faces = DrawnFaces(keys)
        with open_back_end(faces) as back_end:
            return renew(keys, back_end, faces, photos, work, _tell)


def _tell(counts: Counts) -> None:
    sys.stdout.write(f"{counts.renewed} {counts.strays}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    drive(Path(sys.argv[1]), Path(sys.argv[2]), Work(workers=2, block=4, make=bulk_stub.StubWorker))  # type: ignore[arg-type]
