"""Encoded images from wherever they come: a path, bytes, a binary file object."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import IO, Final, TypeAlias

from anonymix_plugin.errors import UnreadableImageError, UsageError
from anonymix_plugin.images._limits import ImageLimits

EncodedSource: TypeAlias = str | os.PathLike[str] | bytes | bytearray | memoryview | IO[bytes]
"""A path, the bytes of an image file, or a file object opened in binary mode."""

_ADDRESS: Final = re.compile(r"\A\s*(?:([a-z][a-z0-9+.-]+)://|(data):)", re.IGNORECASE)


def read_source(source: EncodedSource, limits: ImageLimits) -> tuple[bytes, str]:
    """The bytes of an encoded image, never more than the limits allow, and its name for messages.

    Raises:
        ImageTooLargeError: More bytes than `limits.max_bytes`.
        UnreadableImageError: No such file, not a regular file, unreadable, empty, or an address.
        UsageError: The source is of a type that is not supported.
    """
    if isinstance(source, (bytes, bytearray, memoryview)):
        limits.check_bytes(memoryview(source).nbytes, "<bytes>")
        return bytes(source), "<bytes>"
    if isinstance(source, (str, os.PathLike)):
        return _read_path(source, limits)
    if callable(getattr(source, "read", None)):
        name = getattr(source, "name", None)
        where = name if isinstance(name, str) else "<file>"
        return _read_stream(source, limits, where), where
    raise UsageError(
        f"an image can't be read from a {type(source).__name__}",
        fix="give a path, bytes, a binary file object, a PIL image or a numpy array",
    )


def _read_path(source: str | os.PathLike[str], limits: ImageLimits) -> tuple[bytes, str]:
    name = os.fsdecode(source)
    address = _ADDRESS.match(name)
    if address:
        # The address itself may hold a secret or a whole picture, so that only its scheme is shown.
        raise UnreadableImageError(
            "a text is taken as the path of a file, and addresses are not fetched",
            where=f"{(address[1] or address[2]).lower()}:...",
            fix="fetch it yourself and give the bytes",
        )
    if not name or "\0" in name:
        raise UnreadableImageError(
            "the path is empty or holds a NUL character", where=repr(name), fix="check it"
        )
    path = Path(name)
    try:
        # Asked before it is opened: opening a pipe that nobody writes to would wait for ever.
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise UnreadableImageError(
                "this is not a regular file", where=name, fix="give the path of an image file"
            )
        limits.check_bytes(status.st_size, name)
        with path.open("rb") as stream:
            return _read_stream(stream, limits, name), name
    except OSError as error:
        raise UnreadableImageError(
            f"the file can't be read: {error.strerror or type(error).__name__}",
            where=name,
            fix="check the path and its permissions",
        ) from error


def _read_stream(stream: IO[bytes], limits: ImageLimits, where: str) -> bytes:
    parts: list[bytes] = []
    left = limits.max_bytes + 1
    while left > 0:
        try:
            part = stream.read(left)
        except (OSError, ValueError) as error:  # ValueError: the file object is closed
            raise UnreadableImageError(
                f"reading failed: {type(error).__name__}", where=where, fix="open it again and retry"
            ) from error
        if isinstance(part, str):
            raise UsageError("the file object gives text", where=where, fix="open it in binary mode, 'rb'")
        if not isinstance(part, (bytes, bytearray, memoryview)):
            raise UnreadableImageError(
                "the file object gives no bytes", where=where, fix="use a blocking file object"
            )
        if not part:
            break
        parts.append(bytes(part))
        left -= len(part)
    data = b"".join(parts)
    limits.check_bytes(len(data), where)
    return data
