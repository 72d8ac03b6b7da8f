"""A claim ends with its block, in every thread, task and generator."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from functools import partial
from typing import Any

import pytest
from patience import PATIENCE

from anonymix_plugin import UsageError, claims
from anonymix_plugin.claims import Claim, carried, claimed, current_claim, current_notes


def subject(name: str) -> Any:
    return claimed(Claim(name))


def who() -> str | None:
    """Whom a call made here would be for; "refused" where the claim that was found does not count."""
    try:
        claim = current_claim()
    except UsageError as error:
        return "refused" if error.fix else "refused without a cure"
    return claim.subject if claim else None


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    assert who() is None
    yield
    gc.collect()
    assert who() is None
    assert not claims._IN_GENERATORS


@contextmanager
def helper(name: str) -> Iterator[None]:
    with subject(name):
        yield


@contextmanager
def helper_of_helper(name: str) -> Iterator[None]:
    with ExitStack() as stack:
        stack.enter_context(helper(name))
        yield


class Session:
    """A class of the host's that is a block."""

    def __init__(self, name: str) -> None:
        self._claim = subject(name)

    def __enter__(self) -> None:
        self._claim.__enter__()

    def __exit__(self, *error: Any) -> None:
        self._claim.__exit__(*error)


BLOCKS = [subject, helper, helper_of_helper, Session]
Block = Callable[[str], Any]
every_block = pytest.mark.parametrize("block", BLOCKS, ids=lambda it: it.__name__)


# --- blocks ---------------------------------------------------------------------------------------------


@every_block
def test_the_innermost_block_counts(block: Block) -> None:
    with block("alice"):
        assert who() == "alice"
        with block("bob"):
            assert who() == "bob"
        assert [who() for _ in range(2)] == ["alice", "alice"]
    assert who() is None
    with pytest.raises(KeyError), block("alice"):
        raise KeyError
    assert who() is None


def test_an_exit_stack_and_a_decorator_are_blocks_too() -> None:
    with ExitStack() as stack:
        stack.enter_context(subject("alice"))
        stack.enter_context(subject("bob"))
        assert who() == "bob"
        moved = stack.pop_all()
    assert who() == "bob"
    moved.close()
    assert subject("alice")(who)() == "alice"


def test_a_decorated_coroutine_or_generator_runs_in_its_block_to_its_end() -> None:
    class Door:
        @subject("alice")
        async def ask(self) -> str | None:
            await asyncio.sleep(0)
            return await asyncio.to_thread(who)

        @subject("alice")
        def watch(self) -> Generator[str | None, str, str | None]:
            assert (yield who()) == "sent"
            yield who()
            return who()

        @subject("alice")
        async def stream(self) -> AsyncGenerator[str | None, str]:
            assert (yield who()) == "sent"
            try:
                yield who()
            except KeyError:
                yield f"{who()} still"

    async def main() -> None:
        with subject("bob"):
            assert await Door().ask() == "alice"
            parts = Door().stream()
            assert (await anext(parts), who(), await parts.asend("sent")) == ("alice", "bob", "alice")
            assert (await parts.athrow(KeyError()), who()) == ("alice still", "bob")
            await parts.aclose()

    asyncio.run(main())
    with subject("bob"):
        watched = Door().watch()
        assert (next(watched), who(), watched.send("sent"), who()) == ("alice", "bob", "alice", "bob")
        with pytest.raises(StopIteration, match="alice"):
            next(watched)
    assert who() is None


def test_an_empty_name_and_a_second_use_are_refused() -> None:
    for name in ("", 5):
        with pytest.raises(UsageError), subject(name):  # type: ignore[arg-type]
            pass
    block = subject("alice")
    with block:
        pass
    for again in (block.__enter__, lambda: block.__exit__(None, None, None)):
        with pytest.raises(UsageError):
            again()
    with pytest.raises(UsageError):
        subject("alice").__exit__(None, None, None)


def test_blocks_left_out_of_order_are_told_and_hide_no_first_error() -> None:
    for error in (None, KeyError("first")):
        outer, inner = subject("alice"), subject("bob")
        outer.__enter__()
        inner.__enter__()
        if error is None:
            with pytest.raises(UsageError, match="inside it was open"):
                outer.__exit__(None, None, None)
        else:
            outer.__exit__(KeyError, error, None)
        assert who() == "bob"
        inner.__exit__(None, None, None)
        assert who() is None


def test_a_block_that_is_let_go_of_claims_nothing() -> None:
    subject("alice").__enter__()
    gc.collect()
    assert who() == "refused"
    with subject("bob"):
        assert who() == "bob"
    assert who() is None


# --- generators -----------------------------------------------------------------------------------------


@every_block
def test_generators_keep_their_claims_to_themselves(block: Block) -> None:
    def camera(name: str) -> Iterator[str | None]:
        with block(name):
            for _ in range(3):
                yield who()

    def inner(name: str) -> Iterator[str | None]:
        yield from camera(name)

    cameras = [camera("alice"), inner("bob"), camera("carol")]
    for _ in range(3):
        for name, each in zip(("alice", "bob", "carol"), cameras, strict=True):
            assert next(each) == name
            assert who() is None
    with subject("dave"):
        other = camera("erin")
        assert next(other) == "erin"
        assert who() == "dave"
    assert next(other) == "erin"
    other.close()
    for each in cameras:
        each.close()


def test_a_claim_made_by_a_call_of_a_generator_s_reaches_nobody_else() -> None:
    def begin(name: str) -> Any:
        block = subject(name)
        block.__enter__()
        return block

    def camera(name: str) -> Iterator[str | None]:
        block = begin(name)
        yield who()
        yield who()
        block.__exit__(None, None, None)

    alice, bob = camera("alice"), camera("bob")
    assert next(alice) == "alice"
    assert who() == "refused"
    assert contextvars.copy_context().run(who) == "refused"
    assert next(bob) == "bob"
    assert next(alice) == "refused"
    assert next(bob) == "bob"
    with subject("carol"):
        assert who() == "carol"
    with pytest.raises(UsageError, match="inside it was open"):
        next(alice)
    assert next(bob, None) is None


def test_a_generator_may_be_resumed_anywhere() -> None:
    """As streaming responses are: by another thread, and in a copy of the context, each time."""

    def stream(name: str) -> Iterator[str | None]:
        with subject(name), helper(f"{name}'s double"), subject(name):
            for _ in range(4):
                yield who()

    streams = {name: stream(name) for name in ("alice", "bob")}
    with ThreadPoolExecutor(2) as pool:
        for _ in range(4):
            for name, each in streams.items():
                assert pool.submit(contextvars.copy_context().run, partial(next, each)).result() == name
                assert pool.submit(who).result() is None
        for each in streams.values():
            pool.submit(each.close).result()
        assert pool.submit(who).result() is None


def test_a_generator_s_claim_goes_when_it_is_dropped() -> None:
    def camera() -> Iterator[str | None]:
        with subject("alice"):
            yield who()

    each = camera()
    next(each)
    thread = threading.Thread(target=lambda: gc.collect() and None)
    thread.start()
    del each
    thread.join()
    assert not claims._IN_GENERATORS
    cycle: list[Any] = [camera()]
    cycle.append(cycle)
    next(cycle[0])
    del cycle
    gc.collect()
    assert not claims._IN_GENERATORS


def test_what_a_generator_calls_has_its_own_claims() -> None:
    def embed(name: str) -> str | None:
        with subject(name):
            return who()

    def rows() -> Iterator[tuple[str | None, ...]]:
        with subject("alice"):
            yield who(), embed("bob"), who()
            with helper("carol"):
                yield (who(), *[who() for _ in range(1)], *(who() for _ in range(1)))
            yield (who(),)

    assert list(rows()) == [("alice", "bob", "alice"), ("carol",) * 3, ("alice",)]


def test_a_coroutine_driven_by_hand_is_a_generator() -> None:
    class Pause:
        def __await__(self) -> Iterator[None]:
            yield

    async def work() -> str | None:
        with subject("alice"):
            await Pause()
            return who()

    each = work()
    each.send(None)
    assert who() is None
    with pytest.raises(StopIteration) as ended:
        each.send(None)
    assert ended.value.value == "alice"


def test_a_block_in_a_fixture_holds_for_the_test(claimed_by_a_fixture: str) -> None:
    assert who() == claimed_by_a_fixture


@pytest.fixture
def claimed_by_a_fixture(_nothing_is_left: None) -> Iterator[str]:
    with subject("alice"):
        yield "alice"


# --- asyncio --------------------------------------------------------------------------------------------


@asynccontextmanager
async def async_helper(name: str) -> AsyncIterator[None]:
    with subject(name):
        await asyncio.sleep(0)
        yield


@every_block
def test_tasks_keep_their_claims_apart_and_threads_take_them_along(block: Block) -> None:
    async def ask(name: str) -> list[str | None]:
        with block(name):
            await asyncio.sleep(0.001)
            loop = asyncio.get_running_loop()
            return [
                who(),
                await asyncio.to_thread(who),
                await asyncio.wait_for(answer(), PATIENCE),
                *await asyncio.gather(answer(), answer()),
                await asyncio.create_task(answer()),
                await loop.run_in_executor(None, contextvars.copy_context().run, who),
            ]

    async def answer() -> str | None:
        await asyncio.sleep(0)
        return who()

    async def main() -> None:
        names = [f"person {number}" for number in range(8)]
        assert await asyncio.gather(*map(ask, names)) == [[name] * 7 for name in names]
        with block("alice"):
            assert await asyncio.get_running_loop().run_in_executor(None, who) is None
            async with async_helper("bob"), AsyncExitStack() as stack:
                assert await asyncio.to_thread(who) == "bob"
                await stack.enter_async_context(async_helper("carol"))
                assert [who(), await asyncio.to_thread(who)] == ["carol", "carol"]
            assert who() == "alice"

    asyncio.run(main())


def test_what_outlives_its_block_is_refused() -> None:
    async def main() -> None:
        ended = asyncio.Event()

        async def worker() -> list[str | None]:
            found = [who()]
            await ended.wait()
            found += [who(), await asyncio.to_thread(who)]
            with subject("bob"):
                found.append(who())
            return [*found, who()]

        with subject("alice"):
            late, context = asyncio.create_task(worker()), contextvars.copy_context()
            await asyncio.sleep(0)
        ended.set()
        assert await late == ["alice", "refused", "refused", "bob", None]
        assert context.run(who) == "refused"
        assert who() is None

    asyncio.run(main())


def test_an_async_generator_keeps_its_claim_to_itself() -> None:
    async def camera(name: str) -> AsyncIterator[list[str | None]]:
        with subject(name):
            for _ in range(3):
                await asyncio.sleep(0)
                yield [who(), await answer(), await embed("erin")]

    async def helped(name: str) -> AsyncIterator[str | None]:
        async with async_helper(name), AsyncExitStack() as stack:
            await stack.enter_async_context(async_helper(name))
            while True:
                yield who()

    async def answer() -> str | None:
        await asyncio.sleep(0)
        return who()

    async def embed(name: str) -> str | None:
        with helper(name):
            return await asyncio.to_thread(who)

    async def main() -> None:
        seen = asyncio.Queue[str | None]()

        async def note() -> None:
            seen.put_nowait(who())

        cameras = {name: camera(name) for name in ("alice", "bob")}
        for _ in range(2):
            for name, each in cameras.items():
                assert await anext(each) == [name, name, "erin"]
                assert [who(), await asyncio.to_thread(who)] == [None, None]
                await asyncio.create_task(note())
                assert seen.get_nowait() is None
        async for found in camera("carol"):
            assert found[0] == "carol"
            break
        others = [helped("alice"), helped("bob")]
        for _ in range(2):
            assert [await anext(each) for each in others] == ["alice", "bob"]
            assert who() is None
        for each in others:
            await each.aclose()
        assert who() is None
        with subject("dave"):
            assert await asyncio.wait_for(anext(cameras["alice"]), PATIENCE) == ["alice", "alice", "erin"]
            assert who() == "dave"
        for each in cameras.values():
            await each.aclose()

    asyncio.run(main())


def test_threads_and_tasks_of_a_generator_s_are_not_claimed() -> None:
    """A reader's would be, otherwise, and the two can't be told apart."""

    async def stream() -> AsyncIterator[str | None]:
        with subject("alice"):
            yield await asyncio.to_thread(who)
            yield await asyncio.create_task(asyncio.to_thread(who))
            yield await asyncio.to_thread(carried(who))  # as adapters do, whose call it is

    async def main() -> list[str | None]:
        return [found async for found in stream()]

    assert asyncio.run(main()) == [None, None, "alice"]

    async def around(name: str) -> list[str | None]:
        with subject(name):
            found = [it async for it in stream()]
            return [*found, who(), await asyncio.to_thread(who)]

    assert asyncio.run(around("bob")) == ["refused", "refused", "alice", "bob", "bob"]
    assert asyncio.run(around("alice")) == ["alice"] * 5

    async def reading() -> list[str | None]:
        with subject("bob"):
            parts = stream()
            await anext(parts)
            found = [who(), await asyncio.to_thread(who)]  # it might as well be the generator's own
            await parts.aclose()
            return [*found, await asyncio.to_thread(who)]

    assert asyncio.run(reading()) == ["bob", "refused", "bob"]

    def asking() -> str | None:
        return carried(who)()

    assert asking() is None
    with subject("alice"):
        later, context = carried(who), contextvars.copy_context()
    assert later() == "alice"
    assert context.run(asking) == "refused"


def test_another_s_task_that_runs_inside_a_block_is_not_claimed_by_it() -> None:
    """An event loop that is run within a block goes on with the tasks of others."""
    loop = asyncio.new_event_loop()
    try:
        done = loop.create_future()

        async def other() -> list[str | None]:
            await asyncio.sleep(0)
            found = [who()]
            loop.call_soon(lambda: done.set_result(who()))
            return found

        waiting = loop.create_task(other())

        def run() -> Iterator[Any]:
            with subject("alice"):
                yield loop.run_until_complete(asyncio.gather(waiting, done))

        with subject("bob"):
            assert next(run()) == [[None], None]
    finally:
        loop.close()


# --- threads --------------------------------------------------------------------------------------------


def test_a_pool_s_thread_has_no_claim_left(monkeypatch: pytest.MonkeyPatch) -> None:
    with ThreadPoolExecutor(1) as pool:
        with subject("alice"):
            assert pool.submit(who).result() is None
            taken = contextvars.copy_context()
            assert pool.submit(taken.run, who).result() == "alice"
            # Where threads inherit contexts (free-threaded Python 3.14), a pool's thread would have the claim
            # of whoever's call started it.
            monkeypatch.setattr(claims, "_THREADS_INHERIT", True)
            assert pool.submit(taken.run, who).result() == "refused"
            assert who() == "alice"
        assert pool.submit(taken.run, who).result() == "refused"
        assert pool.submit(who).result() is None


def test_a_block_left_in_another_context_is_told_and_hides_no_first_error() -> None:
    """As by a dependency that a framework enters and leaves in a pool of threads."""
    for error in (None, KeyError("first")):
        block = subject("alice")
        with ThreadPoolExecutor(1) as pool:
            pool.submit(contextvars.copy_context().run, block.__enter__).result()
            assert [who(), pool.submit(who).result()] == [None, None]
            leaving = pool.submit(block.__exit__, error and KeyError, error, None)
            if error is None:
                with pytest.raises(UsageError, match="another context"):
                    leaving.result()
            else:
                assert not leaving.result()
        context = contextvars.copy_context()
        context.run(block := subject("alice"), None) if False else context.run(block.__enter__) if False else None


def test_a_block_that_requests_enter_and_leave_by_hand() -> None:
    """As before_request and teardown_request do, one request after the other in one thread."""
    open_blocks: dict[str, Any] = {}

    def before(name: str) -> None:
        open_blocks[name] = subject(name)
        open_blocks[name].__enter__()

    for name in ("alice", "bob"):
        before(name)
        assert who() == name
        open_blocks.pop(name).__exit__(None, None, None)
        assert who() is None
    before("carol")
    open_blocks.clear()  # the request fell over, and nobody left the block
    assert who() == "refused"
    before("dave")
    assert who() == "dave"
    open_blocks.pop("dave").__exit__(None, None, None)
    assert who() is None


# --- notes ----------------------------------------------------------------------------------------------


def test_notes_are_found_through_inner_blocks_and_end_with_theirs() -> None:
    notes: list[Any] = []

    def camera() -> Iterator[list[Any] | None]:
        with subject("bob"):
            while True:
                yield current_notes()

    with claimed(Claim("alice"), notes):
        assert current_notes() is notes
        with subject("alice"):
            assert current_notes() is notes
        each = camera()
        assert next(each) is notes
        context = contextvars.copy_context()
        assert context.run(current_notes) is notes
    assert next(each) is None
    assert context.run(current_notes) is None
    each.close()


# --- cost -----------------------------------------------------------------------------------------------


def test_asking_for_the_claim_costs_next_to_nothing() -> None:
    def deep(depth: int) -> float:
        if depth:
            return deep(depth - 1)
        started = time.thread_time()
        for _ in range(1000):
            current_claim()
        return (time.thread_time() - started) / 1000

    def camera() -> Iterator[float]:
        with subject("alice"):
            yield deep(60)

    with subject("alice"):
        plainly = min(deep(60) for _ in range(5))
    in_a_generator = min(next(camera()) for _ in range(5))
    assert plainly < 20e-6
    assert in_a_generator < 100e-6
