"""Face image data of ISO/IEC 39794-5, in the tagged binary encoding that passports have.

A record that is written again keeps its version and number. Everything optional describes the face that is gone or
its photo (quality, device, date, landmarks, metadata of identity, measures), and is left out.
"""

from __future__ import annotations

from typing import Final

from anonymix_plugin.records._tlv import coded, fields, kept, one
from anonymix_plugin.records._values import ISO39794, FaceRecord, RecordError, coding_of

_SEQUENCE: Final = 0x30
_LOSSLESS: Final = 4
_LOSSY: Final = 3


def read_iso39794(data: bytes) -> FaceRecord:
    """Reads a record of one face in two dimensions.

    Raises:
        RecordError: It is damaged, or of another kind.
    """
    block = fields(one(fields(data), ISO39794))
    representations = fields(one(block, 0xA1))
    if len(representations) != 1:
        raise RecordError(f"it holds {len(representations)} faces, and which one is meant can't be told")
    face = fields(one(representations, _SEQUENCE))
    flat = fields(one(fields(one(fields(one(face, 0xA1)), 0xA0)), 0xA0))
    picture = one(flat, 0x80)
    code = one(fields(one(fields(one(flat, 0xA1)), 0xA0)), 0x80)

    def rebuild(new: bytes, width: int, height: int) -> bytes:
        told = bytes([_LOSSY]) if code == bytes([_LOSSLESS]) else code
        size = coded(0xA7, coded(0x80, _whole(width)), coded(0x81, _whole(height)))
        about = coded(0xA1, coded(0xA0, coded(0x80, told)), size)
        image = coded(0xA1, coded(0xA0, coded(0xA0, coded(0x80, new), about)))
        body = coded(_SEQUENCE, *kept(face, [0x80]), image)
        return coded(ISO39794, *kept(block, [0xA0]), coded(0xA1, body))

    return FaceRecord("ISO/IEC 39794-5", picture, coding_of(picture), rebuild)


def _whole(value: int) -> bytes:
    return value.to_bytes(value.bit_length() // 8 + 1, "big")
