"""What an unlocked store with references gives away."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from anonymix_lab.evaluation.attacks._regression import FEWEST, ridge
from anonymix_lab.evaluation.attacks._values import Array, Attempt, Material, against_person
from anonymix_lab.matchers import CODE


class References:
    """The thief of an unlocked store holds references, and with them the keys.

    Three things are tried. *Store alone*: regression from references to original embeddings, learned on other
    people. *Store and templates*: the same, with the protected embeddings under the stolen key beside them.
    *Linked to photos*: for each reference, the nearest code among other photos of all victims, as the mixer
    reads them; blind guessing is the control. Templates alone are what `Regression` tries.

    Args:
        photos: At most so many pairs to learn from.
    """

    name = "references"

    def __init__(self, photos: int = 5_000) -> None:
        self._photos = photos

    def run(self, material: Material) -> Iterator[Attempt]:
        """See `Attack.run`."""
        drawn = material.drawn
        if drawn.codes is None:
            return
        codes = drawn.codes.vectors[CODE].astype(np.float64)
        templates = material.features(drawn.shared)
        yield from self._inverted(material, codes, "store alone")
        # One model for all: what it can use of a template is what is the same under all keys of the run.
        yield from self._inverted(material, np.concatenate([codes, templates], axis=1), "store and templates")
        yield from self._linked(material, codes)

    def _inverted(self, material: Material, known: Array, note: str) -> Iterator[Attempt]:
        real, drawn = material.features(material.drawn.original), material.drawn
        whole = ~np.isnan(known).any(axis=1) & ~np.isnan(real).any(axis=1)
        groups = drawn.shared_key if "templates" in note else np.zeros(len(known), np.int64)
        guesses, rows, used = [], [], 0
        for group in np.unique(groups):
            inside = whole & (groups == group)
            train = np.flatnonzero(inside & material.theirs)[: self._photos]
            victims = np.flatnonzero(inside & ~material.theirs)
            if min(len(train), len(victims)) >= FEWEST:
                guesses.append(ridge(known[train], real[train])(known[victims]))
                rows.append(victims)
                used += len(train)
        if not rows:
            return
        made, whose = np.concatenate(guesses), np.concatenate(rows)
        for matcher, columns in material.targets().items():
            scores, people, controls = against_person(material, made[:, columns], whose, matcher)
            budget = {"photos": float(used)}
            yield Attempt(self.name, "disclosed", matcher, "identity", scores, people, controls, budget, note)

    def _linked(self, material: Material, codes: Array) -> Iterator[Attempt]:
        pairs = material.protocol.genuine()
        seen = ~np.isnan(codes[pairs.first]).any(axis=1) & ~np.isnan(codes[pairs.second]).any(axis=1)
        victims = ~material.theirs[pairs.first] & seen
        _, one_each = np.unique(material.people[pairs.first[victims]], return_index=True)
        first, second = pairs.first[victims][one_each], pairs.second[victims][one_each]
        count = len(first)
        if count < FEWEST:
            return
        hits = (codes[first] @ codes[second].T).argmax(axis=1) == np.arange(count)
        for matcher in material.matchers:
            yield Attempt(
                self.name,
                "disclosed",
                matcher,
                "link",
                np.where(hits, 1.0, -1.0),
                material.people[first],
                np.where(np.arange(20_000) % count == 0, 1.0, -1.0),
                {"records": float(count)},
                "store alone: rank 1 among other photos of all victims; the control is blind guessing",
                graded=False,
            )
