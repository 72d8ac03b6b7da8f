"""PIL images that are files: which way up they are, and which of several pictures they show.

They are held to the rules of files (`_containers`), as far as the object still knows its file.
"""

from __future__ import annotations

from typing import Any, Final

from PIL import Image

from anonymix_plugin.images._containers import camera_raw_of, examine, several
from anonymix_plugin.images._exif import ORIENTATION, Exif, parse_exif
from anonymix_plugin.images._orientation import PROFILES, XMP_KEYWORD, from_texts, orientation
from anonymix_plugin.limits import ImageLimits

_WITH_FIRST: Final = frozenset({"MPO", "HEIF"})
"""Formats in which one picture is the photo, and the image stands at that one."""


def refuse_other_pictures(image: Image.Image, limits: ImageLimits, where: str) -> None:
    """Refuses camera raw, and an image of several pictures that stands at the first one.

    Whoever has moved it to another one with `seek` has chosen.

    Raises:
        UnreadableImageError: It is one of those.
        ImageTooLargeError: Its tiles are larger than an image may be.
    """
    fields = getattr(image, "tag_v2", None)
    if fields is not None:
        camera_raw_of(fields, where)
        limits.check_block(_whole(fields.get(322)), _whole(fields.get(323)), where)
    try:
        several_ = getattr(image, "is_animated", False) and image.format not in _WITH_FIRST
        chosen = not several_ or image.tell() > 0
    except Exception:  # noqa: BLE001 - some formats look for further frames only now; what fails shows none
        return
    if chosen:
        return
    file = _file_behind(image, limits) if image.format == "TIFF" else None
    if file is None:
        raise several(image.format or "image", 0, where)
    examine(file, where)


def unread_jpeg(image: Image.Image, limits: ImageLimits) -> bytes | None:
    """The file of a JPEG image that is too large to be decoded in full and was not decoded yet."""
    if image.format not in {"JPEG", "MPO"} or limits.holds(image.width, image.height):
        return None
    return _file_behind(image, limits)


def profile_of(image: Image.Image) -> bytes:
    """The ICC profile that a PIL image carries along, or b""."""
    profile = image.info.get("icc_profile")
    return profile if isinstance(profile, bytes) else b""


def orientation_of(image: Image.Image) -> int:
    """Which way up a loaded PIL image is, 1..8, by the rules of `_orientation`."""
    try:
        found = image.getexif().get(ORIENTATION)
    except Exception:  # noqa: BLE001 - damaged metadata is no reason to refuse a photo
        found = None
    if isinstance(found, bytes) and len(found) == 1:
        found = found[0]
    if _whole(found) in range(1, 9):
        return orientation(Exif(_whole(found)))
    if found is None and hasattr(image, "tag_v2"):
        return 1  # a TIFF file that Pillow has turned
    exif, xmp = Exif(), b""
    for name in ("xmp", XMP_KEYWORD, *sorted(PROFILES)):
        text = image.info.get(name)
        if isinstance(text, str):
            text = text.encode("utf-8", "replace")
        if isinstance(text, bytes):
            profile, packet = from_texts(XMP_KEYWORD if name == "xmp" else name, text)
            xmp = xmp or packet
            exif = exif if exif.orientation is not None else parse_exif(profile)
    return orientation(exif, xmp)


def _file_behind(image: Image.Image, limits: ImageLimits) -> bytes | None:
    """The bytes of the file that an image was opened from, or None where it is closed."""
    stream: Any
    for stream in (getattr(image, "_fp", None), getattr(image, "fp", None)):
        try:
            stands = stream.tell()
            stream.seek(0)
            data = stream.read(limits.max_bytes + 1)
            stream.seek(stands)
        except Exception:  # noqa: BLE001, S112 - it is closed, and Pillow has many ways to say so
            continue
        if isinstance(data, bytes) and data:
            limits.check_bytes(len(data), "<PIL image>")
            return data
    return None


def _whole(value: object) -> int:
    return value if isinstance(value, int) else 0
