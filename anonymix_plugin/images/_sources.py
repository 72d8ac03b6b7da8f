"""Encoded images from wherever they come: a path, bytes, a binary file object."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import IO, Final, TypeAlias

from anonymix_keystore import is_live
from anonymix_plugin.errors import AnonymixError, UnreadableImageError, UsageError
from anonymix_plugin.limits import ImageLimits
from anonymix_plugin.words import is_plausible_path, scheme_of, shown, text_of

EncodedSource: TypeAlias = str | os.PathLike[str] | bytes | bytearray | memoryview | IO[bytes]
"""A path, the bytes of an image file, or a file object opened in binary mode."""

PHOTO_SUFFIXES: Final = frozenset(
    [
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".mpo",
        ".png",
        ".webp",
        ".heic",
        ".heif",
        ".hif",
        ".avif",
        ".jp2",
        ".j2k",
        ".j2c",
        ".jpc",
        ".jpf",
        ".jpx",
        ".bmp",
        ".gif",
        ".tif",
        ".tiff",
    ]
)
"""How the names of photos end, in lower case: what is taken from a folder. A file is read by its content."""


def read_source(source: EncodedSource, limits: ImageLimits) -> tuple[bytes, str]:
    """The bytes of an encoded image, never more than the limits allow, and its name for messages.

    Raises:
        ImageTooLargeError: More bytes than `limits.max_bytes`.
        UnreadableImageError: No such file, not a regular file, unreadable, empty, or an address.
        UsageError: The source is of a type that is not supported.
    """
    where = shown(source)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _bytes_of(source, limits, where), where
    if isinstance(source, (str, os.PathLike)):
        return _read_path(_path_of(source, where), limits, where), where
    if callable(getattr(source, "read", None)):
        return _read_stream(source, limits, where), where
    raise UsageError(
        f"an image can't be read from a {type(source).__name__}",
        fix="give a path, bytes, a binary file object, a PIL image or a numpy array",
    )


def _bytes_of(source: bytes | bytearray | memoryview, limits: ImageLimits, where: str) -> bytes:
    try:
        limits.check_bytes(memoryview(source).nbytes, where)
        return bytes(source)
    except ValueError:
        raise UnreadableImageError(
            "the memory view was released", where=where, fix="give the bytes before they are released"
        ) from None


def _path_of(source: str | os.PathLike[str], where: str) -> str:
    refusal: AnonymixError
    try:
        return text_of(source)
    except Exception as error:  # noqa: BLE001 - of a class of the caller's; not chained, as in `_part`
        refusal = UsageError(
            f"its __fspath__ failed: {type(error).__name__}", where=where, fix="give a text or a pathlib.Path"
        )
    raise refusal


def _read_path(name: str, limits: ImageLimits, where: str) -> bytes:
    if scheme_of(name):
        raise UnreadableImageError(
            "a text is taken as the path of a file, and addresses are not fetched",
            where=where,
            fix="fetch it yourself and give the bytes",
        )
    if not name:
        raise UnreadableImageError("the path is empty", where=where, fix="check it")
    # The system's own errors hold the whole text. They are told in words and not chained; an error that is
    # raised while another is handled drags it along, so that this one is raised afterwards.
    refusal: AnonymixError
    try:
        # Asked before it is opened: opening a pipe that nobody writes to would wait for ever.
        path = Path(name)
        status = path.stat()
        if is_live(path):  # opening it and closing it again would drop the locks of the open store
            refusal = UnreadableImageError(
                "this is a keystore in use", where=where, fix="give the path of an image file"
            )
        elif stat.S_ISREG(status.st_mode):
            limits.check_bytes(status.st_size, where)
            with path.open("rb") as stream:
                return _read_stream(stream, limits, where)
        else:
            refusal = UnreadableImageError(
                "this is not a regular file", where=where, fix="give the path of an image file"
            )
    except (OSError, ValueError) as error:  # ValueError: no file can have such a name
        refusal = _unreadable(error, name, where)
    raise refusal


def _unreadable(error: Exception, name: str, where: str) -> UnreadableImageError:
    if not is_plausible_path(name):
        return UnreadableImageError(
            "a text is taken as the path of a file, and this one is none",
            where=where,
            fix="decode it if it is base64, and give the bytes",
        )
    reason = getattr(error, "strerror", None) or type(error).__name__
    return UnreadableImageError(
        f"the file can't be read: {reason}", where=where, fix="check the path and its permissions"
    )


def _read_stream(stream: IO[bytes], limits: ImageLimits, where: str) -> bytes:
    parts: list[bytes] = []
    left = limits.max_bytes + 1
    while left > 0:
        part = _part(stream, left, where)
        if not part:
            break
        parts.append(part)
        left -= len(part)
    data = b"".join(parts)
    limits.check_bytes(len(data), where)
    return data


def _part(stream: IO[bytes], size: int, where: str) -> bytes:
    refusal: AnonymixError
    try:
        part: object = stream.read(size)
    except AnonymixError as error:  # says itself what to do: a package that is missing, say
        refusal = error
    # Whatever a caller's file object raises (half an answer, a damaged archive) is about this photo, and may
    # hold part of it or its address; hence not chained.
    except Exception as error:  # noqa: BLE001
        refusal = UnreadableImageError(
            f"reading failed: {type(error).__name__}", where=where, fix="open it again and retry"
        )
    else:
        if isinstance(part, (bytes, bytearray, memoryview)):
            return bytes(part)
        if isinstance(part, str):
            refusal = UsageError("the file object gives text", where=where, fix="open it in binary mode, 'rb'")
        else:
            refusal = UnreadableImageError(
                "the file object gives no bytes", where=where, fix="use a blocking file object"
            )
    raise refusal
