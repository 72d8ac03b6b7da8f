"""The values that the keystore hands out."""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import NoReturn


class KeyState(StrEnum):
    """Where a key stands in its life.

    ``ACTIVE`` keys make new templates. ``RETIRED`` keys are for probes alone, until a date.
    ``COMPROMISED`` keys are feared to be in other hands and ``DESTROYED`` ones were revoked or ran
    out; of both the material is erased, and neither ever comes back.
    """

    ACTIVE = "active"
    RETIRED = "retired"
    COMPROMISED = "compromised"
    DESTROYED = "destroyed"


@dataclass(frozen=True, eq=False, repr=False, slots=True)
class SubjectKey:
    """One version of the key of a subject in a scope.

    Equality takes constant time; ``repr`` and ``str`` never show the material; pickling and copying
    are refused, so that key bytes don't travel unnoticed.

    Attributes:
        subject: The subject's id in the host application, "" for the gallery key of a scope.
        scope: The application or gallery that the key belongs to.
        version: 1, 2, ... within subject and scope.
        state: ``ACTIVE`` or ``RETIRED``; keys in other states are never handed out.
        material: 32 random bytes.
    """

    subject: str
    scope: str
    version: int
    state: KeyState
    material: bytes

    def __repr__(self) -> str:
        return f"SubjectKey({self.subject!r}, scope={self.scope!r}, version={self.version}, {self.state.value})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SubjectKey):
            return NotImplemented
        same_name = (self.subject, self.scope, self.version) == (other.subject, other.scope, other.version)
        return hmac.compare_digest(self.material, other.material) and same_name

    def __hash__(self) -> int:
        return hash((self.subject, self.scope, self.version))

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a SubjectKey can't be pickled or copied")


@dataclass(frozen=True, slots=True)
class KeyInfo:
    """What may be shown of a key: everything but its material.

    Attributes:
        subject: The subject's id, "" for a gallery key.
        scope: The scope.
        version: 1, 2, ...
        state: The state as of now; a retired key whose date has passed still says ``RETIRED``.
        created: When it was issued (UTC).
        until: For a retired key the date (UTC) until which probes may use it, else ``None``.
        ended: When it was retired, compromised or destroyed (UTC), else ``None``.
        alias: The random name (32 hex digits) under which the audit trail speaks of the subject.
        wrap_version: Version of the wrapping key it is stored under, 0 when erased.
    """

    subject: str
    scope: str
    version: int
    state: KeyState
    created: datetime
    until: datetime | None
    ended: datetime | None
    alias: str
    wrap_version: int
