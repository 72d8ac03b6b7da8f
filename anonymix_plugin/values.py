"""The values that travel from photo to cancelable face, one type for each station of the way."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
"""RGB pixels, shape (height, width, 3), dtype uint8, 0..255."""

Floats = npt.NDArray[np.float32]
"""A float32 array; the docstring of whoever takes it gives shape and range."""


class Timings(Mapping[str, float]):
    """Seconds by stage, read-only; unlike a mapping proxy it can be pickled, copied and sent to processes.

    Args:
        seconds: By stage; a copy of it is kept.
    """

    __slots__ = ("_seconds",)

    def __init__(self, seconds: Mapping[str, float] | None = None) -> None:
        self._seconds = dict(seconds or {})

    def __getitem__(self, stage: str) -> float:
        return self._seconds[stage]

    def __iter__(self) -> Iterator[str]:
        return iter(self._seconds)

    def __len__(self) -> int:
        return len(self._seconds)

    def __repr__(self) -> str:
        return f"Timings({self._seconds!r})"

    def __reduce__(self) -> tuple[type[Timings], tuple[dict[str, float]]]:
        return Timings, (self._seconds,)


@dataclass(frozen=True, eq=False)
class Photo:
    """A decoded photo, upright, in RGB.

    Attributes:
        pixels: (height, width, 3) uint8 RGB with EXIF orientation already applied.
        source: Where it came from, for messages: a path, "<bytes>", "<array>", ...
        shrunk: How many times smaller than stored each side is: 1, or 2, 4 or 8 for a huge JPEG file that was
            decoded smaller.
    """

    pixels: Pixels = field(repr=False)
    source: str
    shrunk: int = 1

    @property
    def height(self) -> int:
        """Height in pixels."""
        return int(self.pixels.shape[0])

    @property
    def width(self) -> int:
        """Width in pixels."""
        return int(self.pixels.shape[1])


@dataclass(frozen=True, eq=False)
class Face:
    """A face found in a photo.

    Attributes:
        photo: The photo it was found in.
        box: (x0, y0, x1, y1) in pixels of the photo, may reach over its edge.
        landmarks: (5, 2) float32 pixels of the photo: the eye, the other eye, nose tip, mouth corner,
            other mouth corner, in the order left to right as seen in the image.
        score: Confidence of the detector, 0..1.
    """

    photo: Photo
    box: tuple[float, float, float, float]
    landmarks: Floats
    score: float


@dataclass(frozen=True, eq=False)
class ReadFace:
    """What was read from one face, before any key is involved. All of it is biometric data of the person.

    Attributes:
        face: Where it is.
        person: (d,) float64, the person's code in the identity subspace, length 1.
        crop: (112, 112, 3) uint8 RGB, aligned for recognisers.
        kept: (3, 512) float32, the photo's own style vectors, or None where the policy keeps nothing.
        framed: (256, 256, 3) uint8 RGB in FFHQ framing, or None where nobody needs it.
        quality: How good the face is to recognisers, > 0; 1 is ordinary (`quality.Quality.value`).
    """

    face: Face = field(repr=False)
    person: npt.NDArray[np.float64] = field(repr=False)
    crop: Pixels = field(repr=False)
    kept: Floats | None = field(repr=False)
    framed: Pixels | None = field(repr=False)
    quality: float = 1.0


@dataclass(frozen=True, eq=False)
class CancelableFace:
    """The result: another face, which depends on the person and on the key.

    Attributes:
        pixels: (size, size, 3) uint8 RGB, FFHQ framing.
        box: Box of the source face in pixels of the source photo, turned upright, (x0, y0, x1, y1).
        subject: The id the key was fetched under; "" for a gallery key. Not written into saved images.
        scope: Scope of the key.
        key_version: Version of the key, 1, 2, ...
        fingerprint: Mixer fingerprint, 32 hex digits.
        method: "fast" or "refine".
        quality: How good the photo's face was, > 0; 1 is ordinary.
        guided: Whether the subject's sealed reference had a say.
        photos: How many photos it was drawn from; more than one only at an enrolment from several.
        left_out: Which of the photos were given and left out as somebody else's, from 0.
        engine: What drew it; faces of one engine are the same bytes, faces of two the same face.
        timings: Seconds by stage: decode, detect, align, embed, encode, guide, mix, generate, total.
    """

    pixels: Pixels = field(repr=False)
    box: tuple[float, float, float, float]
    subject: str = field(repr=False)
    scope: str
    key_version: int
    fingerprint: str
    method: str
    source: str = ""
    engine: str = ""
    quality: float = 1.0
    guided: bool = False
    photos: int = 1
    left_out: tuple[int, ...] = ()
    timings: Mapping[str, float] = field(default_factory=Timings, repr=False)
