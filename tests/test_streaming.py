"""Two stages at once: order, back-pressure, errors in their turn, clean ends, and no growing memory."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from patience import PATIENCE

from anonymix_plugin.streaming import in_two_stages


def workers() -> list[str]:
    """Names of the threads that streams have left behind."""
    stages = ("anonymix-read", "anonymix-draw")
    return [thread.name for thread in threading.enumerate() if thread.name in stages]


@given(st.lists(st.integers(), max_size=40), st.integers(1, 5))
@settings(max_examples=40)
def test_results_come_once_and_in_order(items: list[int], ahead: int) -> None:
    results = list(in_two_stages(items, lambda x: x + 1, lambda x: 2 * x, ahead=ahead))
    assert results == [2 * (x + 1) for x in items]
    assert not workers()


def test_both_stages_and_the_caller_work_at_the_same_time() -> None:
    meeting = threading.Barrier(3, timeout=PATIENCE)  # breaks unless three threads are here together

    def stage(item: int) -> int:
        if item == 2:
            meeting.wait()
        return item

    def later(item: int) -> int:
        if item == 1:
            meeting.wait()
        return item

    results = in_two_stages(range(4), stage, later)
    assert next(results) == 0
    meeting.wait()
    assert list(results) == [1, 2, 3]


@pytest.mark.parametrize("ahead", [1, 2, 4])
def test_nothing_is_read_that_nobody_needs_soon(ahead: int) -> None:
    asked: list[int] = []

    def items() -> Iterator[int]:
        for number in range(1000):
            asked.append(number)
            yield number

    results = in_two_stages(items(), lambda x: x, lambda x: x, ahead=ahead)
    assert not asked
    assert [next(results) for _ in range(5)] == list(range(5))
    settled = -1
    while settled != len(asked):
        settled = len(asked)
        time.sleep(0.3)
    # Two queues, and one item in the hands of each of the two threads.
    assert settled <= 5 + 2 * ahead + 2
    results.close()
    assert not workers()


@pytest.mark.parametrize("place", ["items", "first", "second"])
def test_an_error_comes_in_its_turn_and_ends_everything(place: str) -> None:
    seen: list[int] = []

    def items() -> Iterator[int]:
        for number in range(100):
            if place == "items" and number == 3:
                raise ValueError(place)
            yield number

    def stage(name: str, item: int) -> int:
        if place == name and item == 3:
            raise ValueError(place)
        return item

    results = in_two_stages(items(), lambda x: stage("first", x), lambda x: stage("second", x))
    with pytest.raises(ValueError, match=place):
        seen.extend(results)
    assert len(seen) <= 3
    assert list(results) == []  # an iterator that has raised is at its end
    assert seen == [0, 1, 2]
    assert not workers()


def test_an_interrupt_in_a_stage_reaches_the_caller() -> None:
    def interrupted(item: int) -> int:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        next(in_two_stages([1], interrupted, lambda x: x))
    assert not workers()


def test_leaving_the_loop_ends_the_threads_while_they_wait() -> None:
    for _ in in_two_stages(iter(range(10**9)), lambda x: x, lambda x: x):
        break
    gc.collect()  # the loop's iterator is closed where it is forgotten
    assert not workers()


def test_what_was_passed_on_is_let_go_of() -> None:
    class Item:
        pass

    alive: weakref.WeakSet[Item] = weakref.WeakSet()
    most = 0

    def items() -> Iterator[Item]:
        for _ in range(200):
            item = Item()
            alive.add(item)
            yield item
            del item

    for _ in in_two_stages(items(), lambda x: x, lambda x: x, ahead=2):
        most = max(most, len(alive))
    assert most <= 2 * 2 + 6
