"""A clock that is wrong erases nobody, and can be set right again."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from keystore_clock import Clock

from anonymix_keystore import ClockError, KeyFileUnlock, KeyRetiredError, KeyState, Keystore

PEOPLE = ("alice", "bob", "carol")
YEARS = 4 * 365


@pytest.fixture
def peopled(store: Keystore) -> Keystore:
    for name in PEOPLE:
        store.issue(name)
    store.rotate("alice", grace=timedelta(days=30))
    return store


def by_date(store: Keystore) -> dict[str, Callable[[], object]]:
    return {
        "expire": store.expire,
        "forget_unused": lambda: list(store.forget_unused(accept_most=True)),
        "unused_since": store.unused_since,
        "rotate_all": lambda: store.rotate_all(older_than=timedelta(days=300), grace=timedelta(0)),
    }


@pytest.mark.parametrize("what", ["expire", "forget_unused", "unused_since", "rotate_all"])
@pytest.mark.parametrize("before", ["nothing", "a change", "a lookup", "a lookup and closing"])
def test_a_clock_years_ahead_erases_nobody(
    peopled: Keystore, clock: Clock, reopen: Callable[..., Keystore], what: str, before: str
) -> None:
    clock.forward(days=YEARS)
    if before == "a change":
        peopled.issue("dora")
    elif before != "nothing":
        peopled.current("bob")
    if before == "a lookup and closing":
        peopled.close()
        peopled = reopen()
    with pytest.raises(ClockError, match="accept-clock") as told:
        by_date(peopled)[what]()
    assert "accept_clock=True" in told.value.fix
    assert set(peopled.subjects()) >= set(PEOPLE)
    clock.forward(days=-YEARS)
    if before in {"nothing", "a lookup"}:
        assert peopled.at("alice", 1).version == 1
        peopled.issue("eve")  # what was refused did not move the header's clock
    assert peopled.verify().ok


def test_a_clock_that_is_right_is_accepted_once(
    peopled: Keystore, clock: Clock, reopen: Callable[..., Keystore]
) -> None:
    clock.forward(days=YEARS)
    peopled.close()
    store = reopen(accept_clock=True)
    assert store.expire() == 1
    assert len(list(store.forget_unused(accept_most=True))) == 3
    store.close()
    assert reopen().expire() == 0


def test_a_clock_that_runs_on_after_a_leap_is_believed_again(peopled: Keystore, clock: Clock) -> None:
    clock.forward(days=YEARS)
    peopled.issue("dora")
    clock.forward(days=29)
    peopled.issue("eve")
    with pytest.raises(ClockError):
        peopled.expire()
    clock.forward(days=1)
    assert peopled.expire() == 1
    peopled.issue("frank")
    assert peopled.expire() == 0


def test_half_a_year_without_a_change_is_no_leap(peopled: Keystore, clock: Clock) -> None:
    clock.forward(days=180)
    assert peopled.expire() == 1
    clock.forward(days=180, seconds=1)
    with pytest.raises(ClockError):
        peopled.expire()


def test_a_store_that_was_made_under_a_clock_of_1970_asks_first(path: Path, unlock: KeyFileUnlock) -> None:
    clock = Clock(3_600)
    with Keystore.create(path, unlock, clock=clock) as store:
        store.issue("alice")
        clock.now = 1_800_000_000
        with pytest.raises(ClockError):
            store.forget_unused()
        assert store.current("alice").version == 1


def test_most_people_are_not_forgotten_at_once_unless_that_is_said(store: Keystore, clock: Clock) -> None:
    store.issue("long gone")
    for _ in range(8):
        clock.forward(days=100)
        store.gallery("any")
        store.rotate_gallery("any")
    for name in ("a", "b"):
        store.issue(name, "staff")
    clock.forward(days=40)
    store.rotate_gallery("any")
    with pytest.raises(ClockError, match=r"3 of 3 .*accept_most") as told:
        store.forget_unused(timedelta(days=30))
    assert "--accept-most" in told.value.fix
    with pytest.raises(ClockError, match="2 of 2"):
        store.forget_unused(timedelta(days=30), "staff")
    assert list(store.forget_unused(timedelta(days=30), "nowhere")) == []
    assert len(list(store.forget_unused(timedelta(days=100)))) == 1
    assert set(store.subjects()) == {"a", "b"}
    assert len(list(store.forget_unused(timedelta(days=30), "staff", accept_most=True))) == 2


def test_exactly_half_of_the_people_may_fall_due(store: Keystore, clock: Clock) -> None:
    store.issue("a")
    clock.forward(days=40)
    store.issue("b")
    assert len(list(store.forget_unused(timedelta(days=30)))) == 1


def test_dates_that_a_clock_ahead_left_are_brought_back(
    peopled: Keystore, clock: Clock, path: Path, reopen: Callable[..., Keystore]
) -> None:
    then = clock.now
    clock.forward(days=YEARS)
    peopled.rotate("bob", grace=timedelta(days=30))
    peopled.retire("carol", until=datetime.fromtimestamp(clock.now, UTC) + timedelta(days=7))
    peopled.current("alice")
    peopled.issue("dora")
    peopled.close()
    clock.now = then + 60
    with pytest.raises(ClockError):
        reopen().revoke("bob")
    store = reopen(accept_clock=True)
    assert store.at("bob", 1).version == 1
    assert all(info.created.timestamp() <= clock.now for name in PEOPLE for info in store.history(name))
    store.close()
    with sqlite3.connect(path) as db:
        assert db.execute("SELECT max(used) FROM heads").fetchone() == (int(clock.now) // 86_400,)
    db.close()
    store = reopen()
    clock.forward(days=8)
    with pytest.raises(KeyRetiredError):
        store.at("carol", 1)
    clock.forward(days=23)
    with pytest.raises(KeyRetiredError):
        store.at("bob", 1)
    assert store.expire() == 3
    assert {info.state for info in store.list()} == {KeyState.ACTIVE, KeyState.DESTROYED}
    assert store.verify().ok


def test_dates_are_brought_back_page_by_page(store: Keystore, clock: Clock, reopen: Callable[..., Keystore]) -> None:
    then = clock.now
    store.issue("first")
    clock.forward(days=YEARS)
    store.issue_many(f"s{number}" for number in range(1_001))
    store.close()
    clock.now = then
    again = reopen(accept_clock=True)
    assert all(info.created.timestamp() == then for info in again.list())
    assert again.verify().ok


@pytest.mark.parametrize("odd", [float("nan"), float("inf"), -1.0, 1e12, None])
def test_a_clock_that_gives_no_time_is_told(store: Keystore, clock: Clock, odd: float) -> None:
    store.issue("alice")
    clock.now = odd
    with pytest.raises(ClockError, match="1970"):
        store.issue("bob")
    clock.now = 1_800_000_000


def test_the_message_names_both_dates(store: Keystore, clock: Clock) -> None:
    clock.now = 2_130_000_000
    store.issue("alice")
    clock.now = 1_800_000_000
    with pytest.raises(ClockError, match=r"2027-01-15 08:00 UTC.* 2037-06-30") as told:
        store.rotate("alice", reason="breach")
    assert "--accept-clock" in told.value.fix
