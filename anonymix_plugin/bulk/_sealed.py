"""Secrets on their way from the driver to a worker: keys and photos of one block, sealed for it alone (RFC 9180)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, TypeAlias

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from anonymix_keystore import KeyState, SubjectKey, UnknownSubjectError

_SUITE: Final = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
_INFO: Final = b"anonymix/bulk/2/block"

Asked: TypeAlias = Sequence[Any]
"""A row as a worker gets it: place in the block, path or address, subject, scope."""


def seal_block(
    rows: Sequence[Asked],
    keys: Iterable[tuple[str | None, SubjectKey]],
    photos: Mapping[int, Sequence[bytes]],
    public: X25519PublicKey,
) -> bytes:
    """Seal what a block needs for one worker.

    Args:
        rows: What is asked for.
        keys: Each with the subject it was asked for by; None: the gallery key.
        photos: Image files by place, for rows whose photos the worker can't read itself.
        public: The worker's public key.
    """
    told = [[asked, key.subject, key.scope, key.version, key.state.value, key.material.hex()] for asked, key in keys]
    head = {
        "rows": rows,
        "keys": told,
        "photos": [[place, [len(one) for one in several]] for place, several in photos.items()],
    }
    parts = (json.dumps(head).encode(), b"\n", *(one for several in photos.values() for one in several))
    return _SUITE.encrypt(b"".join(parts), public, _INFO)


class BlockKeys:
    """A source of the keys of one block; it meets `KeySource` and holds nothing between two blocks."""

    def __init__(self) -> None:
        self._private = X25519PrivateKey.generate()
        self._keys: dict[tuple[str | None, str], SubjectKey] = {}

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
        head, _, rest = _SUITE.decrypt(sealed, self._private, _INFO).partition(b"\n")
        told = json.loads(head)
        self._keys = {
            (asked, scope): SubjectKey(subject, scope, version, KeyState(state), bytes.fromhex(material))
            for asked, subject, scope, version, state, material in told["keys"]
        }
        photos: dict[int, list[bytes]] = {}
        start = 0
        for place, lengths in told["photos"]:
            for length in lengths:
                photos.setdefault(place, []).append(rest[start : start + length])
                start += length
        return told["rows"], photos

    def forget(self) -> None:
        """Hold no key any more."""
        self._keys = {}

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
