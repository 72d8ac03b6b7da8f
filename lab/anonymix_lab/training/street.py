"""People photographed in the street: what the subspace learns of how photos of one person differ.

They come from Labeled Faces in the Wild: from some folds of view 2, and from those of its people who are in
no pair of view 2 at all. Nobody is in two folds, so the other folds can still be tested on; the weights say
which folds were learned from, and `anonymix evaluate lfw` leaves those out.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from anonymix_lab.data import lfw_folds, require_folds
from anonymix_lab.training.embedding import Embedder, embed_files, embed_people, people_of
from anonymix_plugin.values import Floats

PHOTOS_OF_ONE = 20
"""At most so many photos of a person are used, so that nobody with hundreds speaks for all."""


@dataclass(frozen=True, eq=False)
class StreetPeople:
    """Who is learned from.

    Attributes:
        paths: The photos.
        who: (N,) int64, who is on each.
        alone: (N,) bool, whether it is the only photo of its person.
    """

    paths: list[Path]
    who: npt.NDArray[np.int64]
    alone: npt.NDArray[np.bool_]


def street_people(folder: Path, folds: Collection[int]) -> StreetPeople:
    """List the photos of the people of some folds of view 2, and of those in none.

    Args:
        folder: Labeled Faces in the Wild, with `pairs.txt` and `images/`.
        folds: Numbers of folds, from 1.

    Raises:
        UsageError: The folder does not hold that data, or has no such fold.
    """
    people = lfw_folds(folder)
    require_folds(folds, len(people))
    tested = {name for number, fold in enumerate(people, 1) if number not in folds for name in fold}
    paths, who = people_of(folder / "images")
    rank = np.zeros(len(who), np.int64)
    for person in np.unique(who):
        own = who == person
        rank[own] = np.arange(own.sum())
    kept = np.array([path.parent.name not in tested for path in paths]) & (rank < PHOTOS_OF_ONE)
    who = who[kept]
    return StreetPeople([path for path, used in zip(paths, kept, strict=True) if used], who, np.bincount(who)[who] == 1)


@dataclass(frozen=True, eq=False)
class Learned:
    """Joint embeddings that a subspace is learned from.

    Attributes:
        photos: (N, 640) float32, of people with several photos each.
        who: (N,) int64, who is on each.
        of_folder: How many of them, the first ones, come from the folder.
        others: (M, 640) float32, one each of other people.
        used: What that was, for a model card.
    """

    photos: Floats
    who: npt.NDArray[np.int64]
    of_folder: int
    others: Floats
    used: dict[str, str]


def embed_street(
    reader: Embedder,
    central: Embedder,
    people: Path,
    lfw: Path,
    folds: Collection[int],
    work: Path,
    progress: Callable[[str, int, int], None],
) -> Learned:
    """Embed a folder of people and the people of some folds of LFW, going on where a run stopped.

    Args:
        reader: Embeds the photos of the folder.
        central: The same, for photos on which the face nearest to the middle is meant: LFW's.
        people: One sub-folder of photos per person.
        lfw: As for `street_people`.
        folds: As for `street_people`.
        work: Where the caches go.
        progress: Called with stage, done and total.
    """
    photos, who = embed_people(reader, people, work / "people.npz", progress)
    street = street_people(lfw, folds)
    cache = work / f"street-{'-'.join(map(str, sorted(folds)))}.npz"
    seen, found = embed_files(central, street.paths, cache, lambda done, total: progress("street", done, total))
    several, single = found & ~street.alone, found & street.alone
    named = ",".join(map(str, sorted(folds)))
    return Learned(
        np.concatenate([photos, seen[several]]),
        np.concatenate([who, who.max() + 1 + street.who[several]]),
        len(photos),
        seen[single],
        {
            "people": f"{len(np.unique(who))}, with {len(photos)} photos",
            f"people of LFW, folds {named} of view 2 and in none": (
                f"{len(np.unique(street.who[several]))} with {int(several.sum())} photos, {int(single.sum())} with one"
            ),
        },
    )
