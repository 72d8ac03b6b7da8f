"""Who is in front of the camera, said around code that has no argument for it.

`with mixer.subject("alice"):` tells adapters whose key is meant, where the call that they take over carries
no name. A claim ends with its block, everywhere:

- In a function or a coroutine it follows `contextvars`: each asyncio task and each thread has its own;
  `asyncio.to_thread` and tasks that are started inside take it along, and are refused once the block has
  ended. A thread that was started without a context has none.
- In a generator, sync or async, it holds for what the generator itself calls, in whatever thread or context
  it is resumed. It does not reach whoever reads from the generator, nor tasks and threads started inside.
- In a function under `contextlib.contextmanager`, in a class's `__enter__`, and in a pytest fixture, it holds
  for the block that the function, the class or the fixture is used for.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ContextDecorator, aclosing
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import wraps
from inspect import (
    CO_ASYNC_GENERATOR,
    CO_COROUTINE,
    CO_GENERATOR,
    CO_ITERABLE_COROUTINE,
    isasyncgenfunction,
    iscoroutinefunction,
    isgeneratorfunction,
)
from opcode import opmap
from types import FrameType, TracebackType
from typing import Any, Final, ParamSpec, TypeVar
from unicodedata import normalize

from anonymix_plugin.errors import UsageError

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True)
class Claim:
    """Whose face is said to be in the photos of a block of code.

    Attributes:
        subject: The person's id; None where nobody is claimed and the gallery key is meant.
        scope: Scope of the key; None leaves it to the adapter.
        enrol: Whether a first key may be issued.
    """

    subject: str | None
    scope: str | None = None
    enrol: bool = False


@dataclass(eq=False, slots=True)
class _Entered:
    """A block that was entered.

    Attributes:
        claim: What it says.
        notes: What code inside may write to, or None.
        before: The block around it in the same context.
        home: The frame that it belongs to.
        reader: The innermost generator that was running when it was entered; None where there was none, or
            where the block ends before that generator can be left.
        thread: The thread that entered it.
        bound: Whether its home is that generator, so that it holds while that one runs and nowhere else.
        ended: Whether it was left.
        inner: The bound blocks that were entered directly inside and are open.
    """

    claim: Claim
    notes: list[Any] | None
    before: _Entered | None
    home: FrameType | None
    reader: FrameType | None
    thread: int
    bound: bool
    ended: bool = False
    inner: list[_Entered] = field(default_factory=list)


_ENTERED: ContextVar[_Entered | None] = ContextVar("anonymix_claim", default=None)
_IN_GENERATORS: dict[FrameType, list[_Entered]] = {}

_USE_GENERATORS_AS_BLOCKS: Final = frozenset({"contextlib", "_pytest.fixtures"})
_THREADS_INHERIT: Final = bool(getattr(sys.flags, "thread_inherit_context", False))


def current_claim() -> Claim | None:
    """The claim of the innermost block that this code runs in, or None.

    Raises:
        UsageError: The claim came with this code's context, and its block has ended; or the block was opened
            in a generator that is not running.
    """
    for entered, found in _around(sys._getframe(1)):
        why = _invalid(entered, found)
        if why:
            raise UsageError(
                why,
                where="mixer.subject",
                fix="name the subject in the call (subject=...), or open the block where the work is done",
            )
        return entered.claim
    return None


def claim_within(subject: str, *, enrol: bool = False) -> Claim:
    """A claim of a subject for a block inside others; the scope that the block around it says goes on counting.

    A block that names somebody else, or that has ended, says nothing of this subject's scope.
    """
    try:
        around = current_claim()
    except UsageError:
        around = None
    named = None if around is None else around.subject
    same = named is None or normalize("NFC", named) == normalize("NFC", subject)
    return Claim(subject, around.scope if around is not None and same else None, enrol)


def current_notes() -> list[Any] | None:
    """The notes of the innermost block around this code that has any; see `claimed`."""
    for entered, found in _around(sys._getframe(1)):
        if entered.notes is not None and not _invalid(entered, found):
            return entered.notes
    return None


def carried(call: Callable[P, T]) -> Callable[P, T]:
    """A function for another thread, where it runs under the claim, and with the notes, of the code here.

    It is for adapters that do their work in a thread and wait for it, as in
    `await asyncio.to_thread(carried(work))`: a claim that was made in a generator goes along, too.
    """
    entered, found = next(_around(sys._getframe(1)), (None, False))
    if entered is None or _invalid(entered, found):
        return call
    claim, notes = entered.claim, current_notes()

    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        with claimed(claim, notes):
            return call(*args, **kwargs)

    return run


def claimed(claim: Claim, notes: list[Any] | None = None) -> AbstractContextManager[Claim]:
    """Make a claim for the block; blocks may be nested, the innermost counts.

    Args:
        claim: Whose face is seen inside.
        notes: A list that code inside finds by `current_notes`.

    Raises:
        UsageError: On entry: the subject is no text, or empty; or the block is entered a second time. On
            leaving, unless an error is under way: a block inside is still open; or the block is left in
            another context (thread, task, request) than it was entered in, which never saw the claim.
    """
    return _Block(claim, notes)


class _Block(AbstractContextManager[Claim], ContextDecorator):
    def __init__(self, claim: Claim, notes: list[Any] | None) -> None:
        self._claim, self._notes = claim, notes
        self._entered: _Entered | None = None

    def _recreate_cm(self) -> _Block:
        return _Block(self._claim, self._notes)

    def __call__(self, func: Callable[..., Any]) -> Any:
        """A function that runs in the block; of a coroutine or a generator, the whole body does."""
        if iscoroutinefunction(func):
            return _coroutine_in(self._recreate_cm, func)
        if isasyncgenfunction(func):
            return _async_generator_in(self._recreate_cm, func)
        if isgeneratorfunction(func):
            return _generator_in(self._recreate_cm, func)
        return super().__call__(func)

    def __enter__(self) -> Claim:
        subject = self._claim.subject
        if subject is not None and (not isinstance(subject, str) or not subject):
            raise UsageError("a subject's id is a text that is not empty", where="subject")
        if self._entered is not None:
            raise UsageError("a block is entered once", where="mixer.subject", fix="make one for each use")
        home = _home(sys._getframe(1))
        lasting = _by_statement(home)
        reader = None if lasting and _is_function(home) else _innermost_generator(home)
        bound = home is reader
        if lasting and not bound:
            reader = None
        before = _first_open(_ENTERED.get())
        entered = _Entered(self._claim, self._notes, before, home, reader, threading.get_ident(), bound)
        if bound:
            _IN_GENERATORS.setdefault(home, []).append(entered)
            if before is not None:
                before.inner.append(entered)
        else:
            _ENTERED.set(entered)
        self._entered = entered
        return self._claim

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        entered = self._entered
        if entered is None or entered.ended:
            wrong = "left without being entered" if entered is None else "left a second time"
        else:
            top = None if entered.bound else _first_open(_ENTERED.get())
            _end(entered)
            if entered.bound:
                return
            if top is entered:
                _ENTERED.set(_first_open(entered.before))
                return
            wrong = (
                "left while a block inside it was open"
                if entered in _outwards(top)
                else "left in another context (thread, task, request) than it was entered in, so that "
                "nothing between saw the claim"
            )
        if error is None:  # the first error is what the caller needs to see
            raise UsageError(
                f"the block was {wrong}",
                where="mixer.subject",
                fix="use `with mixer.subject(ID):` around the work itself",
            )

    def __del__(self) -> None:
        if self._entered is not None and not self._entered.ended:
            _end(self._entered)  # whoever entered it by hand has let it go


def _coroutine_in(block: Callable[[], _Block], func: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(func)
    async def inside(*args: Any, **kwargs: Any) -> Any:
        with block():
            return await func(*args, **kwargs)

    return inside


def _generator_in(block: Callable[[], _Block], func: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(func)
    def inside(*args: Any, **kwargs: Any) -> Any:
        with block():
            return (yield from func(*args, **kwargs))

    return inside


def _async_generator_in(block: Callable[[], _Block], func: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(func)
    async def inside(*args: Any, **kwargs: Any) -> Any:
        with block():
            async with aclosing(func(*args, **kwargs)) as parts:
                step = anext(parts)
                while True:
                    try:
                        part = await step
                    except StopAsyncIteration:
                        return
                    try:
                        step = parts.asend((yield part))
                    except Exception as error:  # noqa: BLE001 - the generator's, which may go on
                        step = parts.athrow(error)

    return inside


def _end(entered: _Entered) -> None:
    entered.ended = True
    home, entered.home, entered.reader, entered.notes = entered.home, None, None, None
    if entered.bound and home is not None:
        there = _IN_GENERATORS.get(home, [])
        there.remove(entered)
        if not there:
            del _IN_GENERATORS[home]
        if entered.before is not None:
            entered.before.inner.remove(entered)
            entered.before = None


def _invalid(entered: _Entered, found: bool) -> str:
    """Why a claim that was found does not count here, or ""."""
    if entered.ended:
        return "the block that named the subject has ended; what was started inside can't go by it any more"
    if entered.reader is not None and not found:
        return "the block that named the subject was opened in a generator, which is not at work here"
    if not found and _is_in_doubt(entered):
        return (
            "the block that named the subject has a generator at work inside whose own block names somebody "
            "else; it can't be told which of the two started this thread or task"
        )
    if _THREADS_INHERIT and not entered.bound and entered.thread != threading.get_ident():
        return "the block that named the subject was opened by another thread"
    return ""


def _is_in_doubt(entered: _Entered) -> bool:
    """Whether this code, not found below a block, may have been started by a generator inside that block."""
    others = any(it.claim.subject != entered.claim.subject for it in tuple(entered.inner))
    return others and (entered.thread != threading.get_ident() or _task()[0])


# --- where the running code is ------------------------------------------------------------------------

_WITH: Final = opmap.get("BEFORE_WITH", -1)


def _around(frame: FrameType | None) -> Iterator[tuple[_Entered, bool]]:
    """The blocks that a frame runs in, the innermost first, and whether each was found on the stack."""
    inherited = _ENTERED.get()
    if _IN_GENERATORS or (inherited is not None and inherited.reader is not None):
        root, inside = _task()[1], True
        while frame is not None:
            # By its reader: it was entered by a call of that generator's which has returned since.
            while inherited is not None and (inherited.home is frame or inherited.reader is frame):
                yield inherited, True
                inherited = inherited.before
            if inside:
                for entered in reversed(_IN_GENERATORS.get(frame, ())):
                    yield entered, True
                # Below the event loop lies who happens to run it, not who started the task.
                inside = frame is not root and not _runs_callbacks(frame)
            frame = frame.f_back
    for entered in _outwards(inherited):
        yield entered, False


def _outwards(entered: _Entered | None) -> Iterator[_Entered]:
    while entered is not None:
        yield entered
        entered = entered.before


def _first_open(entered: _Entered | None) -> _Entered | None:
    return next((it for it in _outwards(entered) if not it.ended), None)


def _home(frame: FrameType) -> FrameType:
    """The frame that a block belongs to: the one with the `with`, past helpers that are used as a block."""
    while frame.f_back is not None and (
        frame.f_code.co_name in {"__enter__", "__aenter__"}
        or _uses_generators_as_blocks(frame)
        or _is_used_as_block(frame)
    ):
        frame = frame.f_back
    return frame


def _uses_generators_as_blocks(frame: FrameType) -> bool:
    return frame.f_globals.get("__name__") in _USE_GENERATORS_AS_BLOCKS


def _is_used_as_block(frame: FrameType) -> bool:
    flags = frame.f_code.co_flags & (CO_GENERATOR | CO_ASYNC_GENERATOR)
    return bool(flags) and frame.f_back is not None and _uses_generators_as_blocks(frame.f_back)


def _innermost_generator(frame: FrameType | None) -> FrameType | None:
    """The innermost frame from here outwards that hands control back to its caller before it ends.

    Coroutines don't, to code that could see their claims: the task that awaits them waits, too. One that
    somebody drives by hand is a generator.
    """
    in_task, root = _task()
    waiting: list[FrameType] = []  # one for another, the innermost first
    while frame is not None and not _runs_callbacks(frame):
        flags = frame.f_code.co_flags
        if _is_used_as_block(frame):
            pass
        elif flags & (CO_COROUTINE | CO_ITERABLE_COROUTINE | CO_ASYNC_GENERATOR) or (
            flags & CO_GENERATOR and frame.f_code.co_name == "__await__"
        ):
            waiting.append(frame)
        elif waiting:
            break
        elif flags & CO_GENERATOR:
            return frame
        if frame is root:
            break
        frame = frame.f_back
    if in_task and (frame is root or root is None):  # None: not Python's own
        waiting = [it for it in waiting if it.f_code.co_flags & CO_ASYNC_GENERATOR]
    return waiting[0] if waiting else None


def _is_function(frame: FrameType) -> bool:
    return not frame.f_code.co_flags & (CO_GENERATOR | CO_COROUTINE | CO_ITERABLE_COROUTINE | CO_ASYNC_GENERATOR)


def _by_statement(frame: FrameType) -> bool:
    """Whether a frame enters a block by `with`, and not by a call: then the block ends before it does."""
    return frame.f_code.co_code[frame.f_lasti] == _WITH


def _task() -> tuple[bool, FrameType | None]:
    """Whether an asyncio task is running, and the frame of its coroutine as far as that is Python's."""
    asyncio = sys.modules.get("asyncio")  # unless somebody imported it there is none
    if asyncio is None:
        return False, None
    try:
        task = asyncio.current_task()
    except RuntimeError:
        return False, None
    if task is None:
        return False, None
    coroutine = task.get_coro()
    return True, getattr(coroutine, "cr_frame", None) or getattr(coroutine, "gi_frame", None)


def _runs_callbacks(frame: FrameType) -> bool:
    return frame.f_code.co_name == "_run" and frame.f_globals.get("__name__") == "asyncio.events"
