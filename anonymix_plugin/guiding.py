"""What a sealed reference does to a photo: the subject's code is read, or kept, and the photo's is turned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from anonymix_keystore import OutdatedReferenceError, SubjectKey
from anonymix_plugin.errors import DamagedModelError
from anonymix_plugin.first_keys import current_attempt
from anonymix_plugin.keys import KeySource
from anonymix_plugin.mixer.guide import GuidingCurve, guided
from anonymix_plugin.mixer.subspace import Matrix


class ReferenceBook(Protocol):
    """Where references are; `anonymix_keystore.References` meets it."""

    def enabled(self, scope: str = ...) -> bool:
        """Whether a scope keeps references."""
        ...

    def keep(self, key: SubjectKey, data: bytes, *, fingerprint: str, subspace: str, replace: bool = ...) -> bool:
        """Seal a reference for a key's version; False if it has one for this mixer and keeps that."""
        ...

    def read(self, key: SubjectKey, *, fingerprint: str, subspace: str) -> bytes | None:
        """Open the reference of a key's version, None where there is none."""
        ...


@runtime_checkable
class KeepsReferences(Protocol):
    """A source of keys that can keep references; `anonymix_keystore.Keystore` meets it."""

    @property
    def references(self) -> ReferenceBook:
        """The references."""
        ...


@runtime_checkable
class PutsBack(Protocol):
    """References that can be put back; `anonymix_keystore.References` meets it."""

    def put_back(self, key: SubjectKey) -> bool:
        """Undo the last keeping of this object for a subject."""
        ...


@dataclass(frozen=True)
class GuideSettings:
    """How guided faces are made.

    Attributes:
        curve: What becomes of the angle between a photo's code and the reference.
        fingerprint: The mixer fingerprint of guided faces.
        subspace: Hash of the identity subspace.
    """

    curve: GuidingCurve
    fingerprint: str
    subspace: str


class Guide:
    """Turns codes by the references of one source of keys.

    Args:
        settings: How.
        keys: Where references are, if it keeps any.
    """

    def __init__(self, settings: GuideSettings, keys: KeySource) -> None:
        self._settings, self._keys = settings, keys

    def turned(self, person: Matrix, key: SubjectKey, *, enrol: bool, again: bool = False) -> Matrix | None:
        """The code that is drawn, if the key has a reference or gets one.

        At an enrolment, a key without a reference gets the photo's own code for one. One that was made for
        another mixer is replaced. So is any other one with `again`.

        Args:
            person: (d,) float64, length 1, the photo's code.
            key: The key that the face is drawn under.
            enrol: Whether this is an enrolment.
            again: Whether an enrolment replaces the reference.

        Returns:
            (d,) float64, length 1; None where there is no reference and the photo's own code is drawn.

        Raises:
            OriginalsError: The scope keeps references, and the second secret is locked.
            OutdatedReferenceError: A probe's reference was made for another mixer.
            KeyRevokedError: The key was rotated since it was looked up, and this is an enrolment.
        """
        if not key.subject or not isinstance(self._keys, KeepsReferences):
            return None
        book, bound = self._keys.references, self._settings
        named = {"fingerprint": bound.fingerprint, "subspace": bound.subspace}
        data: bytes | None = None
        try:
            data = book.read(key, **named)
        except OutdatedReferenceError:
            if not enrol:
                raise
        if enrol and (data is None or again):
            if not book.enabled(key.scope):
                return None
            data = person.astype("<f8").tobytes()
            if (under_way := current_attempt()) is not None and isinstance(book, PutsBack):
                under_way.undo(lambda: book.put_back(key))
            if not book.keep(key, data, **named, replace=again):
                data = book.read(key, **named)  # another enrolment was faster
        return None if data is None else guided(person, _code(data, len(person)), bound.curve)


def _code(data: bytes, dims: int) -> Matrix:
    """The numbers of a reference, little-endian doubles."""
    if len(data) != 8 * dims:
        raise DamagedModelError(
            f"a reference has {len(data)} bytes, where {dims} numbers are needed",
            fix="enrol the subject again",
        )
    return np.frombuffer(data, "<f8").astype(np.float64)
