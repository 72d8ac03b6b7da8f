"""The witness: reads every byte that left, and swears that no original was among them."""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from anonymix_plugin import read_marker
from anonymix_plugin.recognisers import load_recogniser
from anonymix_plugin.verification import Verifier
from servers._recognition import Recognition
from servers._service import Received

_MAGIC = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF", b"GIF8", b"BM", b"II*\0", b"MM\0*")
_BASE64 = re.compile(rb"[A-Za-z0-9+/_\-\r\n]{64,}={0,2}")
_WINDOW = 8  # bytes: no two of them agree by chance


class Witness:
    """Knows some originals, and finds them again in whatever form they were sent.

    Args:
        recognition: Compares the faces that were sent with those of the originals.
        originals: The photos that must not leave.
    """

    def __init__(self, recognition: Recognition, originals: Iterable[Path]) -> None:
        self._recognition = recognition
        self._read: set[bytes] = set()
        files = []
        self._pixels: list[bytes] = []
        self._numbers: list[bytes] = []
        self._faces = []
        readers = [Verifier(load_recogniser(name)) for name in ("arcface-mbf", "sface")]
        for path in originals:
            data = path.read_bytes()
            files.append(_windows(data[data.rfind(b"\xff\xda") + 16 :]))  # without tables, which many share
            self._faces += recognition.faces(data)[:1]
            self._pixels.append(np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).tobytes())
            for reader in readers:
                embedding = reader.embed(data)
                self._numbers += [embedding[:8].tobytes(), embedding[:8].astype(np.float64).tobytes()]
        self._files = np.unique(np.concatenate(files))

    def clear(self, received: Iterable[Received]) -> int:
        """Read requests; fail where one of them holds an original; return how many pictures they held."""
        pictures = 0
        for request in received:
            for payload in _payloads(request):
                self._no_original(payload)
                if payload.startswith(_MAGIC):
                    self._cancelable(payload)
                    pictures += 1
        return pictures

    def _no_original(self, payload: bytes) -> None:
        name = hashlib.sha256(payload).digest()
        if name in self._read:
            return
        sent = _windows(payload)
        places = np.searchsorted(self._files, sent) % len(self._files)
        for window in sent[self._files[places] == sent]:
            assert len(set(window.tobytes())) < _WINDOW - 1, "a piece of an original file left"
        for pixels in self._pixels:
            row = pixels[len(pixels) // 2 : len(pixels) // 2 + 96]
            assert row not in payload, "pixels of an original left"
        for numbers in self._numbers:
            assert numbers not in payload, "an embedding left"
        if payload[:1] in {b"{", b"["}:
            assert not any(_is_vector(item) for item in _walk(_parsed(payload))), "a list of numbers left"
        self._read.add(name)

    def _cancelable(self, picture: bytes) -> None:
        assert read_marker(picture) is not None, "a picture without the marker of cancelable faces left"
        for sent in self._recognition.faces(picture):
            for original in self._faces:
                cosine = self._recognition.cosine(sent, original)
                assert cosine < self._recognition.threshold, "a face left that is recognised as an original"


def pictures(received: Iterable[Received]) -> list[bytes]:
    """All pictures in some requests, in order."""
    return [data for request in received for data in _payloads(request) if data.startswith(_MAGIC)]


def _payloads(request: Received) -> Iterator[bytes]:
    """The body, the parts of it, and whatever lies in them in Base64."""
    yield request.target.encode()
    yield request.body
    if request.media_type in {"multipart/form-data", "application/x-www-form-urlencoded"}:
        fields, files = request.form()
        for content in files.values():
            yield from content
        for text in fields.values():
            yield from _decoded(text.encode())
    elif not request.body.startswith(_MAGIC):
        yield from _decoded(request.body)


def _decoded(text: bytes) -> Iterator[bytes]:
    for found in _BASE64.finditer(text):
        token = found[0].translate(bytes.maketrans(b"-_", b"+/"))
        try:
            yield base64.b64decode(token + b"=" * (-len(token) % 4))
        except binascii.Error:
            continue


def _windows(data: bytes) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    """All runs of eight bytes, at every offset."""
    if len(data) < _WINDOW:
        return np.zeros(0, np.uint64)
    every = np.lib.stride_tricks.sliding_window_view(np.frombuffer(data, np.uint8), _WINDOW)
    return np.ascontiguousarray(every).view(np.uint64)[:, 0]


def _parsed(payload: bytes) -> Any:
    try:
        return json.loads(payload)
    except ValueError:
        return None


def _walk(value: Any) -> Iterator[Any]:
    yield value
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for child in children:
        yield from _walk(child)


def _is_vector(value: Any) -> bool:
    return isinstance(value, list) and len(value) > 16 and all(isinstance(item, float) for item in value)
