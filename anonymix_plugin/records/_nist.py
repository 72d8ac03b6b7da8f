"""Transactions of ANSI/NIST-ITL in the traditional encoding, with a face in a record of type 10 (NIST SP 500-290).

Of the type 10 that is written again, its number, kind, source and date stay, and what the standard asks for is true
of the new picture. All else describes the old one. Records of types 1 and 2 stay as they are. A transaction with
other biometrics (fingers, irises, further photos) is not written back, because they would stay as they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from anonymix_plugin.records._values import FaceRecord, RecordError, coding_of

_FILE, _GROUP, _RECORD, _UNIT = b"\x1c", b"\x1d", b"\x1e", b"\x1f"
_TAGGED: Final = re.compile(rb"(\d{1,2})\.001:(\d{1,10})")
_FIELD: Final = re.compile(rb"10\.(\d{3,9}):", re.DOTALL)
_MOST_OF_FIRST: Final = 100_000
_MOST_FIELDS: Final = 10_000
_BINARY: Final = range(3, 9)
_OF_TEXT: Final = frozenset({1, 2})
_FACE: Final = 10
_KEPT: Final = frozenset({2, 3, 4, 5})
_CODES: Final = {b"JPEGB": "JPEG", b"JPEGL": "JPEG", b"JP2": "JPEG2000", b"JP2L": "JPEG2000", b"PNG": "PNG"}
_WRITTEN: Final = {"JPEG": b"JPEGB", "JPEG2000": b"JP2", "PNG": b"PNG"}
_NAMES: Final = {b"FACE"}


def read_nist(data: bytes) -> FaceRecord:
    """Reads a transaction with one photo of a face.

    Raises:
        RecordError: It is damaged, or holds no face or several.
    """
    records = list(_records(data))
    faces = [(place, _fields(body)) for place, (kind, body) in enumerate(records) if kind == _FACE]
    faces = [(place, found) for place, found in faces if found.get(3, b"").upper() in _NAMES]
    if len(faces) != 1:
        raise RecordError(f"it holds {len(faces)} photos of faces instead of one")
    place, found = faces[0]
    picture = found.get(999, b"")
    coding = coding_of(picture)
    if _CODES.get(found.get(11, b"").upper()) != coding:
        raise RecordError("its picture is coded otherwise than it says")

    def rebuild(new: bytes, width: int, height: int) -> bytes:
        others = sorted({kind for at, (kind, _) in enumerate(records) if at != place} - _OF_TEXT)
        if others:
            raise RecordError(f"it holds records of type {others[0]} as well, which would stay as they are")
        values = {number: found[number] for number in _KEPT if number in found}
        values |= {6: b"%d" % width, 7: b"%d" % height, 8: b"0", 9: b"1", 10: b"1"}
        values |= {11: _WRITTEN[coding], 12: b"SRGB", 13: b"0", 999: new}
        bodies = [body for _, body in records]
        bodies[place] = _written(values)
        return b"".join(bodies)

    return FaceRecord("ANSI/NIST-ITL type 10", picture, coding, rebuild)


def _records(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Type and bytes of each record, in their order; the first one lists the types of the others."""
    first = _tagged(data, 0)
    if first is None or first[0] != 1 or first[1] > _MOST_OF_FIRST:
        raise RecordError("it does not begin with a record of type 1")
    yield 1, data[: first[1]]
    at = first[1]
    for kind in _contents(data[: first[1]]):
        length = int.from_bytes(data[at : at + 4], "big") if kind in _BINARY else 0
        if kind not in _BINARY:
            found = _tagged(data, at)
            if found is None or found[0] != kind:
                raise RecordError("its records are others than it lists")
            length = found[1]
        if length < 4 or at + length > len(data):
            raise RecordError("it ends too early")
        yield kind, data[at : at + length]
        at += length


def _tagged(data: bytes, at: int) -> tuple[int, int] | None:
    match = _TAGGED.match(data, at)
    if match is None:
        return None
    kind, length = int(match[1]), int(match[2])
    if not 8 <= length <= len(data) - at or data[at + length - 1 : at + length] != _FILE:
        raise RecordError("the length of a record is not valid")
    return kind, length


def _contents(first: bytes) -> list[int]:
    for field in first.rstrip(_FILE).split(_GROUP):
        if field.startswith(b"1.003:"):
            kinds = [part.split(_UNIT)[0] for part in field[6:].split(_RECORD)][1:]
            if all(kind.isdigit() and len(kind) < 4 for kind in kinds):
                return [int(kind) for kind in kinds]
    raise RecordError("it does not list its records")


def _fields(body: bytes) -> dict[int, bytes]:
    """The fields of a record of type 10. The picture is the last, and may hold any byte."""
    found: dict[int, bytes] = {}
    at, end = 0, len(body) - 1
    while at < end:
        match = _FIELD.match(body, at)
        if match is None:
            raise RecordError("a field is not valid")
        number = int(match[1])
        stop = end if number == 999 else body.find(_GROUP, match.end(), end)
        stop = end if stop < 0 else stop
        if number in found or len(found) >= _MOST_FIELDS:
            raise RecordError("a field is there twice, or there are absurdly many")
        found[number] = body[match.end() : stop]
        at = stop + 1
    return found


def _written(values: dict[int, bytes]) -> bytes:
    rest = b"".join(_GROUP + b"10.%03d:" % number + values[number] for number in sorted(values)) + _FILE
    # The length counts its own digits.
    length = len(b"10.001:") + len(rest)
    digits = len(str(length + len(str(length))))
    return b"10.001:%d" % (length + digits) + rest
