"""How large a picture a decoder will unpack, told by the bitstream itself and not by the file around it.

A file may declare a small picture whose bitstream unpacks to a huge one. HEVC: ITU-T H.265, section 7.3.2.2.
AV1: Bitstream & Decoding Process Specification, section 5.5.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

from anonymix_plugin.images._containers._boxes import Cursor

_PARAMETERS: Final = frozenset({32, 33, 34})  # of the video, the sequence, the picture
_SEQUENCE: Final = 33
_SLICES: Final = range(32)
_SEQUENCE_HEADER: Final = 1
_MOST: Final = 1024  # bytes of a header
_MOST_OF_RECORD: Final = 1 << 16
_MOST_UNITS: Final = 100_000  # of a picture; some may be empty


class _Bits:
    """Bits, the highest first; ValueError where there are too few."""

    def __init__(self, data: bytes) -> None:
        data = data[:_MOST]
        self._value, self._left = int.from_bytes(data, "big"), 8 * len(data)

    def take(self, count: int) -> int:
        self._left -= count
        if self._left < 0:
            raise ValueError("ends too early")
        return self._value >> self._left & (1 << count) - 1

    def golomb(self) -> int:
        """An unsigned Exp-Golomb code (H.265, section 9.2), which is AV1's uvlc as well."""
        zeros = 0
        while not self.take(1):
            zeros += 1
            if zeros > 32:
                raise ValueError("a code without end")
        return (1 << zeros) - 1 + self.take(zeros)


def hevc_parameters(record: bytes) -> tuple[bytes, tuple[int, int]]:
    """A decoder's configuration (`hvcC`) with what a still picture needs, and the size that it names.

    Raises:
        ValueError: It is damaged, or names no size.
    """
    if len(record) > _MOST_OF_RECORD:
        raise ValueError("the decoder's configuration is absurdly long")
    cursor = Cursor(record)
    head = cursor.bytes(22)
    kept: list[bytes] = []
    sizes: list[tuple[int, int]] = []
    for _ in range(cursor.number(1)):
        kind = cursor.number(1)
        units = [cursor.bytes(cursor.number(2)) for _ in range(cursor.number(2))]
        units = [unit for unit in units if _layer(unit) == 0]
        if kind & 63 not in _PARAMETERS or not units:
            continue
        sizes += [_hevc_size(unit) for unit in units if unit[0] >> 1 == _SEQUENCE]
        kept.append(struct.pack(">BH", kind, len(units)) + b"".join(struct.pack(">H", len(u)) + u for u in units))
    if not sizes:
        raise ValueError("no size")
    return head + bytes([len(kept)]) + b"".join(kept), _largest(sizes)


def hevc_slices(data: bytes, record: bytes) -> bytes:
    """A picture's data without all but the slices: parameters that follow would change its size.

    Raises:
        ValueError: It is damaged, or ends too early.
    """
    size = (record[21] & 3) + 1
    cursor = Cursor(data)
    kept: list[bytes] = []
    for _ in range(_MOST_UNITS):
        if not cursor:
            return b"".join(kept)
        unit = cursor.bytes(cursor.number(size))
        if unit and unit[0] >> 1 in _SLICES and _layer(unit) == 0:
            kept.append(len(unit).to_bytes(size, "big") + unit)
    raise ValueError("it has too many units")


def _layer(unit: bytes) -> int:
    if len(unit) < 2:
        raise ValueError("an empty unit")
    return (unit[0] & 1) << 5 | unit[1] >> 3


def _hevc_size(unit: bytes) -> tuple[int, int]:
    bits = _Bits(unit[2:].replace(b"\0\0\3", b"\0\0"))  # after two zeros, a 3 is no part of the content
    bits.take(4)
    layers = bits.take(3)
    bits.take(1 + 96)
    present = [(bits.take(1), bits.take(1)) for _ in range(layers)]
    if layers:
        bits.take(2 * (8 - layers))
    for profile, level in present:
        bits.take(88 * profile + 8 * level)
    bits.golomb()
    if bits.golomb() == 3:
        bits.take(1)
    return bits.golomb(), bits.golomb()


def av1_size(data: bytes) -> tuple[int, int]:
    """The largest picture that AV1 data may unpack to.

    Raises:
        ValueError: They are damaged, end too early or have no sequence header.
    """
    sizes = [_av1_sequence(body) for kind, body in _units(data) if kind == _SEQUENCE_HEADER]
    if not sizes:
        raise ValueError("no sequence header")
    return _largest(sizes)


def _units(data: bytes) -> Iterator[tuple[int, bytes]]:
    cursor = Cursor(data)
    for _ in range(_MOST_UNITS):
        if not cursor:
            return
        head = cursor.number(1)
        if head & 4:
            cursor.bytes(1)
        length = cursor.end - cursor.at
        if head & 2:
            length, shift, more = 0, 0, True
            while more:
                byte = cursor.number(1)
                length |= (byte & 127) << shift
                shift, more = shift + 7, bool(byte & 128) and shift < 49
        yield head >> 3 & 15, cursor.bytes(length)
    raise ValueError("it has too many units")


def _av1_sequence(body: bytes) -> tuple[int, int]:
    bits = _Bits(body)
    bits.take(4)
    reduced = bits.take(1)
    if reduced:
        bits.take(5)
    else:
        _skip_operating_points(bits)
    wide, high = bits.take(4) + 1, bits.take(4) + 1
    size = bits.take(wide) + 1, bits.take(high) + 1
    # Without the reduced header each frame may name a size of its own, of up to as many bits.
    return size if reduced else (1 << wide, 1 << high)


def _skip_operating_points(bits: _Bits) -> None:
    delay = 0
    if bits.take(1):  # timing
        bits.take(64)
        if bits.take(1):
            bits.golomb()
        if bits.take(1):  # decoder model
            delay = bits.take(5) + 1
            bits.take(32 + 10)
    display = bits.take(1)
    for _ in range(bits.take(5) + 1):
        bits.take(12)
        if bits.take(5) > 7:
            bits.take(1)
        if delay and bits.take(1):
            bits.take(2 * delay + 1)
        if display and bits.take(1):
            bits.take(4)


def _largest(sizes: list[tuple[int, int]]) -> tuple[int, int]:
    return max(width for width, _ in sizes), max(height for _, height in sizes)
