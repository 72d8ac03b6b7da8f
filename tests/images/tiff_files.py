"""TIFF files put together field by field, for what no library writes."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

from anonymix_plugin.values import Pixels

_SIZES = {"B": 1, "H": 2, "I": 4}
_KINDS = {"B": 1, "H": 3, "I": 4, "b": 6, "h": 8, "i": 9}

Fields = Mapping[int, tuple[str, Sequence[int]]]


def tiff(*pages: tuple[Pixels | None, Fields], order: str = "<") -> bytes:
    """A file with one directory for each page; uncompressed pixels in one strip, unless told otherwise.

    Args:
        pages: Pixels (height, width, 3), and fields to add or to replace: tag -> letter of the type, values.
        order: "<" or ">".
    """
    data = bytearray((b"II*\0" if order == "<" else b"MM\0*") + bytes(4))
    link = 4
    for pixels, more in pages:
        fields: dict[int, tuple[str, Sequence[int]]] = {}
        if pixels is not None:
            height, width = pixels.shape[:2]
            fields = {
                256: ("I", [width]),
                257: ("I", [height]),
                258: ("H", [8, 8, 8]),
                259: ("H", [1]),
                262: ("H", [2]),
                273: ("I", [len(data)]),
                277: ("H", [3]),
                278: ("I", [height]),
                279: ("I", [pixels.nbytes]),
            }
            data += pixels.tobytes() + bytes(pixels.nbytes % 2)
        fields |= more
        rows = b""
        for tag, (letter, values) in sorted(fields.items()):
            body = struct.pack(f"{order}{len(values)}{letter}", *values)
            if len(body) > 4:
                body, at = struct.pack(order + "I", len(data)), body
                data += at + bytes(len(at) % 2)
            rows += struct.pack(order + "HHI", tag, _KINDS[letter], len(values)) + body.ljust(4, b"\0")
        struct.pack_into(order + "I", data, link, len(data))
        data += struct.pack(order + "H", len(rows) // 12) + rows
        link = len(data)
        data += bytes(4)
    return bytes(data)
