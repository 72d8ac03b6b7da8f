"""Linking two databases."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from anonymix_lab.evaluation.attacks._regression import FEWEST, ridge
from anonymix_lab.evaluation.attacks._values import Array, Attempt, Material


class Linkage:
    """Nearest neighbour: who in database A is the one in database B whose record is most alike?

    Both hold the same people under different keys. Success is the rate of right first guesses, which blind
    guessing brings to 1 / N. It is tried with the embeddings as they are, and with those that a regression
    from the one to the other, learned on other people under other keys, makes of them.
    """

    name = "linkage"

    def run(self, material: Material) -> Iterator[Attempt]:
        """See `Attack.run`."""
        drawn = material.drawn
        if not len(drawn.again):
            return
        own = material.features(drawn.own)[drawn.again]
        other = material.features(drawn.elsewhere if len(drawn.elsewhere) else drawn.renewed)
        there = ~np.isnan(own).any(axis=1) & ~np.isnan(other).any(axis=1)
        theirs = material.theirs[drawn.again]
        people = material.people[drawn.again]
        train, victims = np.flatnonzero(there & theirs), np.flatnonzero(there & ~theirs)
        if len(victims) < 2:
            return
        learned: Array | None = None
        if min(len(train), len(victims)) >= FEWEST:
            learned = ridge(own[train], other[train])(own[victims])
        for matcher, columns in material.targets().items():
            threshold = material.thresholds.get(matcher)
            if threshold is None:
                continue
            kinds = [("as they are", own[victims][:, columns])]
            if learned is not None:
                kinds.append(("after regression", learned[:, columns]))
            for note, queries in kinds:
                unit = queries / np.maximum(np.linalg.norm(queries, axis=1, keepdims=True), 1e-12)
                scores = unit @ other[victims][:, columns].T
                count = len(victims)
                hits = scores.argmax(axis=1) == np.arange(count)
                # As scores, so that hits count as accepted: the question is the rank, not the threshold.
                yield Attempt(
                    self.name,
                    "hidden",
                    matcher,
                    "link",
                    np.where(hits, 1.0, -1.0),
                    people[victims],
                    np.where(np.arange(20_000) % count == 0, 1.0, -1.0),
                    {"records": float(count)},
                    f"rank 1, embeddings {note}; the control is blind guessing",
                    graded=False,
                )
