"""Face image data of ISO/IEC 19794-5: the versions of 2005 ("010") and 2011 ("030").

Of a record that is written again, the head is kept, and what says how the picture is coded and how large it is.
Feature points, pose, expression, properties, colours of eyes and hair, sex and height describe the face that is
gone, and quality, device and date its photo: they become "unspecified" or are left out. The new picture is of the
basic kind, because it keeps to the measures of no frontal one.
"""

from __future__ import annotations

import struct
from typing import Final

from anonymix_plugin.records._values import ISO19794, FaceRecord, RecordError, coding_of

_KIND: Final = "ISO/IEC 19794-5"
_CODES: Final = {"JPEG": 0, "JPEG2000": 1}
_UNKNOWN_DATE: Final = b"\xff" * 9
_BASIC, _SRGB = 0, 1
_OLD, _NEW = b"010\0", b"030\0"


def read_iso19794(data: bytes) -> FaceRecord:
    """Reads a record of one face.

    Raises:
        RecordError: It is damaged, of another version, or of several faces.
        struct.error: It ends too early.
    """
    version = data[4:8]
    if version not in {_OLD, _NEW}:
        raise RecordError("its version is not supported")
    length, count = struct.unpack_from(">IH", data, 8)
    if count != 1:
        raise RecordError(f"it holds {count} faces, and which one is meant can't be told")
    if length > len(data):
        raise RecordError("it ends too early")
    return _old(data[:length]) if version == _OLD else _new(data[:length])


def _old(data: bytes) -> FaceRecord:
    block, points = struct.unpack_from(">IH", data, 14)
    at = 14 + 20 + 8 * points
    kind, code, _, _, _, _, _, _ = struct.unpack_from(">BBHHBBHH", data, at)
    if block != len(data) - 14 or kind >= 0x80:
        raise RecordError("its lengths contradict each other, or its picture is three-dimensional")
    picture = _picture(data[at + 12 :], code)

    def rebuild(new: bytes, width: int, height: int) -> bytes:
        image = struct.pack(">BBHHBBHH", _BASIC, code, width, height, _SRGB, 0, 0, 0)
        body = struct.pack(">IH", 20 + len(image) + len(new), 0) + bytes(14) + image + new
        return ISO19794 + _OLD + struct.pack(">IH", 14 + len(body), 1) + body

    return FaceRecord(f"{_KIND}:2005", picture, coding_of(picture), rebuild)


def _new(data: bytes) -> FaceRecord:
    certified = data[14]
    (block,) = struct.unpack_from(">I", data, 17)
    at = 17 + 4 + len(_UNKNOWN_DATE) + 5
    at += 1 + 5 * data[at]
    if certified:
        at += 1 + 3 * data[at]
    (points,) = struct.unpack_from(">H", data, at)
    at += 17 + 8 * points
    kind, code = data[at], data[at + 1]
    (size,) = struct.unpack_from(">I", data, at + 11)
    if block != len(data) - 17 or kind >= 0x80 or size != len(data) - at - 15:
        raise RecordError("its lengths contradict each other, or its picture is three-dimensional")
    picture = _picture(data[at + 15 :], code)

    def rebuild(new: bytes, width: int, height: int) -> bytes:
        image = struct.pack(">BBHHBHBB", _BASIC, min(code, 1), width, height, 0, 0, 0, _SRGB)
        body = _UNKNOWN_DATE + bytes(5) + b"\0" + bytes(17) + image + struct.pack(">I", len(new)) + new
        whole = struct.pack(">I", 4 + len(body)) + body
        return ISO19794 + _NEW + struct.pack(">IHBH", 17 + len(whole), 1, 0, 0) + whole

    return FaceRecord(f"{_KIND}:2011", picture, coding_of(picture), rebuild)


def _picture(picture: bytes, code: int) -> bytes:
    if _CODES.get(coding_of(picture)) != min(code, 1):
        raise RecordError("its picture is coded otherwise than it says")
    return picture
