"""What every file format is reduced to."""

from __future__ import annotations

from dataclasses import dataclass

from anonymix_plugin.errors import UnreadableImageError


@dataclass(frozen=True)
class Container:
    """An image file, examined but not decoded.

    Attributes:
        kind: "JPEG", "PNG", "WEBP", "GIF", "BMP" or "TIFF".
        width: Pixels, as stored, before the orientation is applied.
        height: Pixels, as stored.
        data: The lean copy for the decoder.
        orientation: EXIF orientation, 1..8.
        marker: The raw marker of a cancelable face, or None.
    """

    kind: str
    width: int
    height: int
    data: bytes
    orientation: int = 1
    marker: bytes | None = None


def truncated(kind: str, where: str) -> UnreadableImageError:
    """The error for a file that ends too early."""
    return UnreadableImageError(
        f"the {kind} file is truncated: it ends before the image does",
        where=where,
        fix="copy or download it again",
    )


def damaged(kind: str, detail: str, where: str) -> UnreadableImageError:
    """The error for a file that contradicts its format."""
    return UnreadableImageError(
        f"the {kind} file is damaged: {detail}", where=where, fix="copy, download or export it again"
    )
