"""Objects protected in place by a class of their own, a subclass of the one they had.

Hooks that lie on an object close over it: a copy of the object then runs the original. Hooks of a class do
not: each copy hooks itself, is protected as the original is, and can be unprotected by itself.
"""

from __future__ import annotations

import inspect
import threading
import types
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn, TypeAlias

from anonymix_adapters.errors import AdapterError, BypassError, CopiedClientError
from anonymix_adapters.interceptor import Interceptor

Hooks: TypeAlias = Mapping[str, Callable[..., Any]]
"""What stands in place of an object's methods; each takes the object as its first argument."""

_SWAP = "_anonymix_swap"
_SELF = "_anonymix_self"


class Inside(threading.local):
    """In which protected objects this very thread is at work.

    Nothing inherits it: no thread, no task and no generator that is started inside. Nothing may be awaited or
    yielded inside.
    """

    def __init__(self) -> None:
        self._interceptors: list[Interceptor] = []

    @contextmanager
    def of(self, interceptor: Interceptor) -> Iterator[None]:
        """Do a block's work inside what the interceptor protects."""
        self._interceptors.append(interceptor)
        try:
            yield
        finally:
            self._interceptors.pop()

    def __contains__(self, interceptor: Interceptor) -> bool:
        return any(it is interceptor for it in self._interceptors)


INSIDE = Inside()


@dataclass(frozen=True, eq=False)
class Swap:
    """What a class that protects its objects knows.

    Attributes:
        interceptor: What stands in front of them.
        plain: The class that they had.
        names: The methods that are hooked.
        again: Protects a copy that the class's own way of copying made as a plain one.
        undo: Takes out of an object, and of its parts, what was put there besides.
    """

    interceptor: Interceptor
    plain: type
    names: frozenset[str]
    again: Callable[[Any], object]
    undo: Callable[[Any], object]


def swapped(target: object) -> Swap | None:
    """What an object's class knows, or None where it protects nothing."""
    found = getattr(type(target), _SWAP, None)
    return found if isinstance(found, Swap) else None


def swap(
    target: Any,
    interceptor: Interceptor,
    hooks: Hooks,
    *,
    again: Callable[[Any], object],
    undo: Callable[[Any], object] = lambda _: None,
) -> None:
    """Give an object a subclass of its class that has the hooks in place of its methods.

    The hooked methods can't be replaced, the object can't be pickled, and its copies are protected.

    Args:
        target: The object.
        interceptor: What stands in front of it.
        hooks: By the name of a method, what stands in its place.
        again: Protects a copy that the class's own way of copying made as a plain one.
        undo: Takes out of an object, and of its parts, what was put there besides.

    Raises:
        AdapterError: The object's class can't be exchanged.
    """
    plain: Any = type(target)
    names = frozenset(hooks)

    def copied(way: str) -> Callable[..., Any]:
        def copy(it: Any, *memo: Any) -> Any:
            made = getattr(plain, way)(it, *memo)
            if swapped(made) is None:
                again(made)
            return made

        return copy

    def reduced(it: Any, protocol: Any) -> Any:
        found = plain.__reduce_ex__(it, protocol)
        if isinstance(found, str):
            raise _no_pickle(plain)
        return (_Rebuilt(found[0], plain, again), *found[1:])

    def replaced(it: Any, name: str, value: Any) -> None:
        if name == "__class__" or name in names:
            raise _no_replacing(plain, name)
        plain.__setattr__(it, name, value)

    body: dict[str, Any] = {way: copied(way) for way in ("__copy__", "__deepcopy__") if hasattr(plain, way)}
    body |= {name: _Hook(name, plain, call) for name, call in hooks.items()}
    body |= {
        "__reduce_ex__": reduced,
        "__setattr__": replaced,
        "__module__": plain.__module__,
        "__qualname__": plain.__qualname__,
        "__doc__": plain.__doc__,
        _SWAP: Swap(interceptor, plain, names, again, undo),
    }
    sealed = type("Sealed", (_Sealed, type(plain)), {}) if type(plain) is not type else _Sealed
    try:
        kind = types.new_class(plain.__name__, (plain,), {"metaclass": sealed}, lambda it: it.update(body))
        object.__setattr__(target, "__class__", kind)
        vars(target)[_SELF] = target  # a deep copy refers to itself here, a shallow one to what it shares with
    except TypeError as error:
        raise AdapterError(
            "this kind of object can't be protected in place: its class can't be exchanged",
            where=plain.__name__,
        ) from error


def swap_back(target: Any) -> None:
    """Give an object the class back that it had.

    Copies of it stay as they are. What a shallow copy shares with the original is the original's, and stays
    protected, too.
    """
    found = swapped(target)
    if found is not None:
        object.__setattr__(target, "__class__", found.plain)
        if vars(target).pop(_SELF, None) is target:
            found.undo(target)


def plainly(target: Any, name: str) -> Callable[..., Any]:
    """A hooked method of an object as it is behind the hook."""
    own = vars(target).get(name)
    if own is not None:
        return own  # type: ignore[no-any-return]
    found = swapped(target)
    plain: Any = type(target) if found is None else found.plain
    try:
        call = inspect.getattr_static(plain, name)
        return call.__get__(target, plain) if hasattr(call, "__get__") else call  # type: ignore[no-any-return]
    except AttributeError:  # a class that finds its methods in another way, as torch's script modules do
        return plain.__getattr__(target, name)  # type: ignore[no-any-return]


def with_subject(original: Callable[..., Any], *, bound: bool = False) -> inspect.Signature | None:
    """The signature of a call with a further argument `subject`; None where it can't be told."""
    try:
        found = inspect.signature(original)
    except (TypeError, ValueError):
        return None
    parameters = list(found.parameters.values())
    if bound:
        parameters.insert(0, inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD))
    if "subject" not in found.parameters:
        further = inspect.Parameter("subject", inspect.Parameter.KEYWORD_ONLY, default=None)
        last = bool(parameters) and parameters[-1].kind is inspect.Parameter.VAR_KEYWORD
        parameters.insert(len(parameters) - last, further)
    return found.replace(parameters=parameters)


class _Sealed(type):
    """The class of classes that protect: their hooks can't be replaced."""

    def __setattr__(cls, name: str, value: Any) -> None:
        found = vars(cls).get(_SWAP)
        if isinstance(found, Swap) and (name == _SWAP or name in found.names):
            raise _no_replacing(found.plain, name)
        super().__setattr__(name, value)


class _Hook:
    """A method that an attribute of the object's own does not hide."""

    def __init__(self, name: str, plain: type, call: Callable[..., Any]) -> None:
        original = getattr(plain, name, None)
        if callable(original):
            for text in ("__name__", "__qualname__", "__doc__", "__module__"):
                setattr(call, text, getattr(original, text, getattr(call, text)))
            signature = with_subject(original)
            if signature is not None:
                call.__signature__ = signature  # type: ignore[attr-defined]
        self._name, self._plain, self._call = name, plain, call

    def __get__(self, target: Any, owner: type | None = None) -> Any:
        return self._call if target is None else types.MethodType(self._call, target)

    def __set__(self, target: Any, value: Any) -> NoReturn:
        raise _no_replacing(self._plain, self._name)

    def __delete__(self, target: Any) -> NoReturn:
        raise _no_replacing(self._plain, self._name)


class _Rebuilt:
    """Rebuilds a copy and sees that it is protected; it can't be pickled itself, so that nothing else can."""

    def __init__(self, build: Callable[..., Any], plain: type, again: Callable[[Any], object]) -> None:
        self._build, self._plain, self._again = build, plain, again

    def __call__(self, *args: Any) -> Any:
        made = self._build(*args)
        if swapped(made) is None:
            self._again(made)
        return made

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise _no_pickle(self._plain)


def _no_pickle(plain: type) -> CopiedClientError:
    return CopiedClientError(
        "what is protected can't be pickled or saved whole: its mixer holds keys, and what is loaded again "
        "would be unprotected",
        where=plain.__name__,
        fix="save its weights alone (for torch: state_dict()), and protect it where it is used",
    )


def _no_replacing(plain: type, name: str) -> BypassError:
    return BypassError(
        f"{name} of a protected object can't be replaced: nothing would be mixed any more",
        where=plain.__name__,
        fix="unprotect it, replace it, and protect it again",
    )
