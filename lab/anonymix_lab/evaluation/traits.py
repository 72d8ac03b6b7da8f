"""What protected faces keep of the photo, how many can be told apart, and for which groups it works."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from anonymix_lab.data import Protocol
from anonymix_lab.evaluation.scenarios import Drawn, Measured, cross_pairs, scores_of
from anonymix_lab.evaluation.schema import DiversityPart, Figure, GroupPart, TraitPart
from anonymix_lab.matchers import TRAIT_NAMES, TRAITS
from anonymix_lab.metrics.intervals import Resampler, share_interval
from anonymix_lab.metrics.thresholds import Frozen
from anonymix_plugin.errors import UsageError
from anonymix_plugin.files import require_regular

Array = npt.NDArray[np.float64]

_SHOWN = 8
_TARGET = 0.001
KEY_BITS = 256


def traits(drawn: Drawn, seed: int = 1) -> tuple[TraitPart, ...]:
    """Correlation of each trait between photos and their protected faces under own keys.

    `landmarks` is the mean over the ten landmark coordinates. The shuffled correlation pairs photos with
    other people's faces: what chance gives.
    """
    before, after = (table.vectors[TRAITS].astype(np.float64) for table in (drawn.original, drawn.own))
    there = ~(np.isnan(before).any(axis=1) | np.isnan(after).any(axis=1))
    before, after = before[there], after[there]
    if len(before) < 3:
        return ()
    order = np.random.Generator(np.random.Philox(seed)).permutation(len(before))
    columns = {name: [number] for number, name in enumerate(TRAIT_NAMES[:_SHOWN])}
    columns["landmarks"] = list(range(_SHOWN, len(TRAIT_NAMES)))
    parts = []
    for name, which in columns.items():
        parts.append(
            TraitPart(
                trait=name,
                correlation=_correlation(before[:, which], after[:, which]),
                shuffled=_correlation(before[:, which], after[order][:, which]),
                original_mean=float(before[:, which].mean()),
                protected_mean=float(after[:, which].mean()),
            )
        )
    return tuple(parts)


def diversity(
    protocol: Protocol,
    drawn: Drawn,
    matchers: Sequence[str],
    frozen: Mapping[str, Mapping[float, Frozen]],
    *,
    seed: int,
    replicates: int,
) -> tuple[DiversityPart, ...]:
    """How many different people's faces, each under its own key, can be told apart at FMR .1 %."""
    first: dict[str, int] = {}
    for number, sample in enumerate(protocol.samples):
        first.setdefault(sample.person, number)
    rows = np.array(list(first.values()), np.int64)
    parts = []
    for matcher in matchers:
        threshold = frozen[matcher][_TARGET].value
        own = rows[drawn.own.found(matcher)[rows]]
        if threshold is None or len(own) < 2:
            continue
        a, b = cross_pairs(np.arange(len(own)), np.zeros(len(own), np.int64), 500_000, seed)
        scores = scores_of(drawn.own, drawn.own, matcher, own[a], own[b])
        hit = scores >= threshold
        interval = share_interval(Resampler(a, b, seed=seed), hit, replicates=replicates)
        vectors = drawn.own.vectors[matcher][own].astype(np.float64)
        kept: list[int] = []
        for number, vector in enumerate(vectors):
            if not kept or (vectors[kept] @ vector).max() < threshold:
                kept.append(number)
        parts.append(
            DiversityPart(
                matcher=matcher,
                target_fmr=_TARGET,
                faces=len(own),
                collision=Figure(**interval._asdict()),
                capacity=1.0 / interval.value if interval.value > 0 else None,
                distinguishable=len(kept),
                key_space_bits=KEY_BITS,
            )
        )
    return tuple(parts)


def read_groups(path: Path) -> dict[str, tuple[str, ...]]:
    """Read a CSV file with the columns `person` and `group`; a person may stand in several lines.

    Raises:
        UsageError: It can't be read, lacks a column, or names nobody.
    """
    found: dict[str, list[str]] = defaultdict(list)
    try:
        require_regular(path)
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream)
            if not {"person", "group"} <= set(reader.fieldnames or ()):
                raise UsageError("the columns person and group are not there", where=f"{path}:1")
            for row in reader:
                if row["person"] and row["group"]:
                    found[row["person"].strip()].append(row["group"].strip())
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError("the groups can't be read", where=str(path), fix="give person,group") from error
    if not found:
        raise UsageError("nobody belongs to a group", where=str(path), fix="give lines with person,group")
    return {person: tuple(dict.fromkeys(groups)) for person, groups in found.items()}


def group_parts(
    protocol: Protocol,
    measured: Measured,
    groups: Mapping[str, Sequence[str]],
    frozen: Mapping[str, Mapping[float, Frozen]],
    *,
    seed: int,
    replicates: int,
) -> tuple[GroupPart, ...]:
    """Error rates within each group: both sides of every comparison belong to it.

    Raises:
        UsageError: Nobody of the groups is under test.
    """
    people = protocol.people
    if not set(groups) & set(people):
        raise UsageError(
            "nobody of the groups is under test", where="groups", fix=f"people are called like {people[0]!r}"
        )
    labels = sorted({label for own in groups.values() for label in own})
    parts = []
    for label in labels:
        member = np.array([label in groups.get(person, ()) for person in people])
        for entry in measured.scores:
            if entry.scenario not in {"unprotected", "own-key", "one-key"}:
                continue
            threshold = frozen[entry.matcher][_TARGET].value
            comparisons = entry.comparisons
            inside = member[comparisons.first_person] & member[comparisons.second_person]
            if threshold is None or not inside.any():
                continue
            chosen, match = comparisons.picked(inside), entry.scores[inside] >= threshold
            rates = {}
            for name, wrong, among in (
                ("fmr", match, ~chosen.same),
                ("fnmr", ~match, chosen.same),
            ):
                if not among.any():
                    rates[name] = Figure(value=None, low=None, high=None)
                    continue
                resampler = Resampler(chosen.first_person[among], chosen.second_person[among], seed=seed)
                interval = share_interval(resampler, wrong[among], replicates=replicates)
                rates[name] = Figure(**interval._asdict())
            parts.append(
                GroupPart(
                    label=label,
                    scenario=entry.scenario,
                    matcher=entry.matcher,
                    people=int(member.sum()),
                    genuine=int(chosen.same.sum()),
                    impostor=int((~chosen.same).sum()),
                    **rates,
                )
            )
    return tuple(parts)


def frechet_distance(a: Array, b: Array) -> float:
    """FID (Heusel et al. 2017) of two sets of features, (n, d) and (m, d) float64, n, m >= 2.

    |mu_a - mu_b|^2 + trace(C_a + C_b - 2 (C_a C_b)^1/2); the trace of the root is the sum of the roots of
    the eigenvalues of C_a C_b, which are not negative.
    """
    covariances = [np.atleast_2d(np.cov(rows, rowvar=False)) for rows in (a, b)]
    values = np.linalg.eigvals(covariances[0] @ covariances[1])
    root = np.sqrt(np.clip(values.real, 0.0, None)).sum()
    shift = a.mean(axis=0) - b.mean(axis=0)
    return float(shift @ shift + np.trace(covariances[0]) + np.trace(covariances[1]) - 2.0 * root)


def kernel_distance(a: Array, b: Array) -> float:
    """KID (Binkowski et al. 2018): the unbiased MMD^2 with the kernel (x.y / d + 1)^3; may be below 0."""
    dim = a.shape[1]

    def kernel(x: Array, y: Array) -> Array:
        return np.asarray((x @ y.T / dim + 1.0) ** 3)

    own = [kernel(rows, rows) for rows in (a, b)]
    inner = sum((k.sum() - np.trace(k)) / (len(k) * (len(k) - 1)) for k in own)
    return float(inner - 2.0 * kernel(a, b).mean())


def _correlation(before: Array, after: Array) -> float | None:
    values = []
    for x, y in zip(before.T, after.T, strict=True):
        if x.std() > 1e-9 and y.std() > 1e-9:
            values.append(float(np.corrcoef(x, y)[0, 1]))
    return float(np.mean(values)) if values else None
