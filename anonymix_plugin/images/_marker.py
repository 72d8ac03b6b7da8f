"""The marker of a cancelable face: what it says, and how it is read back."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Final

from PIL import Image

from anonymix_plugin.errors import UnreadableImageError
from anonymix_plugin.images._containers import examine
from anonymix_plugin.images._default_limits import default_limits
from anonymix_plugin.images._exif import EXIF_IFD, USER_COMMENT, parse_exif
from anonymix_plugin.images._marker_text import KEYWORD, from_user_comment
from anonymix_plugin.images._sources import EncodedSource, read_source
from anonymix_plugin.limits import ImageLimits
from anonymix_plugin.values import CancelableFace
from anonymix_plugin.words import shown

FORMAT: Final = 1
"""Version of the marker's JSON object."""

_FINGERPRINT: Final = re.compile(r"[0-9A-Za-z._-]{1,128}")
_STORED_METHOD: Final = "road"
"""The method's name in the JSON object, which pictures carry since before it was called method."""
_METHOD: Final = re.compile(r"[a-z]{1,32}")
_MAX_LENGTH: Final = 4096


@dataclass(frozen=True)
class Marker:
    """What a saved cancelable face says about itself: nothing of whom it stands for.

    Attributes:
        fingerprint: Mixer fingerprint, hexadecimal.
        key_version: Version of the key, 1, 2, ...
        method: "fast" or "refine".
    """

    fingerprint: str
    key_version: int
    method: str

    @classmethod
    def of(cls, face: CancelableFace) -> Marker:
        """The marker of a cancelable face."""
        return cls(face.fingerprint, face.key_version, face.method)

    def to_json(self) -> bytes:
        """The marker as one line of JSON in ASCII."""
        fields = {
            KEYWORD: FORMAT,
            "fingerprint": self.fingerprint,
            "key_version": self.key_version,
            _STORED_METHOD: self.method,
        }
        return json.dumps(fields, separators=(",", ":")).encode("ascii")

    @classmethod
    def from_json(cls, text: bytes, where: str) -> Marker:
        """Reads a marker back, trusting nothing in it.

        Raises:
            UnreadableImageError: It is damaged, or of a format to come.
        """
        try:
            fields = json.loads(text[: _MAX_LENGTH + 1]) if len(text) <= _MAX_LENGTH else None
        except (ValueError, RecursionError):
            fields = None
        if isinstance(fields, dict) and _is_whole(fields.get(KEYWORD)) and fields[KEYWORD] > FORMAT:
            raise UnreadableImageError(
                f"the marker is of format {fields[KEYWORD]}, which is not known",
                where=where,
                fix="update anonymix",
            )
        if (
            not isinstance(fields, dict)
            or fields.get(KEYWORD) != FORMAT
            or not _matches(_FINGERPRINT, fields.get("fingerprint"))
            or not _is_whole(fields.get("key_version"))
            or not _matches(_METHOD, fields.get(_STORED_METHOD))
        ):
            raise UnreadableImageError(
                "the image is marked as a cancelable face, but its marker is damaged",
                where=where,
                fix="protect the original photo again",
            )
        return cls(fields["fingerprint"], fields["key_version"], fields[_STORED_METHOD])


def read_marker(source: EncodedSource | Image.Image, *, limits: ImageLimits | None = None) -> Marker | None:
    """Reads the marker of a cancelable face; no pixel is decoded.

    The marker lies in the metadata: a text chunk and EXIF in PNG, EXIF in JPEG and WebP. It does not
    survive a program that strips metadata, or that encodes the image again without carrying them over;
    so None does not prove that an image is no cancelable face.

    Args:
        source: A path, the bytes of an image file, a file object in binary mode, or a PIL image.
        limits: How many bytes are read at most; None takes the limits of the configuration file.

    Returns:
        The marker, or None if there is none.

    Raises:
        UnreadableImageError: Not a readable image, or a marker that is damaged or of a format to come.
        ImageTooLargeError: More bytes than the limits allow.
        UsageError: The source is of another type.
    """
    if isinstance(source, Image.Image):
        where, text = shown(source), marker_of_pillow(source)
    else:
        data, where = read_source(source, limits or default_limits())
        text = examine(data, where).marker
    return None if text is None else Marker.from_json(text, where)


def marker_of_pillow(image: Image.Image) -> bytes | None:
    """The raw marker in the metadata that a PIL image carries along, or None."""
    text = image.info.get(KEYWORD)
    if isinstance(text, (str, bytes)):
        return text.encode() if isinstance(text, str) else text
    block = image.info.get("exif")
    if isinstance(block, bytes):
        return from_user_comment(parse_exif(block).user_comment)
    if not hasattr(image, "tag_v2"):
        return None
    try:  # a TIFF file keeps its EXIF among its own fields
        comment = image.getexif().get_ifd(EXIF_IFD).get(USER_COMMENT)
    except Exception:  # noqa: BLE001 - metadata that can't be read hold no marker either
        return None
    return from_user_comment(comment) if isinstance(comment, bytes) else None


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _matches(pattern: re.Pattern[str], value: object) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None
