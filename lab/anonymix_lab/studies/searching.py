"""Search over candidates, each under a key of their own, with probes guided by each candidate's reference.

Drawing every candidate's face for thousands of probes is out of reach. So the codes of all people are compared
as they are, and what a recogniser says is computed from their cosines, as for the guiding curve. Some probes
are drawn for real, against their own entry and the candidates whose codes are nearest: those whom the
recogniser could take for them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from anonymix_adapters.candidates import search_candidates
from anonymix_adapters.interceptor import FaceMixer
from anonymix_adapters.protocol import Adapter
from anonymix_adapters.testing.conformance import Person
from anonymix_lab.data.keys import SeededKeys
from anonymix_lab.studies.guiding import Array, Integers, Look, Prediction, turned
from anonymix_plugin.errors import UsageError
from anonymix_plugin.generator import Generator, pictures_of
from anonymix_plugin.mixer.fast import FastMixer
from anonymix_plugin.mixer.guide import GuidingCurve, guided
from anonymix_plugin.mixer.key_schedule import KeySchedule
from anonymix_plugin.values import Photo

_ALARM = 0.01


@dataclass(frozen=True)
class SearchFigures:
    """What a search finds (ISO/IEC 19795-1: identification), by one recogniser.

    Attributes:
        matcher: The recogniser.
        guided: Whether candidates have references.
        candidates: How many are tried.
        probes: Probes of people among them; of as many other people, the rest.
        rank1: Share of probes whose own candidate scores highest.
        missed: Share of probes whose own candidate is refused at the threshold for photos, FMR .1 %.
        alone: Share of probes for which the own candidate is accepted, and nobody else.
        alarms: Share of probes of people who are not among the candidates, for whom somebody is accepted.
        missed_at_alarm: Share of probes whose own candidate is refused where `alarms` is 1 %.
    """

    matcher: str
    guided: bool
    candidates: int
    probes: int
    rank1: float
    missed: float
    alone: float
    alarms: float
    missed_at_alarm: float


@dataclass(frozen=True, eq=False)
class Gallery:
    """One enrolled photo of each candidate, probes of theirs, and probes of others.

    Attributes:
        entries: (G,) int64, rows of codes.
        probes: (P,) int64, rows of other photos of candidates.
        own: (P,) int64, which entry is the probe's.
        others: (S,) int64, rows of photos of people who are no candidates.
    """

    entries: Integers
    probes: Integers
    own: Integers
    others: Integers


def gallery_of(who: Integers, size: int, probes: int, *, seed: int = 1) -> Gallery:
    """Choose candidates: first all those of whom there are several photos, then others.

    Args:
        who: (N,) int64, who is on each photo.
        size: How many candidates.
        probes: Probes at most, one of each candidate who has a second photo; and of others.
        seed: Of the choice.

    Raises:
        UsageError: There are not that many people, or nobody is left who is no candidate.
    """
    random = np.random.Generator(np.random.Philox(seed))
    names, counts = np.unique(who, return_counts=True)
    if size >= len(names):
        raise UsageError(f"there are {len(names)} people", where="galleries", fix="take fewer candidates")
    several, single = (random.permutation(names[part]) for part in (counts > 1, counts == 1))
    half = min(len(several) // 2, size)
    chosen = np.concatenate([several[:half], single[: size - half]])
    chosen = np.concatenate([chosen, several[half : half + size - len(chosen)]])
    rows = {int(name): random.permutation(np.flatnonzero(who == name)) for name in names}
    entries = np.array([rows[int(name)][0] for name in chosen])
    own = np.array([place for place, name in enumerate(chosen) if len(rows[int(name)]) > 1][:probes])
    left = random.permutation(np.setdiff1d(names, chosen))[:probes]
    return Gallery(
        entries,
        np.array([rows[int(chosen[place])][1] for place in own]),
        own,
        np.array([rows[int(name)][0] for name in left]),
    )


def galleries_of(who: Integers, size: int, probes: int, *, seed: int = 1) -> list[Gallery]:
    """As many galleries as it takes to have so many probes of candidates; see `gallery_of`."""
    found: list[Gallery] = []
    while sum(len(it.probes) for it in found) < probes:
        found.append(gallery_of(who, size, probes, seed=seed + len(found)))
        if not len(found[-1].probes):
            raise UsageError("nobody has a second photo", where="who", fix="take people with several photos")
    return found


def searched(
    codes: Array,
    galleries: Sequence[Gallery],
    prediction: Prediction,
    curve: GuidingCurve | None,
    thresholds: Mapping[str, float],
    *,
    seed: int = 1,
) -> list[SearchFigures]:
    """Compute what a search finds, for each recogniser.

    Args:
        codes: (N, d) float64 of all photos, of length 1.
        galleries: Who is enrolled, and who probes; of one size, counted together.
        prediction: What recognisers say of faces drawn from codes with a given cosine.
        curve: What guides probes; None where there are no references.
        thresholds: Recogniser -> its threshold for photos.
        seed: Of what recognisers say.
    """
    random = np.random.Generator(np.random.Philox(seed))
    found = []
    for name, threshold in thresholds.items():
        parts = []
        for gallery in galleries:
            cosines = [
                turned(curve, codes[rows] @ codes[gallery.entries].T) for rows in (gallery.probes, gallery.others)
            ]
            scores, foreign = (
                prediction.scores(name, part.ravel(), random.random(part.size)).reshape(part.shape) for part in cosines
            )
            place = np.arange(len(gallery.probes))
            mine = scores[place, gallery.own]
            scores[place, gallery.own] = -np.inf
            parts.append((mine, scores.max(axis=1), foreign.max(axis=1)))
        mine, rest, highest = (np.concatenate(part) for part in zip(*parts, strict=True))
        strict = float(np.quantile(highest, 1 - _ALARM, method="higher"))
        found.append(
            SearchFigures(
                name,
                curve is not None,
                len(galleries[0].entries),
                len(mine),
                rank1=float((mine > rest).mean()),
                missed=float((mine < threshold).mean()),
                alone=float(((mine >= threshold) & (rest < threshold)).mean()),
                alarms=float((highest >= threshold).mean()),
                missed_at_alarm=float((mine <= strict).mean()),
            )
        )
    return found


@dataclass(frozen=True)
class Drawn:
    """What was found of probes that were drawn, against their own entry and the nearest candidates.

    Attributes:
        matcher: The recogniser.
        guided: Whether by references.
        candidates: How many there were to be nearest among.
        probes: Probes drawn.
        nearest: How many other candidates each was held against.
        rank1: Probes whose own candidate scores highest of those.
        accepted: Probes whose own candidate is accepted at the threshold for photos.
        others: Other candidates accepted there, of `probes` times `nearest`.
    """

    matcher: str
    guided: bool
    candidates: int
    probes: int
    nearest: int
    rank1: int
    accepted: int
    others: int


def draw_searches(
    codes: Array,
    gallery: Gallery,
    generator: Generator,
    mixer: FastMixer,
    curve: GuidingCurve | None,
    look: Callable[[Photo], Look | None],
    thresholds: Mapping[str, float],
    *,
    probes: int,
    nearest: int = 3,
    seed: int = 1,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> list[Drawn]:
    """Draw some probes and entries, as `search_candidates` would, and compare them.

    Args:
        codes: As for `searched`.
        gallery: As for `searched`.
        generator: Draws.
        mixer: Mixes.
        curve: As for `searched`.
        look: Finds the drawn face and embeds it with each recogniser; None where there is no face.
        thresholds: As for `searched`.
        probes: How many are drawn, the first ones.
        nearest: How many other candidates each is held against.
        seed: Of the keys.
        progress: Called with probes done and all probes.
    """
    keys, size = SeededKeys(seed), min(512, max(generator.sizes))

    def drawn(code: Array, candidate: int) -> Look | None:
        material = keys.current(str(candidate)).material
        picture = pictures_of(generator, mixer.mix(code, KeySchedule(material), material)[None], size)[0]
        pixels = np.rint((picture.clip(-1, 1) + 1) * 127.5).astype(np.uint8).transpose(1, 2, 0)
        return look(Photo(np.ascontiguousarray(pixels), "a drawn face"))

    chosen = range(min(probes, len(gallery.probes)))
    scores = {name: np.full((len(chosen), nearest + 1), -1.0) for name in thresholds}
    for number in chosen:
        code, own = codes[gallery.probes[number]], int(gallery.own[number])
        order = np.argsort(-(codes[gallery.entries] @ code))
        tried = [own, *[int(it) for it in order if it != own][:nearest]]
        for column, candidate in enumerate(tried):
            reference = codes[gallery.entries[candidate]]
            entry = drawn(reference, candidate)
            probe = drawn(code if curve is None else guided(code, reference, curve), candidate)
            if entry is not None and probe is not None:
                for name, table in scores.items():
                    table[number, column] = float(entry[name] @ probe[name])
        progress(number + 1, len(chosen))
    return [
        Drawn(
            name,
            curve is not None,
            len(gallery.entries),
            len(chosen),
            nearest,
            int((table[:, 0] > table[:, 1:].max(axis=1)).sum()),
            int((table[:, 0] >= thresholds[name]).sum()),
            int((table[:, 1:] >= thresholds[name]).sum()),
        )
        for name, table in scores.items()
    ]


@dataclass(frozen=True)
class SearchCost:
    """What a search costs through an adapter.

    Attributes:
        candidates: How many were tried.
        ms: The whole search, milliseconds.
        found: Whether the one who is accepted, and the only one, is the person in the photo.
    """

    candidates: int
    ms: float
    found: bool


def timed_searches(
    adapter: Adapter, mixer: FaceMixer, people: Sequence[Person], counts: Sequence[int]
) -> list[SearchCost]:
    """Search for the first person among so many candidates, each with a reference.

    Args:
        adapter: The back end.
        mixer: Over a keystore whose second secret is unlocked.
        people: Who is enrolled, at least as many as the largest count.
        counts: How many candidates.
    """
    found = []
    with adapter.rehearse(mixer) as stage:
        mixer.keystore.references.enable(stage.interceptor.scope(stage.collection), reason="measuring")
        for person in people[: max(counts)]:
            stage.enrol(person.name, person.enrolled)
        stage.verify(people[0].name, people[0].probe)
        for count in counts:
            names = [person.name for person in people[:count]]
            answer = search_candidates(stage.verify, people[0].probe, names, most=count)
            found.append(SearchCost(count, round(1000 * answer.seconds, 1), answer.subject == names[0]))
    return found
