"""Which clients are protected, how to undo it, and that none is protected twice."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn, Self, TypeVar, cast

from anonymix_adapters.errors import AdapterError, DoubleProtectionError, NotProtectedError
from anonymix_adapters.gate import Gate

T = TypeVar("T")

_ATTRIBUTE = "_anonymix_guard"
_LOCK = threading.RLock()


@dataclass(frozen=True, eq=False)
class _Guard:
    """Lies on the protected object itself, so that the two go out of use together."""

    gate: Gate
    undo: Callable[[], object]

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self  # a copied model keeps its hooks, and so its mixer

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError(
            "a protected client can't be pickled: its mixer holds keys; protect it where it is used"
        )


class StandIn:
    """Base of objects that stand in for a client which can't be hooked into; `stand_in` makes them.

    Args:
        target: What is protected.
        gate: What stands in front of it.
    """

    def __init__(self, target: Any, gate: Gate) -> None:
        self._target, self._gate = target, gate


S = TypeVar("S", bound=StandIn)


def stand_in(target: Any, gate: Gate, kind: Callable[[Any, Gate], S]) -> S:
    """Protect a client by an object that stands in for it, once.

    Args:
        target: The client, or what stands in for it already.
        gate: What stands in front of it from now on.
        kind: The class that stands in.

    Raises:
        DoubleProtectionError: Another gate stands there.
    """
    if isinstance(target, StandIn):
        if target._gate.same_as(gate):
            return cast("S", target)
        raise _double(target)
    if gate_of(target) is not None:
        raise _double(target)
    return kind(target, gate)


def _double(target: object) -> DoubleProtectionError:
    return DoubleProtectionError(
        "this is protected already, by another mixer or in another way; a face is not mixed twice",
        where=type(target).__name__,
        fix="unprotect it first",
    )


def gate_of(target: object) -> Gate | None:
    """The gate in front of a client or model, or None where there is none."""
    if isinstance(target, StandIn):
        return target._gate
    guard = _guard(target)
    return guard.gate if guard else None


def need_gate(target: object) -> Gate:
    """The gate in front of a client or model.

    Raises:
        NotProtectedError: There is none.
    """
    gate = gate_of(target)
    if gate is None:
        raise NotProtectedError(
            "this is not protected", where=type(target).__name__, fix="call protect first"
        )
    return gate


def wrap(target: T, gate: Gate, install: Callable[[T], Callable[[], object]]) -> T:
    """Protect an object in place, once.

    Args:
        target: The client or model.
        gate: What stands in front of it from now on.
        install: Puts the hooks in and returns a function that takes them out again. It is not called
            if the same gate (same mixer, adapter, keys and scope) stands there already.

    Returns:
        The target.

    Raises:
        DoubleProtectionError: Another gate stands there.
        AdapterError: The object takes no attributes, so that it can't be protected in place.
    """
    with _LOCK:
        there = gate_of(target)
        if there is not None:
            if there.same_as(gate):
                return target
            raise _double(target)
        if not hasattr(target, "__dict__"):
            raise AdapterError("this kind of object can't be protected in place", where=type(target).__name__)
        vars(target)[_ATTRIBUTE] = _Guard(gate, install(target))
    return target


def unwrap(target: Any) -> Any:
    """Take the hooks out again, or the stand-in away, and return the target as it was.

    Raises:
        NotProtectedError: It is not protected.
    """
    if isinstance(target, StandIn):
        return target._target
    with _LOCK:
        guard = _guard(target)
        if guard is None:
            raise NotProtectedError("this is not protected", where=type(target).__name__)
        guard.undo()
        del vars(target)[_ATTRIBUTE]
    return target


def _guard(target: object) -> _Guard | None:
    found = getattr(target, "__dict__", {}).get(_ATTRIBUTE)
    return found if isinstance(found, _Guard) else None
