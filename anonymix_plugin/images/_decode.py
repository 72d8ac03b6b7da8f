"""From whatever a caller has to an upright 8-bit RGB photo."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from anonymix_plugin.errors import AlreadyProtectedError, PhotoError, UnreadableImageError, UsageError
from anonymix_plugin.images._arrays import ChannelOrder, pixels_from_array
from anonymix_plugin.images._containers import examine
from anonymix_plugin.images._default_limits import default_limits
from anonymix_plugin.images._marker import marker_of_pillow
from anonymix_plugin.images._orientation import parts_of
from anonymix_plugin.images._pillow import decode_container, image_to_pixels, refuse
from anonymix_plugin.images._pillow_files import (
    orientation_of,
    profile_of,
    refuse_other_pictures,
    unread_jpeg,
)
from anonymix_plugin.images._sources import EncodedSource, read_source
from anonymix_plugin.limits import ImageLimits
from anonymix_plugin.pool import DECODING
from anonymix_plugin.values import Photo, Pixels
from anonymix_plugin.words import shown

PhotoSource: TypeAlias = EncodedSource | Image.Image | npt.NDArray[np.generic]
"""All that a photo can be made from; see `decode_photo`."""


def decode_photo(
    source: PhotoSource,
    *,
    limits: ImageLimits | None = None,
    channel_order: ChannelOrder = "rgb",
    allow_protected: bool = False,
) -> Photo:
    """Decodes a photo and turns it upright.

    Images are treated as hostile. The format is told by the content, never by the name; the size is read
    from the header and checked before any pixel is decoded; metadata never reach the decoder. Nothing
    global is changed, so that threads may decode at the same time.

    A file of several pictures (an animation, a TIFF file of several pages, a sequence) is refused, because
    nobody said which one is the photo; so is camera raw, whose first picture is a preview. Of several shots
    in a JPEG file the first counts, of a HEIF file the primary item. Thumbnails, masks, depth and gain maps
    are no further pictures.

    The photo is turned as its EXIF says, or if that does not say it, as its XMP does; a HEIF or AVIF file as
    its own properties say. Colours become sRGB by the file's profile. A PIL image is turned,
    too: whoever turns one by hand has to remove the field as well, as `PIL.ImageOps.exif_transpose` does.

    Args:
        source: A path (text is always a path, an address is never fetched), the bytes of an image file, a
            file object opened in binary mode (read from where it stands), a PIL image (of several frames
            the current one, if `seek` chose it), or a numpy array: (height, width), (height, width, 3) or
            (height, width, 4) of uint8, uint16, or float in 0..1. Files may be JPEG, PNG, HEIC, AVIF,
            JPEG 2000, WebP, BMP, TIFF or GIF, with any colours that have a way to RGB. A biometric
            record (`records`) with one of them inside counts as that photo.
        limits: How big and how small the image may be; None takes the limits of the configuration file.
        channel_order: Order of the channels of a numpy array: "rgb", or "bgr" as OpenCV has it.
        allow_protected: Take an image that is marked as a cancelable face, too.

    Returns:
        The photo: (height, width, 3) uint8 RGB, upright, transparency laid over grey.

    Raises:
        UnreadableImageError: Not an image, truncated, damaged, of an unsupported kind, of several pictures,
            transparent everywhere; no such file.
        ImageTooLargeError: More bytes or pixels than the limits allow.
        ImageTooSmallError: A side is shorter than the limits allow.
        BadArrayError: An array of the wrong shape, dtype or range, or with NaN or infinity.
        AlreadyProtectedError: The image is marked as a cancelable face. The marker lies in the metadata:
            it does not survive a program that strips them, and arrays carry none.
        MissingPackageError: A HEIC file, without the extra [heif].
        UsageError: The source is of another type, or the options do not fit it.
    """
    limits = limits or default_limits()
    if isinstance(source, np.ndarray):
        return Photo(pixels_from_array(source, limits, channel_order), "<array>")
    if channel_order != "rgb":
        raise UsageError("channel_order is for numpy arrays alone", fix="leave it out")
    if isinstance(source, Image.Image):
        return _from_pillow(source, limits, allow_protected=allow_protected)
    data, where = read_source(source, limits)
    container = examine(data, where)
    if container.marker is not None and not allow_protected:
        raise _already_protected(where)
    pixels, shrunk = decode_container(container, limits, where)
    return Photo(_upright(pixels, container.orientation), where, shrunk)


def _from_pillow(image: Image.Image, limits: ImageLimits, *, allow_protected: bool) -> Photo:
    where = shown(image)
    if marker_of_pillow(image) is not None and not allow_protected:
        raise _already_protected(where)
    refuse_other_pictures(image, limits, where)
    file = unread_jpeg(image, limits)
    if file is not None:  # too large for memory, but it can still be decoded smaller
        photo = decode_photo(file, limits=limits, allow_protected=allow_protected)
        return Photo(photo.pixels, where, photo.shrunk)
    limits.check_size(image.width, image.height, where)
    try:
        with DECODING.taken(image.width * image.height):
            image.load()
            pixels = image_to_pixels(image, where, profile_of(image))
    except PhotoError:
        raise
    except Exception as error:  # noqa: BLE001 - see decode_container
        if isinstance(error, AssertionError) or "closed" in str(error):
            raise UnreadableImageError(
                "the PIL image is closed, or its file was closed before the pixels were read",
                where=where,
                fix="use it before it is closed, or call its load() first",
            ) from None
        refuse(error, where)
    # Asked after loading: Pillow turns a TIFF upright by itself and then forgets its orientation.
    return Photo(_upright(pixels, orientation_of(image)), where)


def _already_protected(where: str) -> AlreadyProtectedError:
    return AlreadyProtectedError(
        "the image is marked as a cancelable face and is not mixed twice",
        where=where,
        fix="give the photo it was made from",
    )


def _upright(pixels: Pixels, orientation: int) -> Pixels:
    if not 2 <= orientation <= 8:
        return pixels
    exchanged, columns, rows = parts_of(orientation)
    if exchanged:
        pixels = pixels.transpose(1, 0, 2)
    if columns:
        pixels = pixels[:, ::-1]
    if rows:
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)
