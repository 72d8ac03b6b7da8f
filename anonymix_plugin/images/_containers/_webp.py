"""WebP: a RIFF file with chunks (RFC 9649)."""

from __future__ import annotations

from anonymix_plugin.images._containers._container import Container, damaged, several, truncated
from anonymix_plugin.images._exif import parse_exif
from anonymix_plugin.images._marker_text import from_user_comment
from anonymix_plugin.images._orientation import orientation


def examine_webp(data: bytes, where: str) -> Container:
    """Reads canvas size and EXIF; the lean copy only loses what follows the RIFF chunk."""
    total = 8 + int.from_bytes(data[4:8], "little")
    if not data.startswith(b"RIFF") or total < 20:
        raise damaged("WebP", "its RIFF header is not valid", where)
    if total > len(data):
        raise truncated("WebP", where)
    lean = data[:total]
    size: tuple[int, int] | None = None
    exif = xmp = profile = b""
    frames = 0
    at = 12
    while at + 8 <= total:
        kind = lean[at : at + 4]
        length = int.from_bytes(lean[at + 4 : at + 8], "little")
        body_end = at + 8 + length
        if body_end > total:
            raise truncated("WebP", where)
        if at == 12:
            size = _size(kind, lean[at + 8 : min(body_end, at + 18)])
        if kind == b"EXIF":
            exif = exif or lean[at + 8 : body_end]
        elif kind == b"XMP ":
            xmp = xmp or lean[at + 8 : body_end]
        elif kind == b"ICCP":
            profile = profile or lean[at + 8 : body_end]
        frames += kind == b"ANMF"
        at = body_end + (length & 1)
    if size is None:
        raise damaged("WebP", "its first chunk is not an image", where)
    if frames > 1:
        raise several("WebP", frames, where)
    found = parse_exif(exif)
    return Container(
        "WEBP",
        *size,
        lean,
        orientation=orientation(found, xmp),
        marker=from_user_comment(found.user_comment),
        profile=profile,
    )


def _size(kind: bytes, body: bytes) -> tuple[int, int] | None:
    if kind == b"VP8X" and len(body) >= 10:
        return int.from_bytes(body[4:7], "little") + 1, int.from_bytes(body[7:10], "little") + 1
    if kind == b"VP8 " and body[3:6] == b"\x9d\x01\x2a" and len(body) >= 10:
        width, height = int.from_bytes(body[6:8], "little"), int.from_bytes(body[8:10], "little")
        return width & 0x3FFF, height & 0x3FFF
    if kind == b"VP8L" and body[:1] == b"\x2f" and len(body) >= 5:
        bits = int.from_bytes(body[1:5], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    return None
