"""The keystore's cryptography: field encoding, sealing with key commitment, the key hierarchy.

Primitives are those of the ``cryptography`` package and ``hmac`` of the standard library:
HKDF-SHA256 (RFC 5869), AES-256-GCM (NIST SP 800-38D), HMAC-SHA256 and HMAC-SHA512 (FIPS 198-1).
"""

from __future__ import annotations

import functools
import hmac
import secrets
from collections.abc import Iterable, Sequence
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hmac import HMAC
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from anonymix_keystore._errors import DamagedError, TruncatedError, WrongContextError, WrongKeyError

KEY_BYTES = 32
SEAL_FORMAT = 1
_FORMAT = bytes((SEAL_FORMAT,))
_SALT, _COMMITMENT, _BINDING, _NONCE, _TAG = 32, 32, 16, 12, 16
SEAL_OVERHEAD = 1 + _SALT + _COMMITMENT + _BINDING + _TAG
_LABEL = b"anonymix/keystore/1/"
_SEAL = _LABEL + b"seal"
_PARTS = KEY_BYTES + _NONCE + _COMMITMENT + KEY_BYTES
_SHA256 = hashes.SHA256()

_number = int.from_bytes  # big-endian

Field = int | str | bytes | None
Columns = Sequence[Sequence[Any]]  # of rows: their first fields, their second ones, and so on


def encode(fields: Iterable[Field]) -> bytes:
    """Encode fields so that no two different lists give the same bytes.

    Bytes become ``b<length>:<bytes>``, text ``s<length>:<UTF-8>``, integers ``i<decimal>;``, and
    none is ``n``.

    Raises:
        TypeError: A field of another type (as a damaged database record can hold).
    """
    values: list[Any] = list(fields)
    # All rows of a table have the same few shapes; putting a shape together once and filling it in
    # takes a third of the time of going through the fields one by one.
    template, special = _template(tuple(map(type, values)))
    for place, kind in special:
        if kind is None:
            del values[place]
        else:
            if kind is str:
                values[place] = values[place].encode()
            values.insert(place, len(values[place]))
    return template % tuple(values)


@functools.lru_cache(maxsize=256)
def _template(kinds: tuple[type, ...]) -> tuple[bytes, tuple[tuple[int, type | None], ...]]:
    """The format of a list of fields, and the places that need care, the last one first."""
    parts: list[bytes] = []
    special: list[tuple[int, type | None]] = []
    for place, kind in enumerate(kinds):
        if kind is bytes:
            parts.append(b"b%d:%b")
            special.append((place, bytes))
        elif issubclass(kind, int):
            parts.append(b"i%d;")
        elif kind is str:
            parts.append(b"s%d:%b")
            special.append((place, str))
        elif kind is type(None):
            parts.append(b"n")
            special.append((place, None))
        else:
            raise TypeError(f"a field can't be a {kind.__name__}")
    return b"".join(parts), tuple(reversed(special))


def encode_all(columns: Columns) -> list[bytes]:
    """Encode many lists of fields, given column by column: ``encode`` of each row, at half its cost.

    Args:
        columns: The first fields of all lists, the second ones, and so on.

    Raises:
        TypeError: A field of another type.
    """
    parts: list[bytes] = []
    fillings: list[Iterable[Any]] = []
    for column in columns:
        kinds = set(map(type, column))
        if kinds == {bytes}:
            lengths = list(map(len, column))
            if len(set(lengths)) == 1:  # what is the same in all rows is put together once
                parts.append(b"b%d:%%b" % lengths[0])
            else:
                parts.append(b"b%d:%b")
                fillings.append(lengths)
            fillings.append(column)
        elif kinds and all(issubclass(kind, int) for kind in kinds):
            if fillings and len(set(column)) == 1:
                parts.append(b"i%d;" % column[0])
            else:
                parts.append(b"i%d;")
                fillings.append(column)
        elif fillings and kinds == {type(None)}:
            parts.append(b"n")
        else:  # text, or several kinds in one column
            return [encode(row) for row in zip(*columns, strict=True)]
    return list(map(b"".join(parts).__mod__, zip(*fillings, strict=True)))


def derive(key: bytes, salt: bytes, label: str, length: int = KEY_BYTES) -> bytes:
    """Derive a key for one purpose by HKDF-SHA256 (RFC 5869)."""
    return HKDF(_SHA256, length, salt, _LABEL + label.encode()).derive(key)


def _parts(key: bytes, salt: bytes) -> tuple[bytes, bytes, bytes, bytes]:
    okm = HKDF(_SHA256, _PARTS, salt, _SEAL).derive(key)
    return okm[:32], okm[32:44], okm[44:76], okm[76:108]


def seal(key: bytes, plaintext: bytes, context: bytes, *, salt: bytes | None = None) -> bytes:
    """Seal a value under a key, bound to the context that it may be opened in.

    Layout: format (1 byte), salt (32), key commitment (32), context binding (16), AES-256-GCM
    ciphertext, tag (16). Encryption key, nonce and commitment come from the key and a fresh salt by
    HKDF, so there is no limit on messages per key short of 2**128, and a value opens under one key
    only (the commitment is a collision-resistant hash of it, as in the AWS Encryption SDK). The
    binding tells a moved value from a damaged one; security rests on the associated data.

    Args:
        key: 32 bytes.
        plaintext: What to seal.
        context: Encoded facts that must be the same on opening.
        salt: For test vectors alone.
    """
    return _sealed(key, secrets.token_bytes(_SALT) if salt is None else salt, plaintext, context)


def seal_all(key: bytes, plaintexts: Iterable[bytes], contexts: Sequence[bytes]) -> list[bytes]:
    """Seal many values under one key, each with a salt of its own."""
    salts = random_values(len(contexts), _SALT)
    return [_sealed(key, *value) for value in zip(salts, plaintexts, contexts, strict=True)]


def random_values(count: int, length: int) -> list[bytes]:
    """Random values of a length in bytes, all from one call of the operating system."""
    everything = secrets.token_bytes(count * length)
    return [everything[start : start + length] for start in range(0, count * length, length)]


def _sealed(key: bytes, salt: bytes, plaintext: bytes, context: bytes) -> bytes:
    encryption, nonce, commitment, binder = _parts(key, salt)
    binding = HMAC(binder, _SHA256)
    binding.update(context)
    return b"".join(
        (
            _FORMAT,
            salt,
            commitment,
            binding.finalize()[:_BINDING],
            AESGCM(encryption).encrypt(nonce, plaintext, context),
        )
    )


def unseal(key: bytes, sealed: bytes, context: bytes) -> bytes:
    """Open a sealed value.

    Raises:
        TruncatedError: Too short to be one.
        WrongKeyError: Sealed under another key.
        WrongContextError: Sealed for another place.
        DamagedError: Anything else is wrong with it.
    """
    if len(sealed) < SEAL_OVERHEAD:
        raise TruncatedError("a sealed value is cut short")
    if sealed[0] != SEAL_FORMAT:
        raise DamagedError("a sealed value has an unknown format")
    salt, commitment = sealed[1:33], sealed[33:65]
    binding, ciphertext = sealed[65:81], sealed[81:]
    encryption, nonce, expected, binder = _parts(key, salt)
    if not hmac.compare_digest(commitment, expected):
        raise WrongKeyError("sealed under another key")
    if not hmac.compare_digest(binding, hmac.digest(binder, context, "sha256")[:_BINDING]):
        raise WrongContextError("a sealed value stands where another belongs")
    try:
        return AESGCM(encryption).decrypt(nonce, ciphertext, context)
    except InvalidTag:
        raise DamagedError("a sealed value fails authentication") from None


class KeyRing:
    """The keys of one unlocked store, all derived from its root key.

    Args:
        root: 32 random bytes.
        store_id: 16 random bytes; the HKDF salt, so that equal roots would still give unequal keys.
    """

    __slots__ = (
        "_macs",
        "_root",
        "_wrap",
        "anchor",
        "audit",
        "audit_seal",
        "header",
        "index",
        "name",
        "row",
        "store_id",
    )

    def __init__(self, root: bytes, store_id: bytes) -> None:
        self._root, self.store_id = root, store_id
        self._wrap: dict[int, bytes] = {}
        self._macs: dict[str, HMAC] = {}
        self.index = derive(root, store_id, "index")
        self.name = derive(root, store_id, "name")
        self.row = derive(root, store_id, "row", 64)
        self.header = derive(root, store_id, "header")
        self.audit = derive(root, store_id, "audit")
        self.audit_seal = derive(root, store_id, "audit-seal")
        self.anchor = derive(root, store_id, "anchor")

    def __repr__(self) -> str:
        return "KeyRing(...)"

    @property
    def root(self) -> bytes:
        """The root key itself, needed to lock it up in another way."""
        return self._root

    def wrap(self, version: int) -> bytes:
        """The wrapping key of a version (1, 2, ...)."""
        key = self._wrap.get(version)
        if key is None:
            key = self._wrap[version] = derive(self._root, self.store_id, f"wrap/{version}")
        return key

    def tag(self, *fields: Field) -> bytes:
        """The index tag (32 bytes) of a name: nobody without the root can compute or invert it."""
        return hmac.digest(self.index, encode(fields), "sha256")

    def authenticate(self, table: str, row: Iterable[Field]) -> tuple[bytes, int]:
        """The authentication code stored with a row, and the row's secret weight in the tally.

        Both are halves of one HMAC-SHA512. The store's header keeps, encrypted, the sum of the
        weights of all rows mod 2**256 (MSet-Add-Hash, Clarke et al., ASIACRYPT 2003): a row that
        was removed, doubled or replaced by its own older self changes the sum.
        """
        mac = self._begun(table).copy()
        mac.update(encode(row))
        digest = mac.finalize()
        return digest[:32], _number(digest[32:])

    def authenticate_all(self, table: str, columns: Columns) -> tuple[list[bytes], list[int]]:
        """``authenticate`` for many rows of a table, given column by column: the codes, and the weights."""
        copy = self._begun(table).copy
        digests = []
        for row in encode_all(columns):
            mac = copy()
            mac.update(row)
            digests.append(mac.finalize())
        return [digest[:32] for digest in digests], list(map(_number, [digest[32:] for digest in digests]))

    def _begun(self, table: str) -> HMAC:
        """The code of what all rows of a table begin with: rows are authenticated by the million."""
        begun = self._macs.get(table)
        if begun is None:
            begun = self._macs[table] = HMAC(self.row, hashes.SHA512())
            begun.update(encode((self.store_id, table)))
        return begun
