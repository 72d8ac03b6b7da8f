"""Learning the way back by linear regression."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Final

import numpy as np

from anonymix_lab.evaluation.attacks._values import (
    Array,
    Attempt,
    Flags,
    Integers,
    Key,
    Material,
    against_person,
)

FEWEST: Final = 20
"""Fewer pairs than these to learn from, or victims to try, and an attack is not run."""

Learner = Callable[[Array, Array], Callable[[Array], Array]]


class Regression:
    """Ridge regression from the protected embeddings of all matchers to the original ones.

    Key hidden: the attacker has photos and protected faces of other people, each under a key of its own. Key
    disclosed: under the very key of the victims, as whoever stole it can make them at will.

    Args:
        photos: At most so many pairs to learn from.
    """

    name = "regression"

    def __init__(self, photos: int = 5_000) -> None:
        self._photos = photos

    def run(self, material: Material) -> Iterator[Attempt]:
        """See `Attack.run`."""
        yield from learned(self.name, material, ridge, self._photos, {})


class RecordMultiplicity:
    """Regression over several records of one subject, guesses averaged.

    Records are protected faces of one photo under different keys of the subject: those of two versions and of
    another application. A single record's noise would average out if keys hid the person by noise alone.

    Args:
        photos: At most so many pairs to learn from.
    """

    name = "multiplicity"

    def __init__(self, photos: int = 5_000) -> None:
        self._photos = photos

    def run(self, material: Material) -> Iterator[Attempt]:
        """See `Attack.run`."""
        drawn = material.drawn
        tables = [table for table in (drawn.renewed, drawn.elsewhere) if len(table)]
        real, own = material.features(drawn.original), material.features(drawn.own)
        fits = _usable(material, real, own) & material.theirs
        rows = np.flatnonzero(fits)[: self._photos]
        victims = ~material.theirs[drawn.again]
        records = [own[drawn.again], *(material.features(table) for table in tables)]
        shared = material.features(drawn.shared)[drawn.again]
        records.append(shared)
        if len(rows) < FEWEST or victims.sum() < FEWEST:
            return
        predict = ridge(own[rows], real[rows])
        for count in range(2, len(records) + 1):
            chosen = np.stack(records[:count])[:, victims]
            whole = ~np.isnan(chosen).any(axis=(0, 2)) & ~np.isnan(real[drawn.again][victims]).any(axis=1)
            guesses = np.mean([predict(record[whole]) for record in chosen], axis=0)
            targets = drawn.again[victims][whole]
            for matcher, columns in material.targets().items():
                scores, people, controls = against_person(material, guesses[:, columns], targets, matcher)
                yield Attempt(
                    self.name,
                    "hidden",
                    matcher,
                    "identity",
                    scores,
                    people,
                    controls,
                    {"records": count, "photos": len(rows)},
                )


def learned(
    name: str, material: Material, learner: Learner, photos: int, budget: dict[str, float]
) -> Iterator[Attempt]:
    """Run a learner on both kinds of pairs, and try what it learned on the victims."""
    drawn = material.drawn
    real = material.features(drawn.original)
    for key, table, groups in (
        ("hidden", drawn.own, np.zeros(len(real), np.int64)),
        ("disclosed", drawn.shared, drawn.shared_key),
    ):
        faces = material.features(table)
        fits = _usable(material, real, faces)
        guesses, rows, used = _per_group(faces, real, fits, material.theirs, groups, learner, photos)
        if not len(rows):
            continue
        for matcher, columns in material.targets().items():
            scores, people, controls = against_person(material, guesses[:, columns], rows, matcher)
            kind: Key = "hidden" if key == "hidden" else "disclosed"
            yield Attempt(name, kind, matcher, "identity", scores, people, controls, {**budget, "photos": float(used)})


def _per_group(
    faces: Array,
    real: Array,
    fits: Flags,
    theirs: Flags,
    groups: Integers,
    learner: Learner,
    photos: int,
) -> tuple[Array, Integers, int]:
    """One model a group (a shared key): guesses for victims, which samples they are, pairs learned from."""
    guesses, rows, used = [], [], []
    for group in np.unique(groups):
        own = groups == group
        train = np.flatnonzero(own & fits & theirs)[:photos]
        victims = np.flatnonzero(own & fits & ~theirs)
        if min(len(train), len(victims)) < FEWEST:
            continue
        guesses.append(learner(faces[train], real[train])(faces[victims]))
        rows.append(victims)
        used.append(len(train))
    if not rows:
        return np.zeros((0, real.shape[1])), np.zeros(0, np.int64), 0
    return np.concatenate(guesses), np.concatenate(rows), round(float(np.mean(used)))


def _usable(material: Material, real: Array, faces: Array) -> Flags:
    return ~np.isnan(real).any(axis=1) & ~np.isnan(faces).any(axis=1) & (material.people >= 0)


def ridge(faces: Array, real: Array) -> Callable[[Array], Array]:
    """Fit a ridge regression whose strength is chosen by leave-one-out on the attacker's own pairs."""
    from sklearn.linear_model import RidgeCV

    centre, mean = faces.mean(axis=0), real.mean(axis=0)
    model = RidgeCV(alphas=np.logspace(-2, 3, 8))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # few pairs: the matrix may be badly conditioned, and that is all right
        model.fit(faces - centre, real - mean)
    # The mean is left out of the guess: it is in everybody's, and would raise everybody's scores alike.
    return lambda rows: np.asarray(model.predict(rows - centre), np.float64)
