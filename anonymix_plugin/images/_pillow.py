"""Pillow, kept on a short lead: which decoders run, and how their images become 8-bit RGB."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any, Final, NoReturn

import numpy as np
import numpy.typing as npt
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from anonymix_plugin.errors import BadArrayError, ImageTooLargeError, PhotoError, UnreadableImageError
from anonymix_plugin.images._arrays import BACKGROUND, sixteen_to_eight, unit_to_eight
from anonymix_plugin.images._containers import Container
from anonymix_plugin.images._limits import ImageLimits
from anonymix_plugin.values import Pixels


class _StrictBytes(io.BytesIO):
    """Bytes that refuse to be read past their end while pixels are decoded.

    A host may have told Pillow (for the whole process) to fill up truncated images with grey. Pillow
    then stops at the empty read that ends a file; here there is none.
    """

    decoding = False

    def read(self, size: int | None = -1, /) -> bytes:
        part = super().read(size)
        if self.decoding and not part and size != 0:
            raise EOFError("the file ends before the image does")
        return part


class _StrictPng(PngImagePlugin.PngImageFile):
    """The same for PNG, whose last chunk of pixels is followed by others."""

    def load_read(self, read_bytes: int) -> bytes:
        part = super().load_read(read_bytes)
        if not part:
            raise EOFError("the pixels end before the image does")
        return part


# The classes are called directly. Image.open would pick among all registered decoders, and would check
# for bombs by way of a global limit and of warnings, which depend on what the host has set.
_DECODERS: Final[dict[str, Callable[[io.BytesIO], ImageFile.ImageFile]]] = {
    "JPEG": JpegImagePlugin.JpegImageFile,
    "PNG": _StrictPng,
    "WEBP": WebPImagePlugin.WebPImageFile,
    "GIF": GifImagePlugin.GifImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
    "TIFF": TiffImagePlugin.TiffImageFile,
}


def decode_container(container: Container, limits: ImageLimits, where: str) -> Pixels:
    """Decodes the pixels of an examined file, as stored, before the orientation is applied.

    Data that are complete but damaged inside show as errors only where the format has checksums (PNG) or
    the decoder notices; a JPEG with a few wrong bits decodes to a picture with wrong blocks.

    Raises:
        UnreadableImageError: The decoder refuses the data, or knows no way from its colours to RGB.
        ImageTooLargeError: There is not enough memory for it.
    """
    stream = _StrictBytes(container.data)
    try:
        with _DECODERS[container.kind](stream) as image:
            limits.check_size(image.width, image.height, where)
            stream.decoding = True
            image.load()
            return image_to_pixels(image, where)
    except PhotoError:
        raise
    # Hostile data makes decoders fail in every imaginable way, and each of them means the same.
    except Exception as error:  # noqa: BLE001
        refuse(error, where)


def refuse(error: Exception, where: str) -> NoReturn:
    """Raises what an exception out of Pillow means for the user."""
    if isinstance(error, (MemoryError, Image.DecompressionBombError, Image.DecompressionBombWarning)):
        raise ImageTooLargeError(
            "the image needs more memory than there is, or than Pillow's own limit allows",
            where=where,
            fix="shrink it",
        ) from error
    raise UnreadableImageError(
        f"the image can't be decoded: {str(error) or type(error).__name__}",
        where=where,
        fix="the file may be truncated or damaged; copy, download or export it again",
    ) from error


def image_to_pixels(image: Image.Image, where: str) -> Pixels:
    """A loaded PIL image of any mode as (height, width, 3) uint8 RGB in memory of its own.

    Transparency is laid over a neutral grey. Colour profiles are not applied: faces are found and
    recognised just as well without, and profiles are a known way into decoders.

    Raises:
        UnreadableImageError: Its values have no known range.
    """
    mode = image.mode
    if mode.startswith("I;16"):
        return _grey(sixteen_to_eight(np.asarray(image)))
    if mode == "I":
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65_535:
            raise UnreadableImageError(
                "its 32-bit values have no known range", where=where, fix="convert it to 8 or 16 bits"
            )
        return _grey(sixteen_to_eight(values))
    if mode == "F":
        try:
            return _grey(unit_to_eight(np.asarray(image), where))
        except BadArrayError as error:
            raise UnreadableImageError(error.what, where=where, fix="convert it to 8 bits") from None
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        flat = Image.new("RGB", rgba.size, (BACKGROUND,) * 3)
        flat.paste(rgba, mask=rgba.getchannel("A"))
        return np.array(flat)
    return np.array(image if mode == "RGB" else image.convert("RGB"))


def _grey(values: npt.NDArray[Any]) -> Pixels:
    return np.repeat(values[:, :, None], 3, axis=2)
