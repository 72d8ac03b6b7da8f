"""Cancelable faces to marked image files, in memory and on disk."""

from __future__ import annotations

import io
import os
import secrets
from contextlib import suppress
from os import PathLike
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias, cast, get_args

import numpy as np
from PIL import Image

from anonymix_plugin.errors import OutputError, UnreadableImageError, UsageError
from anonymix_plugin.images._default_limits import default_limits
from anonymix_plugin.images._exif import DESCRIPTION, EXIF_IFD, SOFTWARE, USER_COMMENT
from anonymix_plugin.images._marker import Marker
from anonymix_plugin.images._marker_text import KEYWORD, to_user_comment
from anonymix_plugin.images._sources import EncodedSource, read_source
from anonymix_plugin.limits import ImageLimits
from anonymix_plugin.records import find_record
from anonymix_plugin.values import CancelableFace

ImageFormat: TypeAlias = Literal["PNG", "JPEG", "WEBP", "JPEG2000"]
"""Formats that cancelable faces are written in."""

_SUFFIXES: Final[dict[str, ImageFormat]] = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".jpe": "JPEG",
    ".webp": "WEBP",
    ".jp2": "JPEG2000",
}
_DESCRIPTION = "Anonymix cancelable face: not the face of the person photographed"
_SOFTWARE = "anonymix"
_PICTURE = "leave --record (record=) out: a picture is written then"


def encode_cancelable(
    face: CancelableFace,
    format: ImageFormat = "PNG",  # noqa: A002 - as Pillow calls it
    *,
    quality: int = 95,
) -> bytes:
    """Encodes a cancelable face as an image file with its marker.

    The marker is a small JSON object with the mixer fingerprint, the key version and the method. It names
    neither subject nor scope. The same face gives the same bytes.

    Args:
        face: The cancelable face, (height, width, 3) uint8 RGB.
        format: "PNG" (lossless), "JPEG", "WEBP" or "JPEG2000" (a tenth of the size); case does not matter.
        quality: 1..100, for JPEG and WebP.

    Returns:
        The image file.

    Raises:
        UsageError: No such format, a quality out of range, or pixels of the wrong shape or dtype.
        OutputError: The encoder failed.
    """
    kind = _known_format(format)
    if isinstance(quality, bool) or not isinstance(quality, int) or not 1 <= quality <= 100:
        raise UsageError(f"the quality is {quality!r}", where="quality", fix="use a whole number from 1 to 100")
    pixels = face.pixels
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape:
        raise UsageError(f"the face has pixels of shape {pixels.shape}, dtype {pixels.dtype}")
    marker = Marker.of(face).to_json()
    options: dict[str, Any] = {"exif": _exif(marker)}
    if kind == "PNG":
        from PIL.PngImagePlugin import PngInfo

        text = PngInfo()
        text.add_text(KEYWORD, marker.decode("ascii"))
        options["pnginfo"] = text
    elif kind == "JPEG2000":
        options = {"quality_mode": "rates", "quality_layers": [10], "irreversible": True}
    else:
        options["quality"] = quality
    if kind == "JPEG":
        options["subsampling"] = 0 if quality >= 90 else 2
    stream = io.BytesIO()
    try:
        Image.fromarray(np.ascontiguousarray(pixels)).save(stream, kind, **options)
    except (OSError, ValueError, MemoryError) as error:
        raise OutputError(f"the face can't be encoded as {kind}: {error}", fix="use PNG") from error
    return stream.getvalue() + (_exif_box(marker) if kind == "JPEG2000" else b"")


def encode_record(face: CancelableFace, record: EncodedSource, *, limits: ImageLimits | None = None) -> bytes:
    """Writes a biometric record again, with a cancelable face in the place of the photo.

    Records are those of ISO/IEC 19794-5 and 39794-5, data group 2 of ICAO 9303, and ANSI/NIST-ITL with one type
    10. The face is coded as the photo was, and marked. What described the photo or the face in it (feature
    points, pose, quality, device and the like) is left out or becomes "unspecified".

    Args:
        face: The cancelable face.
        record: The record that the photo came from: a path, bytes, or a binary file object.
        limits: How many bytes are read at most; None takes the limits of the configuration file.

    Returns:
        The new record.

    Raises:
        UnreadableImageError: No record, or a damaged one, or one that holds other biometrics as well.
        OutputError: The encoder failed.
    """
    data, where = read_source(record, limits or default_limits())
    found = find_record(data, where)
    if found is None:
        raise UnreadableImageError("this is no biometric record", where=where, fix=_PICTURE)
    picture = encode_cancelable(face, found.coding)
    try:
        return found.rebuild(picture, face.pixels.shape[1], face.pixels.shape[0])
    except ValueError as error:
        raise UnreadableImageError(
            f"the biometric record can't be written back: {error}",
            where=where,
            fix=_PICTURE,
        ) from None


def save_cancelable(
    face: CancelableFace,
    path: str | PathLike[str],
    *,
    format: ImageFormat | None = None,  # noqa: A002 - as Pillow calls it
    quality: int = 95,
    record: EncodedSource | None = None,
) -> None:
    """Writes a cancelable face to a file, whole or not at all.

    It is written under another name in the same folder, flushed to the disk and then renamed, so that
    whoever looks sees either the old file or the new one. Whatever happens on the way, an interrupt
    included, the other name is removed again.

    Args:
        face: The cancelable face.
        path: Where to; an existing file is replaced.
        format: "PNG", "JPEG" or "WEBP"; None goes by the suffix of the path.
        quality: 1..100, for JPEG and WebP.
        record: The biometric record that the photo came from: it is written again with the face in it, whatever
            the suffix, as by `encode_record`.

    Raises:
        UsageError: No such format, a suffix that names none, or as for `encode_cancelable`.
        UnreadableImageError: As for `encode_record`.
        OutputError: The file could not be written: no such folder, no permission, no space.
    """
    target = Path(path)
    kind = format if format is not None else _SUFFIXES.get(target.suffix.lower())
    if record is not None:
        data = encode_record(face, record)
    elif kind is None:
        raise UsageError(
            f"the suffix {target.suffix!r} names no format", where=str(target), fix="use .png, .jpg or .webp"
        )
    else:
        data = encode_cancelable(face, kind, quality=quality)
    try:
        _write_whole(target, data)
    except (OSError, ValueError) as error:  # ValueError: a NUL character in the path
        reason = getattr(error, "strerror", None) or type(error).__name__
    else:
        return
    # Not chained: the system's own error holds the whole path, which may be an address with a secret.
    raise OutputError(
        f"the cancelable face can't be written: {reason}",
        where=str(target),
        fix="check the folder, its permissions and the space left",
    )


def _known_format(name: str) -> ImageFormat:
    kind = {"JPG": "JPEG"}.get(str(name).upper(), str(name).upper())
    if kind not in get_args(ImageFormat):
        raise UsageError(f"there is no format {name!r} for cancelable faces", fix="use PNG, JPEG, JPEG2000 or WEBP")
    return cast("ImageFormat", kind)


def _exif_box(marker: bytes) -> bytes:
    """A box with EXIF for the end of a JPEG 2000 file, into which Pillow writes none."""
    body = b"JpgTiffExif->JP2" + _exif(marker).tobytes().removeprefix(b"Exif\0\0")
    return (8 + len(body)).to_bytes(4, "big") + b"uuid" + body


def _exif(marker: bytes) -> Image.Exif:
    exif = Image.Exif()
    exif[DESCRIPTION] = _DESCRIPTION
    exif[SOFTWARE] = _SOFTWARE
    exif[EXIF_IFD] = {USER_COMMENT: to_user_comment(marker)}
    return exif


def _write_whole(target: Path, data: bytes) -> None:
    # A random name of fixed length: nobody can wait for it, and a long target does not make it too long.
    draft = target.parent / f".anonymix-{secrets.token_hex(8)}.tmp"
    try:
        # Created with the permissions of any new file, unlike the modules for temporary files do it.
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
        with open(descriptor, "wb") as stream:  # noqa: PTH123 - a descriptor has no path
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        draft.replace(target)
    except BaseException:
        with suppress(OSError):
            draft.unlink()
        raise
    _flush_folder(target.parent)


def _flush_folder(folder: Path) -> None:
    # The rename itself survives a power cut only once the folder is on the disk. Some systems and file
    # systems offer no way to do that; the file is whole even so.
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
