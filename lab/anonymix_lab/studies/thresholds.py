"""Thresholds of a recogniser on Labeled Faces in the Wild, on photos or on their cancelable faces."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from anonymix_lab.metrics.error_rates import threshold_at_fmr
from anonymix_plugin.errors import LowQualityError, NoFaceError, UsageError
from anonymix_plugin.faces import Detector, YuNet, meant_face
from anonymix_plugin.images import decode_photo
from anonymix_plugin.models import locate
from anonymix_plugin.recognisers import Recogniser, load_recogniser
from anonymix_plugin.values import CancelableFace, Floats
from anonymix_plugin.verification import CANCELABLE, RATES, drawn


@dataclass(frozen=True)
class MeasuredThresholds:
    """Thresholds of one recogniser on photos, or on cancelable faces.

    Attributes:
        recogniser: Its name.
        values: Threshold by name, "fmr-1%", "fmr-0.1%" and "fmr-0.01%"; of cancelable faces with
            "cancelable-" before it.
        photos: Photos with a face.
        people: People in them.
        comparisons: Comparisons of different people.
        undetected: Photos in which no face was found, or that the mixer refused; they are left out.
    """

    recogniser: str
    values: Mapping[str, float]
    photos: int
    people: int
    comparisons: int
    undetected: int


def measure_thresholds(
    folder: Path,
    recognisers: Sequence[Recogniser | str],
    *,
    protect: Callable[[Path, int], CancelableFace] | None = None,
    keys: int = 20,
    detector: Detector | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[MeasuredThresholds]:
    """Measure the thresholds of recognisers on photos of Labeled Faces in the Wild, view 1.

    The photos are those of the impostor pairs of `pairsDevTrain.txt`. The 1,100 listed pairs alone would
    leave a single comparison to settle a false match rate of .1 %, so that every photo is compared with all
    photos of other people. In each photo the central face is taken (`faces.meant_face`): that is the one that
    the name belongs to.

    With `protect`, cancelable faces are compared in place of the photos, each with those of other people
    under the same key: what a stranger meets who claims a name, and everybody where all share a key. People
    are dealt to `keys` keys, because some keys' faces are more alike than others'.

    Args:
        folder: Holds `pairsDevTrain.txt` and `images/NAME/NAME_0001.jpg`.
        recognisers: Recognisers, or their names. All see the same faces.
        protect: Makes the cancelable face of a photo under the key of a number, 0 to `keys` - 1.
        keys: How many keys; without `protect` they mean nothing.
        detector: Finds the faces; YuNet by default.
        progress: Called with the number of photos done, and of all.

    Raises:
        UsageError: The folder does not hold that data.
        PhotoError: A photo is damaged.
        ModelError: Weights are missing or damaged.
    """
    matchers = [load_recogniser(it) if isinstance(it, str) else it for it in recognisers]
    finder = detector or YuNet(locate("yunet"))
    listed = list(_impostors(folder))
    numbers = {name: number for number, name in enumerate(dict.fromkeys(name for name, _ in listed))}
    owners: list[int] = []
    embedded: list[list[Floats]] = [[] for _ in matchers]
    undetected = 0
    for done, (name, path) in enumerate(listed, 1):
        try:
            photo = decode_photo(path) if protect is None else drawn(protect(path, numbers[name] % keys))
            face = meant_face(finder.detect(photo), "central")
        except (NoFaceError, LowQualityError):
            face = None
        if face is None:
            undetected += 1
        else:
            owners.append(numbers[name])
            for matcher, rows in zip(matchers, embedded, strict=True):
                rows.append(matcher.embed(matcher.crop(face)[None])[0])
        if progress is not None:
            progress(done, len(listed))
    owner = np.array(owners, np.int64)
    key = np.zeros_like(owner) if protect is None else owner % keys
    upper, lower = np.triu_indices(len(owner), 1)
    different = (owner[upper] != owner[lower]) & (key[upper] == key[lower])
    if not different.any():
        raise UsageError("there are no photos of two people with a face", where=str(folder))
    first, second = upper[different], lower[different]
    prefix = "" if protect is None else CANCELABLE
    found = []
    for matcher, vectors in zip(matchers, embedded, strict=True):
        embeddings = np.stack(vectors).astype(np.float64)
        scores = (embeddings @ embeddings.T)[first, second]
        values = {prefix + name: threshold_at_fmr(scores, rate) for name, rate in RATES.items()}
        found.append(MeasuredThresholds(matcher.name, values, len(owner), len(set(owners)), len(first), undetected))
    return found


def _impostors(folder: Path) -> Iterator[tuple[str, Path]]:
    """Name and path of each photo of the impostor pairs, each once, in the order of the list."""
    listing = folder / "pairsDevTrain.txt"
    try:
        rows = [line.split() for line in listing.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            "the list of pairs can't be read",
            where=str(listing),
            fix="give the folder of Labeled Faces in the Wild, with pairsDevTrain.txt and images/",
        ) from error
    photos: dict[Path, str] = {}
    for row in rows:
        if len(row) == 4:  # NAME NUMBER NAME NUMBER: two different people
            for name, number in (row[:2], row[2:]):
                photos[folder / "images" / name / f"{name}_{int(number):04d}.jpg"] = name
    for path, name in photos.items():
        yield name, path
