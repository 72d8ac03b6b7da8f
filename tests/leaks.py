"""Photos in every form that a caller has them in, and a search for what of them got into words."""

from __future__ import annotations

import base64
import io
import re
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from anonymix_plugin.images import PhotoSource

SECRET = "Wq7SECRETwq7"
QUERY = f"?X-Amz-Credential=AKIA&X-Amz-Signature={SECRET}"

_WINDOW = 20


class Named(io.BytesIO):
    """A file object that has a name, as those of archives and uploads do."""

    name: Any = ""


class Interrupted(io.BytesIO):
    """A file object whose error holds a part of what it was to give, as `http.client.IncompleteRead` does."""

    def read(self, size: int | None = -1, /) -> bytes:
        raise RuntimeError(f"got {super().read(3000)!r} of https://store.example/{QUERY}")


class Unnameable(io.BytesIO):
    """A file object whose name can't be had, and whose error holds a secret."""

    @property
    def name(self) -> str:
        raise RuntimeError(f"no name at https://store.example/{QUERY}")


class Text(str):
    """A text of another class."""

    __slots__ = ()


class Place:
    """A path of another class."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __fspath__(self) -> str:
        return self._text


class Pathless:
    """A path of another class, whose error holds what it stands for."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __fspath__(self) -> str:
        raise RuntimeError(self._text)


def named(content: bytes, name: Any) -> Named:
    file = Named(content)
    file.name = name
    return file


def sources(photo: bytes) -> dict[str, Callable[[], Any]]:
    """Every kind of source, each of which some door refuses; a maker each, for files are read but once.

    `photo` is the file of a photo. Its first kilobytes stand for one that is truncated.
    """
    text = base64.b64encode(photo).decode()
    lines = base64.encodebytes(photo).decode()
    safe = base64.urlsafe_b64encode(photo).decode()
    pixels = np.asarray(Image.open(io.BytesIO(photo)))
    found: dict[str, Callable[[], Any]] = {
        "base64": lambda: text,
        "base64 in lines": lambda: lines,
        "base64 in lines of Windows": lambda: lines.replace("\n", "\r\n"),
        "base64, url-safe": lambda: safe,
        "base64, unpadded": lambda: safe.rstrip("="),
        "base64, its head": lambda: text[:400],
        "base64, its head in lines": lambda: lines[:400],
        "base64 in quotes": lambda: f"'{text}'",
        "base64, another class": lambda: Text(text),
        "base64 as a path": lambda: Path(text),
        "base64, short, as a path": lambda: Path(text[:200]),
        "base64, another class of path": lambda: Place(text),
        "base64, its middle": lambda: text[1000:1250],
        "base64, its middle as a path": lambda: Path(text[1000:1150]),
        "a path that can't be had": lambda: Pathless(text[:900]),
        "a data URL": lambda: "data:image/jpeg;base64," + text,
        "a data URL as a path": lambda: Path("data:image/jpeg;base64," + text),
        "a data URL behind a blank": lambda: " data:image/jpeg;base64," + lines,
        "the repr of bytes": lambda: repr(photo),
        "the repr of bytes, its head": lambda: repr(photo[:200]),
        "bytes as latin-1": lambda: photo.decode("latin-1"),
        "bytes as a name of a file": lambda: photo[:900].decode("utf-8", "surrogateescape"),
        "hexadecimal": photo.hex,
        "hexadecimal, its head": photo[:100].hex,
        "NUL in a text": lambda: "photo\0" + text,
        "surrogates": lambda: "\ud800" + text,
        "half a file": lambda: photo[:3000],
        "half a file, changeable": lambda: bytearray(photo[:3000]),
        "half a file, viewed": lambda: memoryview(photo[:3000]),
        "half a file, opened": lambda: io.BytesIO(photo[:3000]),
        "a file called base64": lambda: named(photo[:3000], text),
        "a file called by an address": lambda: named(photo[:3000], f"https://store.example/a.jpg{QUERY}"),
        "a file called by bytes": lambda: named(photo[:3000], text.encode()),
        "a file called by a number": lambda: named(photo[:3000], 3),
        "a file that fails": lambda: Interrupted(photo),
        "a file whose name can't be had": lambda: Unnameable(photo[:3000]),
        "half a file, released": lambda: _released(photo[:3000]),
        "an array of another shape": lambda: pixels[None],
        "an array of another type": lambda: pixels.astype(np.int64),
        "a list of arrays": lambda: [pixels[None], pixels[None]],
        "a list of texts": lambda: [text],
        "a PIL image, closed": lambda: _closed(photo),
        "a PIL image, half": lambda: Image.open(io.BytesIO(photo[:3000])),
        "a dictionary": lambda: {"Bytes": photo, "text": text},
    }
    for scheme in ("https", "HTTP", "s3", "gs", "ftp"):
        address = f"{scheme}://bucket.example/alice.jpg{QUERY}"
        found[f"{scheme} address"] = lambda address=address: address  # type: ignore[misc]
        found[f"{scheme} address as a path"] = lambda address=address: Path(address)  # type: ignore[misc]
    for kind, address in {
        "user": f"https://alice:{SECRET}@store.example/alice.jpg",
        "fragment": f"https://store.example/alice.jpg#token={SECRET}",
        "mark": f"https://store.example/alice.jpg?{SECRET}",
        "no scheme": f"store.example/alice.jpg{QUERY}",
        "no scheme, percent signs": f"store.example/alice.jpg%3FX-Amz-Signature%3D{SECRET}",
        "further fields": f"store.example/alice.jpg&X-Amz-Signature={SECRET}",
        "field of a path": f"store.example/alice.jpg;access_token={SECRET}",
        "signed token": f"eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.{SECRET}{SECRET}",
        "user without a password": f"https://{SECRET}@store.example/alice.jpg",
        "password with an at sign": f"https://alice:p@{SECRET}@store.example/alice.jpg",
        "no scheme, user": f"//alice:{SECRET}@store.example/alice.jpg",
        "in a folder": f"photos/https://store.example/alice.jpg{QUERY}",
    }.items():
        found[f"address with a secret: {kind}"] = lambda address=address: address  # type: ignore[misc]
    return found


COVERED = {"str", "PathLike", "bytes", "bytearray", "memoryview", "IO", "Image", "ndarray"}
"""The members of `PhotoSource` that `sources` has examples of."""


def members(union: Any = PhotoSource) -> set[str]:
    """Names of what a photo can be made from, as the code says it."""
    return {getattr(getattr(each, "__origin__", each), "__name__", str(each)) for each in union.__args__}


def _released(photo: bytes) -> memoryview:
    view = memoryview(photo)
    view.release()
    return view


def _closed(photo: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(photo))
    image.close()
    return image


class Search:
    """Knows a photo in all its spellings, and finds any 20 characters of it in a text."""

    def __init__(self, photo: bytes) -> None:
        text = base64.b64encode(photo).decode()
        spelled = [text, base64.urlsafe_b64encode(photo).decode(), photo.hex()]
        spelled += [_flat(photo.decode("latin-1")), _flat(repr(photo)[2:-1])]
        self._windows = {each[start : start + _WINDOW] for each in spelled for start in range(len(each) - _WINDOW)}

    def found(self, words: str) -> str:
        """What of the photo, or of the secret, a text holds; "" if nothing."""
        # Terminals fold long words; a repr doubles backslashes.
        flat = _flat(re.sub(r"[\s\u2500-\u257f]+", "", words).replace("\\\\", "\\"))
        if SECRET.lower() in flat.lower():
            return "the secret"
        for start in range(len(flat) - _WINDOW + 1):
            if flat[start : start + _WINDOW] in self._windows:
                return "the photo"
        return ""


def _flat(text: str) -> str:
    return re.sub(r"\s+", "", text)


def words_of(error: BaseException) -> str:
    """All that an error says, and all that hangs on it: fields, notes, causes, tracebacks."""
    return "\n".join(_words_of(error, set()))


def _words_of(error: BaseException, seen: set[int]) -> Iterator[str]:
    if id(error) in seen:
        return
    seen.add(id(error))
    yield "".join(traceback.format_exception(error))
    yield repr(error)
    yield str(error)
    yield repr(error.args)
    yield repr(vars(error))
    for name in ("filename", "filename2", "object", "strerror"):
        yield repr(getattr(error, name, None))
    for other in (error.__cause__, error.__context__):
        if other is not None:
            yield from _words_of(other, seen)
