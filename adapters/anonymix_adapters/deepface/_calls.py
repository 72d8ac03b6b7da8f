"""DeepFace's functions under their own signatures, so that an option counts wherever it stands in a call."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from anonymix_plugin.first_keys import attempt


@dataclass(frozen=True)
class Call:
    """A call of one of DeepFace's functions, bound to the signature of the installed version.

    Attributes:
        function: DeepFace's own function.
        bound: The arguments, the defaults of those that were left out included.
        subject: Whose face it is, if the call says so.
    """

    function: Callable[..., Any]
    bound: inspect.BoundArguments
    subject: str | None

    def __getitem__(self, name: str) -> Any:
        """An argument by its name; None where this version has none of that name."""
        return self.bound.arguments.get(name)

    def run(self, **changed: Any) -> Any:
        """Call DeepFace, with some arguments exchanged; those that this version has not are left out."""
        bound = inspect.BoundArguments(self.bound.signature, self.bound.arguments.copy())
        known = self.bound.signature.parameters
        bound.arguments.update((name, value) for name, value in changed.items() if name in known)
        return self.function(*bound.args, **bound.kwargs)


class Wrapped:
    """A method that takes what DeepFace's function of the same name takes, and `subject` besides."""

    def __init__(self, work: Callable[[Any, Call], Any]) -> None:
        self._work = work
        self.__doc__ = work.__doc__

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        if instance is None:
            return self
        name = self._work.__name__
        original = getattr(instance._target, name, None)
        if original is None:
            raise AttributeError(f"this version of DeepFace has no function {name}")
        signature = inspect.signature(original)

        @functools.wraps(self._work)
        def call(*args: Any, subject: str | None = None, **options: Any) -> Any:
            bound = signature.bind(*args, **options)
            bound.apply_defaults()
            with attempt():  # an enrolment that fails leaves no first key behind
                return self._work(instance, Call(original, bound, subject))

        extra = inspect.Parameter("subject", inspect.Parameter.KEYWORD_ONLY, default=None)
        call.__signature__ = signature.replace(  # type: ignore[attr-defined]
            parameters=[*signature.parameters.values(), extra]
        )
        return call
