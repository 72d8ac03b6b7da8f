"""Does the story hold? Comparisons against thresholds, chapter by chapter and recogniser by recogniser.

Two answers are given. `ok` is strict: every single comparison ended as it should, and every attempt with a
destroyed key was refused. `holds` is what the exit code goes by: no chapter went wrong for more than half of
its comparisons, and no refusal is missing. Between them lies what a measurement with a handful of faces may
show by chance; it is told openly, but it is no failure of the program.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from anonymix_lab.demo.values import Chapter, MatcherFacts, Refusal, Trial
from anonymix_plugin.errors import UsageError

CHAPTERS: Final[dict[Chapter, tuple[str, str]]] = {
    "genuine": ("Same person, same key", "another photo of the enrolled person, under that person's key"),
    "impostor": ("Somebody else", "another person's photo, mixed under the key of the person claimed"),
    "original": ("The unprotected photo", "the person's own original photo against the protected gallery"),
    "other-key": ("Another application", "the same photo under the person's key in another application"),
    "old-key": ("After rotation, old template", "a new cancelable face against the template of the old key"),
    "new-key": ("After rotation, new template", "a new cancelable face against the new template"),
    "shared": ("One key for everybody: same person", "the worst case, a key that everybody holds"),
    "shared-impostor": ("One key for everybody: somebody else", "another person who holds the same key"),
}
"""Chapter -> title and description, in the order in which they are told."""


@dataclass(frozen=True)
class Finding:
    """One chapter as one recogniser sees it.

    Attributes:
        chapter: The chapter.
        matcher: Name of the recogniser.
        accept: Whether its comparisons should match.
        count: How many comparisons.
        right: How many ended as they should.
        lowest: The lowest score.
        mean: The mean score.
        highest: The highest score.
    """

    chapter: Chapter
    matcher: str
    accept: bool
    count: int
    right: int
    lowest: float
    mean: float
    highest: float

    @property
    def holds(self) -> bool:
        """Whether the majority ended as it should."""
        return 2 * self.right > self.count


@dataclass(frozen=True)
class Verdict:
    """The outcome.

    Attributes:
        findings: Each chapter by each recogniser.
        refusals: Attempts with a destroyed key.
        wrong_recalibrated: How many comparisons would not end as they should if each recogniser had its threshold for
            cancelable faces; None where one has none.
    """

    findings: tuple[Finding, ...]
    refusals: tuple[Refusal, ...]
    wrong_recalibrated: int | None = None

    @property
    def refused(self) -> bool:
        """Whether every attempt with a destroyed key was refused."""
        return bool(self.refusals) and all(refusal.code for refusal in self.refusals)

    @property
    def ok(self) -> bool:
        """Whether everything ended as it should."""
        return self.refused and all(finding.right == finding.count for finding in self.findings)

    @property
    def holds(self) -> bool:
        """Whether every chapter did in its majority."""
        return self.refused and all(finding.holds for finding in self.findings)

    def of(self, chapter: Chapter) -> tuple[Finding, ...]:
        """The findings of one chapter."""
        return tuple(finding for finding in self.findings if finding.chapter == chapter)


def ended_right(trial: Trial, matcher: MatcherFacts) -> bool:
    """Whether a comparison ended as it should."""
    return (trial.scores[matcher.name] >= matcher.threshold) == trial.accept


def rate_story(trials: Sequence[Trial], matchers: Sequence[MatcherFacts], refusals: Sequence[Refusal]) -> Verdict:
    """Hold all comparisons against the thresholds.

    Raises:
        UsageError: There is nothing to compare, or nobody who does it.
    """
    if not trials or not matchers:
        raise UsageError("a story needs comparisons and a recogniser")
    findings = []
    for chapter in CHAPTERS:
        own = [trial for trial in trials if trial.chapter == chapter]
        for matcher in matchers if own else ():
            scores = [trial.scores[matcher.name] for trial in own]
            findings.append(
                Finding(
                    chapter,
                    matcher.name,
                    own[0].accept,
                    len(own),
                    sum(ended_right(trial, matcher) for trial in own),
                    min(scores),
                    sum(scores) / len(scores),
                    max(scores),
                )
            )
    return Verdict(tuple(findings), tuple(refusals), _wrong_recalibrated(trials, matchers))


def _wrong_recalibrated(trials: Sequence[Trial], matchers: Sequence[MatcherFacts]) -> int | None:
    wrong = 0
    for matcher in matchers:
        if matcher.recalibrated_threshold is None:
            return None
        limit = matcher.recalibrated_threshold
        wrong += sum((trial.scores[matcher.name] >= limit) != trial.accept for trial in trials)
    return wrong
