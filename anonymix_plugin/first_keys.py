"""What an enrolment leaves in the keystore before it is done: it stays if the enrolment does, and goes otherwise.

A first key has to be there before a face can be drawn, and a back end asked. If that fails, a subject whom
nothing was made for would be left; and a reference that several photos replaced would no longer fit the entry
that the back end still has. So each call that enrols is an *attempt*: what it put into the keystore is taken
back when it ends with an error.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol, runtime_checkable
from unicodedata import normalize

from anonymix_keystore import KeystoreError, SubjectKey, UnknownSubjectError

_Name = tuple[int, str, str]  # id of the source of keys, scope, subject


@runtime_checkable
class TakesBack(Protocol):
    """A source of keys that can take a first key back; `anonymix_keystore.Keystore` meets it."""

    def current(self, subject: str, scope: str = ...) -> SubjectKey:
        """See `KeySource`."""
        ...

    def current_or_issue(self, subject: str, scope: str = ...) -> SubjectKey:
        """See `KeySource`."""
        ...

    def take_back(self, subject: str, scope: str = ...) -> bool:
        """Take a first key back that this very source issued and nothing is known to have come of."""
        ...


class Attempt:
    """One call that may enrol, and what it put into the keystore.

    Several may be under way at once for one new subject: the key stays if one of them succeeds.
    """

    def __init__(self) -> None:
        self._names: set[_Name] = set()
        self._undo: list[Callable[[], object]] = []
        self.ended = False

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """What is looked up inside belongs to this attempt, or to the one around it."""
        before = _ATTEMPT.get()
        _ATTEMPT.set(before if before is not None and not before.ended else self)
        try:
            yield
        finally:
            _ATTEMPT.set(before)

    def use(self, keys: TakesBack, subject: str, scope: str) -> SubjectKey:
        """The active key, or a first one that goes with this attempt."""
        try:
            key = keys.current(subject, scope)
        except UnknownSubjectError:
            name = _name(keys, subject, scope)
            with _LOCK:
                _TRIALS.setdefault(name, _Trial(keys)).users.add(self)
                self._names.add(name)
            return keys.current_or_issue(subject, scope)
        self.join(keys, subject, scope)
        return key

    def join(self, keys: object, subject: str, scope: str) -> None:
        """Count as one who uses a key, if that is a first one of an attempt under way."""
        name = _name(keys, subject, scope)
        with _LOCK:
            if name in _TRIALS:
                _TRIALS[name].users.add(self)
                self._names.add(name)

    def undo(self, step: Callable[[], object]) -> None:
        """Have something done if the attempt fails."""
        self._undo.append(step)

    def end(self, error: BaseException | None = None) -> None:
        """Keep what was made, or take it back after an error, which is told of what could not be."""
        self.ended = True
        if error is not None:
            for step in reversed(self._undo):
                _try(step, error)
        self._undo.clear()
        with _LOCK:  # also while a key is taken back: nobody may join in meanwhile
            for name in self._names:
                trial = _TRIALS[name]
                trial.users.discard(self)
                trial.kept = trial.kept or error is None
                if not trial.users:
                    del _TRIALS[name]
                    if not trial.kept and error is not None:
                        _, scope, subject = name
                        _try(lambda keys=trial.keys, it=subject, of=scope: keys.take_back(it, of), error)  # type: ignore[misc]
            self._names.clear()


class _Trial:
    """A first key, and the attempts that use it."""

    def __init__(self, keys: TakesBack) -> None:
        self.keys, self.kept = keys, False
        self.users: set[Attempt] = set()


_ATTEMPT: ContextVar[Attempt | None] = ContextVar("anonymix_attempt", default=None)
_TRIALS: dict[_Name, _Trial] = {}
_LOCK = threading.RLock()


@contextmanager
def attempt() -> Iterator[None]:
    """Take back what the block puts into the keystore if it raises; within another attempt, that one decides."""
    outer = _ATTEMPT.get()
    if outer is not None and not outer.ended:
        yield
        return
    mine = Attempt()
    try:
        with mine.at_work():
            yield
    except BaseException as error:
        mine.end(error)
        raise
    mine.end()


def current_attempt() -> Attempt | None:
    """The attempt that this code is part of."""
    found = _ATTEMPT.get()
    return found if found is not None and not found.ended else None


def first_or_current(keys: Any, subject: str, scope: str) -> SubjectKey:
    """The active key of a subject, or a first one; inside an attempt it goes with that."""
    under_way = current_attempt()
    if under_way is None or not isinstance(keys, TakesBack):
        found: SubjectKey = keys.current_or_issue(subject, scope)
        return found
    return under_way.use(keys, subject, scope)


def _name(keys: object, subject: str, scope: str) -> _Name:
    return id(keys), normalize("NFC", scope), normalize("NFC", subject)


def _try(step: Callable[[], object], error: BaseException) -> None:
    try:
        step()
    except UnknownSubjectError:
        pass  # it is gone already
    except KeystoreError as failed:
        error.add_note(f"What this call had put into the keystore could not be taken back: {failed.what}.")
