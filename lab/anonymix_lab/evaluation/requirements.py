"""Thresholds that a user sets, and whether they hold."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

from anonymix_lab.evaluation.schema import Figure, Report, RequirementPart
from anonymix_plugin.errors import UsageError
from anonymix_plugin.files import content_of

_FORM: Final = re.compile(
    r"^\s*(?P<metric>[a-z][a-z0-9-]*)(?:@(?P<matcher>[\w.-]+))?\s*(?P<sign><=|>=)\s*(?P<limit>[0-9]*\.?[0-9]+)\s*(?P<percent>%?)\s*$"
)

METRICS: Final = MappingProxyType(
    {
        "eer": "equal error rate, one key for everybody",
        "eer-own": "equal error rate, a key each",
        "eer-claimed": "equal error rate, impostors under the claimed person’s key",
        "eer-guided": "equal error rate, guided by the claimed person’s reference, a key each",
        "eer-guided-one-key": "the same, one key for everybody",
        "strangers-guided": "strangers accepted who claim a person with a reference, a key each, at the "
        "frozen threshold of FMR .1 %",
        "refused-guided": "genuine claims refused there",
        "eer-unprotected": "equal error rate of the photos as they are",
        "auc": "area under the curve, one key for everybody",
        "fmr": "false match rate, one key for everybody, at the frozen threshold of FMR .1 %",
        "fnmr": "false non-match rate, one key for everybody, where the FMR on protected faces is .1 %",
        "psr": "share of photos that do not match their own protected face at FMR .1 %",
        "psr-strict": "the same at FMR .001 %",
        "renewal": "share of old faces that match the new one of the same person, another photo, at FMR .1 %",
        "renewal-same-photo": "the same for one and the same photo",
        "d-sys": "linkability of old and new faces above its floor",
        "d-sys-same-photo": "the same for one and the same photo",
        "inversion": "highest success of all attacks that go for the person’s identity, over its control",
        "failures": "share of photos that could not be protected, or whose protected face was not detected",
    }
)
"""What can be required, and what it is."""

DEFAULTS: Final = ("eer<=.05", "psr>=.99", "renewal<=.05", "d-sys<=.2", "inversion<=.05", "failures<=.01")
"""Shown where the user sets nothing; they have no say in the exit code."""

GUIDED_DEFAULTS: Final = ("eer-guided<=.02", "strangers-guided<=.02")
"""Shown besides where references are measured: a mixer that draws the reference whoever comes fails both."""


@dataclass(frozen=True)
class Requirement:
    """A threshold.

    Attributes:
        text: As it was given.
        metric: One of `METRICS`.
        matcher: Whose figures; "" for all that the mixer has not seen.
        at_most: Whether the limit is an upper one.
        limit: 0..1.
        given: Whether the user set it.
    """

    text: str
    metric: str
    matcher: str
    at_most: bool
    limit: float
    given: bool = True


def parse(text: str, *, given: bool = True) -> Requirement:
    """Read `METRIC<=LIMIT`, `METRIC>=LIMIT` or `METRIC@MATCHER<=LIMIT`; a limit may end in %.

    Raises:
        UsageError: It is no requirement, or there is no such metric.
    """
    found = _FORM.match(text)
    if found is None:
        raise UsageError("this is no requirement", where=text, fix="write eer<=.02 or psr@facenet>=99%")
    metric = found["metric"]
    if metric not in METRICS:
        raise UsageError("there is no such metric", where=text, fix="known are " + ", ".join(METRICS))
    limit = float(found["limit"]) / (100 if found["percent"] else 1)
    if not 0 <= limit <= 1:
        raise UsageError("a limit lies within 0..1", where=text, fix="write .02 or 2%")
    return Requirement(text.strip(), metric, found["matcher"] or "", found["sign"] == "<=", limit, given)


def read_requirements(path: Path) -> list[Requirement]:
    """Read a TOML file with a table `[require]`: `eer = "<=.02"`, `"psr@facenet" = ">=.99"`.

    Raises:
        UsageError: It can't be read, has no such table, or something in it is no requirement.
    """
    try:
        content = tomllib.loads(content_of(path).decode())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"the requirements can't be read: {error}", where=str(path)) from error
    table = content.get("require")
    if not isinstance(table, dict) or not table or set(content) != {"require"}:
        raise UsageError(
            "there is no table [require], or there is more than that",
            where=str(path),
            fix='[require]\neer = "<=.02"',
        )
    if wrong := [name for name, value in table.items() if not isinstance(value, str)]:
        raise UsageError("a requirement is a text", where=f"{path}: {wrong[0]}", fix='write eer = "<=.02"')
    return [parse(f"{name}{value}") for name, value in table.items()]


def check_requirements(report: Report, requirements: Sequence[Requirement]) -> tuple[RequirementPart, ...]:
    """Hold a report against requirements; one line a matcher.

    What was not measured does not hold.

    Raises:
        UsageError: A requirement names a matcher that did not take part.
    """
    parts = []
    known = {matcher.name: matcher.seen_by_mixer for matcher in report.matchers}
    unseen = [name for name, seen in known.items() if not seen] or list(known)
    for requirement in requirements:
        if requirement.matcher and requirement.matcher not in known:
            raise UsageError(
                "this matcher did not take part", where=requirement.text, fix="matchers are " + ", ".join(known)
            )
        names = [requirement.matcher] if requirement.matcher else unseen
        if requirement.metric == "failures":
            names = [""]
        for name in names:
            measured = _MEASURES[requirement.metric](report, name)
            value = measured.value
            holds = value is not None and (
                value <= requirement.limit if requirement.at_most else value >= requirement.limit
            )
            parts.append(
                RequirementPart(
                    requirement=requirement.text,
                    metric=requirement.metric,
                    matcher=name,
                    measured=measured,
                    limit=requirement.limit,
                    holds=holds,
                    given=requirement.given,
                    about=METRICS[requirement.metric],
                )
            )
    return tuple(parts)


NOTHING: Final = Figure(value=None, low=None, high=None)


def _two(scenario: str, field: str) -> Callable[[Report, str], Figure]:
    def measure(report: Report, matcher: str) -> Figure:
        for part in report.two_class:
            if (part.scenario, part.matcher) == (scenario, matcher):
                figure: Figure = getattr(part, field)
                return figure
        return NOTHING

    return measure


def _point(sources: Sequence[str], field: str, scenario: str = "one-key") -> Callable[[Report, str], Figure]:
    def measure(report: Report, matcher: str) -> Figure:
        for part in report.two_class:
            if (part.scenario, part.matcher) == (scenario, matcher):
                for point in part.points:
                    if point.target_fmr == 0.001 and point.source in sources:
                        figure: Figure = getattr(point, field)
                        return figure
        return NOTHING

    return measure


def _one(scenario: str, target: float, *, complement: bool = False) -> Callable[[Report, str], Figure]:
    def measure(report: Report, matcher: str) -> Figure:
        for part in report.one_class:
            if (part.scenario, part.matcher) == (scenario, matcher):
                for rate in part.rates:
                    if rate.target_fmr == target:
                        return _complement(rate.rate) if complement else rate.rate
        return NOTHING

    return measure


def _d_sys(scenario: str) -> Callable[[Report, str], Figure]:
    def measure(report: Report, matcher: str) -> Figure:
        for part in report.linkability:
            if (part.scenario, part.matcher) == (scenario, matcher):
                return Figure(value=part.above_floor, low=None, high=None)
        return NOTHING

    return measure


def _inversion(report: Report, matcher: str) -> Figure:
    own = [
        part
        for part in report.attacks
        if (part.protection, part.matcher, part.goal) == ("anonymix", matcher, "identity")
    ]

    def gain(value: float | None, control: float | None) -> float | None:
        return None if value is None or control is None else max(value - control, 0.0)

    gains = [
        Figure(
            value=gain(part.success.value, part.control.value),
            low=gain(part.success.low, part.control.value),
            high=gain(part.success.high, part.control.value),
        )
        for part in own
    ]
    return max(gains, key=lambda figure: figure.value or 0.0, default=NOTHING)


def _failures(report: Report, _: str) -> Figure:
    own = [part for part in report.failures if part.protection == "anonymix"]
    pictures = sum(part.pictures for part in own)
    failed = sum(sum(part.failed.values()) for part in own)
    return Figure(value=failed / pictures if pictures else None, low=None, high=None)


def _complement(figure: Figure) -> Figure:
    def less(value: float | None) -> float | None:
        return None if value is None else 1.0 - value

    return Figure(value=less(figure.value), low=less(figure.high), high=less(figure.low))


_MEASURES: Final[dict[str, Callable[[Report, str], Figure]]] = {
    "eer": _two("one-key", "eer"),
    "eer-own": _two("own-key", "eer"),
    "eer-claimed": _two("claimed", "eer"),
    "eer-guided": _two("guided", "eer"),
    "eer-guided-one-key": _two("guided-one-key", "eer"),
    "strangers-guided": _point(("development", "published"), "fmr", "guided"),
    "refused-guided": _point(("development", "published"), "fnmr", "guided"),
    "eer-unprotected": _two("unprotected", "eer"),
    "auc": _two("one-key", "auc"),
    "fmr": _point(("development", "published"), "fmr"),
    "fnmr": _point(("other folds", "same scores"), "fnmr"),
    "psr": _one("anonymity", 0.001, complement=True),
    "psr-strict": _one("anonymity", 0.00001, complement=True),
    "renewal": _one("renewal", 0.001),
    "renewal-same-photo": _one("renewal-same-photo", 0.001),
    "d-sys": _d_sys("renewal"),
    "d-sys-same-photo": _d_sys("renewal-same-photo"),
    "inversion": _inversion,
    "failures": _failures,
}
