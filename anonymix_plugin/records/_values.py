"""What every kind of record is reduced to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

# How each kind begins: a text, or one byte of a tag.
ISO19794: Final = b"FAC\0"
NIST: Final = b"1.001:"
DG2: Final = 0x75
ISO39794: Final = 0x65

Coding: TypeAlias = Literal["JPEG", "JPEG2000", "PNG"]
"""How the photo within a record is coded."""

_HEADS: Final[dict[bytes, Coding]] = {
    b"\xff\xd8\xff": "JPEG",
    b"\xff\x4f\xff\x51": "JPEG2000",
    b"\0\0\0\x0cjP  ": "JPEG2000",
    b"\x89PNG\r\n\x1a\n": "PNG",
}


class RecordError(ValueError):
    """A record contradicts its format, or holds what is not supported; the text says what, in words."""


@dataclass(frozen=True)
class FaceRecord:
    """A record with one photo of a face.

    Attributes:
        kind: The standard, for people to read.
        picture: The photo in it, a file of its own.
        coding: How that is coded.
        rebuild: Writes the record again, with another picture of the same coding, given its bytes, width and
            height in pixels. What described the old picture is dropped. Raises `RecordError`.
    """

    kind: str
    picture: bytes = field(repr=False)
    coding: Coding
    rebuild: Callable[[bytes, int, int], bytes] = field(repr=False)


def coding_of(picture: bytes) -> Coding:
    """How a picture is coded, told by its first bytes.

    Raises:
        RecordError: In none of the ways that records have.
    """
    for head, coding in _HEADS.items():
        if picture.startswith(head):
            return coding
    raise RecordError("its picture is neither JPEG nor JPEG 2000 nor PNG")
