"""What callers hand in: taken by its meaning, as the type that the store works with, or refused by name.

Values come from tables, vector stores and frameworks: ``numpy.int64``, ``numpy.str_``, enumerations,
``Markup``, UUIDs, pandas' timestamps. What stands for a value is that value; anything else is an error that
names the parameter and repeats nothing of what was handed in.
"""

from __future__ import annotations

import operator
import os
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

from anonymix_keystore._clock import LAST
from anonymix_keystore._errors import InvalidRequestError

T = TypeVar("T")
_LARGEST = (1 << 63) - 1  # what SQLite keeps as an integer
_LONGEST = 1e9  # seconds: no wait of thirty years is meant


def _refused(name: str, wanted: str, value: object) -> InvalidRequestError:
    return InvalidRequestError(f"{name} must be {wanted}, not {type(value).__name__}", where=name)


def exact(value: str) -> str:
    """The text of a string of any class: a subclass may say something else when it is asked."""
    return value if type(value) is str else str.__str__(value)


def text(value: object, name: str, *, empty: bool = True) -> str:
    """A text, which UTF-8 can write."""
    if not isinstance(value, str):
        raise _refused(name, "a text", value)
    found = exact(value)
    try:
        found.encode()
    except UnicodeEncodeError:
        raise InvalidRequestError(f"{name} holds half a character (a lone surrogate)", where=name) from None
    if not empty and not found:
        raise InvalidRequestError(f"{name} must not be empty", where=name)
    return found


def identifier(value: object, name: str) -> str:
    """An id that a back end gave: a text, or a whole number or UUID, which stand for their text."""
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, str):
        return text(value, name, empty=False)
    if _is_truth(value):
        raise _refused(name, "a text, a whole number or a UUID", value)
    try:
        return str(operator.index(value))  # type: ignore[arg-type]
    except TypeError:
        raise _refused(name, "a text, a whole number or a UUID", value) from None


def whole(value: object, name: str, least: int = -_LARGEST, most: int = _LARGEST) -> int:
    """A whole number, of whatever class; truth values are none."""
    if _is_truth(value):
        raise _refused(name, "a whole number", value)
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise _refused(name, "a whole number", value) from None
    if not least <= number <= most:
        raise InvalidRequestError(f"{name} must be {least} to {most}", where=name)
    return number


def number(value: object, name: str) -> float:
    """A number from 0 to a thousand million."""
    if isinstance(value, str | bytes) or _is_truth(value):
        raise _refused(name, "a number", value)
    try:
        found = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        raise _refused(name, "a number", value) from None
    if not 0 <= found <= _LONGEST:
        raise InvalidRequestError(f"{name} must be 0 to {_LONGEST:.0f}", where=name)
    return found


def _is_truth(value: object) -> bool:
    return isinstance(value, bool) or type(value).__name__ in {"bool", "bool_"}  # Python's, numpy's


def flag(value: object, name: str) -> bool:
    """Yes or no, of Python or numpy; a word is neither."""
    if _is_truth(value):
        return bool(value)
    raise _refused(name, "True or False", value)


def span(value: object, name: str) -> timedelta:
    """A stretch of time."""
    if not isinstance(value, timedelta):
        raise InvalidRequestError(
            f"{name} must be a timedelta, not {type(value).__name__}",
            where=name,
            fix=f"{name}=timedelta(days=...)",
        )
    return timedelta(days=value.days, seconds=value.seconds, microseconds=value.microseconds)


def moment(value: object, name: str) -> int:
    """A date with its time zone, in Unix seconds."""
    fix = f"{name}=datetime(..., tzinfo=timezone.utc)"
    if not isinstance(value, datetime):
        raise InvalidRequestError(f"{name} must be a datetime, not {type(value).__name__}", where=name, fix=fix)
    if value.tzinfo is None or value.utcoffset() is None:
        raise InvalidRequestError(f"{name} needs a time zone", where=name, fix=fix)
    return whole(int(value.timestamp()), name, 0, LAST)


def path(value: object, name: str) -> Path:
    """A path, as a text or a path object."""
    try:
        found = os.fspath(value)  # type: ignore[call-overload]
    except TypeError:
        found = None
    if not isinstance(found, str):
        raise _refused(name, "a path", value)
    try:
        usable = bool(os.fsencode(found)) and "\0" not in found
    except UnicodeEncodeError:
        usable = False
    if not usable:
        raise InvalidRequestError(f"{name} must be a path that the system can have", where=name)
    return Path(exact(found))


def data(value: object, name: str, most: int) -> bytes:
    """Bytes, 1 to ``most`` of them."""
    if not isinstance(value, bytes | bytearray | memoryview):
        raise _refused(name, "bytes", value)
    found = bytes(value)
    if not 0 < len(found) <= most:
        raise InvalidRequestError(f"{name} must be 1 to {most} bytes", where=name)
    return found


def many(value: object, name: str) -> Iterator[Any]:
    """The items of an iterable; a text or bytes would be taken apart into letters."""
    if isinstance(value, str | bytes | bytearray) or not isinstance(value, Iterable):
        raise _refused(name, "a list, or another iterable", value)
    try:
        return iter(value)
    except TypeError:  # numpy's scalars say that they can be iterated over
        raise _refused(name, "a list, or another iterable", value) from None


def function(value: T, name: str) -> T:
    """Something that can be called."""
    if not callable(value):
        raise _refused(name, "a function", value)
    return value


def having(value: T, name: str, wanted: str, *methods: str) -> T:
    """An object that has some methods."""
    if isinstance(value, type) or not all(callable(getattr(value, method, None)) for method in methods):
        raise _refused(name, wanted, value)
    return value


def anchor(value: T, name: str = "anchor") -> T:
    """An anchor."""
    return having(value, name, "an anchor, such as AnchorFile(PATH)", "read", "advance", "revoked")


def unlock(value: T, name: str = "unlock") -> T:
    """A way to unlock."""
    return having(value, name, "a way to unlock, such as PassphraseUnlock(...)", "new_key", "key")


def maybe(take: Callable[..., T], value: object, name: str) -> T | None:
    """What may be left out."""
    return None if value is None else take(value, name)
