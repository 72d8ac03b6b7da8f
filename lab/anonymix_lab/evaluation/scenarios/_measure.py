"""From drawn faces to figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from anonymix_lab.data import Protocol
from anonymix_lab.evaluation.scenarios._compare import (
    NO_ANSWER,
    Comparisons,
    cross_pairs,
    scores_of,
)
from anonymix_lab.evaluation.scenarios._draw import Drawn
from anonymix_lab.evaluation.schema import (
    Figure,
    Histogram,
    LinkabilityPart,
    MatchRate,
    OneClass,
    OperatingPoint,
    TwoClass,
)
from anonymix_lab.matchers import CODE, Table
from anonymix_lab.metrics.curves import WeightedRates, accuracy_of_folds, det_points
from anonymix_lab.metrics.error_rates import threshold_at_fmr
from anonymix_lab.metrics.intervals import Interval, Resampler, share_interval
from anonymix_lab.metrics.linkability import linkability
from anonymix_lab.metrics.thresholds import Frozen, top_thresholds

Array = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

_BINS: Final = 80
_REPORTED: Final = (0.01, 0.001, 0.0001)
_MOST_CROSS: Final = 1_000_000
_MOST_NON_MATED: Final = 100_000


@dataclass(frozen=True, eq=False)
class ScoreSet:
    """Scores of one scenario by one matcher, for the tables and for whoever wants more of them."""

    scenario: str
    matcher: str
    comparisons: Comparisons
    scores: Array


@dataclass(frozen=True, eq=False)
class Measured:
    """All figures of the scenarios of one protection.

    Attributes:
        two_class: Scenarios with genuine and impostor comparisons.
        one_class: Scenarios in which nothing ought to match.
        linkability: Of renewal and scopes.
        scores: What they were measured on.
    """

    two_class: tuple[TwoClass, ...]
    one_class: tuple[OneClass, ...]
    linkability: tuple[LinkabilityPart, ...]
    scores: tuple[ScoreSet, ...]

    def two(self, scenario: str, matcher: str) -> TwoClass | None:
        """One two-class result, None where that was not measured."""
        return next((p for p in self.two_class if (p.scenario, p.matcher) == (scenario, matcher)), None)

    def one(self, scenario: str, matcher: str) -> OneClass | None:
        """One one-class result, None where that was not measured."""
        return next((p for p in self.one_class if (p.scenario, p.matcher) == (scenario, matcher)), None)

    def link(self, scenario: str, matcher: str) -> LinkabilityPart | None:
        """One linkability, None where that was not measured."""
        return next((p for p in self.linkability if (p.scenario, p.matcher) == (scenario, matcher)), None)


@dataclass(frozen=True, eq=False)
class _Ground:
    """What all scenarios stand on."""

    protocol: Protocol
    people: Integers
    folds: Integers
    frozen: Mapping[str, Mapping[float, Frozen]]
    seed: int
    replicates: int


def measure_scenarios(
    protocol: Protocol,
    drawn: Drawn,
    matchers: Sequence[str],
    frozen: Mapping[str, Mapping[float, Frozen]],
    *,
    seed: int = 1,
    replicates: int = 200,
    unprotected: bool = True,
) -> Measured:
    """Measure all scenarios.

    Args:
        protocol: What is compared.
        drawn: The faces.
        matchers: Names of matchers.
        frozen: Matcher -> target FMR -> threshold.
        seed: Of bootstrap and sub-sampling.
        replicates: Of the bootstrap.
        unprotected: Whether the photos as they are are measured, too.
    """
    names = {person: number for number, person in enumerate(protocol.people)}
    people = np.array([names[sample.person] for sample in protocol.samples], np.int64)
    folds = np.array([sample.fold for sample in protocol.samples], np.int64)
    ground = _Ground(protocol, people, folds, frozen, seed, replicates)
    two: list[TwoClass] = []
    one: list[OneClass] = []
    links: list[LinkabilityPart] = []
    kept: list[ScoreSet] = []
    listed = _listed(ground)
    # The key of a comparison under shared keys; pairs between people of different keys can't be made.
    first_key, second_key = drawn.shared_key[listed.first], drawn.shared_key[listed.second]
    together = first_key == second_key
    shared = Comparisons(
        listed.first,
        listed.second,
        listed.same,
        listed.first_person,
        listed.second_person,
        listed.fold,
        first_key,
    ).picked(together)
    cross = cross_pairs(people, folds, _MOST_CROSS, seed)
    for matcher in matchers:
        plain = [("own-key", listed, drawn.own)]
        if len(drawn.shared):
            plain.append(("one-key", shared, drawn.shared))
        if unprotected:
            plain.insert(0, ("unprotected", listed, drawn.original))
        for scenario, comparisons, table in plain:
            scores = scores_of(table, table, matcher, comparisons.first, comparisons.second)
            between = scores_of(table, table, matcher, *cross)
            two.append(_two_class(ground, scenario, matcher, comparisons, scores, between, folds[cross[0]]))
            kept.append(ScoreSet(scenario, matcher, comparisons, scores))
        if len(drawn.claims):
            comparisons, scores = _claimed(drawn, matcher, listed)
            two.append(_two_class(ground, "claimed", matcher, comparisons, scores, np.zeros(0), np.zeros(0, np.int64)))
            kept.append(ScoreSet("claimed", matcher, comparisons, scores))
        for scenario, claims in (("guided", drawn.guided), ("guided-one-key", drawn.guided_shared)):
            if claims is None:
                continue
            row = np.arange(len(listed))
            scores = scores_of(claims.entries, claims.probes, matcher, row, row)
            # Under one key for everybody, a pair's key is that of the fold of its first photo.
            comparisons = listed if scenario == "guided" else replace(listed, key=first_key)
            two.append(_two_class(ground, scenario, matcher, comparisons, scores, np.zeros(0), np.zeros(0, np.int64)))
            kept.append(ScoreSet(scenario, matcher, comparisons, scores))
        for scenario, left, right, comparisons in _apart(ground, drawn):
            scores = scores_of(left, right, matcher, comparisons.first, comparisons.second)
            one.append(_one_class(ground, scenario, matcher, comparisons, scores))
            kept.append(ScoreSet(scenario, matcher, comparisons, scores))
            if scenario.startswith(("renewal", "scopes")):
                part = _linkability(ground, scenario, matcher, comparisons, scores)
                if part is not None:
                    links.append(part)
    if drawn.codes is not None and CODE in frozen:
        scores = scores_of(drawn.codes, drawn.codes, CODE, listed.first, listed.second)
        between = scores_of(drawn.codes, drawn.codes, CODE, *cross)
        two.append(_two_class(ground, "references", CODE, listed, scores, between, folds[cross[0]]))
        kept.append(ScoreSet("references", CODE, listed, scores))
    return Measured(tuple(two), tuple(one), tuple(links), tuple(kept))


def _listed(ground: _Ground) -> Comparisons:
    pairs = ground.protocol.pairs
    first, second = ground.folds[pairs.first], ground.folds[pairs.second]
    return Comparisons(
        pairs.first,
        pairs.second,
        pairs.same,
        ground.people[pairs.first],
        ground.people[pairs.second],
        np.where(first == second, first, -1),
    )


def _claimed(drawn: Drawn, matcher: str, listed: Comparisons) -> tuple[Comparisons, Array]:
    genuine, impostor = listed.picked(listed.same), listed.picked(~listed.same)
    own = scores_of(drawn.own, drawn.own, matcher, genuine.first, genuine.second)
    chosen = impostor.picked(drawn.claims)
    other = scores_of(drawn.own, drawn.claimed, matcher, chosen.first, np.arange(len(drawn.claims)))
    joined = Comparisons(
        *(
            np.concatenate([getattr(genuine, name), getattr(chosen, name)])
            for name in ("first", "second", "same", "first_person", "second_person", "fold")
        )
    )
    return joined, np.concatenate([own, other])


def _apart(ground: _Ground, drawn: Drawn) -> list[tuple[str, Table, Table, Comparisons]]:
    """Comparisons that ought not to match, with those of different people beside them."""
    people, count = ground.people, len(ground.people)
    everybody = np.arange(count)
    pairs = ground.protocol.genuine()
    result: list[tuple[str, Table, Table, Comparisons]] = []
    original = ("anonymity", drawn.original, drawn.own, everybody, everybody, everybody)
    other = ("anonymity-other-photo", drawn.original, drawn.own, pairs.first, pairs.second, everybody)
    plans = [original, other]
    place = np.full(count, -1, np.int64)
    place[drawn.again] = np.arange(len(drawn.again))
    mated = place[pairs.second] >= 0
    for name, table in (("renewal", drawn.renewed), ("scopes", drawn.elsewhere)):
        if not len(table):
            continue
        first, second = pairs.first[mated], place[pairs.second[mated]]
        plans.append((name, drawn.own, table, first, second, drawn.again))
        plans.append((f"{name}-same-photo", drawn.own, table, drawn.again, np.arange(len(drawn.again)), drawn.again))
    for name, left, right, first, second, sample_of in plans:
        random = np.random.Generator(np.random.Philox(ground.seed))
        columns = len(sample_of)
        total = min(count * columns, _MOST_NON_MATED)
        drawn_pairs = (
            random.choice(count * columns, total, replace=False)
            if count * columns < 20 * _MOST_NON_MATED
            else np.unique(random.integers(0, count * columns, total))
        )
        a, b = drawn_pairs // columns, drawn_pairs % columns
        strangers = people[a] != people[sample_of[b]]
        a, b = a[strangers], b[strangers]
        both_first, both_second = np.concatenate([first, a]), np.concatenate([second, b])
        comparisons = Comparisons(
            both_first,
            both_second,
            np.arange(len(both_first)) < len(first),
            people[both_first],
            people[sample_of[both_second]],
            np.full(len(both_first), -1, np.int64),
        )
        result.append((name, left, right, comparisons))
    return result


def _two_class(
    ground: _Ground,
    scenario: str,
    matcher: str,
    comparisons: Comparisons,
    scores: Array,
    cross: Array,
    cross_folds: Integers,
) -> TwoClass:
    same = comparisons.same
    rates = WeightedRates(scores, same)
    resampler = Resampler(comparisons.first_person, comparisons.second_person, comparisons.key, seed=ground.seed)
    answered = scores > NO_ANSWER
    own, other = scores[same & answered], scores[~same & answered]
    accuracy = (float("nan"), float("nan"))
    folded = comparisons.fold >= 0
    if ground.protocol.folds > 1 and folded.all():
        accuracy = accuracy_of_folds(scores, same, comparisons.fold)
    _, fmr, fnmr = rates.curve()
    return TwoClass(
        scenario=scenario,
        matcher=matcher,
        genuine=int(same.sum()),
        impostor=int((~same).sum()),
        cross=len(cross),
        failed_genuine=int((same & ~answered).sum()),
        failed_impostor=int((~same & ~answered).sum()),
        eer=_figure(resampler.interval(rates.eer, replicates=ground.replicates)),
        auc=_figure(resampler.interval(rates.auc, replicates=ground.replicates)),
        accuracy=accuracy[0],
        accuracy_error=accuracy[1],
        genuine_mean=_mean(own),
        genuine_std=_std(own),
        impostor_mean=_mean(other),
        impostor_std=_std(other),
        points=(
            *_frozen_points(ground, matcher, scores, same, resampler),
            *_recalibrated(ground, comparisons, scores, cross, cross_folds, resampler),
        ),
        genuine_histogram=histogram(own),
        impostor_histogram=histogram(other),
        det=tuple(det_points(fmr, fnmr)),
    )


def _frozen_points(
    ground: _Ground, matcher: str, scores: Array, same: npt.NDArray[np.bool_], resampler: Resampler
) -> list[OperatingPoint]:
    points = []
    for target in _REPORTED:
        frozen = ground.frozen[matcher][target]
        if frozen.value is None:
            continue
        match = scores >= frozen.value
        points.append(
            OperatingPoint(
                target_fmr=target,
                source=frozen.source,
                threshold=frozen.value,
                fmr=_figure(share_interval(resampler, match, ~same, replicates=ground.replicates)),
                fnmr=_figure(share_interval(resampler, ~match, same, replicates=ground.replicates)),
                impostor_comparisons=int((~same).sum()),
            )
        )
    return points


def _recalibrated(
    ground: _Ground,
    comparisons: Comparisons,
    scores: Array,
    cross: Array,
    cross_folds: Integers,
    resampler: Resampler,
) -> list[OperatingPoint]:
    """Thresholds set on the faces of this very scenario: of the other folds, or else of the same scores."""
    same = comparisons.same
    folds = np.unique(cross_folds)
    points = []
    if len(folds) > 1:
        by_fold = {int(fold): top_thresholds(cross[cross_folds != fold], _REPORTED) for fold in folds}
        usable = comparisons.fold >= 0
        for target in _REPORTED:
            if len(cross) * target < 3:
                continue
            limit = np.array([by_fold[int(fold)][target] if fold >= 0 else np.inf for fold in comparisons.fold])
            match = scores >= limit
            wrong = (
                cross >= np.array([by_fold[int(fold)][target] for fold in folds])[np.searchsorted(folds, cross_folds)]
            )
            rate = float(wrong.mean())
            points.append(
                OperatingPoint(
                    target_fmr=target,
                    source="other folds",
                    threshold=float(np.mean([values[target] for values in by_fold.values()])),
                    fmr=Figure(value=rate, low=None, high=None),
                    fnmr=_figure(share_interval(resampler, ~match, same & usable, replicates=ground.replicates)),
                    impostor_comparisons=len(cross),
                )
            )
        return points
    impostor = np.concatenate([scores[~same], cross])
    for target in _REPORTED:
        if len(impostor) * target < 3:
            continue
        threshold = threshold_at_fmr(impostor, target)
        points.append(
            OperatingPoint(
                target_fmr=target,
                source="same scores",
                threshold=threshold,
                fmr=Figure(value=float((impostor >= threshold).mean()), low=None, high=None),
                fnmr=_figure(share_interval(resampler, scores < threshold, same, replicates=ground.replicates)),
                impostor_comparisons=len(impostor),
            )
        )
    return points


def _one_class(ground: _Ground, scenario: str, matcher: str, comparisons: Comparisons, scores: Array) -> OneClass:
    same = comparisons.same
    answered = scores > NO_ANSWER
    resampler = Resampler(comparisons.first_person[same], comparisons.second_person[same], seed=ground.seed)
    strangers = scores[~same & answered]
    rates = []
    for target, frozen in ground.frozen[matcher].items():
        if frozen.value is None:
            continue
        match = scores[same] >= frozen.value
        chance = float((strangers >= frozen.value).mean()) if len(strangers) else float("nan")
        rates.append(
            MatchRate(
                target_fmr=target,
                threshold=frozen.value,
                rate=_figure(share_interval(resampler, match, replicates=ground.replicates)),
                chance=Figure(value=chance, low=None, high=None),
            )
        )
    own = scores[same & answered]
    return OneClass(
        scenario=scenario,
        matcher=matcher,
        comparisons=int(same.sum()),
        chance_comparisons=int((~same).sum()),
        failed=int((same & ~answered).sum()),
        keys=len(np.unique(comparisons.first_person[same])) * (1 if scenario.startswith("anonymity") else 2),
        mean=_mean(own),
        std=_std(own),
        highest=float(own.max()) if len(own) else None,
        rates=tuple(rates),
        histogram=histogram(own),
        chance_histogram=histogram(strangers),
    )


def _linkability(
    ground: _Ground, scenario: str, matcher: str, comparisons: Comparisons, scores: Array
) -> LinkabilityPart | None:
    answered = scores > NO_ANSWER
    which = comparisons.picked(answered)
    scores = scores[answered]
    own, other = scores[which.same], scores[~which.same]
    if len(own) < 10 or len(other) < 10:
        return None
    result = linkability(own, other, seed=ground.seed)
    # Non-mated scores are many: people are drawn again for the mated ones alone, which settle the spread.
    resampler = Resampler(which.first_person[which.same], which.second_person[which.same], seed=ground.seed)
    place = np.clip(np.searchsorted(result.edges, own, side="right") - 1, 0, result.bins - 1)
    width = (result.high - result.low) / result.bins
    non_mated = result.non_mated * width

    def d_sys(weights: Array) -> float:
        total = weights.sum()
        if not total:
            return float("nan")
        p = np.bincount(place, weights, minlength=result.bins) / total
        both = p + non_mated
        local = np.clip(np.divide(p - non_mated, both, out=np.zeros_like(p), where=both > 0), 0, 1)
        return float(local @ p)

    return LinkabilityPart(
        scenario=scenario,
        matcher=matcher,
        mated=len(own),
        non_mated=len(other),
        d_sys=_figure(resampler.interval(d_sys, replicates=ground.replicates)),
        floor=result.floor,
        floor_high=result.floor_high,
        above_floor=result.above_floor,
        p_value=result.p_value,
        maximal=result.maximal,
        maximal_floor=result.maximal_floor,
        bins=result.bins,
        low=result.low,
        high=result.high,
        mated_density=tuple(result.mated.tolist()),
        non_mated_density=tuple(result.non_mated.tolist()),
        local=tuple(result.local.tolist()),
    )


def histogram(scores: Array, bins: int = _BINS, low: float = -0.4, high: float = 1.0) -> Histogram:
    """Counts in equal bins; what lies beyond an end counts in the last bin there."""
    counts, _ = np.histogram(np.clip(scores, low, high), bins, (low, high))
    return Histogram(low=low, high=high, counts=tuple(int(count) for count in counts))


def _figure(interval: Interval) -> Figure:
    return Figure(value=interval.value, low=interval.low, high=interval.high)


def _mean(scores: Array) -> float:
    return float(scores.mean()) if len(scores) else float("nan")


def _std(scores: Array) -> float:
    return float(scores.std()) if len(scores) else float("nan")
