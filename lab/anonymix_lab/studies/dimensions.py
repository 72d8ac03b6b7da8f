"""How many numbers of a person should pass: accuracy against what a thief of the key could rebuild.

For each count of dimensions two questions are asked on pairs of photos that nothing was learned from:

- Accuracy: how well do the codes alone tell people apart (EER over the pairs)? No face that is drawn from
  them can do better.
- Inversion: somebody who holds the key reads the code off without any error, rebuilds the joint embedding
  from it by ridge regression on faces of other people, and tries it against *another* photo of the person. In
  how many of the genuine pairs is it accepted at FMR .1 %? A protected face under the policy "none" holds
  nothing of the person but the code, read with errors, so that no attack of this kind can do better on it.

So both columns are bounds, and what is between them is the trade.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from anonymix_lab.metrics.error_rates import eer
from anonymix_plugin.errors import UsageError
from anonymix_plugin.mixer.subspace import fit_subspace
from anonymix_plugin.values import Floats

PARTS = {"arcface-mbf": slice(0, 512), "sface": slice(512, 640)}
"""Where in a joint embedding which recogniser's is."""


@dataclass(frozen=True)
class PhotoPairs:
    """Pairs of photos with their joint embeddings.

    Attributes:
        embeddings: (N, 640) float32.
        first: (P,) int64, rows of the pairs' first photos.
        second: (P,) int64, rows of the second ones.
        genuine: (P,) bool, whether both show one person.
    """

    embeddings: Floats
    first: npt.NDArray[np.int64]
    second: npt.NDArray[np.int64]
    genuine: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class CurvePoint:
    """One count of dimensions.

    Attributes:
        dims: Numbers of a person that pass.
        eer: Equal error rate of the codes.
        genuine: Mean cosine of two codes of one person.
        spread: Standard deviation of the cosine of two strangers' codes.
        rebuilt: Mean cosine of the rebuilt embedding with the one that the code came from.
        accepted: Recogniser -> share of rebuilt embeddings accepted as the person on another photo.
    """

    dims: int
    eer: float
    genuine: float
    spread: float
    rebuilt: float
    accepted: Mapping[str, float]


def read_view1_pairs(folder: Path, listing: str = "pairsDevTest.txt") -> list[tuple[Path, Path, bool]]:
    """The pairs of LFW's view 1, which is there for choosing settings.

    Args:
        folder: Holds the listing and `images/NAME/NAME_0001.jpg`.
        listing: "pairsDevTest.txt" or "pairsDevTrain.txt".

    Raises:
        UsageError: The listing is missing or is none.
    """

    def photo(name: str, number: str) -> Path:
        return folder / "images" / name / f"{name}_{int(number):04d}.jpg"

    pairs = []
    try:
        for line in (folder / listing).read_text(encoding="utf-8").splitlines()[1:]:
            words = line.split()
            if len(words) == 3:
                pairs.append((photo(words[0], words[1]), photo(words[0], words[2]), True))
            elif words:
                pairs.append((photo(words[0], words[1]), photo(words[2], words[3]), False))
    except (OSError, ValueError, IndexError) as error:
        raise UsageError(f"the pairs can't be read ({error})", where=str(folder / listing)) from error
    if not pairs:
        raise UsageError("there are no pairs in this listing", where=str(folder / listing))
    return pairs


def dims_curve(
    dims: Sequence[int],
    photos: Floats,
    people: npt.NDArray[np.int64],
    population: Floats | None,
    pairs: PhotoPairs,
    thresholds: Mapping[str, float],
    *,
    ridge: float = 1.0,
    scatter_ridge: float = 2.0,
) -> list[CurvePoint]:
    """Walk along the counts of dimensions.

    Args:
        dims: The counts; those that the people do not allow are left out.
        photos: (N, 640) float32 joint embeddings to learn the subspace from.
        people: (N,) int64, who is on each.
        population: (M, 640) float32 of other people, or None.
        pairs: To measure by; of people none of whom is among those learned from.
        thresholds: Recogniser -> cosine at FMR .1 % of unprotected photos.
        ridge: Penalty of the thief's regression.
        scatter_ridge: The ridge of the fit.
    """
    known = photos if population is None else np.concatenate([photos, population])
    most = len(np.unique(people)) - 1 + (0 if population is None else len(population))
    points = []
    for count in (count for count in dims if count <= min(most, photos.shape[1])):
        subspace = fit_subspace(photos, people, dims=count, ridge=scatter_ridge, population=population)
        codes = subspace.project(pairs.embeddings)
        scores = (codes[pairs.first] * codes[pairs.second]).sum(axis=1)
        seen = subspace.project(known)
        mean = known.mean(axis=0, dtype=np.float64)
        answer = np.linalg.solve(seen.T @ seen + ridge * np.eye(count), seen.T @ (known - mean))
        rebuilt = codes @ answer + mean
        accepted = {}
        for name, part in PARTS.items():
            if name in thresholds:
                cosines = _cosines(
                    rebuilt[pairs.first[pairs.genuine]][:, part],
                    pairs.embeddings[pairs.second[pairs.genuine]][:, part],
                )
                accepted[name] = float((cosines >= thresholds[name]).mean())
        points.append(
            CurvePoint(
                count,
                eer(scores[pairs.genuine], scores[~pairs.genuine]),
                float(scores[pairs.genuine].mean()),
                float(scores[~pairs.genuine].std()),
                float(_cosines(rebuilt, pairs.embeddings).mean()),
                accepted,
            )
        )
    return points


def _cosines(a: npt.NDArray[np.floating], b: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return np.asarray((a * b).sum(axis=1) / np.maximum(lengths, 1e-12), np.float64)
