"""The few EXIF fields that matter here, read with every offset checked.

Pillow's own EXIF reader warns about odd files through the process-wide warning filters; reading the
few bytes that are needed keeps the outcome the same whatever filters the host has set.
The structure is that of TIFF 6.0, section 2, and of Exif 2.32, section 4.6.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

ORIENTATION: Final = 0x0112
DESCRIPTION: Final = 0x010E
SOFTWARE: Final = 0x0131
EXIF_IFD: Final = 0x8769
USER_COMMENT: Final = 0x9286

TYPE_SIZES: Final = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}
"""Bytes of one value of each TIFF field type."""

_WHOLE_KINDS: Final = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i"}
_MAX_ENTRIES = 1024
_MAX_VALUE = 65_536


@dataclass(frozen=True)
class Exif:
    """What was found; the defaults stand for what was missing or damaged.

    Attributes:
        orientation: As in the EXIF tag, 1..8; another number if it holds nonsense, None if it is missing.
        user_comment: The raw value of UserComment with its 8-byte character code, or b"".
    """

    orientation: int | None = None
    user_comment: bytes = b""


@dataclass(frozen=True)
class Entry:
    """One field of a TIFF directory: its type, number of values, raw 12 bytes and where its values lie."""

    tag: int
    kind: int
    count: int
    raw: bytes
    start: int

    @property
    def length(self) -> int:
        """Bytes of all values together; -1 for a type that TIFF does not know."""
        size = TYPE_SIZES.get(self.kind)
        return -1 if size is None else size * self.count


def byte_order(data: bytes) -> str:
    """The struct prefix of a TIFF header, "<" or ">", or "" if `data` does not begin with one."""
    return {b"II*\0": "<", b"MM\0*": ">"}.get(data[:4], "")


def directory(data: bytes, offset: int, order: str) -> list[Entry]:
    """The entries of the directory at `offset`.

    Raises:
        ValueError: The directory reaches beyond the end of `data`, or is absurdly long.
    """
    if not 8 <= offset <= len(data) - 2:
        raise ValueError("directory outside the file")
    (count,) = struct.unpack_from(order + "H", data, offset)
    if count > _MAX_ENTRIES or offset + 2 + 12 * count > len(data):
        raise ValueError("directory longer than the file")
    entries = []
    for index in range(count):
        at = offset + 2 + 12 * index
        tag, kind, values = struct.unpack_from(order + "HHI", data, at)
        entry = Entry(tag, kind, values, data[at : at + 12], at + 8)
        if entry.length > 4:
            entry = Entry(tag, kind, values, entry.raw, struct.unpack_from(order + "I", data, at + 8)[0])
        entries.append(entry)
    return entries


def first_offset(data: bytes, order: str) -> int:
    """Where the first directory of a TIFF structure lies; ValueError if it has no header."""
    if len(data) < 8:
        raise ValueError("no room for a header")
    return int(struct.unpack_from(order + "I", data, 4)[0])


def first_directory(data: bytes, order: str) -> list[Entry]:
    """The entries of the first directory of a TIFF structure; ValueError as in `directory`."""
    return directory(data, first_offset(data, order), order)


def next_directory(data: bytes, offset: int, order: str) -> int:
    """Where the directory after the one at `offset` lies; 0 if that is the last, or the file ends there."""
    at = offset + 2 + 12 * int(struct.unpack_from(order + "H", data, offset)[0])
    return int(struct.unpack_from(order + "I", data, at)[0]) if at + 4 <= len(data) else 0


def parse_exif(block: bytes) -> Exif:
    """Reads an EXIF block (with or without its "Exif" prefix) or the head of a TIFF file.

    Damaged metadata is no reason to refuse a photo, so this never raises.
    """
    block = block.removeprefix(b"Exif\0\0")
    order = byte_order(block)
    if not order:
        return Exif()
    try:
        entries = {entry.tag: entry for entry in first_directory(block, order)}
    except ValueError:
        return Exif()
    try:
        inner = {e.tag: e for e in directory(block, whole(block, entries.get(EXIF_IFD), order), order)}
    except ValueError:
        inner = {}
    comment = inner.get(USER_COMMENT) or entries.get(USER_COMMENT)
    return Exif(
        orientation=whole(block, entries.get(ORIENTATION), order) if ORIENTATION in entries else None,
        user_comment=b"" if comment is None else _value(block, comment),
    )


def _value(block: bytes, entry: Entry) -> bytes:
    if not 0 < entry.length <= _MAX_VALUE or entry.start + entry.length > len(block):
        return b""
    return block[entry.start : entry.start + entry.length]


def whole(block: bytes, entry: Entry | None, order: str) -> int:
    """The value of a field that is one whole number; 0 where it is missing or something else."""
    if entry is None or entry.count != 1 or entry.kind not in _WHOLE_KINDS:
        return 0
    return int(struct.unpack(order + _WHOLE_KINDS[entry.kind], _value(block, entry))[0])
