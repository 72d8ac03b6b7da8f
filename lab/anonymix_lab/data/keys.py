"""Keys for evaluation: the same at every run, from a seed, and never from a keystore of real people."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from types import MappingProxyType

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from anonymix_keystore import KeyState, OutdatedReferenceError, SubjectKey

SHARED_SCOPE = "everybody"

GUIDED_SCOPE = "guided"
"""A scope whose name ends like this keeps references."""


class SeededReferences:
    """References in memory: what the sealed ones of a keystore are to the mixer."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, str], tuple[bytes, Mapping[str, str]]] = {}

    def enabled(self, scope: str = "default") -> bool:
        """Whether a scope keeps references."""
        return scope.endswith(GUIDED_SCOPE)

    def keep(self, key: SubjectKey, data: bytes, *, fingerprint: str, subspace: str, replace: bool = True) -> bool:
        """Keep a reference; False if there is one for this mixer, and it is not to be replaced."""
        bound = MappingProxyType({"fingerprint": fingerprint, "subspace": subspace})
        if not replace and self._kept.get((key.scope, key.subject), (b"", {}))[1] == bound:
            return False
        self._kept[key.scope, key.subject] = data, bound
        return True

    def read(self, key: SubjectKey, *, fingerprint: str, subspace: str) -> bytes | None:
        """Return a reference, None where there is none.

        Raises:
            OutdatedReferenceError: It was made for another mixer.
        """
        data, bound = self._kept.get((key.scope, key.subject), (None, {}))
        if data is not None and bound != {"fingerprint": fingerprint, "subspace": subspace}:
            raise OutdatedReferenceError("the reference was made for another mixer")
        return data


class SeededKeys:
    """Meets `KeySource` with keys that anybody can make again: for measuring, never for protecting.

    In a scope whose name begins with "everybody" all subjects have the same key: the worst case, in which
    one person's token is in use for all.

    Args:
        seed: Names the set of keys.
    """

    def __init__(self, seed: int) -> None:
        self._seed = hashlib.sha256(f"anonymix evaluation {seed}".encode()).digest()
        self.references = SeededReferences()

    def at(self, subject: str, version: int, scope: str = "default") -> SubjectKey:
        """Return the key of a version."""
        owner = "everybody" if scope.startswith(SHARED_SCOPE) else f"subject {subject}"
        info = f"{scope}\0{owner}\0{version}".encode()
        material = HKDF(hashes.SHA256(), 32, None, info).derive(self._seed)
        return SubjectKey(subject, scope, version, KeyState.ACTIVE, material)

    def current(self, subject: str, scope: str = "default") -> SubjectKey:
        """Return version 1."""
        return self.at(subject, 1, scope)

    def current_or_issue(self, subject: str, scope: str = "default") -> SubjectKey:
        """Return version 1."""
        return self.current(subject, scope)

    def gallery(self, scope: str = "default") -> SubjectKey:
        """Return the key for searches in a scope."""
        return self.at("", 1, scope)

    def close(self) -> None:
        """Do nothing; there is nothing to close."""
