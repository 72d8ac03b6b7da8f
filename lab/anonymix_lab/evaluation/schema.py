"""What stands in `metrics.json`; docs/evaluation.md explains it field by field.

Rates are shares, 0..1. A figure that could not be measured is null. `Report.model_json_schema()` gives all of
it as JSON Schema.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict

SCHEMA_VERSION = 1


def _finite(value: object) -> object:
    return None if isinstance(value, float) and not math.isfinite(value) else value


Number = Annotated[float | None, BeforeValidator(_finite)]
"""A number, or null where it could not be measured."""


class Part(BaseModel):
    """Base of all parts."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Figure(Part):
    """A figure and its 95 % bootstrap interval over people and keys."""

    value: Number
    low: Number
    high: Number


class NoticePart(Part):
    """Something that was left out or looks wrong."""

    kind: str
    what: str
    count: int
    examples: tuple[str, ...]


class ThresholdPart(Part):
    """A frozen operating threshold of the unprotected recogniser."""

    matcher: str
    target_fmr: float
    threshold: Number
    source: str
    comparisons: int


class MatcherPart(Part):
    """Who judged."""

    name: str
    seen_by_mixer: bool
    identity: str


class Histogram(Part):
    """Counts of scores in equal bins."""

    low: float
    high: float
    counts: tuple[int, ...]


class OperatingPoint(Part):
    """Both error rates where the FMR is not to exceed a target.

    `source`: "development" is the unprotected recogniser's own threshold, frozen on unprotected photos of
    other people; "other folds" is recalibrated on protected (or, unprotected) faces of the other folds; "same
    scores" is set on the very scores that it is applied to, and is optimistic.
    """

    target_fmr: float
    source: Literal["development", "published", "other folds", "same scores"]
    threshold: Number
    fmr: Figure
    fnmr: Figure
    impostor_comparisons: int


class TwoClass(Part):
    """A scenario with genuine and impostor comparisons, by one matcher."""

    scenario: str
    matcher: str
    genuine: int
    impostor: int
    cross: int
    failed_genuine: int
    failed_impostor: int
    eer: Figure
    auc: Figure
    accuracy: Number
    accuracy_error: Number
    genuine_mean: Number
    genuine_std: Number
    impostor_mean: Number
    impostor_std: Number
    points: tuple[OperatingPoint, ...]
    genuine_histogram: Histogram
    impostor_histogram: Histogram
    det: tuple[tuple[float, float], ...]


class MatchRate(Part):
    """How often comparisons that ought not to match do, beside those of different people."""

    target_fmr: float
    threshold: Number
    rate: Figure
    chance: Figure


class OneClass(Part):
    """A scenario in which one person's pictures ought not to match, by one matcher.

    `chance`: the same comparison of different people: what the rate should come down to.
    """

    scenario: str
    matcher: str
    comparisons: int
    chance_comparisons: int
    failed: int
    keys: int
    mean: Number
    std: Number
    highest: Number
    rates: tuple[MatchRate, ...]
    histogram: Histogram
    chance_histogram: Histogram


class LinkabilityPart(Part):
    """Unlinkability by one matcher."""

    scenario: str
    matcher: str
    mated: int
    non_mated: int
    d_sys: Figure
    floor: Number
    floor_high: Number
    above_floor: Number
    p_value: Number
    maximal: Number
    maximal_floor: Number
    bins: int
    low: float
    high: float
    mated_density: tuple[float, ...]
    non_mated_density: tuple[float, ...]
    local: tuple[float, ...]


class AttackPart(Part):
    """One attack on one protection, by one matcher.

    `success`: accepted as the real person at the unprotected recogniser's threshold of FMR .1 %. `control`:
    the same attack on protected faces of somebody else, at the same threshold. `success_calibrated`: at the
    threshold where at most .1 % of the controls pass.
    """

    attack: str
    protection: str
    key: Literal["hidden", "disclosed", "none"]
    matcher: str
    seen_by_mixer: bool
    goal: str
    attempts: int
    controls: int
    success: Figure
    control: Figure
    success_calibrated: Number
    budget: dict[str, float]
    note: str


class ProtectionPart(Part):
    """Anonymix or a baseline, in one line a matcher."""

    name: str
    title: str
    fingerprint: str
    keyed: bool
    matcher: str
    seen_by_mixer: bool
    photos: int
    people: int
    seconds_median: Number
    failures: dict[str, int]
    eer_one_key: Figure
    eer_own_key: Figure
    psr: Figure
    renewal: Figure
    d_sys: Number
    d_sys_floor: Number


class TraitPart(Part):
    """How much of something that is no identity is kept: correlation over photos with the original."""

    trait: str
    correlation: Number
    shuffled: Number
    original_mean: Number
    protected_mean: Number


class FeaturePart(Part):
    """Distance of distributions in the feature space of the user's weights."""

    name: str
    dim: int
    originals: int
    protected: int
    fid: Number
    kid: Number


class DiversityPart(Part):
    """How many faces can be told apart.

    `collision`: share of pairs of different people's protected faces, each under its own key, that match at
    the threshold. `capacity`: 1 / collision. `distinguishable`: faces of those made that a greedy choice
    keeps mutually apart. `key_space_bits` is another thing, and is stated for that reason.
    """

    matcher: str
    target_fmr: float
    faces: int
    collision: Figure
    capacity: Number
    distinguishable: int
    key_space_bits: int


class GroupPart(Part):
    """Error rates of a group at the frozen threshold of FMR .1 %."""

    label: str
    scenario: str
    matcher: str
    people: int
    genuine: int
    impostor: int
    fmr: Figure
    fnmr: Figure


class RequirementPart(Part):
    """A threshold that was set, and what was measured."""

    requirement: str
    metric: str
    matcher: str
    measured: Figure
    limit: float
    holds: bool
    given: bool
    about: str


class Provenance(Part):
    """Where the figures come from."""

    made: str
    seconds: float
    command: tuple[str, ...]
    anonymix: str
    fingerprint: str
    method: str
    policy: dict[str, str | float]
    key_seed: int
    shared_keys: int
    seed: int
    replicates: int
    versions: dict[str, str]
    machine: dict[str, str | int]
    pictures_made: dict[str, int]
    damaged_shards: int


class ProtocolPart(Part):
    """What was compared."""

    name: str
    title: str
    official: bool
    people: int
    photos: int
    folds: int
    genuine: int
    impostor: int
    development_photos: int
    development_people: int
    settings: dict[str, str | int | float]
    notices: tuple[NoticePart, ...]


class FailurePart(Part):
    """Photos or protected faces for which there was no answer, by reason."""

    what: str
    protection: str
    pictures: int
    failed: dict[str, int]


class Report(Part):
    """All of it."""

    schema_version: int = SCHEMA_VERSION
    provenance: Provenance
    protocol: ProtocolPart
    matchers: tuple[MatcherPart, ...]
    thresholds: tuple[ThresholdPart, ...]
    failures: tuple[FailurePart, ...]
    two_class: tuple[TwoClass, ...]
    one_class: tuple[OneClass, ...]
    linkability: tuple[LinkabilityPart, ...]
    attacks: tuple[AttackPart, ...]
    protections: tuple[ProtectionPart, ...]
    traits: tuple[TraitPart, ...]
    features: tuple[FeaturePart, ...]
    diversity: tuple[DiversityPart, ...]
    groups: tuple[GroupPart, ...]
    requirements: tuple[RequirementPart, ...]

    @property
    def holds(self) -> bool:
        """Whether all requirements that the user gave hold."""
        return all(part.holds for part in self.requirements if part.given)
