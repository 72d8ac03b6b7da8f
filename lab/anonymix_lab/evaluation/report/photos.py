"""Contact sheets: photos and protected faces side by side, where that is allowed."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from anonymix_lab.data import Protocol
from anonymix_lab.protections import KeyName, Protection
from anonymix_plugin.errors import PhotoError
from anonymix_plugin.images import decode_photo
from anonymix_plugin.values import Pixels

_PEOPLE = 6
_SIDE = 192


@dataclass(frozen=True, eq=False)
class SheetRow:
    """Pictures of one person, with what they are."""

    pictures: tuple[tuple[str, Pixels], ...]


def contact_sheet(protocol: Protocol, protection: Protection, people: int = _PEOPLE) -> tuple[SheetRow, ...]:
    """Two photos of each of the first people, both under the own key, and one under two more keys."""
    genuine = protocol.genuine()
    rows: dict[str, SheetRow] = {}
    for first, second in zip(genuine.first, genuine.second, strict=True):
        a, b = protocol.samples[int(first)], protocol.samples[int(second)]
        if a.person in rows:
            continue
        own, renewed = KeyName("own", a.person), KeyName("own", a.person, 2)
        try:
            pictures = (
                ("photo", decode_photo(a.source).pixels),
                ("another photo", decode_photo(b.source).pixels),
                ("its key", protection.protect(a.source, own)),
                ("the same key", protection.protect(b.source, own)),
                ("renewed key", protection.protect(b.source, renewed)),
                ("another application", protection.protect(b.source, KeyName("elsewhere", a.person))),
            )
        except PhotoError:
            continue  # counted among the failures already
        rows[a.person] = SheetRow(tuple((label, _shrunk(pixels)) for label, pixels in pictures))
        if len(rows) == people:
            break
    return tuple(rows.values())


def _shrunk(pixels: Pixels) -> Pixels:
    height, width = pixels.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = np.ascontiguousarray(pixels[top : top + side, left : left + side])
    return np.asarray(cv2.resize(square, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA), np.uint8)
