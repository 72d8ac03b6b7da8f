"""What every file format is reduced to."""

from __future__ import annotations

from dataclasses import dataclass

from anonymix_plugin.errors import UnreadableImageError


@dataclass(frozen=True)
class Container:
    """An image file, examined but not decoded.

    Attributes:
        kind: "JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "HEIF", "AVIF" or "JPEG2000".
        width: Pixels, as stored, before the orientation is applied.
        height: Pixels, as stored.
        data: The lean copy for the decoder.
        orientation: As in the EXIF tag, 1..8.
        marker: The raw marker of a cancelable face, or None.
        block: Width and height of the largest piece that the decoder unpacks at once, where it may be
            larger than the image.
        shrinks: How many times smaller the decoder can make the picture, at most: 1, 2, 4 or 8.
        held: Bytes that the decoder holds for each stored pixel until it is done, however small the picture.
        working: Bytes that it holds for each decoded pixel, beside the picture itself, where they are many.
        unended: Whether the mark at the end of the file is missing, so that it is to be found out whether
            the pixels are all there.
        crop: Left, top, right and bottom of what is to be shown of the stored pixels; None for all of them.
        profile: The ICC profile of the colours, or b"" for sRGB.
    """

    kind: str
    width: int
    height: int
    data: bytes
    orientation: int = 1
    marker: bytes | None = None
    block: tuple[int, int] = (0, 0)
    shrinks: int = 1
    held: float = 0
    working: float = 0
    unended: bool = False
    crop: tuple[int, int, int, int] | None = None
    profile: bytes = b""


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


def several(kind: str, count: int, where: str) -> UnreadableImageError:
    """The error for a file of several pictures, of which nobody said which one is the photo."""
    many = f"{count:,} pages or frames" if count else "several pages or frames"
    return UnreadableImageError(
        f"the {kind} file holds {many}, and which one is the photo can't be told",
        where=where,
        fix="save the one that shows the person as a picture of its own",
    )


def camera_raw(detail: str, where: str) -> UnreadableImageError:
    """The error for the raw data of a camera, whose first picture is a preview."""
    return UnreadableImageError(
        f"camera raw is not supported ({detail}): the picture that such a file shows first is a preview",
        where=where,
        fix="export a JPEG",
    )
