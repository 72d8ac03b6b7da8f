"""Which format a file is in, told by its first bytes and never by its name."""

from __future__ import annotations

import re
from collections.abc import Callable
from pkgutil import resolve_name
from typing import Final

from anonymix_plugin.errors import UnreadableImageError
from anonymix_plugin.images._containers._container import Container, camera_raw
from anonymix_plugin.records import find_record

_PICTURE_BRANDS: Final = (b"hei", b"hev", b"mif1", b"msf1", b"miaf", b"MiHE", b"avi")
_EXAMINERS: Final = (
    (b"\xff\xd8\xff", 0, "_jpeg:examine_jpeg"),
    (b"\x89PNG\r\n\x1a\n", 0, "_png:examine_png"),
    (b"WEBP", 8, "_webp:examine_webp"),
    (b"GIF87a", 0, "_gif:examine_gif"),
    (b"GIF89a", 0, "_gif:examine_gif"),
    (b"II*\0", 0, "_tiff:examine_tiff"),
    (b"MM\0*", 0, "_tiff:examine_tiff"),
    (b"BM", 0, "_bmp:examine_bmp"),
    *((b"ftyp" + brand, 4, "_heif:examine_heif") for brand in _PICTURE_BRANDS),
    (b"\0\0\0\x0cjP  ", 0, "_jpeg2000:examine_jpeg2000"),
    (b"\xff\x4f\xff\x51", 0, "_jpeg2000:examine_jpeg2000"),
)
"""How a file begins, where, and what takes it apart: each module is imported when its format first comes."""

_KNOWN_OTHERS: Final = (
    (b"\0\0\0\x0cJXL ", 0, "JPEG XL"),
    (b"\xff\x0a", 0, "JPEG XL"),
    (b"II+\0", 0, "BigTIFF"),
    (b"MM\0+", 0, "BigTIFF"),
    (b"%PDF", 0, "PDF"),
    (b"8BPS", 0, "Photoshop"),
    (b"\0\0\1\0", 0, "ICO"),
    (b"icns", 0, "ICNS"),
    (b"DDS ", 0, "DDS"),
    (b"qoif", 0, "QOI"),
    (b"%!PS", 0, "PostScript"),
    (b"P5", 0, "PGM"),
    (b"P6", 0, "PPM"),
    (b"#?RADIANCE", 0, "HDR"),
    (b"\x76\x2f\x31\x01", 0, "OpenEXR"),
)

_NO_PICTURES: Final = (
    (b"ftyp", 4, "a video", "save a frame of it as a picture; beside a live photo there is a still one"),
    (b"\x1a\x45\xdf\xa3", 0, "a video", "save a frame of it as a picture"),
    (b"PK\3\4", 0, "a ZIP archive", "unpack it"),
    (b"\x1f\x8b", 0, "packed by gzip", "unpack it"),
)
_TEXTS: Final = (
    (
        re.compile(rb"<(?:[?!].*<)?svg\b", re.IGNORECASE | re.DOTALL),
        "SVG is not supported",
        "convert it to JPEG, PNG, WebP or TIFF",
    ),
    (
        re.compile(rb"<(?:!doctype|html|\?xml)\b", re.IGNORECASE),
        "this is a page of text, maybe of a server",
        "look at it with a text editor, and download the picture again",
    ),
    (
        re.compile(rb"data:image/"),
        "this is a data URL",
        "decode the base64 behind its comma, and give the bytes",
    ),
    (
        re.compile(rb"(?:/9j/|_9j_|iVBORw0KGg|R0lGOD[dl]|UklGR|SUkqA|TU0AK|Qk[0-3])[\w+/=-]{20}"),
        "this is base64",
        "decode it, and give the bytes",
    ),
)
_TEXT_HEAD: Final = 1024  # bytes in which a text says what it is

_CAMERA_RAW: Final = (
    (b"IIRO", 0, "ORF"),
    (b"IIRS", 0, "ORF"),
    (b"MMOR", 0, "ORF"),
    (b"IIU\0", 0, "RW2"),
    (b"FUJIFILMCCD-RAW", 0, "RAF"),
    (b"ftypcrx", 4, "CR3"),
    (b"HEAPCCDR", 6, "CRW"),
    (b"FOVb", 0, "X3F"),
    (b"\0MRM", 0, "MRW"),
)


def examine(data: bytes, where: str) -> Container:
    """Takes an encoded image apart.

    Args:
        data: The whole file; of a biometric record the photo in it is examined.
        where: Its name, for messages.

    Raises:
        UnreadableImageError: Of none of the formats that are read, or damaged.
    """
    record = find_record(data, where)
    data = data if record is None else record.picture
    for magic, at, examiner in _EXAMINERS:
        if data.startswith(magic, at):
            take_apart: Callable[[bytes, str], Container] = resolve_name(f"{__package__}.{examiner}")
            return take_apart(data, where)
    for magic, at, name in _CAMERA_RAW:
        if data.startswith(magic, at):
            raise camera_raw(name, where)
    for magic, at, name in _KNOWN_OTHERS:
        if data.startswith(magic, at):
            raise UnreadableImageError(
                f"{name} is not supported", where=where, fix="convert it to JPEG, PNG, WebP or TIFF"
            )
    raise _no_picture(data, where)


def _no_picture(data: bytes, where: str) -> UnreadableImageError:
    for magic, at, name, cure in _NO_PICTURES:
        if data.startswith(magic, at):
            return UnreadableImageError(f"this is {name} and no image", where=where, fix=cure)
    head = data[:_TEXT_HEAD].removeprefix(b"\xef\xbb\xbf").lstrip()
    for begin, what, cure in _TEXTS:
        if begin.match(head):
            return UnreadableImageError(what, where=where, fix=cure)
    return UnreadableImageError(
        "this is not an image in a supported format",
        where=where,
        fix="use JPEG, PNG, HEIC, AVIF, JPEG 2000, WebP, BMP, TIFF or GIF",
    )
