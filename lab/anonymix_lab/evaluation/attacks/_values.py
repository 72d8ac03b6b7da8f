"""What attacks are given, what they give back, and how that is counted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, Protocol

import numpy as np
import numpy.typing as npt

from anonymix_lab.data import Protocol as Comparing
from anonymix_lab.evaluation.scenarios import Drawn
from anonymix_lab.evaluation.schema import AttackPart, Figure
from anonymix_lab.matchers import Extractor, Table
from anonymix_lab.metrics.intervals import Resampler, share_interval, wilson
from anonymix_lab.metrics.thresholds import top_thresholds
from anonymix_lab.protections import Protection

Array = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

Key = Literal["hidden", "disclosed", "none"]

TARGET: Final = 0.001
_MOST_CONTROLS: Final = 50_000


@dataclass(frozen=True, eq=False)
class Material:
    """What attackers get.

    Attributes:
        protocol: Samples and pairs.
        protection: What is attacked.
        drawn: Embeddings of photos and protected faces.
        extractor: Makes further pictures for attacks that need them.
        matchers: Names.
        seen: Those whom the mixer has seen.
        thresholds: Matcher -> threshold of FMR .1 % of the unprotected recogniser, where there is one.
        people: (n,) number of the person on each sample.
        theirs: (n,) bool: samples of people whose photos the attacker has and trains on. The victims are
            the others; nobody is both.
        seed: Of all draws.
        replicates: Of the bootstrap.
    """

    protocol: Comparing
    protection: Protection
    drawn: Drawn
    extractor: Extractor
    matchers: Sequence[str]
    seen: frozenset[str]
    thresholds: Mapping[str, float]
    people: Integers
    theirs: Flags
    seed: int
    replicates: int

    def features(self, table: Table) -> Array:
        """Embeddings of all matchers side by side, (n, sum of dims) float64; NaN rows where one has none."""
        rows = np.concatenate([table.vectors[matcher] for matcher in self.matchers], axis=1).astype(np.float64)
        rows[np.isnan(rows).any(axis=1)] = np.nan
        return rows

    def targets(self) -> Mapping[str, slice]:
        """Which columns of `features` are whose."""
        ends = np.cumsum([0, *(self.drawn.original.vectors[matcher].shape[1] for matcher in self.matchers)])
        return {matcher: slice(int(ends[i]), int(ends[i + 1])) for i, matcher in enumerate(self.matchers)}


def split_people(people: Integers, seed: int) -> Flags:
    """(n,) bool: half of the people by chance, whose photos the attacker has."""
    names = np.unique(people)
    random = np.random.Generator(np.random.Philox(seed))
    return np.isin(people, random.permutation(names)[: len(names) // 2])


@dataclass(frozen=True, eq=False)
class Attempt:
    """What an attack reached, by one matcher.

    Attributes:
        attack: Its name.
        key: What the attacker knows of the key.
        matcher: Whose scores.
        goal: "identity" (get back to the person), "link" (tell that two records are one person's) or
            "template" (match a stored template).
        scores: (n,) of attempts on victims.
        people: (n,) whose.
        controls: (m,) scores of the control.
        budget: What it was allowed: records, photos, steps, ...
        note: What a reader has to know.
        graded: Whether scores are similarities; else they only say hit (1) or miss (-1).
    """

    attack: str
    key: Key
    matcher: str
    goal: Literal["identity", "link", "template"]
    scores: Array
    people: Integers
    controls: Array
    budget: dict[str, float] = field(default_factory=dict)
    note: str = ""
    graded: bool = True


class Attack(Protocol):
    """An attack."""

    @property
    def name(self) -> str:
        """Its name in `ATTACKS`."""
        ...

    def run(self, material: Material) -> Iterable[Attempt]:
        """Attack; yields nothing where there is too little material."""
        ...


def attack_parts(attempts: Iterable[Attempt], material: Material) -> list[AttackPart]:
    """Count what attempts reached."""
    parts = []
    for attempt in attempts:
        threshold = material.thresholds.get(attempt.matcher)
        answered = ~np.isnan(attempt.scores)
        scores = np.where(answered, attempt.scores, -1.0)
        controls = attempt.controls[~np.isnan(attempt.controls)]
        if threshold is None or not len(scores) or not len(controls):
            continue
        resampler = Resampler(attempt.people, attempt.people, seed=material.seed)
        accepted = scores >= threshold
        success = share_interval(resampler, accepted, replicates=material.replicates)
        control = wilson(int((controls >= threshold).sum()), len(controls))
        calibrated = (
            float((scores >= top_thresholds(controls, [TARGET])[TARGET]).mean())
            if attempt.graded and len(controls) * TARGET >= 1
            else None
        )
        parts.append(
            AttackPart(
                attack=attempt.attack,
                protection=material.protection.name,
                key=attempt.key if material.protection.keyed else "none",
                matcher=attempt.matcher,
                seen_by_mixer=attempt.matcher in material.seen,
                goal=attempt.goal,
                attempts=len(scores),
                controls=len(controls),
                success=Figure(**success._asdict()),
                control=Figure(**control._asdict()),
                success_calibrated=calibrated,
                budget=attempt.budget,
                note=attempt.note,
            )
        )
    return parts


def against_person(material: Material, guesses: Array, rows: Integers, matcher: str) -> tuple[Array, Integers, Array]:
    """Compare guesses of embeddings with the real people.

    Args:
        material: The attacker's.
        guesses: (n, dim) guesses for the samples `rows`; any length but 0.
        rows: (n,) samples that the attacked faces were made from.
        matcher: Whose embeddings they are.

    Returns:
        Scores against the very photo (the easiest target for an attacker), whose they are, and scores of
        the same guesses against photos of other victims, the control.
    """
    real = material.drawn.original.vectors[matcher].astype(np.float64)
    unit = guesses / np.maximum(np.linalg.norm(guesses, axis=1, keepdims=True), 1e-12)
    own = np.einsum("nd,nd->n", unit, real[rows])
    random = np.random.Generator(np.random.Philox(material.seed))
    count = min(_MOST_CONTROLS, len(rows) ** 2)
    a, b = random.integers(0, len(rows), count), random.integers(0, len(rows), count)
    other = material.people[rows[a]] != material.people[rows[b]]
    a, b = a[other], b[other]
    return own, material.people[rows], np.einsum("nd,nd->n", unit[a], real[rows[b]])
