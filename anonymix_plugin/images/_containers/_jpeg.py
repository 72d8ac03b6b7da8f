"""JPEG: a chain of segments, then entropy-coded scans (ITU T.81, annex B)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from anonymix_plugin.images._containers._container import Container, damaged, truncated
from anonymix_plugin.images._exif import parse_exif
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
_ICC: Final = b"ICC_PROFILE\0"


@dataclass(frozen=True)
class _Segment:
    code: int
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
    """Reads the frame header and EXIF, and leaves out all metadata and what follows the image.

    Of a file of several pictures (CIPA DC-007) the first is taken, which every program shows; that is the
    primary one, and what follows are previews, gain and depth maps, or further shots.
    """
    lean = [b"\xff\xd8"]
    frame: _Frame | None = None
    scans: list[bytes] = []
    exif = xmp = b""
    profile: list[bytes] = []
    ended = True
    for segment in _segments(data, where):
        if segment.code in _FRAMES:
            if frame is not None or len(segment.body) < 6:
                raise damaged("JPEG", "its frame header is doubled or too short", where)
            frame = _Frame(segment.code, segment.body, scans)
        elif segment.code == 0xE1:
            exif = exif or (segment.body if segment.body.startswith(b"Exif\0\0") else b"")
            xmp = xmp or jpeg_xmp(segment.body)
        elif segment.code == 0xE2 and segment.body.startswith(_ICC):
            profile.append(segment.body[len(_ICC) :])
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
    lean.append(b"\xff\xd9")
    found = parse_exif(exif)
    return Container(
        "JPEG",
        *frame.size,
        b"".join(lean),
        orientation=orientation(found, xmp),
        marker=from_user_comment(found.user_comment),
        shrinks=8 if frame.code in _BY_COSINES else 1,
        held=frame.held,
        unended=not ended,
        profile=_joined(profile),
    )


def _joined(parts: list[bytes]) -> bytes:
    """The colour profile whose parts are numbered from 1 on (ICC.1:2022, annex B); b"" if one is missing."""
    numbered = {part[0]: part[2:] for part in parts if len(part) > 2}
    whole = sorted(numbered) == list(range(1, len(numbered) + 1))
    return b"".join(numbered[number] for number in sorted(numbered)) if whole else b""


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
                yield _Segment(code, data[at + 4 : body_end], data[at:].rstrip(b"\xff"), ended=False)
                return
            end = match.start()
        yield _Segment(code, data[at + 4 : body_end], data[at:end])
        at = end
