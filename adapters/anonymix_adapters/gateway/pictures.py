"""What decodes as a picture, in whatever text encoding."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any, Final
from urllib.parse import unquote_to_bytes

_MAGIC: Final = (
    b"\xff\xd8\xff",
    b"\x89PNG",
    b"RIFF",
    b"GIF8",
    b"II*\0",
    b"MM\0*",
    b"\0\0\0\x0cjP",
    b"\xff\x4f\xff\x51",
    b"8BPS",
    b"qoif",
)
_SHORTEST: Final = 24
"""Bytes below which nothing is a picture of a face."""


def starts_as_a_picture(data: bytes) -> bool:
    """Whether bytes begin like an image file."""
    bitmap = data.startswith(b"BM") and data[6:10] == b"\0\0\0\0"
    return bitmap or data.startswith(_MAGIC) or data[4:8] == b"ftyp" or bool(re.match(rb"P[1-7]\s\d", data))


def holds_a_picture(text: str) -> bool:
    """Whether a text is a picture in Base64 (either alphabet), in hex, as a data URL, or percent-encoded."""
    if len(text) < _SHORTEST:
        return False
    if text[:5].lower() == "data:":
        return True
    head = re.sub(r"\s+", "", text[:4096])
    for alphabet in (b"+/", b"-_"):
        try:
            start = base64.b64decode(head[: min(len(head), 64) // 4 * 4], altchars=alphabet, validate=True)
        except (binascii.Error, ValueError):
            continue
        if starts_as_a_picture(start):
            return True
    if re.fullmatch(r"[0-9a-fA-F]{48,}", head[:64]) and starts_as_a_picture(bytes.fromhex(head[:48])):
        return True
    raw = unquote_to_bytes(text[:512]) if "%" in text else text[:512].encode("latin-1", "ignore")
    return starts_as_a_picture(raw) and not text.isascii()


def texts_of(value: Any) -> list[str]:
    """All texts of a JSON value, names included."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [text for key, each in value.items() for text in (key, *texts_of(each))]
    if isinstance(value, list):
        return [text for each in value for text in texts_of(each)]
    return []
