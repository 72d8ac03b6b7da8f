"""JPEG: a chain of segments, then entropy-coded scans (ITU T.81, annex B)."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from anonymix_plugin.errors import UnreadableImageError
from anonymix_plugin.images._containers._container import Container, damaged, several, truncated
from anonymix_plugin.images._exif import byte_order, first_directory, parse_exif
from anonymix_plugin.images._marker_text import from_user_comment
from anonymix_plugin.images._orientation import jpeg_xmp, orientation

_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_BY_COSINES = frozenset({0xC0, 0xC1, 0xC2, 0xC9, 0xCA})  # kinds of frames that can be decoded smaller
_SCAN = 0xDA
_END = 0xD9
_WITHOUT_BODY = frozenset({0x00, 0x01, *range(0xD0, 0xD9)})
# A scan ends at a marker that is neither a stuffed zero, nor a restart, nor a fill byte.
_SCAN_END = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
# Honest progressive files have about ten scans; each one costs the decoder a pass over all pixels.
_MAX_SCANS = 100
_MPF = b"MPF\0"
_MP_ENTRIES: Final = 0xB002
_MP_THUMBNAILS: Final = frozenset({0x010001, 0x010002})
# What belongs to a picture is named in its XMP: gain maps of high dynamic range, depth maps.
_BELONGS: Final = re.compile(rb"hdrgm:|HDRGainMap|apple:photo:\d+:aux:|Semantic=.(?:GainMap|Depth|Confidence)")
_GAIN_MAP: Final = b"urn:iso:std:iso:ts:21496"


@dataclass(frozen=True)
class _Segment:
    code: int
    at: int  # where its marker lies
    body: bytes
    whole: bytes  # marker, length and body, and after a scan header the scan itself
    ended: bool = True  # of a scan: whether a marker follows

    @property
    def needed(self) -> bool:
        """Whether pixels depend on it: tables, frames, scans, and what settles the colour space."""
        application = (self.code == 0xE0 and self.body[:4] == b"JFIF") or (
            self.code == 0xEE and self.body[:5] == b"Adobe"
        )
        return self.code < 0xE0 or application


@dataclass(frozen=True)
class _Frame:
    """The frame header, and which parts of the coefficients the scans have brought."""

    code: int
    body: bytes
    scans: list[bytes]  # their headers

    @property
    def size(self) -> tuple[int, int]:
        return int.from_bytes(self.body[3:5], "big"), int.from_bytes(self.body[1:3], "big")

    @property
    def components(self) -> int:
        return self.body[5]

    @property
    def held(self) -> float:
        """Bytes for each pixel that the decoder keeps until the last scan; 0 if one scan is all."""
        one = bool(self.scans) and self.scans[0][:1] == self.body[5:6]
        if one and self.code not in {0xC2, 0xCA}:  # not progressive
            return 0
        factors = [(both >> 4, both & 15) for both in self.body[7 : 3 * self.components + 6 : 3]]
        largest = max((x for x, _ in factors), default=0) * max((y for _, y in factors), default=0)
        return 2 * sum(x * y for x, y in factors) / max(largest, 1)

    @property
    def complete(self) -> bool:
        """Whether the scans bring every coefficient of every component with all its bits."""
        left = {(number, i) for number in self.body[6 : 3 * self.components + 6 : 3] for i in range(64)}
        for scan in self.scans:
            count = scan[0] if scan else 0
            if not 0 < 2 * count <= len(scan) - 4:
                return False
            low, high, bits = scan[2 * count + 1], scan[2 * count + 2], scan[2 * count + 3] & 15
            if bits == 0:
                left -= {(scan[2 * n + 1], i) for n in range(count) for i in range(low, min(high, 63) + 1)}
        return not left


def examine_jpeg(data: bytes, where: str) -> Container:
    """Reads the frame header and EXIF, and leaves out all metadata and what follows the image."""
    lean = [b"\xff\xd8"]
    frame: _Frame | None = None
    scans: list[bytes] = []
    exif = xmp = b""
    index = 0
    ended = True
    for segment in _segments(data, where):
        if segment.code in _FRAMES:
            if frame is not None or len(segment.body) < 6:
                raise damaged("JPEG", "its frame header is doubled or too short", where)
            frame = _Frame(segment.code, segment.body, scans)
        elif segment.code == 0xE1:
            exif = exif or (segment.body if segment.body.startswith(b"Exif\0\0") else b"")
            xmp = xmp or jpeg_xmp(segment.body)
        elif segment.code == 0xE2 and segment.body.startswith(_MPF):
            index = index or segment.at + 4 + len(_MPF)
        elif segment.code == _SCAN:
            scans.append(segment.body)
            ended = segment.ended
            if len(scans) > _MAX_SCANS:
                raise damaged("JPEG", f"it has more than {_MAX_SCANS} scans", where)
        if segment.needed:
            lean.append(segment.whole)
    if frame is None or not scans:
        raise damaged("JPEG", "it holds no image", where)
    if not ended and not frame.complete:
        raise truncated("JPEG", where)
    if index and not _BELONGS.search(xmp):
        _refuse_pictures(data[index:], frame.size, where)
    lean.append(b"\xff\xd9")
    found = parse_exif(exif)
    return Container(
        "JPEG",
        *frame.size,
        b"".join(lean),
        orientation=orientation(found, xmp),
        marker=from_user_comment(found.user_comment),
        shrinks=frame.code in _BY_COSINES,
        held=frame.held,
        unended=not ended,
    )


def _refuse_pictures(data: bytes, size: tuple[int, int], where: str) -> None:
    """Refuses a multi-picture file (CIPA DC-007) in which another picture may be the photo.

    Args:
        data: The file from behind the name of the index on; the index counts from there.
        size: Of the first picture.
        where: The file's name, for messages.
    """
    order = byte_order(data)
    try:
        entries = {entry.tag: entry for entry in first_directory(data, order)} if order else {}
    except ValueError:
        return  # a damaged index names no picture
    listed = entries.get(_MP_ENTRIES)
    if listed is None or listed.start + listed.length > len(data):
        return
    count = 1
    for at in range(listed.start + 16, listed.start + listed.length - 15, 16):
        kind, length, start = struct.unpack_from(order + "III", data, at)
        if kind & 0xFFFFFF not in _MP_THUMBNAILS:
            count += _as_large(data[start : start + length], size)
    if count > 1:
        raise several("JPEG", count, where)


def _as_large(data: bytes, size: tuple[int, int]) -> bool:
    """Whether a picture is in colour, more than half as wide and high, and belongs to no other one."""
    try:
        for segment in _segments(data, "") if data.startswith(b"\xff\xd8") else ():
            if _BELONGS.search(jpeg_xmp(segment.body)) or segment.body.startswith(_GAIN_MAP):
                return False
            if segment.code in _FRAMES and len(segment.body) >= 6:
                frame = _Frame(segment.code, segment.body, [])
                half = all(2 * one > other for one, other in zip(frame.size, size, strict=True))
                return half and frame.components > 1
    except UnreadableImageError:
        pass
    return False


def _segments(data: bytes, where: str) -> Iterator[_Segment]:
    """All segments between the start and the end of the image; only the mark of its end may be missing."""
    at = 2
    while True:
        at = data.find(b"\xff", at)
        while 0 <= at < len(data) - 1 and data[at + 1] == 0xFF:
            at += 1  # fill bytes
        if at < 0 or at + 1 >= len(data):
            raise truncated("JPEG", where)
        code = data[at + 1]
        if code == _END:
            return
        if code in _WITHOUT_BODY:
            at += 2
            continue
        body_end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if at + 4 > len(data) or body_end > len(data):
            raise truncated("JPEG", where)
        if body_end < at + 4:
            raise damaged("JPEG", "a segment has an impossible length", where)
        end = body_end
        if code == _SCAN:
            match = _SCAN_END.search(data, body_end)
            if match is None:  # of the mark, half may be there
                yield _Segment(code, at, data[at + 4 : body_end], data[at:].rstrip(b"\xff"), ended=False)
                return
            end = match.start()
        yield _Segment(code, at, data[at + 4 : body_end], data[at:end])
        at = end
