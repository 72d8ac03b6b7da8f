"""Boxes of ISO base media files (ISO/IEC 14496-12, section 4.2): HEIF, AVIF and JPEG 2000 consist of them."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

_MOST: Final = 20_000  # boxes side by side


class Cursor:
    """Whole numbers and bytes, read one after the other, never beyond an end.

    Args:
        data: The file.
        at: Where to begin.
        end: Where to stop.

    Every method raises ValueError where there is less than it asks for.
    """

    def __init__(self, data: bytes, at: int = 0, end: int | None = None) -> None:
        self.data, self.at, self.end = data, at, len(data) if end is None else end

    def __bool__(self) -> bool:
        return self.at < self.end

    def bytes(self, count: int) -> bytes:
        """The next bytes."""
        if not 0 <= count <= self.end - self.at:
            raise ValueError("ends too early")
        self.at += count
        return self.data[self.at - count : self.at]

    def number(self, size: int) -> int:
        """The next whole number of `size` bytes, the highest first; 0 for no bytes."""
        return int.from_bytes(self.bytes(size), "big")

    def full(self) -> tuple[int, int]:
        """Version and flags, with which a full box begins."""
        return self.number(1), self.number(3)


def boxes(data: bytes, at: int = 0, end: int | None = None) -> Iterator[tuple[bytes, Cursor]]:
    """Name and content of the boxes between two places.

    Raises:
        ValueError: A box reaches beyond the end, or there are absurdly many.
    """
    end = len(data) if end is None else end
    for _ in range(_MOST):
        if at + 8 > end:
            if at != end:
                raise ValueError("ends within the head of a box")
            return
        size, name = struct.unpack_from(">I4s", data, at)
        head = 8
        if size == 1:
            if at + 16 > end:
                raise ValueError("ends within the head of a box")
            size, head = int(struct.unpack_from(">Q", data, at + 8)[0]), 16
        elif size == 0:  # up to the end
            size = end - at
        if not head <= size <= end - at:
            raise ValueError("a box reaches beyond its end")
        yield name, Cursor(data, at + head, at + size)
        at += size
    raise ValueError("too many boxes")


def box(name: bytes, *parts: bytes) -> bytes:
    """A box of these parts."""
    body = b"".join(parts)
    return struct.pack(">I4s", 8 + len(body), name) + body
