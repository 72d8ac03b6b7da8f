"""How big and how small a photo may be."""

from __future__ import annotations

from dataclasses import dataclass, fields

from anonymix_plugin.errors import ImageTooLargeError, ImageTooSmallError, UnreadableImageError, UsageError


@dataclass(frozen=True)
class ImageLimits:
    """Limits that are checked on the header, before a single pixel is decoded.

    Attributes:
        max_bytes: Largest encoded image, in bytes; does not apply to arrays and PIL images.
        max_pixels: Largest width x height, in pixels. The decoder needs about 10 bytes for each.
        max_side: Longest side, in pixels.
        min_side: Shortest side, in pixels.

    Raises:
        UsageError: A limit is not a positive whole number, or no size could satisfy all of them.
    """

    max_bytes: int = 64 * 1024 * 1024
    max_pixels: int = 64_000_000
    max_side: int = 16_384
    min_side: int = 32

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise UsageError(
                    f"the limit must be a positive whole number, not {value!r}",
                    where=f"ImageLimits.{each.name}",
                )
        if self.min_side > self.max_side or self.min_side**2 > self.max_pixels:
            raise UsageError("no image can satisfy these limits", where="ImageLimits", fix="lower min_side")

    def check_bytes(self, count: int, where: str) -> None:
        """Refuses an encoded image of `count` bytes if that is too many, or none at all."""
        if count > self.max_bytes:
            raise ImageTooLargeError(
                f"the image has more than the {self.max_bytes:,} bytes allowed",
                where=where,
                fix="save it smaller, or raise ImageLimits.max_bytes",
            )
        if count == 0:
            raise UnreadableImageError(
                "the image is empty (0 bytes)", where=where, fix="check how it was written"
            )

    def check_size(self, width: int, height: int, where: str) -> None:
        """Refuses an image of `width` x `height` pixels if that is outside the limits."""
        if width < 1 or height < 1:
            raise UnreadableImageError(
                f"the image declares {width} x {height} pixels", where=where, fix="check how it was written"
            )
        if max(width, height) > self.max_side or width * height > self.max_pixels:
            raise ImageTooLargeError(
                f"the image has {width:,} x {height:,} pixels; allowed are sides of {self.max_side:,} "
                f"and {self.max_pixels:,} pixels in all",
                where=where,
                fix="shrink it, or raise ImageLimits.max_side and max_pixels",
            )
        if min(width, height) < self.min_side:
            raise ImageTooSmallError(
                f"the image has only {width} x {height} pixels; a side needs at least {self.min_side}",
                where=where,
                fix="use a larger photo",
            )


DEFAULT_LIMITS = ImageLimits()
