"""How big and how small a photo may be, and how many people may be in it."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final

from anonymix_plugin.errors import (
    ImageTooLargeError,
    ImageTooSmallError,
    SeveralFacesError,
    UnreadableImageError,
    UsageError,
)


@dataclass(frozen=True)
class ImageLimits:
    """Limits of photos. Those of their size are checked on the header, before a single pixel is decoded.

    Attributes:
        max_bytes: Largest encoded image, in bytes; does not apply to arrays and PIL images.
        max_pixels: Largest width x height, in pixels. Decoding takes at most 18 bytes for each (of JPEG and
            PNG 11), besides up to three copies of the file. A JPEG file of up to four times as many pixels is
            decoded 2, 4 or 8 times smaller, within the same memory, and a JPEG 2000 file at half the size;
            so is one in a single piece that would need more memory. Other files are refused.
        max_side: Longest side, in pixels, of what is decoded.
        min_side: Shortest side, in pixels.
        max_faces: Most faces that are read in one photo, under the policy "all"; a photo of more is refused.

    Raises:
        UsageError: A limit is not a positive whole number, or no size could satisfy all of them.
    """

    max_bytes: int = 64 * 1024 * 1024
    max_pixels: int = 64_000_000
    max_side: int = 16_384
    min_side: int = 32
    max_faces: int = 20

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

    def check_faces(self, count: int, where: str) -> None:
        """Refuses a photo of `count` faces if that is too many: each takes as long as a photo of one."""
        if count > self.max_faces:
            raise SeveralFacesError(
                f"the photo shows {count} faces that are asked for, and {self.max_faces} are the most",
                where=where,
                fix="cut the photo into parts, or raise --max-faces, max_faces under [limits] in the"
                " configuration file, or ImageLimits",
            )

    def check_bytes(self, count: int, where: str) -> None:
        """Refuses an encoded image of `count` bytes if that is too many, or none at all."""
        if count > self.max_bytes:
            raise ImageTooLargeError(
                f"the image has more than the {self.max_bytes:,} bytes allowed",
                where=where,
                fix="save it smaller, or raise max_bytes under [limits] in the configuration file, or in ImageLimits",
            )
        if count == 0:
            raise UnreadableImageError("the image is empty (0 bytes)", where=where, fix="check how it was written")

    def check_size(self, width: int, height: int, where: str) -> None:
        """Refuses an image of `width` x `height` pixels if that is outside the limits."""
        if width < 1 or height < 1:
            raise UnreadableImageError(
                f"the image declares {width} x {height} pixels", where=where, fix="check how it was written"
            )
        if not self.holds(width, height):
            raise ImageTooLargeError(
                f"the image has {width:,} x {height:,} pixels; allowed are sides of {self.max_side:,} "
                f"and {self.max_pixels:,} pixels in all",
                where=where,
                fix="shrink it, or raise the limits: --max-pixels and --max-side on the command line,"
                " max_pixels and max_side under [limits] in the configuration file, or ImageLimits",
            )
        if min(width, height) < self.min_side:
            raise ImageTooSmallError(
                f"the image has only {width} x {height} pixels; a side needs at least {self.min_side}",
                where=where,
                fix="use a larger photo",
            )

    def check_block(self, width: int, height: int, where: str) -> None:
        """Refuses an image whose decoder unpacks a piece (a tile) of more pixels than an image may have."""
        # The sides of tiles are multiples of 16, so that one may be a little wider than the image.
        if max(width, height) >= self.max_side + 16 or width * height > self.max_pixels:
            raise ImageTooLargeError(
                f"the image is stored in tiles of {width:,} x {height:,} pixels, more than are allowed",
                where=where,
                fix="save it again with smaller tiles, or in strips",
            )

    def shrinking(
        self, width: int, height: int, where: str, *, held: float = 0, working: float = 0, most: int = 8
    ) -> int:
        """How many times smaller a decoder that can shrink has to make a picture: 1, 2, 4 or 8.

        Args:
            width: Pixels, as stored.
            height: Pixels, as stored.
            where: The image's name, for messages.
            held: Bytes that the decoder keeps for each stored pixel, however small the picture becomes.
            working: Bytes that it keeps for each decoded pixel, beside the picture itself.
            most: How many times smaller it can make the picture.

        Raises:
            ImageTooLargeError, ImageTooSmallError, UnreadableImageError: As for `check_size`; no size fits.
        """
        stored = width * height
        each = _BYTES_OF_PICTURE + working
        if self.holds(width, height) and (not working or each * stored <= _BYTES * self.max_pixels):
            self.check_size(width, height, where)
            return 1
        for times in (2, 4, 8) if stored < _MOST_STORED * self.max_pixels else ():
            small = (-(-width // times), -(-height // times))
            needed = held * stored + each * small[0] * small[1]
            fits = self.holds(*small) and min(small) >= self.min_side and needed <= _BYTES * self.max_pixels
            if times <= most and fits:
                return times
        self.check_size(width, height, where)
        raise ImageTooLargeError(
            f"unpacking its {width:,} x {height:,} pixels takes more memory than is allowed",
            where=where,
            fix="save it in tiles or as JPEG, or raise max_pixels under [limits] in the configuration file,"
            " or in ImageLimits",
        )

    def holds(self, width: int, height: int) -> bool:
        """Whether an image of `width` x `height` pixels is small enough."""
        return max(width, height) <= self.max_side and width * height <= self.max_pixels


_MOST_STORED: Final = 4
_BYTES: Final = 16
_BYTES_OF_PICTURE: Final = 8  # Pillow takes 4 for each pixel, the array 3
