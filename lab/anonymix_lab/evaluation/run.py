"""A whole evaluation: from protocol to report."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Final

import numpy as np

from anonymix_lab.data import Protocol, without_idle
from anonymix_lab.evaluation.attacks import Attack, Material, attack_parts, split_people
from anonymix_lab.evaluation.requirements import Requirement, check_requirements
from anonymix_lab.evaluation.scenarios import OWN, Drawn, Measured, draw, measure_scenarios
from anonymix_lab.evaluation.schema import (
    AttackPart,
    FailurePart,
    Figure,
    MatcherPart,
    NoticePart,
    ProtectionPart,
    ProtocolPart,
    Provenance,
    Report,
    ThresholdPart,
)
from anonymix_lab.evaluation.traits import diversity, group_parts, traits
from anonymix_lab.machine import machine, versions
from anonymix_lab.matchers import CODE, Extractor, Request
from anonymix_lab.metrics.thresholds import Frozen, freeze
from anonymix_lab.protections import KeyName, Protection
from anonymix_plugin import __version__
from anonymix_plugin.errors import PhotoError, UsageError

_TARGET: Final = 0.001
_TIMED: Final = 5
_PATIENCE: Final = 30.0
_PACKAGES: Final = (
    "numpy",
    "onnxruntime",
    "opencv-python-headless",
    "openvino",
    "scikit-learn",
    "scipy",
    "torch",
)
NOTHING: Final = Figure(value=None, low=None, high=None)

AttackMaker = Callable[[Protection], Sequence[Attack]]


@dataclass(frozen=True)
class Settings:
    """What a run depends on besides photos and weights.

    Attributes:
        seed: Of bootstrap, sub-sampling and attackers.
        key_seed: Of all keys.
        shared_keys: How many keys for everybody; 0 leaves that scenario out.
        replicates: Of the bootstrap.
        baseline_pairs: At most so many pairs for baselines.
        claimed: Whether impostors' probes are also drawn under the claimed person's key.
        scopes: Whether probes are also drawn under the keys of another application.
        command: The command line, for the report.
    """

    seed: int = 1
    key_seed: int = 1
    shared_keys: int = 2
    replicates: int = 200
    baseline_pairs: int = 300
    claimed: bool = True
    scopes: bool = True
    command: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what makes no sense.

        Raises:
            UsageError: It makes none.
        """
        for name, least in (("shared_keys", 0), ("replicates", 1), ("baseline_pairs", 2)):
            if getattr(self, name) < least:
                raise UsageError(f"{name} is at least {least}", where=str(getattr(self, name)))


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What comes out.

    Attributes:
        report: All figures.
        measured: Scores of Anonymix, for the tables.
        drawn: Embeddings, for whoever wants to go on.
    """

    report: Report
    measured: Measured
    drawn: Drawn


@dataclass(frozen=True)
class MixerFacts:
    """What the report says about the mixer."""

    fingerprint: str = ""
    method: str = ""
    policy: Mapping[str, str | float] = field(default_factory=dict)


def evaluate(
    protocol: Protocol,
    protection: Protection,
    extractor: Extractor,
    settings: Settings,
    *,
    facts: MixerFacts | None = None,
    baselines: Sequence[Protection] = (),
    attacks: AttackMaker = lambda _: (),
    requirements: Sequence[Requirement] = (),
    groups: Mapping[str, Sequence[str]] | None = None,
    guided: Protection | None = None,
    reader: Extractor | None = None,
    step: Callable[[str], None] = lambda _: None,
) -> Evaluation:
    """Measure everything.

    Args:
        protocol: What is compared.
        protection: What is measured, Anonymix as a rule.
        extractor: Makes pictures and embeddings, or finds them in the cache.
        settings: Everything else.
        facts: What the report says about the mixer.
        baselines: Others, on a part of the same pairs.
        attacks: From a protection to the attacks on it.
        requirements: To be held.
        groups: Person -> labels.
        guided: Makes faces by references; None leaves those scenarios out.
        reader: Reads the codes that references are made of, under the name `CODE`; None leaves them out.
        step: Told what is being computed.

    Raises:
        UsageError: Requirements or groups that do not fit.
        AnonymixError: Whatever stops the mixer.
    """
    started = time.monotonic()
    panel = extractor.panel
    matchers = [matcher.name for matcher in panel.matchers]
    development = protocol.development
    table = None
    if development:
        table = extractor.table([Request(sample) for sample in development], None, "development photos")
    people = [sample.person for sample in development]
    frozen = {matcher: freeze(matcher, table, people) for matcher in matchers}
    codes_frozen: dict[str, dict[float, Frozen]] = {}
    drawn = draw(
        protocol,
        protection,
        extractor,
        shared_keys=settings.shared_keys,
        claimed=settings.claimed,
        scopes=settings.scopes,
        guided=guided,
        reader=reader,
    )
    if reader is not None:
        read = None
        if development:
            read = reader.table([Request(sample) for sample in development], None, "codes of development photos")
        codes_frozen = {CODE: freeze(CODE, read, people)}
    step("error rates and their intervals")
    measured = measure_scenarios(
        protocol, drawn, matchers, frozen | codes_frozen, seed=settings.seed, replicates=settings.replicates
    )
    attack_results: list[AttackPart] = []
    lines: list[ProtectionPart] = []
    failures = _failures(drawn, protection)
    lines += _lines(protocol, protection, drawn, measured, extractor)
    small = part_of(protocol, settings.baseline_pairs, settings.seed)
    step("attacks")
    attack_results += _attack(protocol, protection, drawn, extractor, frozen, settings, attacks)
    for baseline in baselines:
        theirs = draw(small, baseline, extractor, shared_keys=settings.shared_keys, claimed=False, scopes=False)
        step(f"{baseline.title}: error rates and attacks")
        result = measure_scenarios(
            small,
            theirs,
            matchers,
            frozen,
            seed=settings.seed,
            replicates=settings.replicates,
            unprotected=False,
        )
        failures += _failures(theirs, baseline)[1:]
        lines += _lines(small, baseline, theirs, result, extractor)
        attack_results += _attack(small, baseline, theirs, extractor, frozen, settings, attacks)
    report = Report(
        provenance=_provenance(settings, facts or MixerFacts(), extractor, time.monotonic() - started),
        protocol=_protocol(protocol),
        matchers=tuple(
            MatcherPart(name=j.name, seen_by_mixer=j.seen_by_mixer, identity=j.identity) for j in panel.matchers
        ),
        thresholds=tuple(_threshold(entry) for by_target in frozen.values() for entry in by_target.values()),
        failures=tuple(failures),
        two_class=measured.two_class,
        one_class=measured.one_class,
        linkability=measured.linkability,
        attacks=tuple(attack_results),
        protections=tuple(lines),
        traits=traits(drawn, settings.seed),
        features=(),
        diversity=diversity(protocol, drawn, matchers, frozen, seed=settings.seed, replicates=settings.replicates),
        groups=group_parts(protocol, measured, groups, frozen, seed=settings.seed, replicates=settings.replicates)
        if groups
        else (),
        requirements=(),
    )
    report = report.model_copy(update={"requirements": check_requirements(report, requirements)})
    return Evaluation(report, measured, drawn)


def part_of(protocol: Protocol, most: int, seed: int) -> Protocol:
    """At most so many pairs of a protocol, half of them genuine, evenly over the folds."""
    if len(protocol.pairs) <= most:
        return protocol
    fold = np.array([protocol.samples[int(i)].fold for i in protocol.pairs.first])
    random = np.random.Generator(np.random.Philox(seed))
    chosen: list[int] = []
    for same, count in ((True, (most + 1) // 2), (False, most // 2)):
        own = np.flatnonzero(protocol.pairs.same == same)
        own = own[random.permutation(len(own))]
        # The rank of each pair within its fold: low ranks first takes as many from each.
        rank = np.zeros(len(own), np.int64)
        for number in np.unique(fold[own]):
            inside = fold[own] == number
            rank[inside] = np.arange(int(inside.sum()))
        chosen += own[np.argsort(rank, kind="stable")][:count].tolist()
    return without_idle(replace(protocol, pairs=protocol.pairs.picked(np.array(sorted(chosen)))))


def _attack(
    protocol: Protocol,
    protection: Protection,
    drawn: Drawn,
    extractor: Extractor,
    frozen: Mapping[str, Mapping[float, Frozen]],
    settings: Settings,
    attacks: AttackMaker,
) -> list[AttackPart]:
    names = {person: number for number, person in enumerate(protocol.people)}
    people = np.array([names[sample.person] for sample in protocol.samples], np.int64)
    panel = extractor.panel
    thresholds = {matcher: by[_TARGET].value for matcher, by in frozen.items()}
    material = Material(
        protocol=protocol,
        protection=protection,
        drawn=drawn,
        extractor=extractor,
        matchers=[matcher.name for matcher in panel.matchers],
        seen=frozenset(matcher.name for matcher in panel.matchers if matcher.seen_by_mixer),
        thresholds={matcher: value for matcher, value in thresholds.items() if value is not None},
        people=people,
        theirs=split_people(people, settings.seed),
        seed=settings.seed,
        replicates=settings.replicates,
    )
    return [part for attack in attacks(protection) for part in attack_parts(attack.run(material), material)]


def _failures(drawn: Drawn, protection: Protection) -> list[FailurePart]:
    original = drawn.original
    parts = [FailurePart(what="photos as they are", protection="", pictures=len(original), failed=original.failures())]
    for name, table in (
        ("a key each", drawn.own),
        ("one key", drawn.shared),
        ("renewed", drawn.renewed),
        ("another application", drawn.elsewhere),
        ("claimed", drawn.claimed),
        *(
            (f"guided, {keys}, {what}", faces)
            for keys, claims in (("a key each", drawn.guided), ("one key", drawn.guided_shared))
            if claims is not None
            for what, faces in (("enrolled", claims.entries), ("claims", claims.probes))
        ),
    ):
        if len(table):
            parts.append(
                FailurePart(
                    what=f"{protection.title}, {name}",
                    protection=protection.name,
                    pictures=len(table),
                    failed=table.failures(),
                )
            )
    return parts


def seconds_a_face(protection: Protection, protocol: Protocol) -> float | None:
    """Median seconds from file to protected face, one at a time, after one that is not counted.

    Five photos, or as many as half a minute allows; None where none could be protected.
    """
    taken: list[float] = []
    begun = time.monotonic()
    for number, sample in enumerate(protocol.samples[: _TIMED + 1]):
        started = time.perf_counter()
        try:
            protection.protect(sample.source, KeyName(OWN, sample.person))
        except PhotoError:
            continue
        seconds = time.perf_counter() - started
        if number or seconds > _PATIENCE:
            taken.append(seconds)
        if time.monotonic() - begun > _PATIENCE:
            break
    return float(np.median(taken)) if taken else None


def _lines(
    protocol: Protocol, protection: Protection, drawn: Drawn, measured: Measured, extractor: Extractor
) -> list[ProtectionPart]:
    lines = []
    seconds = seconds_a_face(protection, protocol)
    failed: dict[str, int] = {}
    for reason, count in drawn.own.failures().items():
        failed[reason] = failed.get(reason, 0) + count
    for matcher in extractor.panel.matchers:
        one, own = measured.two("one-key", matcher.name), measured.two("own-key", matcher.name)
        link = measured.link("renewal", matcher.name)
        lines.append(
            ProtectionPart(
                name=protection.name,
                title=protection.title,
                fingerprint=protection.fingerprint,
                keyed=protection.keyed,
                matcher=matcher.name,
                seen_by_mixer=matcher.seen_by_mixer,
                photos=len(protocol.samples),
                people=len(protocol.people),
                seconds_median=seconds,
                failures=failed,
                eer_one_key=one.eer if one else NOTHING,
                eer_own_key=own.eer if own else NOTHING,
                psr=_rate(measured, "anonymity", matcher.name, complement=True),
                renewal=_rate(measured, "renewal", matcher.name),
                d_sys=link.d_sys.value if link else None,
                d_sys_floor=link.floor if link else None,
            )
        )
    return lines


def _rate(measured: Measured, scenario: str, matcher: str, *, complement: bool = False) -> Figure:
    part = measured.one(scenario, matcher)
    for rate in part.rates if part else ():
        if rate.target_fmr == _TARGET:
            figure = rate.rate
            if complement and figure.value is not None:
                return Figure(
                    value=1 - figure.value,
                    low=None if figure.high is None else 1 - figure.high,
                    high=None if figure.low is None else 1 - figure.low,
                )
            return figure
    return NOTHING


def _threshold(entry: Frozen) -> ThresholdPart:
    return ThresholdPart(
        matcher=entry.matcher,
        target_fmr=entry.target,
        threshold=entry.value,
        source=entry.source,
        comparisons=entry.comparisons,
    )


def _protocol(protocol: Protocol) -> ProtocolPart:
    return ProtocolPart(
        name=protocol.name,
        title=protocol.title,
        official=protocol.official,
        people=len(protocol.people),
        photos=len(protocol.samples),
        folds=protocol.folds,
        genuine=int(protocol.pairs.same.sum()),
        impostor=int((~protocol.pairs.same).sum()),
        development_photos=len(protocol.development),
        development_people=len({sample.person for sample in protocol.development}),
        settings=protocol.settings,
        notices=tuple(
            NoticePart(kind=n.kind, what=n.what, count=n.count, examples=n.examples) for n in protocol.notices
        ),
    )


def _provenance(settings: Settings, facts: MixerFacts, extractor: Extractor, seconds: float) -> Provenance:
    return Provenance(
        made=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=round(seconds, 1),
        command=settings.command,
        anonymix=__version__,
        fingerprint=facts.fingerprint,
        method=facts.method,
        policy=dict(facts.policy),
        key_seed=settings.key_seed,
        shared_keys=settings.shared_keys,
        seed=settings.seed,
        replicates=settings.replicates,
        versions=versions(_PACKAGES),
        machine=machine(),
        pictures_made=dict(extractor.made),
        damaged_shards=extractor.store.damaged,
    )
