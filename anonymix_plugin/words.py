"""What may be said of a photo, and of where it came from, in messages, outcomes, logs and reports.

Whatever a caller gives as a photo comes back in words: as the place of an error, as the source of an outcome,
as a line of a report. A path names the file to the user and is shown. Whatever else a text may be (a photo in
base64, an address with a signature) is named by its kind alone, by the one function `shown`. Errors use it
for their place, and `clean` for their sentences, so that a message that quotes foreign text is safe, too.
"""

from __future__ import annotations

import os
import re
import sys
from typing import Final

MOST_CHARACTERS: Final = 1_024
"""Longest text that is taken for a path."""

MOST_IN_A_SENTENCE: Final = 4_096
"""So many characters a message has at most; what comes after them is left out."""

_MOST_IN_A_NAME: Final = 255  # bytes; no file system in use has longer names
_BREAK: Final = re.compile("[\x00\n\r\x0b\x0c\x85\u2028\u2029]")
_CONTROL: Final = re.compile("[\x01-\x1f\x7f-\x9f]")
_MOST_CONTROLS: Final = 4  # names with one or two are seen; bytes taken for text have many
# How JPEG, PNG, GIF, WebP, BMP, TIFF, HEIC, AVIF and JPEG 2000 begin in base64, and in hexadecimal digits.
_BASE64_HEAD: Final = re.compile(
    r"(?<![A-Za-z0-9+-])(?:[/_]9j[/_]|iVBORw0KGg|R0lGOD[dl]|UklGR[\w+/-]{7}RUJQ|Qk[0-3][\w+/-]{5}AAAA"
    r"|SUk[qr]A|TU0AK|AAAA.[GWm2]Z0eX|AAAADGpQ)[\w+/-]{12}"
)
_HEX_HEAD: Final = re.compile(
    r"(?<![0-9a-f])(?:ffd8ff|89504e470d|474946383|52494646.{8}57454250|49492[ab]00|4d4d002[ab])[0-9a-f]{16}",
    re.IGNORECASE,
)

# One slash is enough: pathlib makes "https:/" of "https://". One letter before the colon is a drive.
_SCHEME: Final = re.compile(r"(?<![a-z0-9+.-])(?:([a-z][a-z0-9+.-]{1,30}):[/\\]|(data|blob):)", re.IGNORECASE)
# What follows a path in an address: a query or a fragment, also with its marks in percent signs; or further
# fields, of which those count that are named like secrets.
_QUERY: Final = re.compile(
    r"(?:[?#]|%3f|%23).*(?:=|%3d).*|[&;][^=&;]*(?:sig|token|secret|key|pass|cred|auth)[^=&;]*(?:=|%3d).*",
    re.DOTALL | re.IGNORECASE,
)
_AFTER_PATH: Final = re.compile(r"[?#].+", re.DOTALL)
_USER: Final = re.compile(r"[^/\\:@]*:[^/\\@]*@")
_BEFORE_HOST: Final = re.compile(r"(?<=:/)(/?)[^/\\]*@")
_TOKEN: Final = re.compile(r"\beyJ[\w-]{8,}\.[\w-]{2,}\.[\w-]*")  # a signed token (JWT)
# A run that may be base64. Names of people and programs mix the kinds of characters much less.
_RUN: Final = re.compile(r"[A-Za-z0-9+/_-]{100,}")
_NUMBER_EDGE: Final = re.compile(r"[0-9](?=[A-Za-z])|[A-Za-z](?=[0-9])")
_CASE_EDGE: Final = re.compile(r"[a-z](?=[A-Z])|[A-Z](?=[a-z])")
_LEAST_EDGES: Final = (0.12, 0.2)  # a character; random base64 has .25 and .33

_ADDRESS_IN_TEXT: Final = re.compile(r"(?<![a-z0-9+.-])[a-z][a-z0-9+.-]{1,30}:/{1,2}[^\s'\"<>]+", re.IGNORECASE)
_DATA_IN_TEXT: Final = re.compile(r"data:[\w.+-]+/[\w.+-]+[;,][^\s'\"<>]*", re.IGNORECASE)
_QUERY_IN_TEXT: Final = re.compile(
    r"(?:[?#]|%3f|%23)[^\s'\"<>]*(?:=|%3d)[^\s'\"<>]*"
    r"|[&;][^\s'\"<>=&;]*(?:sig|token|secret|key|pass|cred|auth)[^\s'\"<>=&;]*(?:=|%3d)[^\s'\"<>]*",
    re.IGNORECASE,
)
# Lines of base64 have 64 or 76 characters; a line break may stand there as one, or spelled out by repr.
_RUN_IN_TEXT: Final = re.compile(r"(?:[A-Za-z0-9+/_=-]{40,}(?:\s|\\[nr])*){4,}[A-Za-z0-9+/_=-]*")
_BYTES_IN_TEXT: Final = re.compile(r"""\bb(['"])(?:(?!\1)[^\\]|\\.){48,}""", re.DOTALL)


def shown(source: object) -> str:
    """The name of a photo's source, for people to read; whatever the source is, this raises nothing.

    Args:
        source: Whatever was given as a photo: a path, a text, bytes, a file object, a PIL image, an array.

    Returns:
        A path as it is; of an address the scheme alone ("https:..."); "<text of 91,536 characters>" for a
        text that is no plausible path; "<bytes>", "<array>", "<PIL image>", "<file>" or "<list>" for the
        rest. A file object, or a PIL image, that has a name is called by it.
    """
    try:
        return _name_of(source)
    except Exception:  # noqa: BLE001 - a class of the caller's; its error may quote what it stands for
        return f"<{type(source).__name__}>"


def _name_of(source: object) -> str:
    if isinstance(source, str | os.PathLike):
        return _shown_text(text_of(source))
    if isinstance(source, bytes | bytearray | memoryview):
        return "<bytes>"
    if _is_a(source, "numpy", "ndarray"):
        return "<array>"
    if _is_a(source, "PIL.Image", "Image"):
        return _named(getattr(source, "filename", "")) or "<PIL image>"
    if callable(getattr(source, "read", None)):
        return _named(getattr(source, "name", "")) or "<file>"
    return f"<{type(source).__name__}>"


def text_of(path: str | os.PathLike[str]) -> str:
    """A path, or what was given as one, as text of exactly the type `str`.

    Raises:
        TypeError: Its `__fspath__` gives neither text nor bytes.
    """
    return str.__str__(os.fsdecode(path))


def scheme_of(text: str) -> str:
    """The scheme in lower case, if a text is an address ("https", "s3", "data"); else ""."""
    found = _SCHEME.match(text.lstrip())
    return (found[1] or found[2]).lower() if found else ""


def is_plausible_path(text: str) -> bool:
    """Whether a text can be the path of a file at all.

    It can't if it is longer than 1,024 characters, has a part of more than 255 bytes, holds NUL, line breaks
    or more than four control characters, the beginning of an image in base64 or hexadecimal digits, or a
    hundred characters of base64, or is the `repr` of bytes or a signed token.
    """
    if not text or len(text) > MOST_CHARACTERS or _BREAK.search(text) or text.startswith(("b'", 'b"')):
        return False
    if len(_CONTROL.findall(text)) > _MOST_CONTROLS:
        return False
    parts = re.split(r"[/\\]", text)
    if any(len(part.encode("utf-8", "surrogatepass")) > _MOST_IN_A_NAME for part in parts):
        return False
    return not (_is_encoded_image(text) or _TOKEN.search(text) or any(map(_is_random, _RUN.findall(text))))


def _is_random(run: str) -> bool:
    """Whether the characters of a run change their kind as often as those of base64 do."""
    edges = (len(kind.findall(run)) / len(run) for kind in (_NUMBER_EDGE, _CASE_EDGE))
    return all(found >= least for found, least in zip(edges, _LEAST_EDGES, strict=True))


def clean(text: str) -> str:
    """A sentence without what it may quote of a photo or of a secret.

    Long runs of base64 and the `repr` of bytes are replaced by their length; data URLs, and the user, query
    and fragment of addresses, by dots.
    """
    if len(text) > MOST_IN_A_SENTENCE:
        text = f"{text[:MOST_IN_A_SENTENCE]} ..."
    text = _DATA_IN_TEXT.sub("data:...", text)
    text = _ADDRESS_IN_TEXT.sub(_address, text)
    text = _TOKEN.sub(lambda found: _counted(found[0]), text)
    text = _QUERY_IN_TEXT.sub("?...", text)
    for kind in (_BYTES_IN_TEXT, _RUN_IN_TEXT):
        text = kind.sub(lambda found: _counted(found[0]), text)
    return text


def _address(found: re.Match[str]) -> str:
    return _USER.sub("...@", _BEFORE_HOST.sub(r"\1...@", _AFTER_PATH.sub("?...", found[0])))


def _counted(text: str) -> str:
    return f"<text of {len(text):,} characters>"


def _shown_text(text: str) -> str:
    scheme = _SCHEME.search(text[:MOST_CHARACTERS])
    if scheme:
        # The address itself may hold a secret or a whole picture, so that only its scheme is shown.
        return f"{(scheme[1] or scheme[2]).lower()}:..."
    if not is_plausible_path(text):
        return _counted(text)
    return _USER.sub("...@", _QUERY.sub("?...", text))


def _named(name: object) -> str:
    """What a file object says of itself; "" where that is no path (a descriptor, say)."""
    if isinstance(name, bytes):
        name = os.fsdecode(name)
    return _shown_text(text_of(name)) if isinstance(name, str | os.PathLike) and name else ""


def _is_encoded_image(text: str) -> bool:
    plain = text.replace("%2B", "+").replace("%2F", "/")
    return any(head.search(plain) is not None for head in (_BASE64_HEAD, _HEX_HEAD))


def _is_a(value: object, module: str, name: str) -> bool:
    """Whether a value is of a class of a package, which is not imported for the question."""
    loaded = sys.modules.get(module)
    return loaded is not None and isinstance(value, getattr(loaded, name))
