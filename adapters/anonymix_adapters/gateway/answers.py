"""What comes back from the back end: no original, and nothing that would mislead."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from anonymix_adapters.gateway.pictures import holds_a_picture, starts_as_a_picture, texts_of
from anonymix_adapters.gateway.problems import ProblemError
from anonymix_adapters.gateway.profile import Profile
from anonymix_plugin.errors import AnonymixError
from anonymix_plugin.images import read_marker

Box = tuple[float, float, float, float]

_PASSED: Final = {"retry-after", "x-request-id", "x-ratelimit-limit", "x-ratelimit-remaining"}
_SHARED: Final = "*"
_ALPHABET: Final = str.maketrans("-_", "+/")


@dataclass(frozen=True)
class Answer:
    """An answer of the back end.

    Attributes:
        status: HTTP status.
        media_type: Of the body.
        body: The body.
        headers: Those that are passed back.
    """

    status: int
    media_type: str
    body: bytes = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


def passed_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """The headers of an answer that are passed back."""
    return {name.lower(): value for name, value in headers.items() if name.lower() in _PASSED}


def checked(profile: Profile, answer: Answer, boxes: Mapping[str, Box]) -> Answer:
    """An answer as the caller gets it: boxes in the photo's coordinates, no picture but cancelable faces.

    Args:
        profile: Of the API.
        answer: The back end's.
        boxes: Where the face is in the photo, by the picture's name in the call.

    Raises:
        ProblemError: It holds a picture that is not known to be a cancelable face, or can't be looked at.
    """
    if not answer.body:
        return answer
    if starts_as_a_picture(answer.body):
        _cancelable(answer.body)
        media = answer.media_type if answer.media_type.startswith("image/") else "application/octet-stream"
        return Answer(answer.status, media, answer.body, answer.headers)
    try:
        content = json.loads(answer.body, object_pairs_hook=_once)
        _check(content)
        changed = _without(content, set(profile.drop)) if profile.drop else content
        if boxes:
            changed = _put_back(changed, boxes, _SHARED)
    except (ValueError, RecursionError):
        if answer.status >= 400:  # an error page of something in between; it may quote the request
            body = json.dumps({"message": f"the back end answered with status {answer.status}"}).encode()
            return Answer(answer.status, "application/json", body, answer.headers)
        raise ProblemError(
            status=502, what="the back end's answer is neither JSON nor a picture; it is not passed on", code="back_end"
        ) from None
    if changed == content:
        return Answer(answer.status, "application/json", answer.body, answer.headers)
    return Answer(answer.status, "application/json", json.dumps(changed).encode(), answer.headers)


def _cancelable(picture: bytes) -> None:
    try:
        marker = read_marker(picture)
    except AnonymixError:
        marker = None
    if marker is None:
        raise ProblemError(
            status=502,
            what="the back end answered with a picture that is no cancelable face; it is not passed on",
            code="original_in_answer",
            fix="delete pictures that were enrolled past the gateway",
        )


_RUN: Final = re.compile(r"[A-Za-z0-9+/]{64,}={0,2}")
"""Base64 inside a longer text."""

_START: Final = re.compile(r"/9j/[2-4]|iVBORw0KGgo|UklGR|R0lGOD[dl]|SUkqA|TU0AK|AAAADGpQ|/0//UQ|OEJQUw|cW9pZ")
"""How Base64 of an image file begins. In other Base64 one of them stands by chance once in some hundred megabytes."""


def _check(content: Any) -> None:
    """Refuse pictures in any text, names of fields included, unless they are cancelable faces."""
    for text in texts_of(content):
        plain = text.replace("\\/", "/").strip()
        if holds_a_picture(plain):
            _cancelable(_decoded(plain))
            continue
        # One that stands inside: in a page, in JSON within JSON, behind a name of its own.
        for run in _RUN.findall(plain.translate(_ALPHABET)):
            for start in _START.finditer(run):
                _cancelable(_decoded(run[start.start() :]))


def _decoded(text: str) -> bytes:
    text = re.sub(r"\s+", "", text.partition(",")[2] if text[:5].lower() == "data:" else text)
    try:
        return base64.b64decode(text.translate(_ALPHABET), validate=True)
    except (binascii.Error, ValueError):
        return b""


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON; of a name that stands there twice nobody knows which the caller takes."""
    if len({name for name, _ in pairs}) != len(pairs):
        raise ValueError
    return dict(pairs)


def _without(value: Any, names: set[str]) -> Any:
    if isinstance(value, dict):
        return {key: _without(each, names) for key, each in value.items() if key not in names}
    if isinstance(value, list):
        return [_without(each, names) for each in value]
    return value


_SHAPES: Final[Sequence[tuple[str, str, str, str]]] = (
    ("x_min", "y_min", "x_max", "y_max"),
    ("left", "top", "width", "height"),
    ("left", "top", "right", "bottom"),
    ("x", "y", "w", "h"),
)
"""How APIs write a box: corners, or a corner with width and height."""

_SIDES: Final = (
    (("source_image_face", "faces1", "img1"), 0),
    (("face_matches", "faces2", "img2"), 1),
)
"""Fields of answers to a comparison that speak of the first photo, and of the second."""


def _put_back(value: Any, boxes: Mapping[str, Box], which: str) -> Any:
    """Put the box of the photo's face in the place of the one in its cancelable face.

    A picture that goes up holds one face, which fills it; so each box of an answer is that face's.
    """
    names = list(boxes)
    if isinstance(value, list):
        return [_put_back(each, boxes, which) for each in value]
    if not isinstance(value, dict):
        return value
    for shape in _SHAPES:
        if all(isinstance(value.get(name), int | float) for name in shape):
            if which in boxes or len(names) == 1:
                return value | _written(shape, boxes.get(which, boxes[names[0]]))
            return value
    changed = {}
    for key, each in value.items():
        side = next((at for keys, at in _SIDES if key in keys), None)
        inner = names[side] if side is not None and len(names) > side else which
        changed[key] = _put_back(each, boxes, inner)
    return changed


def _written(shape: tuple[str, str, str, str], box: Box) -> dict[str, int]:
    x0, y0, x1, y1 = (round(each) for each in box)
    values = (x0, y0, x1 - x0, y1 - y0) if shape[2] in {"width", "w"} else (x0, y0, x1, y1)
    return dict(zip(shape, values, strict=True))
