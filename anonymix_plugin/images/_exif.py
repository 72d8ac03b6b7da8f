"""The three EXIF fields that matter here, read with every offset checked.

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

_MAX_ENTRIES = 1024
_MAX_VALUE = 65_536


@dataclass(frozen=True)
class Exif:
    """What was found; the defaults stand for what was missing or damaged.

    Attributes:
        orientation: 1..8, as in the EXIF tag; 1 is upright.
        user_comment: The raw value of UserComment with its 8-byte character code, or b"".
    """

    orientation: int = 1
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


def first_directory(data: bytes, order: str) -> list[Entry]:
    """The entries of the first directory of a TIFF structure; ValueError as in `directory`."""
    if len(data) < 8:
        raise ValueError("no room for a header")
    return directory(data, struct.unpack_from(order + "I", data, 4)[0], order)


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
    orientation = _whole(block, entries.get(ORIENTATION), order)
    try:
        inner = {e.tag: e for e in directory(block, _whole(block, entries.get(EXIF_IFD), order), order)}
    except ValueError:
        inner = {}
    comment = inner.get(USER_COMMENT) or entries.get(USER_COMMENT)
    return Exif(
        orientation=orientation if 1 <= orientation <= 8 else 1,
        user_comment=b"" if comment is None else _value(block, comment),
    )


def _value(block: bytes, entry: Entry) -> bytes:
    if not 0 < entry.length <= _MAX_VALUE or entry.start + entry.length > len(block):
        return b""
    return block[entry.start : entry.start + entry.length]


def _whole(block: bytes, entry: Entry | None, order: str) -> int:
    if entry is None or entry.count != 1 or entry.kind not in {3, 4}:
        return 0
    return int(struct.unpack(order + ("H" if entry.kind == 3 else "I"), _value(block, entry))[0])
