"""Which clients are protected, how to undo it, and that none is protected twice.

A client that is protected in place gets a class of its own, made from its class. What `hook` puts there lies
on that class, as data descriptors: nothing in the object's own attributes gets in front of it, assigning to
it is refused, and a copy does not take it along by accident. The class refuses to be copied or pickled.
Networks, of which copies are made all the time, are protected by `swapping` instead: each copy is, too.
"""

from __future__ import annotations

import threading
import types
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Final, NoReturn, TypeVar, cast

from anonymix_adapters.errors import (
    AdapterError,
    BypassError,
    CopiedClientError,
    DoubleProtectionError,
    NotProtectedError,
)
from anonymix_adapters.interceptor import Interceptor
from anonymix_adapters.swapping import swap_back, swapped

T = TypeVar("T")

_OWN: Final = "_anonymix_own_class"
_LOCK = threading.RLock()
_put_in: list[Hooks] = []  # by the `install` that is at work; under the lock


def _always() -> bool:
    return True


@dataclass(frozen=True, eq=False)
class Hooks:
    """What was put into a client.

    Attributes:
        undo: Takes the hooks out again. It is called once, and must bear that somebody else took some out.
        intact: Whether all of them are still in place; asked whenever somebody asks for the client's interceptor.
    """

    undo: Callable[[], object]
    intact: Callable[[], bool] = _always

    @staticmethod
    def together(parts: Iterable[Hooks]) -> Hooks:
        """Several hooks as one; they are undone last in, first out."""
        every = tuple(parts)

        def undo() -> None:
            with ExitStack() as stack:  # all of them, even if one fails
                for part in every:
                    stack.callback(part.undo)

        return Hooks(undo, lambda: all(part.intact() for part in every))


@dataclass(frozen=True, eq=False)
class _Guard:
    """What stands in front of an object, and what was put into it for that."""

    interceptor: Interceptor
    hooks: Hooks


class _Own:
    """What the class of a protected object knows: whose class it is, and what it was before."""

    def __init__(self, target: object, before: type) -> None:
        self.target, self.before = target, before
        self.guard: _Guard | None = None


class _Hook:
    """Answers for an attribute of one object, whatever the object's own `__dict__` says."""

    def __init__(self, own: _Own, name: str, value: Any) -> None:
        self._own, self._name, self._value = own, name, value

    def __get__(self, found: object, _: type | None = None) -> Any:
        if found is not None and found is not self._own.target:
            raise BypassError(
                "this is a copy of a protected object that was made past its own ways of copying",
                where=_place(found, self._name),
                fix="protect it where it is used",
            )
        return self._value

    def __set__(self, found: object, _: object) -> NoReturn:
        raise BypassError(
            "this attribute is the mixer's: with another in its place photos would pass it by",
            where=_place(found, self._name),
            fix="unprotect the object before you change it",
        )

    def __delete__(self, found: object) -> NoReturn:
        self.__set__(found, None)


def hook(target: object, hooks: Mapping[str, Any]) -> Hooks:
    """Put hooks in place of an object's attributes: methods, or anything else.

    The object gets a class of its own. What is put there is found before the object's own attributes, can't
    be assigned to, and is not handed to a copy. Functions are called without `self`; take what they replace
    from the object beforehand. Special methods (`__call__`) can be hooked, too. The object itself can no
    longer be copied or pickled.

    Args:
        target: The object; a model or session inside of the one that `wrap` is given, too.
        hooks: What stands in the place of each attribute.

    Returns:
        What `install` is to return, alone or by `Hooks.together`.

    Raises:
        AdapterError: The object's class can't be exchanged: it is built in.
        DoubleProtectionError: Such a hook is there already, another adapter's or another client's.
    """
    with _LOCK:
        known = _own(target)
        if known is not None and not vars(type(target)).keys().isdisjoint(hooks):
            raise _double(target)
        own = known or _give_class(target)
        kind = type(target)
        put = {name: _Hook(own, name, value) for name, value in hooks.items()}
        for name, value in put.items():
            setattr(kind, name, value)

    def undo() -> None:
        with _LOCK:
            for name, value in put.items():
                if vars(kind).get(name) is value:
                    delattr(kind, name)
            if known is None:
                _take_class(target, own)

    def intact() -> bool:
        return type(target) is kind and all(vars(kind).get(name) is value for name, value in put.items())

    made = Hooks(undo, intact)
    _put_in.append(made)
    return made


def _give_class(target: object) -> _Own:
    before = type(target)
    own = _Own(target, before)
    body = {
        "__slots__": (),
        "__module__": before.__module__,
        "__qualname__": before.__qualname__,
        "__doc__": before.__doc__,
        **dict.fromkeys(("__copy__", "__deepcopy__", "__reduce__", "__reduce_ex__"), _refuse_copies),
        _OWN: own,
    }
    try:
        made = types.new_class(before.__name__, (before,), exec_body=lambda space: space.update(body))
        object.__setattr__(target, "__class__", made)
    except TypeError:
        raise AdapterError("this kind of object can't be protected in place", where=before.__name__) from None
    return own


def _built_in(kind: type) -> AdapterError:
    return AdapterError("this kind of object can't be protected in place", where=kind.__name__)


def _take_class(target: object, own: _Own) -> None:
    if _own(target) is own:
        object.__setattr__(target, "__class__", own.before)


def _own(target: object) -> _Own | None:
    """What the object's class knows, if it is a class that was made for this very object."""
    found = vars(type(target)).get(_OWN)
    return found if isinstance(found, _Own) and found.target is target else None


def _guard(target: object) -> _Guard | None:
    own = _own(target)
    return own.guard if own else None


def _stray(target: object) -> bool:
    """Whether an object has the class of another one, which it was copied from by hand."""
    return isinstance(vars(type(target)).get(_OWN), _Own) and _own(target) is None


def _refuse_copies(self: object, *_: object) -> NoReturn:
    raise CopiedClientError(
        "a protected object can't be copied or pickled: its hooks, and the mixer behind them, are its own",
        where=type(self).__name__,
        fix="copy it before it is protected, and protect the copy where it is used",
    )


# --- objects that stand in ------------------------------------------------------------------------------


class StandIn:
    """Base of objects that stand in for a client which can't be hooked into; `stand_in` makes them.

    Args:
        target: What is protected.
        interceptor: What stands in front of it.
    """

    def __init__(self, target: Any, interceptor: Interceptor) -> None:
        self._target, self._interceptor = target, interceptor

    __reduce_ex__ = _refuse_copies


S = TypeVar("S", bound=StandIn)


def stand_in(target: Any, interceptor: Interceptor, kind: Callable[[Any, Interceptor], S]) -> S:
    """Protect a client by an object that stands in for it, once.

    Args:
        target: The client, or what stands in for it already.
        interceptor: What stands in front of it from now on.
        kind: The class that stands in.

    Raises:
        DoubleProtectionError: Another interceptor stands there.
    """
    if isinstance(target, StandIn):
        if target._interceptor.same_as(interceptor):
            return cast("S", target)
        raise _double(target)
    if interceptor_of(target) is not None:
        raise _double(target)
    return kind(target, interceptor)


def _double(target: object) -> DoubleProtectionError:
    return DoubleProtectionError(
        "this is protected already, by another mixer or in another way; a face is not mixed twice",
        where=type(target).__name__,
        fix="unprotect it first",
    )


# --- protecting -----------------------------------------------------------------------------------------


def interceptor_of(target: object) -> Interceptor | None:
    """The interceptor in front of a client or model; None where there is none.

    There is none in front of a copy that was made by hand, nor where somebody took a hook out or put
    something else in its place.
    """
    if isinstance(target, StandIn):
        return target._interceptor
    swap = swapped(target)
    if swap is not None:
        return swap.interceptor
    guard = _guard(target)
    return guard.interceptor if guard and guard.hooks.intact() else None


def need_interceptor(target: object) -> Interceptor:
    """The interceptor in front of a client or model.

    Raises:
        NotProtectedError: There is none.
    """
    interceptor = interceptor_of(target)
    if interceptor is None:
        raise NotProtectedError(
            "this is not protected, or no longer", where=type(target).__name__, fix="call protect first"
        )
    return interceptor


def wrap(target: T, interceptor: Interceptor, install: Callable[[T], Hooks]) -> T:
    """Protect an object in place, once.

    Args:
        target: The client or model.
        interceptor: What stands in front of it from now on.
        install: Puts the hooks in, best by `hook`, and returns them. It is not called if the same interceptor (same
            mixer, adapter, keys and scope) stands there already.

    Returns:
        The target.

    Raises:
        DoubleProtectionError: Another interceptor stands there.
        CopiedClientError: It is a copy of a protected object, made by hand.
        AdapterError: The object is of a kind that can't be protected in place.
    """
    with _LOCK:
        there = interceptor_of(target)
        if there is not None:
            if there.same_as(interceptor):
                return target
            raise _double(target)
        if _stray(target):
            raise CopiedClientError(
                "this is a copy of a protected object, made by hand; its hooks are the original's",
                where=type(target).__name__,
                fix="protect another one",
            )
        if _guard(target) is not None:
            unwrap(target)  # somebody took hooks out: the rest goes, and all are put in again
        if _own(target) is not None:
            raise _double(target)  # a part of another protected object
        if not hasattr(target, "__dict__"):
            raise _built_in(type(target))
        start = len(_put_in)
        try:
            hooks = install(target)
            own = _own(target) or _give_class(target)
        except BaseException:
            Hooks.together(_put_in[start:]).undo()
            raise
        finally:
            del _put_in[start:]
        mine = Hooks(lambda: _take_class(target, own), lambda: _own(target) is own)
        own.guard = _Guard(interceptor, Hooks.together((mine, hooks)))
    return target


def wrap_class(target: T, interceptor: Interceptor, install: Callable[[T], None]) -> T:
    """Protect an object in place, once, by hooks that its copies have, too.

    Args:
        target: The model.
        interceptor: What stands in front of it from now on.
        install: Swaps the object's class; see `swapping.swap`.

    Returns:
        The target.

    Raises:
        DoubleProtectionError: Another interceptor stands there.
        AdapterError: The object is of a kind that can't be protected in place.
    """
    with _LOCK:
        there = interceptor_of(target)
        if there is None:
            if _own(target) is not None or _stray(target):
                raise _double(target)
            install(target)
        elif not there.same_as(interceptor):
            raise _double(target)
    return target


def unwrap(target: Any) -> Any:
    """Take the hooks out again, or the stand-in away, and return the target as it was.

    Raises:
        NotProtectedError: It is not protected; or it is a copy, made by hand, of an object that is. The
            original stays protected.
    """
    if isinstance(target, StandIn):
        return target._target
    with _LOCK:
        if swapped(target) is not None:
            swap_back(target)
            return target
        guard = _guard(target)
        if guard is None:
            raise NotProtectedError("this is not protected", where=type(target).__name__)
        guard.hooks.undo()
    return target


def _place(found: object, name: str) -> str:
    return f"{type(found).__name__}.{name}"
