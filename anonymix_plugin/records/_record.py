"""Which kind of record a file is, told by its first bytes."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pkgutil import resolve_name
from typing import Final

from anonymix_plugin.errors import UnreadableImageError
from anonymix_plugin.records._tlv import head
from anonymix_plugin.records._values import DG2, ISO19794, ISO39794, NIST, Coding, FaceRecord, RecordError

__all__ = ["Coding", "FaceRecord", "find_record"]

_READERS: Final = (
    (ISO19794, "_iso19794:read_iso19794"),
    (NIST, "_nist:read_nist"),
    (bytes([DG2]), "_dg2:read_dg2"),
    (bytes([ISO39794]), "_iso39794:read_iso39794"),
)


def find_record(data: bytes, where: str) -> FaceRecord | None:
    """The record that a file is, or None if it is none.

    Args:
        data: The whole file.
        where: Its name, for messages.

    Raises:
        UnreadableImageError: It is a record, but damaged, of several faces, or of a kind that is not supported.
    """
    for begin, reader in _READERS:
        if data.startswith(begin) and (len(begin) > 1 or _plausible(data)):
            read: Callable[[bytes], FaceRecord] = resolve_name(f"{__package__}.{reader}")
            try:
                return read(data)
            except (RecordError, struct.error, IndexError) as error:
                detail = str(error) if isinstance(error, RecordError) else "it ends too early"
                raise UnreadableImageError(
                    f"the biometric record can't be read: {detail}",
                    where=where,
                    fix="export it again, or give the photo alone",
                ) from None
    return None


def _plausible(data: bytes) -> bool:
    """Whether a file that begins with one byte of a tag is a field with a field in it, and no text."""
    try:
        _, start, end = head(data, 0)
    except RecordError:
        return False
    return data[1] >= 0x80 and data[start : start + 1] in {b"\x7f", b"\xa0"} and end - start > 100
