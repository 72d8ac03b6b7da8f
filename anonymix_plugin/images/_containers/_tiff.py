"""TIFF: directories of fields that point to strips or tiles of pixels (TIFF 6.0)."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from typing import Final

from anonymix_plugin.errors import UnreadableImageError
from anonymix_plugin.images._containers._container import Container, camera_raw, damaged, several, truncated
from anonymix_plugin.images._exif import (
    Entry,
    byte_order,
    directory,
    first_offset,
    next_directory,
    parse_exif,
    whole,
)
from anonymix_plugin.images._marker_text import from_user_comment
from anonymix_plugin.images._orientation import orientation

_WIDTH, _HEIGHT, _BITS, _PHOTOMETRIC = 256, 257, 258, 262
_SAMPLES, _TILE_WIDTH, _TILE_HEIGHT, _SAMPLE_FORMAT = 277, 322, 323, 339
_NEW_KIND, _OLD_KIND, _SUB_DIRECTORIES, _XMP, _DNG_VERSION = 254, 255, 330, 700, 50706
_PROFILE: Final = 34675
_OFFSETS = {273: 279, 324: 325}  # strips and tiles: the field with offsets and the one with byte counts
_SINGLE = frozenset({_WIDTH, _HEIGHT, 259, _PHOTOMETRIC, 266, 277, 278, 284, 317, 322, 323})
_LISTS = frozenset({_BITS, 273, 279, 320, 324, 325, 338, 339, 347, 529, 530, 531, 532})
_INTEGERS = {1: "B", 3: "H", 4: "I", 13: "I"}  # 13 is an offset of a directory
_FLOAT = 3
_REDUCED, _MASK = 1, 4  # bits of the kind of a page
_RAW_COLOURS: Final = frozenset({32803, 34892})  # colour filter array, and its values before demosaicing
_RAW_HEADS: Final = ((8, b"CR\x02"), (8, b"IIII"))  # Canon, Phase One
_MAX_PAGES: Final = 1000
_MAX_VALUES: Final = 1 << 20  # of one field: 64 megapixels in tiles of 16 have a quarter of that
_THUMBNAIL: Final = 512  # pixels of a side, up to which a later page needs no flag to be a thumbnail


def examine_tiff(data: bytes, where: str) -> Container:
    """Keeps those fields of the only page that say where its pixels lie and how they are coded.

    The lean copy is the file with a new directory at its end, which the header now points to. Further pages
    are refused, unless they are marked as smaller copies or masks of the first; camera raw is refused.
    """
    order = byte_order(data)
    try:
        first = first_offset(data, order)
        entries = {entry.tag: entry for entry in directory(data, first, order)}
    except ValueError:
        raise truncated("TIFF", where) from None
    kept = {tag: entry for tag, entry in entries.items() if tag in _SINGLE | _LISTS}
    for entry in kept.values():
        most = 1 if entry.tag in _SINGLE else _MAX_VALUES
        if entry.length < 0 or not 1 <= entry.count <= most:
            raise damaged("TIFF", f"field {entry.tag} is not valid", where)
        if entry.start + entry.length > len(data):
            raise truncated("TIFF", where)
    if any(data.startswith(head, at) for at, head in _RAW_HEADS):
        raise camera_raw("the head of a camera's own format", where)
    camera_raw_of(_numbers(data, entries, order), where)
    if _WIDTH not in kept or _HEIGHT not in kept:
        raise damaged("TIFF", "it does not declare its size", where)
    width, height = (_integers(data, kept[tag], order, where)[0] for tag in (_WIDTH, _HEIGHT))
    _refuse_pages(data, first, (width, height), order, where)
    _check_segments(data, kept, order, where)
    _refuse_colour_floats(data, kept, order, where)
    found = parse_exif(data)
    xmp, profile = (_content(data, entries.get(tag)) for tag in (_XMP, _PROFILE))
    return Container(
        "TIFF",
        width,
        height,
        _with_directory(data, [kept[tag].raw for tag in sorted(kept)], order),
        orientation=orientation(found, xmp),
        marker=from_user_comment(found.user_comment),
        block=_block(data, kept, (width, height), order, where),
        profile=profile,
    )


def _content(data: bytes, entry: Entry | None) -> bytes:
    return b"" if entry is None or entry.length < 0 else data[entry.start : entry.start + entry.length]


def camera_raw_of(fields: Mapping[int, object], where: str) -> None:
    """Refuses a first page that is the preview of a camera's raw data.

    Args:
        fields: Values of its fields that are one whole number; of others it matters only that they are there.
        where: The file's name, for messages.

    Raises:
        UnreadableImageError: It is one.
    """
    if _DNG_VERSION in fields:
        raise camera_raw("DNG", where)
    if fields.get(_PHOTOMETRIC) in _RAW_COLOURS:
        raise camera_raw("the pixels of a colour filter", where)
    if _SUB_DIRECTORIES in fields:
        raise camera_raw("its pictures lie in sub-directories", where)
    if _reduced(fields):
        raise camera_raw("its first page is marked as a preview", where)


def _reduced(fields: Mapping[int, object]) -> bool:
    """Whether a page says that it is a smaller copy of another one."""
    kind = fields.get(_NEW_KIND)
    return (isinstance(kind, int) and bool(kind & _REDUCED)) or fields.get(_OLD_KIND) == 2


def _refuse_pages(data: bytes, first: int, size: tuple[int, int], order: str, where: str) -> None:
    """Refuses a file in which another page may be the photo."""
    count = 1
    for page in _further_pages(data, first, order):
        width, height = page.get(_WIDTH, 0), page.get(_HEIGHT, 0)
        small = width < size[0] and height < size[1]
        belongs = page.get(_NEW_KIND, 0) & _MASK or (small and _reduced(page))
        thumbnail = small and 2 * max(width, height) <= max(size) and max(width, height) <= _THUMBNAIL
        count += not (belongs or thumbnail)
    if count > 1:
        raise several("TIFF", count, where)


def _further_pages(data: bytes, at: int, order: str) -> Iterator[dict[int, int]]:
    """The fields of the pages after the first; what can't be read ends them."""
    seen = {at}
    while len(seen) < _MAX_PAGES:
        at = next_directory(data, at, order)
        if at == 0 or at in seen:
            return
        seen.add(at)
        try:
            entries = {entry.tag: entry for entry in directory(data, at, order)}
        except ValueError:
            return
        yield _numbers(data, entries, order)


def _numbers(data: bytes, entries: dict[int, Entry], order: str) -> dict[int, int]:
    return {tag: whole(data, entry, order) for tag, entry in entries.items()}


def _block(data: bytes, kept: dict[int, Entry], size: tuple[int, int], order: str, where: str) -> tuple[int, int]:
    """Width and height of a tile, which is unpacked whole, however small the image is."""
    # Either field makes the decoder look for tiles, whichever field says where they lie. Strips are cut off
    # at the height of the image.
    if _TILE_WIDTH in kept or _TILE_HEIGHT in kept:
        if not {_TILE_WIDTH, _TILE_HEIGHT} <= kept.keys():
            raise damaged("TIFF", "its tiles have no size", where)
        tile = [_integers(data, kept[tag], order, where)[0] for tag in (_TILE_WIDTH, _TILE_HEIGHT)]
        return tile[0], tile[1]
    return size


def _refuse_colour_floats(data: bytes, kept: dict[int, Entry], order: str, where: str) -> None:
    if _SAMPLE_FORMAT not in kept:
        return
    formats = _integers(data, kept[_SAMPLE_FORMAT], order, where)
    samples = _integers(data, kept[_SAMPLES], order, where)[0] if _SAMPLES in kept else 1
    bits = _integers(data, kept[_BITS], order, where)[0] if _BITS in kept else 1
    if _FLOAT in formats and (samples > 1 or bits not in {32, 64}):
        raise UnreadableImageError(
            f"a TIFF file of {samples} x {bits}-bit floats is not supported",
            where=where,
            fix="convert it to 8 or 16 bits",
        )


def _check_segments(data: bytes, kept: dict[int, Entry], order: str, where: str) -> None:
    for offsets_tag, counts_tag in _OFFSETS.items():
        if offsets_tag not in kept:
            continue
        offsets = _integers(data, kept[offsets_tag], order, where)
        # Some writers of uncompressed files leave the byte counts out.
        counts = _integers(data, kept[counts_tag], order, where) if counts_tag in kept else (1,) * len(offsets)
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
    directory_ = struct.pack(order + "H", len(fields)) + b"".join(fields) + bytes(4)
    header = data[:4] + struct.pack(order + "I", len(data) + len(padding))
    return header + data[8:] + padding + directory_
