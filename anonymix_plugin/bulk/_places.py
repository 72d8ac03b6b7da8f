"""Files by address, on any file system that pyarrow knows: `s3://bucket/people/alice.jpg`."""

from __future__ import annotations

import posixpath
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from anonymix_plugin.errors import UsageError, naming_extras
from anonymix_plugin.images import PHOTO_SUFFIXES

EXTRA: Final = "parquet"
_FIX: Final = "check the address, and what the file system takes from the environment"


def is_address(place: str) -> bool:
    """Whether a text is an address, and no path of this machine."""
    return "://" in place


def local_path(place: str) -> Path | None:
    """The path on this machine that a path or an address stands for, or None."""
    if not is_address(place):
        return Path(place)
    parts = urlsplit(place)
    return Path(unquote(parts.path)) if parts.scheme.lower() == "file" else None


def beside(table: str, photo: str) -> str:
    """The address of a photo that a table names: relative to the table's folder, unless it is an address itself."""
    return photo if is_address(photo) else f"{table.rpartition('/')[0]}/{photo}"


def file_system(address: str) -> tuple[Any, str]:
    """A pyarrow file system, and the path on it; a path of this machine is taken as well.

    Raises:
        UsageError: There is no such file system.
        MissingPackageError: pyarrow is not installed.
    """
    with naming_extras(EXTRA):
        from pyarrow import fs
    try:
        if not is_address(address):
            return fs.LocalFileSystem(), address
        found: tuple[Any, str] = fs.FileSystem.from_uri(address)
    except (OSError, ValueError, NotImplementedError) as error:
        what = f"this address can't be opened: {type(error).__name__}"
        raise UsageError(what, where=address, fix=_FIX) from None
    return found


def opened(address: str) -> Any:
    """A file, open for reading bytes.

    Raises:
        UsageError: It can't be opened.
    """
    system, path = file_system(address)
    try:
        return system.open_input_stream(path)
    except OSError as error:
        raise UsageError(f"it can't be read: {type(error).__name__}", where=address, fix=_FIX) from None


def photos_in(address: str, *, recursive: bool) -> list[str]:
    """The photos below an address, relative to it, in the order of their names.

    Raises:
        UsageError: There is no such folder.
    """
    system, base = file_system(address)
    from pyarrow import fs

    try:
        found = system.get_file_info(fs.FileSelector(base, recursive=recursive))
    except OSError as error:
        what = f"there is no folder to be read: {type(error).__name__}"
        raise UsageError(what, where=address, fix=_FIX) from None
    files = (posixpath.relpath(each.path, base) for each in found if each.is_file)
    inside = (name for name in files if ".." not in name.split("/"))  # object stores take any text for a name
    return sorted(name for name in inside if posixpath.splitext(name)[1].lower() in PHOTO_SUFFIXES)


class PhotoAt:
    """A photo by its address, opened when it is read, so that a missing one is an outcome of its own.

    Args:
        address: The address.
    """

    def __init__(self, address: str) -> None:
        self.name = address
        self._stream: Any = None

    def read(self, size: int = -1) -> bytes:
        """Read some bytes.

        Raises:
            OSError: It can't be read.
        """
        if self._stream is None:
            system, path = file_system(self.name)
            self._stream = system.open_input_stream(path)
        data: bytes = self._stream.read(None if size < 0 else size)
        return data
