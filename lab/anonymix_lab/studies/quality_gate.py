"""What the quality gate refuses and what it lets through, on photos that are spoilt on purpose.

Of each person one photo stays as it is, and the other is spoilt in each of the ways below. A spoilt photo is
*unusable* where its person's code has less than `USABLE` in common with the code of the good photo. Raising
the limit and looking at what is left is the error-versus-discard characteristic of ISO/IEC 29794-1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

import cv2
import numpy as np

from anonymix_plugin.errors import UsageError
from anonymix_plugin.faces import Detector, recogniser_crop, select_faces
from anonymix_plugin.images import decode_photo
from anonymix_plugin.mixer.subspace import IdentitySubspace, joint_embedding
from anonymix_plugin.quality import Quality, measure_quality
from anonymix_plugin.recognisers import MeasuringRecogniser
from anonymix_plugin.values import Face, Floats, Photo, Pixels

USABLE: Final = 0.35
"""Cosine of two codes of one person below which they count as strangers' (two strangers: .03 +- .21)."""

LIMITS: Final = (0.0, 0.7, 0.75, 0.8, 0.85, 0.9)

Spoil = Callable[[Pixels, Face], Pixels]


def _blur(share: float) -> Spoil:
    return lambda pixels, face: cv2.GaussianBlur(pixels, (0, 0), share * (face.box[2] - face.box[0])).astype(np.uint8)


def _width(pixels_wide: float) -> Spoil:
    def spoil(pixels: Pixels, face: Face) -> Pixels:
        scale = pixels_wide / (face.box[2] - face.box[0])
        return cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA).astype(np.uint8)

    return spoil


def _grey(pixels: Pixels, _: Face) -> Pixels:
    return cv2.cvtColor(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB).astype(np.uint8)


def _exposed(gain: float, lift: float) -> Spoil:
    return lambda pixels, _: np.clip(pixels.astype(np.float32) * gain + lift, 0, 255).astype(np.uint8)


def _noise(pixels: Pixels, _: Face) -> Pixels:
    dice = np.random.Generator(np.random.Philox(1))
    return np.clip(pixels + dice.normal(0, 60, pixels.shape), 0, 255).astype(np.uint8)


def _covered(part: str) -> Spoil:
    def spoil(pixels: Pixels, face: Face) -> Pixels:
        result = pixels.copy()
        x0, y0, x1, y1 = (max(0, round(value)) for value in face.box)
        eyes, nose = face.landmarks[:2, 1].mean(), face.landmarks[2]
        if part == "mask":
            result[round(nose[1]) : y1 + 5, x0:x1] = (120, 140, 180)
        elif part == "sunglasses":
            height = 0.12 * (x1 - x0)
            result[max(0, round(eyes - height)) : round(eyes + height), x0:x1] = 20
        else:
            result[y0:y1, x0 : round(nose[0])] = 90
        return result

    return spoil


SPOILERS: Final[Mapping[str, Spoil]] = MappingProxyType(
    {
        "as it is": lambda pixels, _: pixels,
        "greyscale": _grey,
        "face 40 px wide": _width(40),
        "face 20 px wide": _width(20),
        "blurred, 3 % of the face": _blur(0.03),
        "blurred, 6 % of the face": _blur(0.06),
        "blurred, 10 % of the face": _blur(0.10),
        "mask": _covered("mask"),
        "sunglasses": _covered("sunglasses"),
        "half covered": _covered("half"),
        "dark": _exposed(0.12, 0),
        "glaring": _exposed(3, 80),
        "noise, 60 of 255": _noise,
    }
)


@dataclass(frozen=True)
class SpoiltFigures:
    """What became of the photos that were spoilt in one way.

    Attributes:
        name: The way.
        photos: How many.
        found: Share in which a face was still found.
        quality: Mean quality of those.
        similarity: Mean cosine of their code with that of the good photo.
        refused: Share of those below the limit.
    """

    name: str
    photos: int
    found: float
    quality: float
    similarity: float
    refused: float


@dataclass(frozen=True)
class DiscardFigures:
    """What a limit does to all of them together.

    Attributes:
        limit: The limit.
        ordinary_refused: Share of the photos as they are that it refuses.
        unusable_left: Share of unusable photos among those that pass.
    """

    limit: float
    ordinary_refused: float
    unusable_left: float


@dataclass(frozen=True)
class GateFigures:
    """All figures of the gate."""

    people: int
    limit: float
    spoilt: tuple[SpoiltFigures, ...]
    discard: tuple[DiscardFigures, ...]


def pairs_of_people(folder: Path, limit: int) -> list[tuple[Path, Path]]:
    """The first two photos of every person in a folder with one sub-folder for each, spread evenly.

    Raises:
        UsageError: Nobody has two photos.
    """
    found = []
    for person in sorted(entry for entry in folder.iterdir() if entry.is_dir()):
        photos = sorted(path for path in person.iterdir() if path.suffix.lower() in {".jpg", ".jpeg", ".png"})
        if len(photos) > 1:
            found.append((photos[0], photos[1]))
    if not found:
        raise UsageError("nobody has two photos here", where=str(folder), fix="one sub-folder per person")
    return found[:: max(1, -(-len(found) // limit))]


def measure_gate(
    people: Sequence[tuple[Path, Path]],
    detector: Detector,
    arcface: MeasuringRecogniser,
    sface: MeasuringRecogniser,
    subspace: IdentitySubspace,
    limit: float,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> GateFigures:
    """Spoil photos and look what the gate does.

    Args:
        people: A good photo and another one of each person.
        detector: Finds faces.
        arcface: ArcFace of the mixer.
        sface: SFace of the mixer.
        subspace: The mixer's.
        limit: The limit whose refusals are counted.
        progress: Called with people done and their number.
    """

    def look(photo: Photo) -> tuple[Face, Quality, Floats] | None:
        faces = detector.detect(photo)
        if not faces:
            return None
        face = select_faces(faces, "central", photo)[0]
        crop = recogniser_crop(face)
        seen = [recogniser.embed_with_lengths(crop[None]) for recogniser in (arcface, sface)]
        code = subspace.project(joint_embedding(seen[0][0], seen[1][0]))[0].astype(np.float32)
        return face, measure_quality(face, crop, float(seen[0][1][0]), float(seen[1][1][0])), code

    results: dict[str, list[tuple[float, float] | None]] = {name: [] for name in SPOILERS}
    for number, (good, other) in enumerate(people):
        reference, plain = look(decode_photo(good)), decode_photo(other)
        faces = detector.detect(plain)
        if reference is not None and faces:
            face = select_faces(faces, "central", plain)[0]
            for name, spoil in SPOILERS.items():
                seen = look(Photo(np.ascontiguousarray(spoil(plain.pixels, face)), name))
                results[name].append(None if seen is None else (seen[1].value, float(seen[2] @ reference[2])))
        progress(number + 1, len(people))
    spoilt = []
    for name, entries in results.items():
        found = np.array([entry for entry in entries if entry is not None]).reshape(-1, 2)
        means = found.mean(axis=0) if len(found) else np.full(2, np.nan)
        refused = float((found[:, 0] < limit).mean()) if len(found) else 0.0
        share = len(found) / max(len(entries), 1)
        spoilt.append(SpoiltFigures(name, len(entries), share, float(means[0]), float(means[1]), refused))
    every = np.array([entry for entries in results.values() for entry in entries if entry is not None])
    ordinary = np.array([entry for entry in results["as it is"] if entry is not None])
    discard = tuple(
        DiscardFigures(
            least,
            float((ordinary[:, 0] < least).mean()),
            float((every[every[:, 0] >= least][:, 1] < USABLE).mean()),
        )
        for least in LIMITS
    )
    return GateFigures(len(people), limit, tuple(spoilt), discard)
