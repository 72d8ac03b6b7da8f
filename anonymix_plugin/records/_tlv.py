"""Tag, length, value by the basic encoding rules (ITU-T X.690, section 8.1), with every length checked."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from anonymix_plugin.records._values import RecordError

Field = tuple[int, bytes]
"""A tag as it is written, such as 0x7F61, and the value."""

_MOST_FIELDS = 1000


def fields(data: bytes) -> list[Field]:
    """The fields side by side in `data`.

    Raises:
        RecordError: They do not fill it exactly, or have lengths that are not known beforehand.
    """
    found: list[Field] = []
    at = 0
    while at < len(data):
        tag, start, end = head(data, at)
        if end > len(data) or len(found) >= _MOST_FIELDS:
            raise RecordError("a field reaches beyond its end")
        found.append((tag, data[start:end]))
        at = end
    return found


def head(data: bytes, at: int) -> tuple[int, int, int]:
    """Tag, start and end of the value of the field at a place."""
    begin = at
    if at < len(data) and data[at] & 31 == 31:
        at += 1
        while at < len(data) and data[at] & 128 and at - begin < 3:
            at += 1
    tag = int.from_bytes(data[begin : at + 1], "big")
    at += 1
    length = data[at : at + 1]
    if not length or length == b"\x80":
        raise RecordError("a field has no length")
    size, at = length[0], at + 1
    if size & 128:
        count = size & 127
        if count > 4 or at + count > len(data):
            raise RecordError("the length of a field is not valid")
        size, at = int.from_bytes(data[at : at + count], "big"), at + count
    return tag, at, at + size


def one(found: Iterable[Field], tag: int) -> bytes:
    """The value of the only field with a tag.

    Raises:
        RecordError: There is none, or there are several.
    """
    values = [value for name, value in found if name == tag]
    if len(values) != 1:
        raise RecordError(f"field {tag:X} is there {len(values)} times instead of once")
    return values[0]


def coded(tag: int, *parts: bytes) -> bytes:
    """A field."""
    value = b"".join(parts)
    size = len(value)
    length = bytes([size]) if size < 128 else _long(size)
    return tag.to_bytes(max(1, (tag.bit_length() + 7) // 8), "big") + length + value


def kept(found: Sequence[Field], tags: Iterable[int]) -> list[bytes]:
    """Those of the fields that have one of the tags, as they are."""
    wanted = frozenset(tags)
    return [coded(tag, value) for tag, value in found if tag in wanted]


def _long(size: int) -> bytes:
    digits = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([0x80 | len(digits)]) + digits
