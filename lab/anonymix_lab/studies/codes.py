"""How well codes alone tell people apart: the bound of every face that is drawn from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from anonymix_lab.data import LFW_FOLDS, lfw_folds, lfw_protocol
from anonymix_lab.evaluation.scenarios import cross_pairs
from anonymix_lab.metrics.error_rates import eer, fnmr_at_fmr
from anonymix_lab.studies.dimensions import read_view1_pairs
from anonymix_plugin.errors import UsageError

Array = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

RATES = (0.01, 0.001, 0.0001)
_STRANGERS = 1_000_000
_PROBES = 6


@dataclass(frozen=True)
class CodeFigures:
    """Error rates of codes.

    Attributes:
        title: On what.
        genuine: How many comparisons of one person.
        eer: Equal error rate, over all strangers.
        fnmr: FNMR where the FMR is 1, .1 and .01 %.
    """

    title: str
    genuine: int
    eer: float
    fnmr: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class CodePairs:
    """Pairs of photos of one person, among photos of many.

    Attributes:
        title: What they are.
        paths: The photos.
        who: (N,) int64, who is on each.
        first: (P,) int64, rows of the genuine pairs' first photos.
        second: (P,) int64, rows of the second ones.
    """

    title: str
    paths: tuple[Path, ...]
    who: Integers
    first: Integers
    second: Integers


def code_pairs(folder: Path, folds: Sequence[int]) -> list[CodePairs]:
    """The genuine pairs of some folds of view 2, and those of view 1 whose people are in these folds.

    People of view 1 are in view 2 as well. Those of the other folds are left out: a subspace may have learned
    from them.

    Args:
        folder: Labeled Faces in the Wild.
        folds: Numbers of folds, from 1.

    Raises:
        UsageError: The folder does not hold that data, or has no such fold.
    """
    protocol = lfw_protocol(folder, folds=folds)
    people = {name for number in folds for name in lfw_folds(folder)[number - 1]}
    named = [
        (one, other, same)
        for listing in ("pairsDevTrain.txt", "pairsDevTest.txt")
        for one, other, same in read_view1_pairs(folder, listing)
        if {one.parent.name, other.parent.name} <= people
    ]
    listed = [
        (Path(str(protocol.samples[int(a)].photo)), Path(str(protocol.samples[int(b)].photo)), bool(same))
        for a, b, same in zip(protocol.pairs.first, protocol.pairs.second, protocol.pairs.same, strict=True)
    ]
    chosen = ",".join(map(str, folds)) if len(folds) < LFW_FOLDS else "all"
    return [_pairs(f"view 1, people of folds {chosen}", named), _pairs(f"view 2, folds {chosen}", listed)]


def _pairs(title: str, rows: Sequence[tuple[Path, Path, bool]]) -> CodePairs:
    paths = sorted({path for one, other, _ in rows for path in (one, other)})
    place = {path: number for number, path in enumerate(paths)}
    _, who = np.unique([path.parent.name for path in paths], return_inverse=True)
    genuine = np.array([(place[one], place[other]) for one, other, same in rows if same], np.int64)
    return CodePairs(title, tuple(paths), who.astype(np.int64), genuine[:, 0], genuine[:, 1])


@dataclass(frozen=True, eq=False)
class Compared:
    """Cosines of codes.

    Attributes:
        title: Of what.
        genuine: (G,) of one person.
        impostor: (I,) of two people, at most a million.
    """

    title: str
    genuine: Array
    impostor: Array

    def figures(self) -> CodeFigures:
        """Error rates."""
        fnmr = tuple(fnmr_at_fmr(self.genuine, self.impostor, rate) for rate in RATES)
        return CodeFigures(self.title, len(self.genuine), eer(self.genuine, self.impostor), fnmr)


def compared_pairs(pairs: CodePairs, codes: Array, seen: npt.NDArray[np.bool_], *, seed: int = 1) -> Compared:
    """Compare the genuine pairs, and up to a million pairs of strangers among the same photos.

    Args:
        pairs: The pairs.
        codes: (N, d) of their photos, of length 1.
        seen: (N,) bool, where there is a face.
        seed: Of the choice of strangers.
    """
    usable = seen[pairs.first] & seen[pairs.second]
    first, second = pairs.first[usable], pairs.second[usable]
    rows = np.flatnonzero(seen)
    a, b = cross_pairs(pairs.who[rows], np.zeros(len(rows), np.int64), _STRANGERS, seed)
    return Compared(
        pairs.title,
        np.einsum("nd,nd->n", codes[first], codes[second]),
        np.einsum("nd,nd->n", codes[rows[a]], codes[rows[b]]),
    )


def compared_enrolments(codes: Array, who: Integers, counts: Sequence[int], *, seed: int = 1) -> list[Compared]:
    """Enrol people from the mean code of several photos, and compare other photos with it.

    The same people and probes are taken for every count: those of whom there is one more photo than the
    largest count, and at most six others of their photos as probes. Strangers are all photos of other people.

    Args:
        codes: (N, d) of length 1.
        who: (N,) int64, who is on each.
        counts: From how many photos.
        seed: Of the order of photos.

    Raises:
        UsageError: Nobody has that many photos.
    """
    random = np.random.Generator(np.random.Philox(seed))
    names, photos = np.unique(who, return_counts=True)
    most = max(counts)
    orders = {int(name): random.permutation(np.flatnonzero(who == name)) for name in names[photos > most]}
    if len(orders) < 2:
        raise UsageError(f"nobody has more than {most} photos", where="counts", fix="enrol from fewer photos")
    people = np.array(list(orders))
    found = []
    for count in counts:
        means = np.stack([codes[order[:count]].mean(axis=0) for order in orders.values()])
        references = means / np.linalg.norm(means, axis=1, keepdims=True)
        scores = codes @ references.T
        own = [scores[order[most : most + _PROBES], row] for row, order in enumerate(orders.values())]
        strangers = scores[who[:, None] != people[None]]
        if len(strangers) > _STRANGERS:
            strangers = random.choice(strangers, _STRANGERS, replace=False)
        found.append(Compared(f"enrolled from {count}, {len(people)} people", np.concatenate(own), strangers))
    return found
