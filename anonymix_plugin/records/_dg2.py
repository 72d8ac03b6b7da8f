"""Data group 2 of a passport, as it is read from the chip (ICAO Doc 9303-10, section 4.7.2).

Of the header (CBEFF, ISO/IEC 19785) that a new record gets, version, type, owner and format stay. Date, validity
and maker speak of the data that are gone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

from anonymix_plugin.records._iso19794 import read_iso19794
from anonymix_plugin.records._iso39794 import read_iso39794
from anonymix_plugin.records._tlv import coded, fields, head, kept, one
from anonymix_plugin.records._values import DG2, ISO19794, FaceRecord, RecordError

_Wrap: TypeAlias = Callable[[bytes], bytes]

_GROUP, _TEMPLATE, _HEADER, _COUNT = 0x7F61, 0x7F60, 0xA1, 0x02
_PLAIN, _CONSTRUCTED = 0x5F2E, 0x7F2E
_KEPT: Final = frozenset({0x80, 0x81, 0x82, 0x87, 0x88})


def read_dg2(data: bytes) -> FaceRecord:
    """Reads a data group with one face; what follows it (a chip pads its files) is left out.

    Raises:
        RecordError: It is damaged, or holds several faces.
    """
    _, start, end = head(data, 0)
    if end > len(data):
        raise RecordError("it ends too early")
    group = fields(one(fields(data[start:end]), _GROUP))
    count = int.from_bytes(one(group, _COUNT), "big")
    if count != 1:
        raise RecordError(f"it holds {count} faces, and which one is meant can't be told")
    template = fields(one(group, _TEMPLATE))
    header = fields(one(template, _HEADER))
    inner, wrap = _block(template)

    def rebuild(picture: bytes, width: int, height: int) -> bytes:
        block = wrap(inner.rebuild(picture, width, height))
        body = coded(_TEMPLATE, coded(_HEADER, *kept(header, _KEPT)), block)
        return coded(DG2, coded(_GROUP, coded(_COUNT, b"\1"), body))

    return FaceRecord(f"ICAO 9303 DG2, {inner.kind}", inner.picture, inner.coding, rebuild)


def _block(template: list[tuple[int, bytes]]) -> tuple[FaceRecord, _Wrap]:
    blocks = [(tag, value) for tag, value in template if tag in {_PLAIN, _CONSTRUCTED}]
    if len(blocks) != 1:
        raise RecordError(f"it holds {len(blocks)} blocks of data instead of one")
    tag, value = blocks[0]
    if value.startswith(ISO19794):
        return read_iso19794(value), lambda new: coded(tag, new)
    inner = fields(value)
    if [name for name, _ in inner] == [0xA1]:
        return read_iso39794(inner[0][1]), lambda new: coded(tag, coded(0xA1, new))
    return read_iso39794(value), lambda new: coded(tag, new)
