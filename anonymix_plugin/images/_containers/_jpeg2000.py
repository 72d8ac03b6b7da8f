"""JPEG 2000: a codestream of marker segments and tile-parts, bare or in a file of boxes (ISO/IEC 15444-1)."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Final

from anonymix_plugin.images._containers._boxes import Cursor, box, boxes
from anonymix_plugin.images._containers._container import Container, damaged, truncated
from anonymix_plugin.images._exif import parse_exif
from anonymix_plugin.images._marker_text import from_user_comment
from anonymix_plugin.images._orientation import orientation

_SIGNATURE: Final = b"\0\0\0\x0cjP  \r\n\x87\n"
_START, _SIZE, _STYLE, _STYLE_OF_ONE = 0xFF4F, 0xFF51, 0xFF52, 0xFF53
_TILE_PART, _DATA, _END, _COMMENT = 0xFF90, 0xFF93, 0xFFD9, 0xFF64
_WITHOUT_BODY: Final = frozenset({_START, _DATA, _END, *range(0xFF30, 0xFF40)})
_IN_HEADER: Final = frozenset({b"ihdr", b"bpcc", b"pclr", b"cmap", b"cdef"})
_EXIF: Final = frozenset({b"JpgTiffExif->JP2", bytes.fromhex("0537cdab9d0c4431a72afa561f2a113e")})
_XMP: Final = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")
_BY_PROFILE: Final = frozenset({2, 3})  # ways to give a colour space
# A decoder keeps notes on each tile, precinct and block of code, however few bytes they have.
_LEAST_TILE: Final = 4096  # pixels
_LEAST_PRECINCT: Final = 1024
_LEAST_BLOCK: Final = 64
_MOST_LAYERS: Final = 100
_MOST_MARKERS: Final = 200_000


@dataclass
class _Stream:
    """What the headers of a codestream say.

    Attributes:
        size: Pixels.
        tile: Pixels of the largest tile.
        components: Red, green, blue, transparency; or fewer.
        header: The main header without comments.
        begin: Where the tile-parts begin.
        end: Where the codestream ends.
        halvings: How many times the picture can be decoded at half the size.
    """

    size: tuple[int, int] = (0, 0)
    tile: tuple[int, int] = (0, 0)
    components: int = 0
    header: list[bytes] = field(default_factory=list)
    begin: int = 0
    end: int = 0
    halvings: int = 32


def examine_jpeg2000(data: bytes, where: str) -> Container:
    """Follows the codestream from tile-part to tile-part to its end; leaves out metadata and profile."""
    try:
        return _examined(data, where)
    except (ValueError, LookupError, struct.error) as error:
        detail = str(error) if type(error) is ValueError else "its headers do not fit together"
        raise damaged("JPEG 2000", detail, where) from None


def _examined(data: bytes, where: str) -> Container:
    header: list[bytes] = []
    exif = xmp = profile = b""
    start = 0
    if data.startswith(_SIGNATURE):
        try:
            for name, content in boxes(data):
                if name == b"jp2h" and not header:
                    header, profile = _file_header(content)
                elif name == b"jp2c" and not start:
                    start = content.at
                elif name == b"uuid":
                    kind, body = content.bytes(16), data[content.at : content.end]
                    exif = exif or (body if kind in _EXIF else b"")
                    xmp = xmp or (body if kind == _XMP else b"")
        except ValueError:
            if not start:
                raise truncated("JPEG 2000", where) from None
        if not start or not header:
            raise ValueError("it holds no picture")
    stream = _stream(data, start, where)
    for part in header:  # a decoder may set memory aside for what the file says, and not the codestream
        if part[4:8] == b"ihdr" and struct.unpack_from(">II", part, 8) != stream.size[::-1]:
            raise ValueError("the file and its codestream differ in size")
    lean = b"".join([*stream.header, data[stream.begin : stream.end]])
    if header:
        lean = _SIGNATURE + box(b"ftyp", b"jp2 \0\0\0\0jp2 ") + box(b"jp2h", *header) + box(b"jp2c", lean)
    found = parse_exif(exif)
    return Container(
        "JPEG2000",
        *stream.size,
        lean,
        orientation=orientation(found, xmp),
        marker=from_user_comment(found.user_comment),
        block=stream.tile,
        shrinks=min(2, 2**stream.halvings),  # Pillow rounds quarters and eighths otherwise than the format
        working=5 * stream.components * (stream.tile[0] * stream.tile[1]) / (stream.size[0] * stream.size[1]),
        profile=profile,
    )


def _file_header(content: Cursor) -> tuple[list[bytes], bytes]:
    """What of the header box the decoder needs, and the colour profile in it."""
    kept, profile = [], b""
    for name, inner in boxes(content.data, content.at, content.end):
        body = inner.bytes(inner.end - inner.at)
        if name == b"colr" and body[0] in _BY_PROFILE:
            profile = profile or body[3:]
        elif name == b"colr" or name in _IN_HEADER:
            kept.append(box(name, body))
    return kept, profile


def _stream(data: bytes, start: int, where: str) -> _Stream:
    stream = _Stream()
    ends = 0  # where the tile-part ends, 0 in the main header
    at = start
    for _ in range(_MOST_MARKERS):
        marker = int.from_bytes(data[at : at + 2], "big")
        if marker == _END:
            break
        if marker == _DATA and ends:
            at = ends
            continue
        length = 0 if marker in _WITHOUT_BODY else int.from_bytes(data[at + 2 : at + 4], "big")
        if at + 4 + length > len(data):
            raise truncated("JPEG 2000", where)
        if marker < 0xFF30 or marker == _DATA or length == 1:
            raise ValueError("a marker is missing, or has an impossible length")
        body = data[at + 4 : at + 2 + length]
        if marker == _TILE_PART:
            stream.begin = stream.begin or at
            span = int.from_bytes(body[2:6], "big")
            ends = at + span if span else data.rfind(b"\xff\xd9")  # 0: up to the end of the codestream
            if not at + 12 < ends <= len(data) - 2:
                raise truncated("JPEG 2000", where)
        elif marker == _SIZE and not stream.components:
            _read_size(stream, body)
        elif marker in {_STYLE, _STYLE_OF_ONE}:
            _read_style(stream, body, marker)
        if not ends and marker != _COMMENT:
            stream.header.append(data[at : at + 2 + length])
        at += 2 + length
    else:
        raise ValueError("it has too many markers")
    if not (stream.components and stream.begin):
        raise ValueError("it holds no picture")
    stream.end = at + 2
    return stream


def _read_size(stream: _Stream, body: bytes) -> None:
    _, right, bottom, left, top, wide, high, *_, stream.components = struct.unpack_from(">H8IH", body)
    parts = [body[36 + 3 * index : 39 + 3 * index] for index in range(stream.components)]
    if not 1 <= stream.components <= 4 or any(len(part) < 3 for part in parts):
        raise ValueError("it has no component, or more than four")
    if any((part[0] & 127) > 15 or not (1 <= part[1] <= 4 and 1 <= part[2] <= 4) for part in parts):
        raise ValueError("its components are of a kind that is not supported")
    stream.size = right - left, bottom - top
    if min(*stream.size, wide, high) < 1:
        raise ValueError("it or its tiles have no pixels")
    stream.tile = min(wide, stream.size[0]), min(high, stream.size[1])
    tiles = -(-stream.size[0] // wide) * -(-stream.size[1] // high)
    _refuse_pieces(tiles, stream.size[0] * stream.size[1], _LEAST_TILE, "tiles")


def _read_style(stream: _Stream, body: bytes, marker: int) -> None:
    """Refuses a style of coding that cuts a tile into pieces so small that notes on them fill the memory."""
    if marker == _STYLE:
        style, layers, at = body[0], int.from_bytes(body[2:4], "big"), 5
    else:
        style, layers, at = body[1], 1, 2  # the style of one component; its number has one byte below 257
    if not 1 <= layers <= _MOST_LAYERS:
        raise ValueError(f"it has {layers:,} layers")
    levels, wide, high = body[at], (body[at + 1] & 15) + 2, (body[at + 2] & 15) + 2
    if levels > 32 or wide + high > 12:
        raise ValueError("its style of coding is not valid")
    stream.halvings = min(stream.halvings, levels)
    exponents = body[at + 5 : at + 6 + levels] if style & 1 else b"\xff" * (levels + 1)
    width, height = stream.tile
    precincts = 0
    for level, both in enumerate(exponents):
        scale = levels - level
        columns = -(-width // (1 << scale + (both & 15)))
        rows = -(-height // (1 << scale + (both >> 4)))
        precincts += columns * rows
    pixels = width * height
    _refuse_pieces(precincts, pixels, _LEAST_PRECINCT, "precincts")
    _refuse_pieces(pixels >> (wide + high), pixels, _LEAST_BLOCK, "blocks")


def _refuse_pieces(count: int, pixels: int, least: int, name: str) -> None:
    if count > 64 + pixels // least:
        raise ValueError(f"it is cut into {count:,} {name}")
