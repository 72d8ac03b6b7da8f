"""Secrets on their way between driver and worker: those of one block, sealed for the other side alone (RFC 9180)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from anonymix_keystore import KeyState, SubjectKey, UnknownSubjectError

_SUITE: Final = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
_BLOCK: Final = b"anonymix/bulk/3/block"
_REFERENCE: Final = b"anonymix/bulk/3/reference"

Asked: TypeAlias = Sequence[Any]
"""A row as a worker gets it: place in the block, path or address, subject, scope, whether it enrols."""

Name: TypeAlias = tuple[str, str]
"""Subject and scope, as the keystore has them."""


@dataclass(frozen=True)
class Secrets:
    """What a worker gets to know for a block.

    Attributes:
        keys: Keys by the subject and the scope that they were asked for by; None: the gallery key.
        photos: Image files by place, for rows whose photos the worker can't read itself.
        references: Sealed references, opened, in scopes that keep them; None: the subject has none yet.
        reply: The driver's public key, which references that a worker makes are sealed for.
        scopes: Whether scopes keep references; the worker is not told.
    """

    keys: dict[tuple[str | None, str], SubjectKey] = field(default_factory=dict)
    photos: dict[int, Sequence[bytes]] = field(default_factory=dict)
    references: dict[Name, bytes | None] = field(default_factory=dict)
    reply: bytes = b""
    scopes: dict[str, bool] = field(default_factory=dict)


def seal_block(rows: Sequence[Asked], secrets: Secrets, public: X25519PublicKey) -> bytes:
    """Seal what a block needs for one worker.

    Args:
        rows: What is asked for.
        secrets: What it takes.
        public: The worker's public key.
    """
    photos = secrets.photos
    head = {
        "rows": rows,
        "keys": [
            [asked, key.subject, scope, key.version, key.state.value, key.material.hex()]
            for (asked, scope), key in secrets.keys.items()
        ],
        "references": [
            [*name, None if reference is None else reference.hex()] for name, reference in secrets.references.items()
        ],
        "reply": secrets.reply.hex(),
        "photos": [[place, [len(one) for one in several]] for place, several in photos.items()],
    }
    parts = (json.dumps(head).encode(), b"\n", *(one for several in photos.values() for one in several))
    return _SUITE.encrypt(b"".join(parts), public, _BLOCK)


@dataclass(frozen=True)
class Made:
    """A reference that an enrolment made.

    Attributes:
        name: Whose.
        version: Version of the key that it belongs to.
        replace: Whether it takes the place of one that is there.
        data: The reference.
    """

    name: Name
    version: int
    replace: bool
    data: bytes = field(repr=False)

    def sealed(self, public: bytes) -> bytes:
        """It, for the driver alone."""
        head = json.dumps([*self.name, self.version, self.replace]).encode()
        return _SUITE.encrypt(head + b"\n" + self.data, X25519PublicKey.from_public_bytes(public), _REFERENCE)

    @classmethod
    def opened(cls, sealed: bytes, private: X25519PrivateKey) -> Made:
        """One that a worker sealed.

        Raises:
            cryptography.exceptions.InvalidTag: It was sealed for another driver, or is damaged.
        """
        head, _, data = _SUITE.decrypt(sealed, private, _REFERENCE).partition(b"\n")
        subject, scope, version, replace = json.loads(head)
        return cls((subject, scope), version, replace, data)


class BlockReferences:
    """The references of one block, in the memory of a worker; it meets `ReferenceBook`."""

    def __init__(self) -> None:
        self._known: dict[Name, bytes | None] = {}
        self._made: dict[Name, tuple[Made, bytes | None]] = {}
        self._reply = b""

    def take(self, known: Mapping[Name, bytes | None], reply: bytes) -> None:
        """Know those of the next block alone."""
        self._known, self._made, self._reply = dict(known), {}, reply

    def made(self, key: SubjectKey) -> bytes:
        """The reference that was made for a key since the last time, sealed for the driver; b"" if none was."""
        made = self._made.pop((key.subject, key.scope), None)
        return b"" if made is None else made[0].sealed(self._reply)

    def enabled(self, scope: str = "default") -> bool:
        """Whether a scope of the block keeps references."""
        return any(known == scope for _, known in self._known)

    def read(self, key: SubjectKey, **_: str) -> bytes | None:
        """The reference of a key's subject."""
        return self._known.get((key.subject, key.scope))

    def keep(self, key: SubjectKey, data: bytes, *, replace: bool = True, **_: str) -> bool:
        """Remember a reference until the driver gets it."""
        name = (key.subject, key.scope)
        self._made[name] = (Made(name, key.version, replace, data), self._known.get(name))
        self._known[name] = data
        return True

    def put_back(self, key: SubjectKey) -> bool:
        """Undo the last keeping for a subject."""
        name = (key.subject, key.scope)
        made = self._made.pop(name, None)
        if made is not None:
            self._known[name] = made[1]
        return made is not None


class BlockKeys:
    """A source of the keys of one block; it meets `KeySource` and holds nothing between two blocks."""

    def __init__(self) -> None:
        self._private = X25519PrivateKey.generate()
        self._keys: dict[tuple[str | None, str], SubjectKey] = {}
        self.references = BlockReferences()

    @property
    def public(self) -> bytes:
        """The public key that bundles are sealed for, 32 bytes."""
        return self._private.public_key().public_bytes_raw()

    def take(self, sealed: bytes) -> tuple[list[Asked], dict[int, list[bytes]]]:
        """Open the bundle of the next block; the keys of the last one are forgotten.

        Returns:
            The rows, and the photos by place.

        Raises:
            cryptography.exceptions.InvalidTag: It was sealed for another worker, or is damaged.
        """
        head, _, rest = _SUITE.decrypt(sealed, self._private, _BLOCK).partition(b"\n")
        told = json.loads(head)
        self._keys = {
            (asked, scope): SubjectKey(subject, scope, version, KeyState(state), bytes.fromhex(material))
            for asked, subject, scope, version, state, material in told["keys"]
        }
        self.references.take(
            {
                (subject, scope): None if data is None else bytes.fromhex(data)
                for subject, scope, data in told["references"]
            },
            bytes.fromhex(told["reply"]),
        )
        photos: dict[int, list[bytes]] = {}
        start = 0
        for place, lengths in told["photos"]:
            for length in lengths:
                photos.setdefault(place, []).append(rest[start : start + length])
                start += length
        return told["rows"], photos

    def forget(self) -> None:
        """Hold no key and no reference any more."""
        self._keys = {}
        self.references.take({}, b"")

    def made(self, subject: str | None, scope: str) -> bytes:
        """The reference that was made for a subject since the last time, sealed for the driver; b"" if none was."""
        return self.references.made(self._get(subject, scope))

    def current(self, subject: str, scope: str = "default") -> SubjectKey:
        """The subject's active key, if it is in the bundle."""
        return self._get(subject, scope)

    current_or_issue = current

    def gallery(self, scope: str = "default") -> SubjectKey:
        """The gallery key of the scope, if it is in the bundle."""
        return self._get(None, scope)

    def at(self, subject: str, version: int, scope: str = "default") -> SubjectKey:
        """The subject's active key, if that is the version."""
        key = self._get(subject, scope)
        if key.version != version:
            raise UnknownSubjectError("this version is not in the block")
        return key

    def close(self) -> None:
        """Hold no key any more."""
        self.forget()

    def _get(self, subject: str | None, scope: str) -> SubjectKey:
        try:
            return self._keys[subject, scope]
        except KeyError:
            raise UnknownSubjectError("this key is not in the block") from None
