"""Scores of comparisons between tables of answers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from anonymix_lab.matchers import Table

Array = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

NO_ANSWER = -1.0
"""Score of a comparison of which one side has no embedding: the lowest there is, so that it never matches."""


@dataclass(frozen=True, eq=False)
class Comparisons:
    """Comparisons between rows of two tables.

    Attributes:
        first: (n,) row of the first table.
        second: (n,) row of the second table.
        same: (n,) bool, whether the two sides are one person.
        first_person: (n,) number of the person on the first side.
        second_person: (n,) the same of the second.
        fold: (n,) fold of the first side; -1 where the sides are in different ones.
        key: (n,) number of the shared key, or None.
    """

    first: Integers
    second: Integers
    same: Flags
    first_person: Integers
    second_person: Integers
    fold: Integers
    key: Integers | None = None

    def __len__(self) -> int:
        return len(self.first)

    def picked(self, which: npt.NDArray[np.generic]) -> Comparisons:
        """Those that an index or a mask picks out."""
        return Comparisons(
            self.first[which],
            self.second[which],
            self.same[which],
            self.first_person[which],
            self.second_person[which],
            self.fold[which],
            None if self.key is None else self.key[which],
        )


def scores_of(a: Table, b: Table, matcher: str, first: Integers, second: Integers) -> Array:
    """Cosines of rows of two tables, (n,) float64; `NO_ANSWER` where a side has none."""
    scores = np.empty(len(first), np.float64)
    left, right = a.vectors[matcher], b.vectors[matcher]
    for start in range(0, len(first), 65536):  # bounds the memory
        part = slice(start, start + 65536)
        scores[part] = np.einsum("nd,nd->n", left[first[part]], right[second[part]], dtype=np.float64, optimize=False)
    return np.where(np.isnan(scores), NO_ANSWER, np.clip(scores, -1.0, 1.0))


def cross_pairs(people: Integers, group: Integers, most: int, seed: int) -> tuple[Integers, Integers]:
    """Pairs of rows of different people within a group.

    Args:
        people: (n,) number of the person of each row.
        group: (n,) number of its group.
        most: At most so many, drawn evenly.
        seed: Of the draw.

    Returns:
        Rows of both sides, (m,) each, the first one lower.
    """
    sides = []
    for number in np.unique(group):
        rows = np.flatnonzero(group == number)
        first, second = np.triu_indices(len(rows), 1)
        different = people[rows[first]] != people[rows[second]]
        sides.append(np.stack([rows[first[different]], rows[second[different]]]))
    pairs = np.concatenate(sides, axis=1) if sides else np.zeros((2, 0), np.int64)
    if pairs.shape[1] > most:
        random = np.random.Generator(np.random.Philox(seed))
        pairs = pairs[:, np.sort(random.choice(pairs.shape[1], most, replace=False))]
    return pairs[0], pairs[1]
