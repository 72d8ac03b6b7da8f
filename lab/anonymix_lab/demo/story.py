"""What happens in the demo, step by step: enrol, verify, try to get in, revoke, rotate, lose a key."""

from __future__ import annotations

import secrets
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol, Self

import cv2
import numpy as np

from anonymix_keystore import Keystore, KeystoreError, PassphraseUnlock, RotationReason
from anonymix_lab.demo.matchers import Embeddings, Matchers, similarity
from anonymix_lab.demo.people import DEFAULT_SEED, PHOTOS_EACH, sample_people
from anonymix_lab.demo.photos import people_from
from anonymix_lab.demo.values import (
    Chapter,
    Grid,
    MatcherFacts,
    Person,
    Portrait,
    Refusal,
    Revocation,
    Rotation,
    Skipped,
    Stage,
    Story,
    Trial,
)
from anonymix_plugin.anonymixer import Anonymixer
from anonymix_plugin.errors import AnonymixError, PhotoError, UsageError
from anonymix_plugin.faces import YuNet, select_faces
from anonymix_plugin.images import decode_photo
from anonymix_plugin.models import locate
from anonymix_plugin.values import CancelableFace, Face, Pixels

GALLERY: Final = "gallery"
ELSEWHERE: Final = "another application"
SHARED: Final = "one key for everybody"
SHOWN: Final = 256
OWN_PEOPLE: Final = 8
"""Everybody claims to be everybody else, so that time grows with the square of this."""


class Progress(Protocol):
    """Hears how the story is getting on."""

    def begin(self, step: str, total: int | None) -> None:
        """A step of so many parts begins; None where nobody knows how many."""
        ...

    def advance(self) -> None:
        """One part is done."""
        ...

    def end(self, seconds: float) -> None:
        """The step is done."""
        ...


@dataclass(frozen=True)
class Plan:
    """What is to be told.

    Attributes:
        photos: Folder of the user's own photos; None draws sample people.
        people: How many people.
        photos_each: Sample photos of each person.
        seed: Names the occasions of the sample photos.
    """

    photos: Path | None = None
    people: int = 6
    photos_each: int = PHOTOS_EACH
    seed: int = DEFAULT_SEED

    @classmethod
    def of(cls, *, photos: Path | None, people: int | None, photos_each: int | None, seed: int | None) -> Self:
        """Put the user's choices together; None is for what was left open.

        Raises:
            UsageError: Choices that are for sample people come with photos of one's own.
        """
        if photos is not None and not (seed is None and photos_each is None):
            raise UsageError("--seed and --photos-each are for sample people", fix="leave them out, or --photos")
        return cls(
            photos,
            people or (6 if photos is None else OWN_PEOPLE),
            PHOTOS_EACH if photos_each is None else photos_each,
            DEFAULT_SEED if seed is None else seed,
        )


def plan_seed(plan: Plan) -> int | None:
    """The seed of the sample photos, None for photos of one's own."""
    return plan.seed if plan.photos is None else None


@dataclass(frozen=True, eq=False)
class _Shot:
    """A photo that was looked at."""

    label: str
    data: bytes = field(repr=False)
    shown: Pixels = field(repr=False)
    plain: Embeddings = field(repr=False)


@dataclass(frozen=True, eq=False)
class _Member:
    """A person with photos that can be used."""

    name: str
    shots: tuple[_Shot, ...]


@dataclass(frozen=True, eq=False)
class _Made:
    """A cancelable face and what the recognisers see in it."""

    face: CancelableFace
    seen: Embeddings


def tell(plan: Plan, progress: Progress) -> Story:
    """Run the demo.

    The keystore lies in a temporary folder under a random passphrase, and both are gone afterwards.

    Raises:
        UsageError: There are not two people with two usable photos each.
        ModelError: Weights are missing or damaged.
    """
    with tempfile.TemporaryDirectory(prefix="anonymix-demo-") as folder:
        return _Teller(plan, progress, Path(folder)).tell()


class _Teller:
    """Tells one story; holds what its steps hand on to one another."""

    def __init__(self, plan: Plan, progress: Progress, folder: Path) -> None:
        self._plan, self._progress, self._folder = plan, progress, folder
        self._stages: list[Stage] = []
        self._trials: list[Trial] = []
        self._grids: list[Grid] = []
        self._timings: list[dict[str, float]] = []
        self._faces = 0

    def tell(self) -> Story:
        """Tell it."""
        with self._step("Load the weights, make a keystore"):
            self._detector = YuNet(locate("yunet"))
            self._matchers = Matchers(self._detector)
            unlock = PassphraseUnlock(secrets.token_bytes(32))
            store = Keystore.create(self._folder / "keystore.db", unlock, actor="demo")
        with store, Anonymixer(store) as mixer:
            self._store, self._mixer = store, mixer
            return self._chapters()

    def _chapters(self) -> Story:
        people, skipped = self._people()
        cast = self._look(people, skipped)
        enrolled, probes = self._enrol(cast), self._probe(cast)
        self._break_in(cast, enrolled, probes)
        self._originals(cast, enrolled)
        elsewhere = self._elsewhere(cast, enrolled)
        portraits = tuple(
            Portrait(
                member.name,
                tuple((shot.label, shot.shown) for shot in member.shots),
                (enrolled[i].face, *(made.face for made in probes[i])),
                elsewhere[i].face,
            )
            for i, member in enumerate(cast)
        )
        revocation = self._revoke(cast[-1], enrolled[-1])
        rotation = self._rotate(cast[0], enrolled[0])
        self._share(cast)
        return Story(
            portraits=portraits,
            own_photos=self._plan.photos is not None,
            matchers=self._matchers.facts,
            missing_matchers=self._matchers.missing,
            trials=tuple(self._trials),
            grids=tuple(self._grids),
            revocation=revocation,
            rotation=rotation,
            skipped=tuple(skipped),
            stages=tuple(self._stages),
            face_seconds=_medians(self._timings),
            fingerprint=self._mixer.fingerprint,
            method=portraits[0].elsewhere.method,
            policy=self._mixer.policy.describe(),
        )

    # --- who is in it -----------------------------------------------------------------------------------

    def _people(self) -> tuple[list[Person], list[Skipped]]:
        plan = self._plan
        if plan.photos is not None:
            with self._step("Read your photos"):
                return people_from(plan.photos, plan.people)
        drawn = sample_people(self._mixer.generator, plan.people, photos=plan.photos_each, seed=plan.seed)
        people = []
        with self._step("Draw people who do not exist", plan.people):
            for person in drawn:
                people.append(person)
                self._progress.advance()
        return people, []

    def _look(self, people: Sequence[Person], skipped: list[Skipped]) -> list[_Member]:
        """Keep who has two photos that can be used; write down what can't."""
        cast = []
        with self._step("Look at the photos, unprotected", sum(len(person.photos) for person in people)):
            for person in people:
                shots = []
                for sample in person.photos:
                    try:
                        photo = decode_photo(sample.data)
                        face = select_faces(self._detector.detect(photo), "largest", photo)[0]
                        seen = self._matchers.embed(photo.pixels)
                        shots.append(_Shot(sample.label, sample.data, _shown(face), seen))
                    except PhotoError as error:
                        skipped.append(Skipped(sample.label, _told(error)))
                    self._progress.advance()
                if len(shots) >= 2:
                    cast.append(_Member(person.name, tuple(shots)))
                else:
                    skipped.append(Skipped(person.name, f"{len(shots)} usable photos, and two are needed"))
        if len(cast) < 2:
            raise UsageError(
                "the story needs two people with two usable photos each: "
                + "; ".join(f"{entry.what}: {entry.why}" for entry in skipped),
                where=str(self._plan.photos or "sample people"),
                fix="use other photos",
            )
        values = [[similarity(a.shots[0].plain, b.shots[1].plain) for b in cast] for a in cast]
        self._grid("before", "Before: unprotected photos", "photo", "another photo", True, values)
        return cast

    # --- the normal case --------------------------------------------------------------------------------

    def _enrol(self, cast: Sequence[_Member]) -> list[_Made]:
        with self._step("Issue keys and enrol cancelable faces", len(cast)):
            return [self._make(member.shots[0], member.name, GALLERY, enrol=True) for member in cast]

    def _probe(self, cast: Sequence[_Member]) -> list[list[_Made]]:
        with self._step("Come back with other photos", sum(len(member.shots) - 1 for member in cast)):
            return [[self._make(shot, member.name, GALLERY) for shot in member.shots[1:]] for member in cast]

    def _break_in(self, cast: Sequence[_Member], enrolled: Sequence[_Made], probes: Sequence[Sequence[_Made]]) -> None:
        """Let everybody claim to be everybody: the system mixes a probe under the key of who is claimed."""
        for member, template, own in zip(cast, enrolled, probes, strict=True):
            for shot, made in zip(member.shots[1:], own, strict=True):
                self._try("genuine", member.name, shot.label, True, similarity(template.seen, made.seen))
        values = [[similarity(enrolled[i].seen, probes[i][0].seen)] * len(cast) for i in range(len(cast))]
        with self._step("Let everybody claim to be everybody else", len(cast) * (len(cast) - 1)):
            for i, claimed in enumerate(cast):
                for j, other in enumerate(cast):
                    if i != j:
                        made = self._make(other.shots[1], claimed.name, GALLERY)
                        values[i][j] = similarity(enrolled[i].seen, made.seen)
                        self._try("impostor", claimed.name, other.shots[1].label, False, values[i][j])
        self._grid("own-key", "After: a key for each", "template of", "probe, under the row's key", True, values)

    def _originals(self, cast: Sequence[_Member], enrolled: Sequence[_Made]) -> None:
        """Hold the photos as they are against the protected gallery: nobody may be found in it."""
        for member, template in zip(cast, enrolled, strict=True):
            for shot in member.shots:
                scores = similarity(template.seen, shot.plain)
                self._try("original", member.name, f"{shot.label} (unprotected)", False, scores)
        values = [[similarity(template.seen, b.shots[1].plain) for b in cast] for template in enrolled]
        title = "Unprotected photos against the gallery"
        self._grid("original", title, "template of", "unprotected photo of", False, values)

    def _elsewhere(self, cast: Sequence[_Member], enrolled: Sequence[_Made]) -> list[_Made]:
        with self._step("Enrol in another application", len(cast)):
            made = [self._make(member.shots[0], member.name, ELSEWHERE, enrol=True) for member in cast]
        for member, here, there in zip(cast, enrolled, made, strict=True):
            scores = similarity(here.seen, there.seen)
            self._try("other-key", member.name, f"{member.shots[0].label}, in {ELSEWHERE}", False, scores)
        values = [[similarity(here.seen, there.seen) for there in made] for here in enrolled]
        self._grid("other-key", "Two applications, two keys", "template here", "template there", False, values)
        return made

    # --- the life of keys -------------------------------------------------------------------------------

    def _revoke(self, member: _Member, before: _Made) -> Revocation:
        shot = member.shots[1]
        with self._step("Revoke a key", 2):
            versions = self._store.revoke(member.name, GALLERY, reason="demo")
            refusals = []
            for attempt, enrol in (("verify another photo", False), ("enrol again", True)):
                try:
                    self._mixer.protect(shot.data, subject=member.name, scope=GALLERY, enrol=enrol)
                except (AnonymixError, KeystoreError) as error:
                    refusals.append(Refusal(attempt, error.code, _told(error)))
                else:
                    refusals.append(Refusal(attempt, "", "a cancelable face was made all the same"))
                self._progress.advance()
        return Revocation(member.name, before.face, versions, tuple(refusals))

    def _rotate(self, member: _Member, old: _Made) -> Rotation:
        with self._step("Rotate a key", len(member.shots)):
            self._store.rotate(member.name, GALLERY, reason=RotationReason.BREACH)
            new, *probes = [self._make(shot, member.name, GALLERY) for shot in member.shots]
        for shot, probe in zip(member.shots[1:], probes, strict=True):
            label = f"{shot.label}, new key"
            self._try("old-key", member.name, label, False, similarity(old.seen, probe.seen))
            self._try("new-key", member.name, label, True, similarity(new.seen, probe.seen))
        return Rotation(member.name, member.shots[0].shown, old.face, new.face, probes[0].face)

    def _share(self, cast: Sequence[_Member]) -> None:
        """The worst case (ISO/IEC 30136 calls it the stolen token): one key is in everybody's hands."""
        with self._step("Give everybody the same key", 2 * len(cast)):
            rows, columns = ([self._make(member.shots[turn], None, SHARED) for member in cast] for turn in (0, 1))
        values = [[similarity(a.seen, b.seen) for b in columns] for a in rows]
        for i, claimed in enumerate(cast):
            for j, other in enumerate(cast):
                chapter: Chapter = "shared" if i == j else "shared-impostor"
                self._try(chapter, claimed.name, other.shots[1].label, i == j, values[i][j])
        self._grid("shared-key", "Worst case: one key for everybody", "template of", "probe of", True, values)

    # --- tools ------------------------------------------------------------------------------------------

    def _make(self, shot: _Shot, subject: str | None, scope: str, *, enrol: bool = False) -> _Made:
        face = self._mixer.protect(shot.data, subject=subject, scope=scope, enrol=enrol)
        self._timings.append(dict(face.timings))
        self._faces += 1
        made = _Made(face, self._matchers.embed(face))
        self._progress.advance()
        return made

    def _try(
        self,
        chapter: Chapter,
        claimed: str,
        probe: str,
        accept: bool,
        scores: dict[str, float],
    ) -> None:
        self._trials.append(Trial(chapter, claimed, probe, accept, scores))

    def _grid(
        self,
        name: str,
        title: str,
        rows: str,
        columns: str,
        diagonal: bool,
        values: Sequence[Sequence[dict[str, float]]],
    ) -> None:
        matchers: tuple[MatcherFacts, ...] = self._matchers.facts
        by_matcher = {
            matcher.name: np.array([[cell[matcher.name] for cell in row] for row in values]) for matcher in matchers
        }
        self._grids.append(Grid(name, title, rows, columns, diagonal, by_matcher))

    @contextmanager
    def _step(self, name: str, total: int | None = None) -> Iterator[None]:
        self._progress.begin(name, total)
        started, faces = time.perf_counter(), self._faces
        yield
        seconds = time.perf_counter() - started
        self._stages.append(Stage(name, seconds, self._faces - faces))
        self._progress.end(seconds)


def _shown(face: Face) -> Pixels:
    """The photo around a face, (256, 256, 3) uint8 RGB.

    Unlike the generator's framing it never reaches beyond the edge: mirrored hair is no pretty sight.
    """
    x0, y0, x1, y1 = face.box
    height, width = face.photo.pixels.shape[:2]
    side = min(max(round(2.1 * max(x1 - x0, y1 - y0)), 1), height, width)
    left = min(max(round((x0 + x1 - side) / 2), 0), width - side)
    top = min(max(round((y0 + y1) / 2 - 0.55 * side), 0), height - side)
    part = face.photo.pixels[top : top + side, left : left + side]
    kind = cv2.INTER_AREA if side > SHOWN else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(part, (SHOWN, SHOWN), interpolation=kind), np.uint8)


def _told(error: AnonymixError | KeystoreError) -> str:
    """What went wrong and what to do, without where: the page names the place itself."""
    return f"{error.what} ({error.fix})" if error.fix else error.what


def _medians(timings: Sequence[dict[str, float]]) -> dict[str, float]:
    stages = [name for name in timings[0] if name != "total"] + ["total"]
    return {name: statistics.median(entry.get(name, 0.0) for entry in timings) for name in stages}
