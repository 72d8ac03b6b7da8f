"""When the story holds, and when not, on toy scores."""

from __future__ import annotations

from dataclasses import replace

import pytest

from anonymix_lab.demo.values import Chapter, MatcherFacts, Refusal, Trial
from anonymix_lab.demo.verdict import ended_right, rate_story
from anonymix_plugin.errors import UsageError

MATCHER = MatcherFacts("toy", "Toy", False, "fmr-0.1%", 0.5)
REFUSED = Refusal("verify", "key_revoked", "the key is destroyed")


def trial(chapter: Chapter, score: float, accept: bool) -> Trial:
    return Trial(chapter, "Ada", "a photo", accept, {"toy": score})


GOOD = [
    trial("genuine", 0.9, True),
    trial("genuine", 0.8, True),
    trial("genuine", 0.7, True),
    trial("impostor", 0.1, False),
    trial("impostor", 0.2, False),
    trial("impostor", 0.3, False),
    trial("original", 0.0, False),
]


def test_story_is_ok_when_everything_ends_as_it_should() -> None:
    verdict = rate_story(GOOD, [MATCHER], [REFUSED])
    assert verdict.ok
    assert verdict.holds
    (genuine,) = verdict.of("genuine")
    assert (genuine.count, genuine.right) == (3, 3)
    assert (genuine.lowest, genuine.highest) == (0.7, 0.9)
    assert genuine.mean == pytest.approx(0.8)


@pytest.mark.parametrize(
    "wrong",
    [trial("genuine", 0.4, True), trial("impostor", 0.6, False), trial("other-key", 0.6, False)],
    ids=["genuine rejected", "impostor accepted", "linked"],
)
def test_one_wrong_comparison_makes_it_not_ok(wrong: Trial) -> None:
    padding = [trial(wrong.chapter, 0.9 if wrong.accept else 0.0, wrong.accept)] * 2
    verdict = rate_story([*GOOD, *padding, wrong], [MATCHER], [REFUSED])
    assert not verdict.ok
    assert verdict.holds


def test_story_fails_when_most_comparisons_of_one_kind_go_wrong() -> None:
    impostors = [trial("impostor", score, False) for score in (0.9, 0.9, 0.9, 0.9)]
    verdict = rate_story(GOOD + impostors, [MATCHER], [REFUSED])
    assert not verdict.holds


def test_half_of_a_chapter_is_no_majority() -> None:
    verdict = rate_story([trial("genuine", 0.9, True), trial("genuine", 0.1, True)], [MATCHER], [REFUSED])
    assert not verdict.holds


def test_each_recogniser_has_to_agree() -> None:
    other = MatcherFacts("strict", "Strict", True, "fmr-0.1%", 0.95)
    both = [Trial("genuine", "Ada", "a photo", True, {"toy": 0.9, "strict": 0.9})]
    verdict = rate_story(both, [MATCHER, other], [REFUSED])
    assert [finding.right for finding in verdict.of("genuine")] == [1, 0]
    assert not verdict.holds


def test_thresholds_recalibrated_count_apart() -> None:
    lax = trial("impostor", 0.6, False)
    lost = trial("genuine", 0.65, True)
    recalibrated = replace(MATCHER, recalibrated_threshold=0.7)
    verdict = rate_story([*GOOD, lax, lost], [recalibrated], [REFUSED])
    assert sum(finding.count - finding.right for finding in verdict.findings) == 1
    assert verdict.wrong_recalibrated == 1  # the impostor no more, the genuine one instead
    strict = MatcherFacts("strict", "Strict", True, "fmr-0.1%", 0.95)
    both = [Trial("genuine", "Ada", "a photo", True, {"toy": 0.9, "strict": 0.9})]
    assert rate_story(both, [recalibrated, strict], [REFUSED]).wrong_recalibrated is None


def test_destroyed_key_that_still_works_is_a_failure_whatever_the_scores() -> None:
    verdict = rate_story(GOOD, [MATCHER], [REFUSED, Refusal("enrol", "", "a face was made")])
    assert not verdict.ok
    assert not verdict.holds


def test_story_without_attempts_at_a_destroyed_key_is_no_story() -> None:
    assert not rate_story(GOOD, [MATCHER], []).holds


def test_score_at_the_threshold_is_a_match() -> None:
    assert ended_right(trial("genuine", 0.5, True), MATCHER)
    assert not ended_right(trial("impostor", 0.5, False), MATCHER)


def test_nothing_to_compare_is_refused() -> None:
    with pytest.raises(UsageError):
        rate_story([], [MATCHER], [REFUSED])
