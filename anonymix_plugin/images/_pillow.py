"""Pillow, kept on a short lead: which decoders run, and how their images become 8-bit RGB."""

from __future__ import annotations

import io
from collections.abc import Callable
from pkgutil import resolve_name
from typing import Any, Final, NoReturn

import numpy as np
import numpy.typing as npt
from PIL import Image

from anonymix_plugin.errors import (
    BadArrayError,
    ImageTooLargeError,
    MissingPackageError,
    PhotoError,
    UnreadableImageError,
    naming_extras,
)
from anonymix_plugin.images._arrays import BACKGROUND, TRANSPARENT, sixteen_to_eight, unit_to_eight
from anonymix_plugin.images._colours import to_srgb
from anonymix_plugin.images._containers import Container, truncated
from anonymix_plugin.limits import ImageLimits
from anonymix_plugin.pool import DECODING
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


def _heif(stream: io.BytesIO) -> Image.Image:
    # Not its plug-in for Pillow, which gives a black picture where the host tolerates truncated images.
    with naming_extras():
        import pillow_heif
    return pillow_heif.open_heif(stream.getvalue(), convert_hdr_to_8bit=True).to_pillow()


_WHOLE: Final = 1 << 22  # pixels of a picture that is copied in one piece
_BAND: Final = 1 << 20  # pixels that are converted at once: each takes up to 20 bytes on the way

# The classes are called directly. Image.open would pick among all registered decoders, and would check
# for bombs by way of a global limit and of warnings, which depend on what the host has set.
# Each is imported when its format first comes.
_DECODERS: Final = {
    "JPEG": "PIL.JpegImagePlugin:JpegImageFile",
    "PNG": "anonymix_plugin.images._strict_png:StrictPng",
    "WEBP": "PIL.WebPImagePlugin:WebPImageFile",
    "GIF": "PIL.GifImagePlugin:GifImageFile",
    "BMP": "PIL.BmpImagePlugin:BmpImageFile",
    "TIFF": "PIL.TiffImagePlugin:TiffImageFile",
    "AVIF": "PIL.AvifImagePlugin:AvifImageFile",
    "JPEG2000": "PIL.Jpeg2KImagePlugin:Jpeg2KImageFile",
    "HEIF": "anonymix_plugin.images._pillow:_heif",
}


# Behind the last block of a complete scan, a JPEG decoder passes over everything. In an incomplete one it
# takes this for pixels, whichever restart it waits for.
_AFTER_THE_SCAN: Final = b"\x55\xaa" * 32 + b"".join(
    b"\xff" + bytes([0xD0 + number]) + b"\x33\x55" * 16 for number in range(8)
)


def decode_container(container: Container, limits: ImageLimits, where: str) -> tuple[Pixels, int]:
    """Decodes the pixels of an examined file, as stored, before the orientation is applied.

    Returns:
        The pixels, and how many times smaller than stored they were decoded.

    Data that are complete but damaged inside show as errors only where the format has checksums (PNG) or
    the decoder notices; a JPEG with a few wrong bits decodes to a picture with wrong blocks.

    Raises:
        UnreadableImageError: The decoder refuses the data, or knows no way from its colours to RGB.
        ImageTooLargeError: It is above the limits, or there is not enough memory for it.
        ImageTooSmallError: It is below the limits.
    """
    times = 1
    if container.shrinks > 1 or container.working:
        times = limits.shrinking(
            container.width,
            container.height,
            where,
            held=container.held,
            working=container.working,
            most=container.shrinks,
        )
    else:
        limits.check_size(container.width, container.height, where)
    limits.check_block(-(-container.block[0] // times), -(-container.block[1] // times), where)
    with DECODING.taken(container.width * container.height // times**2):
        pixels = _decoded(container, container.data, times, limits, where)
        if container.unended:
            longer = container.data[:-2] + _AFTER_THE_SCAN + container.data[-2:]
            if not np.array_equal(pixels, _decoded(container, longer, times, limits, where)):
                raise truncated(container.kind, where)
    return pixels, times


def _decoded(container: Container, data: bytes, times: int, limits: ImageLimits, where: str) -> Pixels:
    stream = _StrictBytes(data)
    decoder: Callable[[io.BytesIO], Any] = resolve_name(_DECODERS[container.kind])
    try:
        with decoder(stream) as image:
            if container.kind == "JPEG2000":
                if image.size != (container.width, container.height):
                    raise UnreadableImageError(
                        "the JPEG 2000 file is damaged: it declares two sizes", where=where, fix="export it again"
                    )
                image.reduce = times.bit_length() - 1  # its decoder looks behind the end, which was checked
            else:
                if times > 1:
                    image.draft(None, (image.width // times, image.height // times))
                limits.check_size(image.width, image.height, where)
                stream.decoding = True
            image.load()
            limits.check_size(image.width, image.height, where)
            shown = image if container.crop is None else image.crop(container.crop)
            return image_to_pixels(shown, where, container.profile)
    except (PhotoError, MissingPackageError):
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
    if isinstance(error, SyntaxError) and "pixel mode" in str(error):
        raise UnreadableImageError(
            "its pixels are of a kind that is not supported", where=where, fix="convert it to 8-bit RGB"
        ) from error
    detail = " ".join(str(error).split()) or type(error).__name__  # some decoders write several lines
    raise UnreadableImageError(
        f"the image can't be decoded: {detail}",
        where=where,
        fix="the file may be truncated or damaged; copy, download or export it again",
    ) from error


def image_to_pixels(image: Image.Image, where: str, profile: bytes = b"") -> Pixels:
    """A loaded PIL image of any mode as (height, width, 3) uint8 RGB in memory of its own.

    Transparency is laid over a neutral grey; colours become sRGB.

    Args:
        image: The image.
        where: Its name, for messages.
        profile: The ICC profile of its colours, or b"" for sRGB; one that does not fit is left out.

    Raises:
        UnreadableImageError: Its values have no known range, or it is transparent everywhere.
    """
    image = _eight_bits(image, where)
    mode = image.mode
    convert = to_srgb(profile, mode) if profile else None
    clear = image.has_transparency_data
    if mode == "RGB" and not convert and not clear and image.width * image.height <= _WHOLE:
        return np.array(image)
    # In bands: copies of a large image in several forms at once would take more memory than its decoder.
    pixels = np.empty((image.height, image.width, 3), np.uint8)
    rows = max(1, _BAND // image.width)
    seen = not clear
    for top in range(0, image.height, rows):
        whole = rows >= image.height
        band = image if whole else image.crop((0, top, image.width, min(top + rows, image.height)))
        alpha = band.convert("RGBA").getchannel("A") if clear else None
        if convert:
            band = convert(band)
        elif band.mode != "RGB":
            band = band.convert("RGBA" if clear else "RGB").convert("RGB")
        if alpha is not None:
            seen = seen or alpha.getbbox() is not None
            flat = Image.new("RGB", band.size, (BACKGROUND,) * 3)
            flat.paste(band, mask=alpha)
            band = flat
        pixels[top : top + rows] = np.asarray(band)
    if not seen:
        raise UnreadableImageError(TRANSPARENT, where=where, fix='leave alpha out: image.convert("RGB")')
    return pixels


def _eight_bits(image: Image.Image, where: str) -> Image.Image:
    """An image of 16 or 32 bits for each pixel as one of 8, and every other one as it is."""
    mode = image.mode
    if not (mode in {"I", "F"} or mode.startswith("I;16")):
        return image
    values: npt.NDArray[Any] = np.asarray(image)
    if mode == "F":
        try:
            return Image.fromarray(unit_to_eight(values, where))
        except BadArrayError as error:
            raise UnreadableImageError(error.what, where=where, fix="convert it to 8 bits") from None
    if mode == "I" and (values.min() < 0 or values.max() > 65_535):
        raise UnreadableImageError(
            "its 32-bit values have no known range", where=where, fix="convert it to 8 or 16 bits"
        )
    return Image.fromarray(sixteen_to_eight(values))
