"""Attacks that need no learning."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from anonymix_lab.evaluation.attacks._values import Attempt, Material, against_person
from anonymix_lab.evaluation.scenarios import cross_pairs


class Direct:
    """The protected face, as it is, against the person."""

    name = "direct"

    def run(self, material: Material) -> Iterator[Attempt]:
        """See `Attack.run`."""
        for matcher in material.matchers:
            guesses = material.drawn.own.vectors[matcher].astype(np.float64)
            rows = np.flatnonzero(~np.isnan(guesses[:, 0]))
            if len(rows):
                scores, people, controls = against_person(material, guesses[rows], rows, matcher)
                yield Attempt(self.name, "hidden", matcher, "identity", scores, people, controls)


class WithKey:
    """Who has photo and key protects the photo and compares.

    That is what the mixer is for, and no flaw: with the key, and a photo of the very person, it tells whether
    a template is that person's. Where there is no key, everybody can.
    """

    name = "with-key"

    def run(self, material: Material) -> Iterator[Attempt]:
        """See `Attack.run`."""
        pairs, drawn = material.protocol.genuine(), material.drawn
        together = drawn.shared_key[pairs.first] == drawn.shared_key[pairs.second]
        first, second = pairs.first[together], pairs.second[together]
        for matcher in material.matchers:
            rows = drawn.shared.vectors[matcher].astype(np.float64)
            a, b = cross_pairs(material.people, drawn.shared_key, 50_000, material.seed)
            yield Attempt(
                self.name,
                "disclosed",
                matcher,
                "link",
                np.einsum("nd,nd->n", rows[first], rows[second]),
                material.people[first],
                np.einsum("nd,nd->n", rows[a], rows[b]),
                {"photos": 1},
                "possible by design for whoever holds the key",
            )


class KeyGuessing:
    """Who has a photo, but not the key, protects it under a key of his own guessing, and compares.

    The key has 256 bits and is not found this way; what may happen is that the face under a guessed key is as
    good as that under the right one. Success is that of a single guess.
    """

    name = "key-guessing"

    def run(self, material: Material) -> Iterator[Attempt]:
        """See `Attack.run`."""
        drawn = material.drawn
        if not len(drawn.again):
            return
        for matcher in material.matchers:
            template = drawn.own.vectors[matcher].astype(np.float64)
            guess = drawn.renewed.vectors[matcher].astype(np.float64)
            scores = np.einsum("nd,nd->n", guess, template[drawn.again])
            people = material.people[drawn.again]
            random = np.random.Generator(np.random.Philox(material.seed))
            a = random.integers(0, len(guess), 20_000)
            b = random.integers(0, len(template), 20_000)
            other = people[a] != material.people[b]
            controls = np.einsum("nd,nd->n", guess[a[other]], template[b[other]])
            yield Attempt(
                self.name, "hidden", matcher, "template", scores, people, controls, {"guesses": 1}, "per guess"
            )
