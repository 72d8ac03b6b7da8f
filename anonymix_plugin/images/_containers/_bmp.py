"""BMP: a file header, an information header of one of several ages, rows of pixels."""

from __future__ import annotations

from anonymix_plugin.images._containers._container import Container, damaged, truncated

_UNCOMPRESSED = frozenset({0, 3, 6})


def examine_bmp(data: bytes, where: str) -> Container:
    """Reads the size and checks that all rows are there; there is no metadata to leave out."""
    if len(data) < 26:
        raise truncated("BMP", where)
    start = int.from_bytes(data[10:14], "little")
    header = int.from_bytes(data[14:18], "little")
    if header == 12:
        width, height = int.from_bytes(data[18:20], "little"), int.from_bytes(data[20:22], "little")
        bits, compression = int.from_bytes(data[24:26], "little"), 0
    elif 16 <= header <= 124:
        if len(data) < 14 + header:
            raise truncated("BMP", where)
        width = int.from_bytes(data[18:22], "little", signed=True)
        # A negative height says that the rows run from top to bottom.
        height = abs(int.from_bytes(data[22:26], "little", signed=True))
        bits = int.from_bytes(data[28:30], "little")
        compression = int.from_bytes(data[30:34], "little") if header >= 40 else 0
    else:
        raise damaged("BMP", "its header is of an unknown kind", where)
    if width < 1 or height < 1 or bits not in {1, 4, 8, 16, 24, 32}:
        raise damaged("BMP", f"it declares {width} x {height} pixels of {bits} bits", where)
    row = (width * bits + 31) // 32 * 4
    # Run-length coded rows can be shorter than the picture; the decoder finds out how they end.
    if start >= len(data) or (compression in _UNCOMPRESSED and start + row * height > len(data)):
        raise truncated("BMP", where)
    return Container("BMP", width, height, data)
