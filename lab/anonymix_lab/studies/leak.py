"""How much of a person an encoder reads back from a protected face, layer group by layer group.

The mix of FaceAnonyMixer leaves the coarse and the fine layers to the photo, and these are a verbatim copy of
the person's code. Whoever has an encoder can read them back and look for the person who has the same: that is
what is tried here. The thief holds protected faces and photos of all the people in question, encodes both,
and takes for each face the person whose code is nearest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from anonymix_lab.protections import KeyName, Protection
from anonymix_plugin.encoder import Encoder
from anonymix_plugin.errors import PhotoError, UsageError
from anonymix_plugin.faces import Detector, ffhq_crop
from anonymix_plugin.images import decode_photo
from anonymix_plugin.values import Floats, Photo, Pixels

GROUPS = ("coarse", "identity", "fine")
"""The groups of layers that an encoder reads, in its order."""


@dataclass(frozen=True)
class GroupLeak:
    """What one group of layers lets through.

    Attributes:
        group: "coarse", "identity", "fine", or "all" of them together.
        same_photo: Share of faces whose nearest code, over one photo of each person, is that of the photo
            that was protected.
        other_photo: The same where the thief has other photos of the same people.
        similarity: Mean cosine of the code that is read with that of the photo that was protected, both less
            the mean over people.
        strangers: The same with the photos of other people.
    """

    group: str
    same_photo: float
    other_photo: float
    similarity: float
    strangers: float


@dataclass(frozen=True)
class LeakFigures:
    """All figures.

    Attributes:
        people: How many people; blind guessing hits one in so many.
        leaks: Name of the protection -> its groups.
        failures: Name of the protection -> how many people fell out, because no face could be made or found.
    """

    people: int
    leaks: Mapping[str, Sequence[GroupLeak]]
    failures: Mapping[str, int]


def measure_leak(
    people: Sequence[tuple[Path, Path]],
    encoder: Encoder,
    detector: Detector,
    protections: Sequence[Protection],
    progress: Callable[[int, int], None] = lambda *_: None,
) -> LeakFigures:
    """Protect one photo of each person, read the face back, and look for the person.

    Args:
        people: Two photos of each person: the first is protected, the second is the thief's other one.
        encoder: The thief's.
        detector: Finds faces, in photos and in protected pictures.
        protections: What is tried; each person has a key of their own.
        progress: Called with done and total.

    Raises:
        UsageError: There are fewer than three people, or a photo shows no face.
    """
    if len(people) < 3:
        raise UsageError(f"{len(people)} people are too few to look for one among them", where="people")
    total, done = len(people) * (1 + len(protections)), 0

    def step() -> None:
        nonlocal done
        done += 1
        progress(done, total)

    photos: list[list[Floats]] = [[], []]
    for pair in people:
        for side, path in zip(photos, pair, strict=True):
            code = _read(decode_photo(path), detector, encoder)
            if code is None:
                raise UsageError("no face is found", where=str(path), fix="leave this person out")
            side.append(code)
        step()
    same, other = (np.stack(side) for side in photos)
    leaks, failures = {}, {}
    for protection in protections:
        read: list[Floats | None] = []
        for number, (path, _) in enumerate(people):
            made = _protected(protection, path, KeyName("own", f"person {number}"))
            read.append(None if made is None else _read(Photo(made, "protected"), detector, encoder))
            step()
        there = np.array([code is not None for code in read])
        failures[protection.title] = int((~there).sum())
        codes = np.stack([code for code in read if code is not None]) if there.any() else same[:0]
        leaks[protection.title] = _leaks(codes, np.flatnonzero(there), same, other)
    return LeakFigures(len(people), leaks, failures)


def _leaks(codes: Floats, who: npt.NDArray[np.int64], same: Floats, other: Floats) -> tuple[GroupLeak, ...]:
    """Compare codes (N, 3, 512) of people `who` with the photos' (M, 3, 512)."""
    parts = {name: slice(i, i + 1) for i, name in enumerate(GROUPS)} | {"all": slice(None)}
    found = []
    for name, part in parts.items():
        scores = _cosines(codes[:, part], same[:, part])
        others = _cosines(codes[:, part], other[:, part])
        mine = scores[np.arange(len(who)), who] if len(who) else np.zeros(0)
        rest = (scores.sum(axis=1) - mine) / (scores.shape[1] - 1)
        nan = float("nan")
        found.append(
            GroupLeak(
                name,
                float((scores.argmax(axis=1) == who).mean()) if len(who) else nan,
                float((others.argmax(axis=1) == who).mean()) if len(who) else nan,
                float(mine.mean()) if len(who) else nan,
                float(rest.mean()) if len(who) else nan,
            )
        )
    return tuple(found)


def _cosines(codes: Floats, photos: Floats) -> npt.NDArray[np.float64]:
    """Cosines (N, M), each side less its own mean: what a protection does to all alike is no hindrance."""
    sides = []
    for side in (codes, photos):
        rows = side.reshape(len(side), -1).astype(np.float64)
        rows = rows - rows.mean(axis=0) if len(rows) else rows
        sides.append(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12))
    return np.asarray(sides[0] @ sides[1].T)


def _read(photo: Photo, detector: Detector, encoder: Encoder) -> Floats | None:
    """Encode the largest face: (3, 512), or None where there is none."""
    faces = detector.detect(photo)
    return encoder.encode(ffhq_crop(faces[0], 256)[None])[0] if faces else None


def _protected(protection: Protection, path: Path, key: KeyName) -> Pixels | None:
    try:
        return protection.protect(path, key)
    except PhotoError:
        return None
