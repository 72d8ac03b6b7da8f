"""One code from several photos of a person: their mean on the sphere, without those of somebody else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from anonymix_plugin.errors import DifferentPeopleError, UsageError
from anonymix_plugin.mixer.subspace import Matrix

DOUBT: Final = 0.3
"""Below this cosine to the middle photo's code, a photo counts as somebody else's."""


@dataclass(frozen=True, eq=False)
class MeanCode:
    """What several photos of a person say together.

    Attributes:
        code: (d,) float64, length 1.
        left_out: Which photos count as somebody else's, from 0, ascending.
    """

    code: Matrix = field(repr=False)
    left_out: tuple[int, ...]


def mean_code(codes: Sequence[Matrix], *, doubt: float = DOUBT) -> MeanCode:
    """Average codes on the sphere.

    The middle photo is the one whose code is nearest to all others (the medoid). Those whose cosine with it
    is below `doubt` are left out. The mean of the rest is scaled to length 1.

    Args:
        codes: N codes (d,) float64, length 1, at least one.
        doubt: From which cosine on a photo counts, -1..1.

    Raises:
        UsageError: There is no code.
        DifferentPeopleError: No majority of the photos is alike.
    """
    if not codes:
        raise UsageError("no photo is given", where="images", fix="give one or more photos of the person")
    if len(codes) == 1:
        return MeanCode(codes[0], ())
    rows = np.stack(codes)
    cosines = np.einsum("ik,jk->ij", rows, rows)
    near = cosines[int(np.argmax(cosines.sum(axis=1)))] >= doubt
    if 2 * int(near.sum()) <= len(codes):
        raise DifferentPeopleError(
            f"of {len(codes)} photos no more than {int(near.sum())} show one person",
            where="images",
            fix="give photos of one person alone",
        )
    mean = rows[near].sum(axis=0)
    length = np.sqrt(np.einsum("i,i->", mean, mean))
    return MeanCode(np.asarray(mean / length), tuple(int(i) for i in np.flatnonzero(~near)))
