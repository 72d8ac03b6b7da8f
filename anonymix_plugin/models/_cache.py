"""Where weights lie on this machine, and whether what lies there is what it should be."""

from __future__ import annotations

import hashlib
from pathlib import Path

from anonymix_plugin.places import home

CHUNK = 1 << 20
"""Bytes read at a time: large enough to be fast, small enough to be interrupted and counted."""

_Stamp = tuple[int, int, int]
_known_hashes: dict[Path, tuple[_Stamp, str]] = {}


def model_folder(name: str) -> Path:
    """Folder that holds the files of one model."""
    return home() / "models" / name


def staging_folder() -> Path:
    """Folder for downloads under way; beside the models, so that a finished file only needs renaming."""
    return home() / "models" / ".partial"


def lock_file() -> Path:
    """File whose lock is held by the one process that may write into the cache."""
    return home() / "models" / ".lock"


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's content, read afresh, as 64 hex digits.

    Raises:
        OSError: The file can't be read.
    """
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def known_sha256_of(path: Path) -> str:
    """SHA-256 of a file, read once in a process as long as its time, size and inode stay the same.

    Raises:
        OSError: The file can't be read.
    """
    status = path.stat()
    stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
    known = _known_hashes.get(path)
    if known is not None and known[0] == stamp:
        return known[1]
    digest = sha256_of(path)
    _known_hashes[path] = (stamp, digest)
    return digest


def is_intact(path: Path, sha256: str, size: int | None = None) -> bool:
    """Whether a file exists with that hash; a wrong size settles it without reading the file."""
    try:
        if size is not None and path.stat().st_size != size:
            return False
        return path.is_file() and known_sha256_of(path) == sha256
    except OSError:
        return False
