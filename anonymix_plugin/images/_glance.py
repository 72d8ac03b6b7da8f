"""What an image file says of itself, without decoding it."""

from __future__ import annotations

from typing import NamedTuple

from anonymix_plugin.images._containers import examine


class Glance(NamedTuple):
    """Format and size of an image file.

    Attributes:
        kind: "JPEG", "PNG", ...
        width: Pixels, as stored.
        height: Pixels, as stored.
    """

    kind: str
    width: int
    height: int


def glance(data: bytes, where: str = "") -> Glance:
    """Format and size from the header.

    Args:
        data: The image file.
        where: Its name for messages.

    Raises:
        UnreadableImageError: It is no image file, or is damaged.
    """
    found = examine(data, where)
    return Glance(found.kind, found.width, found.height)
