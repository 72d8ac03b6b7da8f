"""Where the marker's text lies inside the metadata of a file."""

from __future__ import annotations

from typing import Final

KEYWORD: Final = "anonymix"
"""Keyword of the PNG text chunk, and first key of the JSON object."""

_CHARACTER_CODE: Final = b"ASCII\0\0\0"
_BEGINNING: Final = b'{"anonymix":'


def to_user_comment(text: bytes) -> bytes:
    """The value of the EXIF field UserComment that carries `text`."""
    return _CHARACTER_CODE + text


def from_user_comment(value: bytes) -> bytes | None:
    """The marker in the EXIF field UserComment, or None if that holds something else."""
    text = value.removeprefix(_CHARACTER_CODE).rstrip(b"\0 ")
    return text if text.startswith(_BEGINNING) else None


def from_text(chunk: bytes) -> bytes | None:
    """The marker in a PNG tEXt chunk, or None if that holds something else."""
    keyword, found, text = chunk.partition(b"\0")
    return text if found and keyword == KEYWORD.encode() else None


def from_itxt(chunk: bytes) -> bytes | None:
    """The marker in a PNG iTXt chunk, None if that holds something else, b"" if it can't be read."""
    keyword, _, rest = chunk.partition(b"\0")
    if keyword != KEYWORD.encode():
        return None
    parts = rest[2:].split(b"\0", 2)  # language, translated keyword, text
    # Compressed text is never written here; the keyword alone says that the image is marked.
    return parts[2] if rest[:1] == b"\0" and len(parts) == 3 else b""
