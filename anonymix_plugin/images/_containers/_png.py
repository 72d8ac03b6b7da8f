"""PNG: a chain of chunks, each with a checksum (PNG specification, third edition, section 5)."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from anonymix_plugin.images._colours import profile_of_cicp
from anonymix_plugin.images._containers._container import Container, damaged, several, truncated
from anonymix_plugin.images._exif import parse_exif
from anonymix_plugin.images._marker_text import from_itxt, from_text, from_user_comment
from anonymix_plugin.images._orientation import from_texts, orientation, png_text

_KEPT = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"})
_TEXTS = {b"tEXt": from_text, b"iTXt": from_itxt}
_MAX_PROFILE = 1 << 20
_TEXT_KINDS = frozenset({b"tEXt", b"zTXt", b"iTXt"})


def examine_png(data: bytes, where: str) -> Container:
    """Keeps header, palette, transparency and the image, and checks every checksum."""
    lean = [data[:8]]
    exif = xmp = profile = colours = named = b""
    marker: bytes | None = None
    header = b""
    pixels = False
    for kind, body, whole in _chunks(data, where):
        if (kind == b"IHDR") == bool(header) or (kind == b"IHDR" and len(body) != 13):
            raise damaged("PNG", "its header is missing, doubled or of the wrong length", where)
        if kind == b"IHDR":
            header = body
        elif kind == b"eXIf":
            exif = exif or body
        elif kind == b"iCCP":
            colours = colours or _profile(body)
        elif kind == b"cICP":
            named = profile_of_cicp(*body[:2]) if len(body) == 4 else b""
        elif kind == b"acTL" and int.from_bytes(body[:4], "big") > 1:
            raise several("PNG", int.from_bytes(body[:4], "big"), where)
        elif kind in _TEXT_KINDS:
            if kind in _TEXTS and marker is None:
                marker = _TEXTS[kind](body)
            found_exif, found_xmp = from_texts(*png_text(kind, body))
            profile, xmp = profile or found_exif, xmp or found_xmp
        pixels |= kind == b"IDAT"
        if kind in _KEPT:
            lean.append(whole)
        elif not kind[0] & 0x20:  # an upper-case first letter: the image can't be shown without this chunk
            raise damaged("PNG", "it needs an extension that is not known", where)
    if not pixels:
        raise damaged("PNG", "it holds no image", where)
    found = parse_exif(exif or profile)
    return Container(
        "PNG",
        int.from_bytes(header[:4], "big"),
        int.from_bytes(header[4:8], "big"),
        b"".join(lean),
        orientation=orientation(found, xmp),
        marker=from_user_comment(found.user_comment) if marker is None else marker,
        profile=named or colours,
    )


def _profile(body: bytes) -> bytes:
    """The colour profile in a chunk iCCP; b"" where it can't be unpacked or is huge."""
    packed = body.partition(b"\0")[2][1:]  # behind the name, the method
    unpacking = zlib.decompressobj()
    try:
        profile = unpacking.decompress(packed, _MAX_PROFILE)
    except zlib.error:
        return b""
    return profile if unpacking.eof else b""


def _chunks(data: bytes, where: str) -> Iterator[tuple[bytes, bytes, bytes]]:
    """Type, body and whole of every chunk up to the last; there must be a last one."""
    at = 8
    kind = b""
    while kind != b"IEND":
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        if at + 12 > len(data) or end > len(data):
            raise truncated("PNG", where)
        kind = data[at + 4 : at + 8]
        if zlib.crc32(data[at + 4 : end - 4]) != int.from_bytes(data[end - 4 : end], "big"):
            raise damaged("PNG", "a checksum does not match", where)
        yield kind, data[at + 8 : end - 4], data[at:end]
        at = end
