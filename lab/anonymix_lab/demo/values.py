"""What the demo is made of: people and their photos going in, faces and comparisons coming out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from anonymix_plugin.values import CancelableFace, Pixels

Matrix = npt.NDArray[np.float64]
"""Similarities of one recogniser, (enrolled people, probing people) float64."""

Chapter = Literal["genuine", "impostor", "original", "other-key", "old-key", "new-key", "shared", "shared-impostor"]
"""Part of the story that a comparison belongs to."""


@dataclass(frozen=True, eq=False)
class Sample:
    """One photo.

    Attributes:
        label: What it is called on the page.
        data: The image file.
    """

    label: str
    data: bytes = field(repr=False)


@dataclass(frozen=True, eq=False)
class Person:
    """Somebody of whom there are several photos.

    Attributes:
        name: Subject id in the keystore and name on the page.
        photos: The first is enrolled, the others are probes.
    """

    name: str
    photos: tuple[Sample, ...] = field(repr=False)


@dataclass(frozen=True)
class Skipped:
    """A photo, or a whole person, that could not be used.

    Attributes:
        what: Which.
        why: The reason, with what can be done about it.
    """

    what: str
    why: str


@dataclass(frozen=True)
class MatcherFacts:
    """A recogniser that compares.

    Attributes:
        name: Its name in the registry of weights.
        title: Its name on the page.
        seen_by_mixer: Whether the mixer was made with its help.
        threshold_name: Name of its threshold.
        threshold: From which similarity on two faces count as one person's.
        recalibrated_threshold: The same for a recogniser that is recalibrated for cancelable faces; None where that
            was not measured.
    """

    name: str
    title: str
    seen_by_mixer: bool
    threshold_name: str
    threshold: float
    recalibrated_threshold: float | None = None


@dataclass(frozen=True)
class Trial:
    """One comparison, and how it should end.

    Attributes:
        chapter: What it is part of.
        claimed: Who the probe claims to be.
        probe: What was shown.
        accept: Whether it should match.
        scores: Similarity by name of the recogniser.
    """

    chapter: Chapter
    claimed: str
    probe: str
    accept: bool
    scores: Mapping[str, float]


@dataclass(frozen=True, eq=False)
class Grid:
    """Everybody against everybody.

    Attributes:
        name: Short name, for programs.
        title: What the page says.
        rows: What is enrolled, in words.
        columns: What probes, in words.
        diagonal: Whether the same person should match; different people never should.
        values: Similarities by name of the recogniser.
    """

    name: str
    title: str
    rows: str
    columns: str
    diagonal: bool
    values: Mapping[str, Matrix] = field(repr=False)


@dataclass(frozen=True, eq=False)
class Portrait:
    """All pictures of one person.

    Attributes:
        name: The person.
        photos: (label, (256, 256, 3) uint8 RGB) of each photo.
        faces: Cancelable faces of the same photos under the subject's key in this gallery.
        elsewhere: The first photo under the subject's key in another application.
    """

    name: str
    photos: tuple[tuple[str, Pixels], ...] = field(repr=False)
    faces: tuple[CancelableFace, ...] = field(repr=False)
    elsewhere: CancelableFace = field(repr=False)


@dataclass(frozen=True)
class Refusal:
    """An attempt that must end in an error.

    Attributes:
        attempt: What was tried.
        code: Stable name of the error; "" if there was none, which is a fault.
        message: What the user is told.
    """

    attempt: str
    code: str
    message: str


@dataclass(frozen=True, eq=False)
class Revocation:
    """A key that was destroyed, and what is left to its owner: nothing.

    Attributes:
        name: Whose key.
        before: A cancelable face made before.
        versions: Versions of the key that were destroyed.
        refusals: What was tried afterwards.
    """

    name: str
    before: CancelableFace = field(repr=False)
    versions: tuple[int, ...]
    refusals: tuple[Refusal, ...]


@dataclass(frozen=True, eq=False)
class Rotation:
    """A key that was replaced.

    Attributes:
        name: Whose key.
        photo: (256, 256, 3) uint8 RGB, the photo.
        old: Its cancelable face under the old key.
        new: Under the new key.
        probe: Another photo's cancelable face under the new key.
    """

    name: str
    photo: Pixels = field(repr=False)
    old: CancelableFace = field(repr=False)
    new: CancelableFace = field(repr=False)
    probe: CancelableFace = field(repr=False)


@dataclass(frozen=True)
class Stage:
    """How long a step took.

    Attributes:
        name: The step.
        seconds: How long.
        faces: How many cancelable faces were made in it.
    """

    name: str
    seconds: float
    faces: int


@dataclass(frozen=True, eq=False)
class Story:
    """Everything that happened.

    Attributes:
        portraits: The people.
        own_photos: Whether they are the user's own photos, and not the samples.
        matchers: Who compared.
        missing_matchers: Recognisers that could not take part, and why.
        trials: All comparisons.
        grids: The similarity tables.
        revocation: What became of a destroyed key.
        rotation: What became of a replaced key.
        skipped: Photos that could not be used.
        stages: Time by step.
        face_seconds: Median seconds of one cancelable face by stage of the mixer.
        fingerprint: The mixer's.
        method: The mixer's method.
        policy: The mixing policy.
    """

    portraits: tuple[Portrait, ...]
    own_photos: bool
    matchers: tuple[MatcherFacts, ...]
    missing_matchers: tuple[Skipped, ...]
    trials: tuple[Trial, ...]
    grids: tuple[Grid, ...]
    revocation: Revocation
    rotation: Rotation
    skipped: tuple[Skipped, ...]
    stages: tuple[Stage, ...]
    face_seconds: Mapping[str, float]
    fingerprint: str
    method: str
    policy: Mapping[str, str | float]
