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


@dataclass(frozen=True, slots=True)
class EnrolmentInfo:
    """One entry of a back end.

    Attributes:
        entry: Stable name of the record, 64 hex digits.
        subject: The subject's id.
        scope: The scope of the key.
        adapter: Name of the adapter.
        collection: The back end's collection, gallery or index.
        external_id: The entry's id in the back end.
        version: Version of the key that it was made with.
        fingerprint: Mixer fingerprint that it was made with.
        gallery: Whether it was made with the scope's gallery key.
        created: When it was recorded (UTC).
        current_version: The version that new templates get now, 0 if there is no active key.
        delete: Whether the entry is still to be deleted from the back end.
        enrol: Whether the subject is still to be enrolled again there.
        why: ``"retired"``, ``"compromised"``, ``"destroyed"``, ``"mixer"``, or "" if nothing is due.
    """

    entry: str
    subject: str
    scope: str
    adapter: str
    collection: str
    external_id: str
    version: int
    fingerprint: str
    gallery: bool
    created: datetime
    current_version: int
    delete: bool
    enrol: bool
    why: str


@dataclass(frozen=True, slots=True)
class NewEnrolment:
    """An entry that a back end holds, to be written down.

    Attributes:
        subject: Whose face it is.
        scope: The scope of the key.
        adapter: Name of the adapter.
        collection: The back end's collection.
        external_id: The entry's id in the back end; a number or a UUID stands for its text.
        version: Version of the key used; must be the active one.
        fingerprint: Mixer fingerprint used.
        gallery: Whether the gallery key of the scope was used.
    """

    subject: str
    scope: str
    adapter: str
    collection: str
    external_id: str
    version: int
    fingerprint: str
    gallery: bool = False


@dataclass(frozen=True, slots=True)
class ForgetReceipt:
    """What was erased about a person, and the proof of it.

    Attributes:
        aliases: The random names (32 hex digits) under which the audit trail spoke of the person.
            Nothing links them to the person any more, except this receipt.
        scopes: Scopes in which the person was known.
        keys: Key versions erased, living or not.
        enrolments: Enrolment records erased.
        originals: Sealed originals erased.
        references: Sealed references erased.
        entries: Entries that are still in back ends and must be deleted there: the records of them
            are gone, so this receipt is the last list of them.
        epoch: Number of the audit line that attests it.
        code: Chain code of that line, hex.
        time: When (UTC).
        rows_left: Rows about the person found afterwards; 0.
        traces_left: How many of the person's tags, aliases and wrapped keys are still found as bytes
            in the file, or may be in its write-ahead log; 0 unless somebody who was reading kept the
            log from being emptied (``Keystore.unscrubbed`` tells when it is), or the file could not be
            read again.
        damaged: Rows among those erased that failed authentication; `anonymix keys verify` goes on telling
            of them.
        unlisted: Entries that may be in back ends still and can't be named, since their records were
            damaged. Look for the person there.
    """

    aliases: tuple[str, ...]
    scopes: tuple[str, ...]
    keys: int
    enrolments: int
    originals: int
    references: int
    entries: tuple[EnrolmentInfo, ...]
    epoch: int
    code: str
    time: datetime
    rows_left: int
    traces_left: int
    damaged: int = 0
    unlisted: int = 0

    @property
    def clean(self) -> bool:
        """Whether nothing is left in the store."""
        return self.rows_left == 0 and self.traces_left == 0
