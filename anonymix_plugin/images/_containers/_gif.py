"""GIF: a logical screen, then blocks (GIF89a specification)."""

from __future__ import annotations

from anonymix_plugin.errors import UnreadableImageError
from anonymix_plugin.images._containers._container import Container, damaged, several, truncated


def examine_gif(data: bytes, where: str) -> Container:
    """Keeps the screen, its palette, and the first frame with its transparency."""
    if len(data) < 13:
        raise truncated("GIF", where)
    width, height = int.from_bytes(data[6:8], "little"), int.from_bytes(data[8:10], "little")
    at = 13 + _table(data[10])
    lean = [data[:at]]
    while at < len(data):
        block = data[at]
        if block == 0x21:
            end = _skip_blocks(data, at + 2, where)
            if data[at + 1] == 0xF9:
                lean.append(data[at:end])
            at = end
        elif block == 0x2C:
            if at + 10 > len(data):
                break
            # A frame may reach beyond the screen; decoders then enlarge the picture.
            x, y, w, h = (int.from_bytes(data[at + i : at + i + 2], "little") for i in (1, 3, 5, 7))
            width, height = max(width, x + w), max(height, y + h)
            end = _skip_blocks(data, at + 10 + _table(data[at + 9]) + 1, where)
            lean += [data[at:end], b";"]
            if _another(data, end):
                raise several("GIF", 0, where)
            return Container("GIF", width, height, b"".join(lean))
        elif block == 0x3B:
            raise damaged("GIF", "it holds no image", where)
        else:
            raise damaged("GIF", "a block has an unknown type", where)
    raise truncated("GIF", where)


def _another(data: bytes, at: int) -> bool:
    """Whether there is a second frame; what can't be read after the first one holds none."""
    try:
        while data[at : at + 1] == b"\x21":
            at = _skip_blocks(data, at + 2, "")
    except UnreadableImageError:
        return False
    return data[at : at + 1] == b"\x2c"


def _table(flags: int) -> int:
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _skip_blocks(data: bytes, at: int, where: str) -> int:
    while at < len(data):
        length = data[at]
        at += 1 + length
        if not length:
            return at
    raise truncated("GIF", where)
