"""Where keys come from, and which one is meant."""

from __future__ import annotations

import operator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Protocol

from anonymix_keystore import SubjectKey, UnknownSubjectError
from anonymix_plugin.errors import UsageError
from anonymix_plugin.first_keys import first_or_current


class KeySource(Protocol):
    """Where keys come from: a keystore, or whatever else hands out 256-bit keys by subject and version."""

    def current(self, subject: str, scope: str = ...) -> SubjectKey:
        """Return the active key; raise if there is none."""
        ...

    def current_or_issue(self, subject: str, scope: str = ...) -> SubjectKey:
        """Return the active key, after issuing a first one if there never was one."""
        ...

    def at(self, subject: str, version: int, scope: str = ...) -> SubjectKey:
        """Return the key of one version; raise if it is not usable."""
        ...

    def gallery(self, scope: str = ...) -> SubjectKey:
        """Return the one key of a scope for searches without a claimed identity."""
        ...

    def close(self) -> None:
        """Let go of files and secrets."""
        ...


@dataclass(frozen=True, repr=False)
class KeyChoice:
    """Which key is meant, in values of the plain types, whatever subclasses of them came in.

    Raises:
        UsageError: A value is of another type.
    """

    subject: str | None
    scope: str
    version: int | None
    enrol: bool

    def __post_init__(self) -> None:
        if self.subject is not None:
            object.__setattr__(self, "subject", as_text(self.subject, "subject"))
        object.__setattr__(self, "scope", as_text(self.scope, "scope"))
        if self.version is not None:
            object.__setattr__(self, "version", _as_number(self.version, "version"))
        object.__setattr__(self, "enrol", _as_truth(self.enrol, "enrol"))

    def look_up(self, keys: KeySource) -> SubjectKey:
        """The key, as it is now.

        Raises:
            UsageError: A version is given without a subject.
            KeystoreError: There is no usable key.
        """
        if self.subject is None:
            if self.version is not None:
                raise UsageError("a version is given without a subject", where="version")
            return keys.gallery(self.scope)
        if self.version is not None:
            return keys.at(self.subject, self.version, self.scope)
        if self.enrol:
            return first_or_current(keys, self.subject, self.scope)
        return keys.current(self.subject, self.scope)

    def checked(self, keys: KeySource) -> KeyChoice:
        """The choice of the key that there is, or of a first one that is to be issued; no key is issued yet.

        Raises:
            UsageError, KeystoreError: As for `look_up`.
        """
        if not self.enrol or self.subject is None or self.version is not None:
            self.look_up(keys)
            return self.known
        try:
            keys.current(self.subject, self.scope)
        except UnknownSubjectError:
            return self
        return self.known

    @property
    def known(self) -> KeyChoice:
        """The same for a key that was had a moment ago: it is not issued again."""
        return replace(self, enrol=False) if self.enrol else self


def as_text(value: object, name: str) -> str:
    """A text of exactly the type `str`: tables and enumerations hand on subclasses of it."""
    if not isinstance(value, str):
        raise UsageError(f"it is a text, not a {type(value).__name__}", where=name, fix="give a str")
    return str.__str__(value)


def _as_number(value: object, name: str) -> int:
    """A whole number of exactly the type `int`; those of numpy count, truth values don't."""
    if not isinstance(value, bool):
        with suppress(TypeError):
            return int(operator.index(value))  # type: ignore[arg-type]
    raise UsageError(f"it is a whole number, not a {type(value).__name__}", where=name, fix="give an int")


def _as_truth(value: object, name: str) -> bool:
    kind = type(value).__name__
    if not isinstance(value, str | bytes | float):  # "no" and NaN would be true
        with suppress(TypeError, ValueError):  # an array, or what tables write where nothing is known
            return bool(value)
    raise UsageError(f"it is true or false, not a {kind}", where=name, fix="give a bool")
