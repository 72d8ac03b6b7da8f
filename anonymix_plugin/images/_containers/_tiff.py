"""TIFF: directories of fields that point to strips or tiles of pixels (TIFF 6.0)."""

from __future__ import annotations

import struct

from anonymix_plugin.images._containers._container import Container, damaged, truncated
from anonymix_plugin.images._exif import Entry, byte_order, first_directory, parse_exif
from anonymix_plugin.images._marker_text import from_user_comment

_WIDTH, _HEIGHT = 256, 257
_OFFSETS = {273: 279, 324: 325}  # strips and tiles: the field with offsets and the one with byte counts
_SINGLE = frozenset({_WIDTH, _HEIGHT, 259, 262, 266, 277, 278, 284, 317, 322, 323})
_LISTS = frozenset({258, 273, 279, 320, 324, 325, 338, 339, 347, 529, 530, 531, 532})
_INTEGERS = {1: "B", 3: "H", 4: "I"}


def examine_tiff(data: bytes, where: str) -> Container:
    """Keeps those fields of the first page that say where its pixels lie and how they are coded.

    The lean copy is the file with a new directory at its end, which the header now points to.
    """
    order = byte_order(data)
    try:
        entries = first_directory(data, order)
    except ValueError:
        raise truncated("TIFF", where) from None
    kept = {entry.tag: entry for entry in entries if entry.tag in _SINGLE | _LISTS}
    for entry in kept.values():
        if entry.length < 0 or (entry.tag in _SINGLE and entry.count != 1):
            raise damaged("TIFF", f"field {entry.tag} is not valid", where)
        if entry.start + entry.length > len(data):
            raise truncated("TIFF", where)
    if _WIDTH not in kept or _HEIGHT not in kept:
        raise damaged("TIFF", "it does not declare its size", where)
    width, height = (_integers(data, kept[tag], order, where)[0] for tag in (_WIDTH, _HEIGHT))
    _check_segments(data, kept, order, where)
    found = parse_exif(data)
    return Container(
        "TIFF",
        width,
        height,
        _with_directory(data, [kept[tag].raw for tag in sorted(kept)], order),
        orientation=found.orientation,
        marker=from_user_comment(found.user_comment),
    )


def _check_segments(data: bytes, kept: dict[int, Entry], order: str, where: str) -> None:
    for offsets_tag, counts_tag in _OFFSETS.items():
        if offsets_tag not in kept:
            continue
        offsets = _integers(data, kept[offsets_tag], order, where)
        # Some writers of uncompressed files leave the byte counts out.
        counts = (
            _integers(data, kept[counts_tag], order, where) if counts_tag in kept else (1,) * len(offsets)
        )
        if len(counts) != len(offsets):
            raise damaged("TIFF", "its strips and their lengths do not match", where)
        if any(start + length > len(data) for start, length in zip(offsets, counts, strict=True)):
            raise truncated("TIFF", where)
        return
    raise damaged("TIFF", "it holds no image", where)


def _integers(data: bytes, entry: Entry, order: str, where: str) -> tuple[int, ...]:
    letter = _INTEGERS.get(entry.kind)
    if letter is None or entry.count < 1:
        raise damaged("TIFF", f"field {entry.tag} is not valid", where)
    return struct.unpack_from(f"{order}{entry.count}{letter}", data, entry.start)


def _with_directory(data: bytes, fields: list[bytes], order: str) -> bytes:
    padding = bytes(len(data) % 2)  # a directory begins at an even offset
    directory = struct.pack(order + "H", len(fields)) + b"".join(fields) + bytes(4)
    header = data[:4] + struct.pack(order + "I", len(data) + len(padding))
    return header + data[8:] + padding + directory
