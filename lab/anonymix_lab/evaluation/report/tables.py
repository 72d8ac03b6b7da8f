"""Tables in the terms of ISO/IEC 19795-1 (tests), 19795-10 (groups of people) and 30136 (protected templates).

They are figures of `metrics.json`, set out as those standards ask for them to be reported. None of them says that an
evaluation conforms to a standard: that depends on whom and what it was made with.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from anonymix_lab.evaluation.schema import Figure, GroupPart, OperatingPoint, Report, TwoClass
from anonymix_plugin.csv_cells import as_cells

Cell = str | int | float | bool | None
Row = Mapping[str, Cell]


def tables(report: Report) -> dict[str, list[Row]]:
    """All tables by name. Rates are shares, 0..1; what was not measured is None.

    Args:
        report: The figures.
    """
    return {name: list(make(report)) for name, make in _TABLES.items()}


def as_csv(rows: Sequence[Row]) -> str:
    """A table as CSV: a header, then a line for each row; None is an empty cell. No cell is a formula."""
    stream = io.StringIO()
    if rows:
        names = list(rows[0])
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(names)
        writer.writerows(as_cells(row[name] for name in names) for row in rows)
    return stream.getvalue()


def _interval(name: str, figure: Figure) -> dict[str, Cell]:
    return {name: figure.value, f"{name}_low": figure.low, f"{name}_high": figure.high}


def _error_rates(report: Report) -> list[Row]:
    return [_point(report, part, point) for part in report.two_class for point in part.points]


def _point(report: Report, part: TwoClass, point: OperatingPoint) -> Row:
    """FNMR and FMR count failures as non-matches; the rates of the matcher alone stand beside them."""
    return {
        "scenario": part.scenario,
        "matcher": part.matcher,
        "people": report.protocol.people,
        "samples": report.protocol.photos,
        "genuine_comparisons": part.genuine,
        "impostor_comparisons": point.impostor_comparisons,
        "genuine_without_answer": part.failed_genuine,
        "impostor_without_answer": part.failed_impostor,
        **_interval("eer", part.eer),
        "target_fmr": point.target_fmr,
        "threshold": point.threshold,
        "threshold_source": point.source,
        **_interval("fmr", point.fmr),
        **_interval("fnmr", point.fnmr),
        "fnmr_of_answers": _of_answers(point.fnmr.value, part.genuine, part.failed_genuine),
        "fmr_by_rule_of_3": 3 / point.impostor_comparisons if point.impostor_comparisons else None,
    }


def _of_answers(rate: float | None, comparisons: int, failed: int) -> float | None:
    """The FNMR without the comparisons that had no answer."""
    if rate is None or comparisons == failed:
        return None
    return max(rate * comparisons - failed, 0.0) / (comparisons - failed)


def _failures(report: Report) -> list[Row]:
    rows: list[Row] = []
    for part in report.failures:
        for reason, count in {"any": sum(part.failed.values()), **part.failed}.items():
            rows.append(
                {
                    "what": part.what,
                    "protection": part.protection,
                    "samples": part.pictures,
                    "reason": reason,
                    "failed": count,
                    "failure_rate": count / part.pictures if part.pictures else None,
                }
            )
    return rows


def _groups(report: Report) -> list[Row]:
    rows: list[Row] = []
    for group in report.groups:
        beside = [it for it in report.groups if (it.scenario, it.matcher) == (group.scenario, group.matcher)]
        rows.append(
            {
                "group": group.label,
                "scenario": group.scenario,
                "matcher": group.matcher,
                "people": group.people,
                "genuine_comparisons": group.genuine,
                "impostor_comparisons": group.impostor,
                **_interval("fmr", group.fmr),
                **_interval("fnmr", group.fnmr),
                "fmr_to_geometric_mean": _differential(group, beside, lambda it: it.fmr.value),
                "fnmr_to_geometric_mean": _differential(group, beside, lambda it: it.fnmr.value),
            }
        )
    return rows


def _differential(
    group: GroupPart, beside: Sequence[GroupPart], rate: Callable[[GroupPart], float | None]
) -> float | None:
    """A group's rate over the geometric mean of all groups' rates; None where one of them is 0 or unknown."""
    rates = [rate(it) for it in beside]
    own = rate(group)
    if own is None or not all(rates):
        return None
    return own / math.exp(sum(math.log(it) for it in rates if it) / len(rates))


def _accuracy(report: Report) -> list[Row]:
    """How much accuracy the protection costs: ISO/IEC 30136's degradation."""
    plain = {part.matcher: part for part in report.two_class if part.scenario == "unprotected"}
    seen = {matcher.name: matcher.seen_by_mixer for matcher in report.matchers}
    rows: list[Row] = []
    for part in report.two_class:
        original = plain.get(part.matcher)
        if part.scenario == "unprotected" or original is None:
            continue
        before, after = original.eer.value, part.eer.value
        rows.append(
            {
                "scenario": part.scenario,
                "matcher": part.matcher,
                "seen_by_mixer": seen.get(part.matcher),
                "eer_unprotected": before,
                **_interval("eer_protected", part.eer),
                "eer_degradation": None if before is None or after is None else after - before,
                "auc_unprotected": original.auc.value,
                "auc_protected": part.auc.value,
            }
        )
    return rows


def _attacks(report: Report) -> list[Row]:
    """Irreversibility: how often what was rebuilt is accepted as the person, beside what is luck."""
    return [
        {
            "attack": part.attack,
            "protection": part.protection,
            "key": part.key,
            "matcher": part.matcher,
            "seen_by_mixer": part.seen_by_mixer,
            "attempts": part.attempts,
            **_interval("success", part.success),
            "controls": part.controls,
            **_interval("control", part.control),
            "success_calibrated": part.success_calibrated,
        }
        for part in report.attacks
    ]


def _unlinkability(report: Report) -> list[Row]:
    return [
        {
            "scenario": part.scenario,
            "matcher": part.matcher,
            "mated": part.mated,
            "non_mated": part.non_mated,
            **_interval("d_sys", part.d_sys),
            "d_sys_floor": part.floor,
            "d_sys_above_floor": part.above_floor,
            "p_value": part.p_value,
            "maximal_linkability_bits": part.maximal,
            "maximal_linkability_floor": part.maximal_floor,
            "bins": part.bins,
        }
        for part in report.linkability
    ]


def _renewability(report: Report) -> list[Row]:
    """What ought not to match and does, by scenario: anonymity, renewal, scopes."""
    return [
        {
            "scenario": part.scenario,
            "matcher": part.matcher,
            "comparisons": part.comparisons,
            "keys": part.keys,
            "target_fmr": rate.target_fmr,
            "threshold": rate.threshold,
            **_interval("match_rate", rate.rate),
            "match_rate_of_different_people": rate.chance.value,
        }
        for part in report.one_class
        for rate in part.rates
    ]


def _diversity(report: Report) -> list[Row]:
    return [
        {
            "matcher": part.matcher,
            "target_fmr": part.target_fmr,
            "faces": part.faces,
            **_interval("collision", part.collision),
            "capacity": part.capacity,
            "key_space_bits": part.key_space_bits,
        }
        for part in report.diversity
    ]


_TABLES: Final[Mapping[str, Callable[[Report], Sequence[Row]]]] = {
    "19795-1-error-rates": _error_rates,
    "19795-1-failures": _failures,
    "19795-10-groups": _groups,
    "30136-accuracy": _accuracy,
    "30136-irreversibility": _attacks,
    "30136-unlinkability": _unlinkability,
    "30136-renewability": _renewability,
    "30136-diversity": _diversity,
}
