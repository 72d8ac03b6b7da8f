"""JPEG: a chain of segments, then entropy-coded scans (ITU T.81, annex B)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from anonymix_plugin.images._containers._container import Container, damaged, truncated
from anonymix_plugin.images._exif import parse_exif
from anonymix_plugin.images._marker_text import from_user_comment

_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_SCAN = 0xDA
_END = 0xD9
_WITHOUT_BODY = frozenset({0x00, 0x01, *range(0xD0, 0xD9)})
# A scan ends at a marker that is neither a stuffed zero, nor a restart, nor a fill byte.
_SCAN_END = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
# Honest progressive files have about ten scans; each one costs the decoder a pass over all pixels.
_MAX_SCANS = 100


@dataclass(frozen=True)
class _Segment:
    code: int
    body: bytes
    whole: bytes  # marker, length and body, and after a scan header the scan itself

    @property
    def needed(self) -> bool:
        """Whether pixels depend on it: tables, frames, scans, and what settles the colour space."""
        application = (self.code == 0xE0 and self.body[:4] == b"JFIF") or (
            self.code == 0xEE and self.body[:5] == b"Adobe"
        )
        return self.code < 0xE0 or application


def examine_jpeg(data: bytes, where: str) -> Container:
    """Reads the frame header and EXIF, and leaves out all metadata and what follows the image."""
    lean = [b"\xff\xd8"]
    size: tuple[int, int] | None = None
    exif = b""
    scans = 0
    for segment in _segments(data, where):
        if segment.code in _FRAMES:
            if size is not None or len(segment.body) < 6:
                raise damaged("JPEG", "its frame header is doubled or too short", where)
            size = (int.from_bytes(segment.body[3:5], "big"), int.from_bytes(segment.body[1:3], "big"))
        elif segment.code == 0xE1 and segment.body.startswith(b"Exif\0\0"):
            exif = exif or segment.body
        elif segment.code == _SCAN:
            scans += 1
        if scans > _MAX_SCANS:
            raise damaged("JPEG", f"it has more than {_MAX_SCANS} scans", where)
        if segment.needed:
            lean.append(segment.whole)
    if size is None or not scans:
        raise damaged("JPEG", "it holds no image", where)
    lean.append(b"\xff\xd9")
    found = parse_exif(exif)
    marker = from_user_comment(found.user_comment)
    return Container("JPEG", *size, b"".join(lean), orientation=found.orientation, marker=marker)


def _segments(data: bytes, where: str) -> Iterator[_Segment]:
    """All segments between the start and the end of the image; it must have an end."""
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
            if match is None:
                raise truncated("JPEG", where)
            end = match.start()
        yield _Segment(code, data[at + 4 : body_end], data[at:end])
        at = end
