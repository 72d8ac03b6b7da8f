"""Which way up a photo is stored, wherever its file says so.

EXIF decides if it holds one of the eight. Otherwise XMP does, which some programs write alone. PNG files of
ImageMagick and its kin carry either of them as hexadecimal text ("Raw profile type exif").
"""

from __future__ import annotations

import re
import zlib
from typing import Final

from anonymix_plugin.images._exif import Exif

XMP_KEYWORD: Final = "XML:com.adobe.xmp"
"""Keyword of the PNG text that is an XMP packet."""

PROFILES: Final = frozenset(f"Raw profile type {kind}" for kind in ("exif", "APP1", "app1", "xmp"))
"""Keywords of PNG texts that are EXIF or XMP in hexadecimal digits."""

_XMP_HEAD: Final = b"http://ns.adobe.com/xap/1.0/\0"
_MAX_TEXT: Final = 1 << 20  # of a compressed text; EXIF and XMP in a JPEG are at most 64 KiB
_FIELD: Final = re.compile(rb"""tiff:Orientation(?:\s*=\s*["']|(?:\s[^<>]*)?>)\s*(\d)""")


def orientation(exif: Exif, xmp: bytes = b"") -> int:
    """1..8 as in the EXIF tag; 1 where nobody says otherwise."""
    found = exif.orientation
    if found is None or not 1 <= found <= 8:
        match = _FIELD.search(xmp.replace(b"\0", b""))  # without zeros: packets may be UTF-16
        found = int(match[1]) if match else 1
    return found if 1 <= found <= 8 else 1


def parts_of(value: int) -> tuple[bool, bool, bool]:
    """Whether rows and columns are exchanged, then the columns turned round, then the rows, for 1..8."""
    return value >= 5, value in {2, 3, 6, 7}, value in {3, 4, 7, 8}


_WHOLE: Final = {parts_of(value): value for value in range(1, 9)}


def compose(first: int, second: int) -> int:
    """The one orientation, 1..8, that does what two do one after the other."""
    exchanged, columns, rows = parts_of(first)
    again, *turned = parts_of(second)
    if again:
        columns, rows = rows, columns
    return _WHOLE[exchanged != again, columns != turned[0], rows != turned[1]]


def jpeg_xmp(segment: bytes) -> bytes:
    """The XMP packet in the body of a JPEG's APP1 segment, or b""."""
    return segment.removeprefix(_XMP_HEAD) if segment.startswith(_XMP_HEAD) else b""


def png_text(kind: bytes, body: bytes) -> tuple[str, bytes]:
    """Keyword and text of a chunk tEXt, zTXt or iTXt; b"" for a text that can't be unpacked or is huge."""
    keyword, _, rest = body.partition(b"\0")
    packed = kind == b"zTXt"
    if kind == b"iTXt":
        packed = rest[:1] == b"\1"
        rest = rest[2:].split(b"\0", 2)[-1]  # language, translated keyword, text
    elif packed:
        rest = rest[1:]  # the method
    if packed:
        try:
            rest = zlib.decompressobj().decompress(rest, _MAX_TEXT)
        except zlib.error:
            rest = b""
    return keyword.decode("latin-1"), rest


def from_texts(keyword: str, text: bytes) -> tuple[bytes, bytes]:
    """The EXIF block and the XMP packet that a PNG text holds; each b"" where it holds none."""
    if keyword == XMP_KEYWORD:
        return b"", text
    if keyword not in PROFILES:
        return b"", b""
    # A line for the name, one for the length, then lines of hexadecimal digits.
    parts = text[:_MAX_TEXT].strip().split(None, 2)
    try:
        profile = bytes.fromhex(parts[2].decode("ascii")) if len(parts) == 3 else b""
    except ValueError:
        profile = b""
    if keyword.endswith("xmp") or profile.startswith(_XMP_HEAD):
        return b"", profile.removeprefix(_XMP_HEAD)
    return profile, b""
