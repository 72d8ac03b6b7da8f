"""Attacks succeed where there is something to win, and are as good as their control where there is nothing.

The protections here are functions of embeddings whose answer is known: an invertible one, one that hides all,
one that leaks through noise that averages out.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from anonymix_lab.data import Pairs, Protocol, Sample
from anonymix_lab.evaluation.attacks import (
    ATTACKS,
    Attack,
    Direct,
    KeyGuessing,
    Linkage,
    Material,
    RecordMultiplicity,
    Regression,
    Student,
    WithKey,
    attack_parts,
)
from anonymix_lab.evaluation.attacks._values import split_people
from anonymix_lab.evaluation.scenarios import Drawn
from anonymix_lab.evaluation.schema import AttackPart
from anonymix_lab.matchers import Table

PEOPLE, DIM = 110, 16
MATCHERS = ("first", "second")


class Known:
    """Stands for a protection; the tables say what it does."""

    name = title = fingerprint = "known"
    keyed = True

    def protect(self, photo: Path, key: object) -> Any:
        raise AssertionError("these attacks make no pictures")


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def table(vectors: dict[str, np.ndarray]) -> Table:
    count = len(vectors["first"])
    reasons = {name: np.array([""] * count) for name in vectors}
    return Table({name: rows.astype(np.float32) for name, rows in vectors.items()}, reasons, np.zeros(count))


def material(how: str) -> Material:
    """Two photos of each person, and protected faces by a rule."""
    random = np.random.Generator(np.random.Philox(21))
    people = np.repeat(np.arange(PEOPLE), 2)
    centres = random.standard_normal((PEOPLE, DIM))
    real = {
        matcher: unit(unit(centres @ mix)[people] + 0.08 * random.standard_normal((2 * PEOPLE, DIM)))
        for matcher, mix in zip(MATCHERS, random.standard_normal((2, DIM, DIM)), strict=True)
    }

    def protect(rows: np.ndarray, keys: np.ndarray, series: int) -> dict[str, np.ndarray]:
        made = {}
        for number, matcher in enumerate(MATCHERS):
            out = np.empty((len(rows), DIM))
            for i, (row, key) in enumerate(zip(rows, keys, strict=True)):
                own = np.random.Generator(np.random.Philox(key=1000 * series + int(key) + 10**6 * number))
                rotation = np.linalg.qr(own.standard_normal((DIM, DIM)))[0]
                if how == "invertible":
                    out[i] = rotation @ real[matcher][row]
                elif how == "nothing":
                    out[i] = random.standard_normal(DIM)
                elif how == "identity":
                    out[i] = real[matcher][row]
                else:  # noise, new with every key, over the real embedding
                    out[i] = real[matcher][row] + 0.5 * own.standard_normal(DIM)
            made[matcher] = unit(out)
        return made

    everybody, again = np.arange(2 * PEOPLE), np.arange(1, 2 * PEOPLE, 2)
    samples = tuple(Sample(Path(f"{i}.jpg"), str(person)) for i, person in enumerate(people))
    genuine = Pairs(np.arange(0, 2 * PEOPLE, 2), again, np.ones(PEOPLE, bool))
    drawn = Drawn(
        original=table(real),
        own=table(protect(everybody, people, 1)),
        shared=table(protect(everybody, np.zeros(2 * PEOPLE, int), 2)),
        shared_key=np.zeros(2 * PEOPLE, np.int64),
        again=again,
        renewed=table(protect(again, people[again], 3)),
        elsewhere=table(protect(again, people[again], 4)),
        claims=np.zeros(0, np.int64),
        claimed=table({matcher: np.zeros((0, DIM)) for matcher in MATCHERS}),
    )
    return Material(
        protocol=Protocol("known", "known", samples, genuine),
        protection=Known(),
        drawn=drawn,
        extractor=cast("Any", None),
        matchers=MATCHERS,
        seen=frozenset(),
        thresholds=dict.fromkeys(MATCHERS, 0.62),
        people=people,
        theirs=split_people(people, 1),
        seed=1,
        replicates=30,
    )


@pytest.fixture(scope="module")
def grounds() -> dict[str, Material]:
    return {how: material(how) for how in ("invertible", "nothing", "identity", "noise")}


def run(attack: Attack, on: Material) -> dict[str, AttackPart]:
    """By the first matcher: results by key, and by number of records where they differ."""
    parts = [part for part in attack_parts(attack.run(on), on) if part.matcher == "first"]
    assert all(part.attack in ATTACKS for part in parts)
    return {f"{part.key}{int(part.budget.get('records', 0)) or ''}": part for part in parts}


def value(part: AttackPart) -> float:
    assert part.success.value is not None
    return part.success.value


def test_victims_are_never_trained_on() -> None:
    people = np.repeat(np.arange(31), 3)
    theirs = split_people(people, 4)
    assert not set(people[theirs]) & set(people[~theirs])
    assert len(set(people[theirs])) == 15


@pytest.mark.parametrize("attack", [Regression(), Student(epochs=5)], ids=["regression", "student"])
def test_learning_inverts_what_can_be_inverted_once_the_key_is_known(
    grounds: dict[str, Material], attack: Attack
) -> None:
    parts = run(attack, grounds["invertible"])
    assert value(parts["disclosed"]) > 0.95
    assert parts["disclosed"].success_calibrated is not None
    assert parts["disclosed"].success_calibrated > 0.9
    assert value(parts["hidden"]) < 0.05  # a new rotation for everybody: nothing to learn


@pytest.mark.parametrize("attack", [Regression(), Student(epochs=5)], ids=["regression", "student"])
def test_learning_wins_nothing_where_there_is_nothing(grounds: dict[str, Material], attack: Attack) -> None:
    for part in run(attack, grounds["nothing"]).values():
        assert part.control.high is not None
        assert value(part) <= part.control.high + 0.02
        assert part.success.high is not None
        assert part.success.high > 0  # none of so many tries is no proof of zero


def test_the_direct_attack_finds_the_unprotected(grounds: dict[str, Material]) -> None:
    assert value(run(Direct(), grounds["identity"])["hidden"]) == 1
    assert value(run(Direct(), grounds["invertible"])["hidden"]) < 0.02


def test_more_records_help_where_keys_are_mere_noise_and_nowhere_else(grounds: dict[str, Material]) -> None:
    noise = run(RecordMultiplicity(), grounds["noise"])
    single = run(Regression(), grounds["noise"])["hidden"]
    assert value(noise["hidden4"]) > value(single) + 0.1
    assert value(run(RecordMultiplicity(), grounds["nothing"])["hidden4"]) < 0.05


def test_linkage_ranks_against_blind_guessing(grounds: dict[str, Material]) -> None:
    linked = run(Linkage(), grounds["identity"])[f"hidden{PEOPLE // 2}"]
    assert value(linked) > 0.95
    assert linked.control.value == pytest.approx(2 / PEOPLE, rel=0.05)
    hidden = run(Linkage(), grounds["nothing"])[f"hidden{PEOPLE // 2}"]
    assert value(hidden) < 0.08
    assert hidden.success_calibrated is None


def test_the_key_opens_what_it_is_made_for_and_guessing_does_not(grounds: dict[str, Material]) -> None:
    ground = grounds["invertible"]
    assert value(run(WithKey(), ground)["disclosed"]) > 0.95
    assert value(run(KeyGuessing(), ground)["hidden"]) < 0.05
    assert value(run(KeyGuessing(), grounds["identity"])["hidden"]) == 1


def test_the_student_is_the_same_at_every_run(grounds: dict[str, Material]) -> None:
    first, second = (run(Student(epochs=2), grounds["noise"])["hidden"] for _ in range(2))
    assert first == second
