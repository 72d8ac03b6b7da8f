from __future__ import annotations

import hmac
import json
import secrets
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from anonymix_keystore import DamagedError, KeystoreError, TruncatedError, WrongContextError, WrongKeyError
from anonymix_keystore._crypto import SEAL_OVERHEAD, KeyRing, encode, encode_all, seal, seal_all, unseal

VECTORS = json.loads((Path(__file__).parent / "vectors" / "sealing.json").read_text())
FAILURES = {
    "wrong_key": WrongKeyError,
    "damaged": DamagedError,
    "wrong_context": WrongContextError,
    "truncated": TruncatedError,
}

FIELD = st.one_of(st.none(), st.integers(), st.text(), st.binary())


@given(st.lists(FIELD, max_size=5), st.lists(FIELD, max_size=5))
def test_different_fields_never_encode_alike(one: list, other: list) -> None:
    same = [(type(item), item) for item in one] == [(type(item), item) for item in other]
    assert (encode(one) == encode(other)) == same


@given(st.integers(1, 4).flatmap(lambda width: st.lists(st.tuples(*[FIELD] * width), min_size=1, max_size=4)))
def test_many_rows_encode_and_authenticate_as_each_does_alone(rows: list[tuple]) -> None:
    columns = list(zip(*rows, strict=True))
    assert encode_all(columns) == [encode(row) for row in rows]
    ring = KeyRing(bytes(32), bytes(16))
    macs, weights = ring.authenticate_all("heads", columns)
    assert list(zip(macs, weights, strict=True)) == [ring.authenticate("heads", row) for row in rows]


def test_fields_of_other_types_are_refused() -> None:
    with pytest.raises(TypeError):
        encode((1.5,))  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        encode_all([(1, 1), (1, 1.0)])


def test_values_that_are_sealed_together_have_salts_of_their_own() -> None:
    sealed = seal_all(bytes(32), [b"same"] * 50, [b"place"] * 50)
    assert len({value[1:33] for value in sealed}) == 50
    assert {unseal(bytes(32), value, b"place") for value in sealed} == {b"same"}


@given(st.binary(max_size=200), st.binary(max_size=50))
def test_what_was_sealed_opens_in_its_context(plaintext: bytes, context: bytes) -> None:
    key = secrets.token_bytes(32)
    sealed = seal(key, plaintext, context)
    assert len(sealed) == len(plaintext) + SEAL_OVERHEAD
    assert unseal(key, sealed, context) == plaintext
    assert sealed != seal(key, plaintext, context)


def test_every_changed_or_missing_byte_is_noticed() -> None:
    key = secrets.token_bytes(32)
    sealed = seal(key, b"material", b"context")
    for position in range(len(sealed)):
        for bit in (1, 0x80):
            changed = bytearray(sealed)
            changed[position] ^= bit
            with pytest.raises((DamagedError, WrongKeyError)):
                unseal(key, bytes(changed), b"context")
        with pytest.raises((DamagedError, WrongKeyError)):
            unseal(key, sealed[:position], b"context")
    with pytest.raises(DamagedError):
        unseal(key, sealed + b"\x00", b"context")


def test_a_sealed_value_opens_under_one_key_only() -> None:
    """Whoever knows two AES-GCM keys can make a ciphertext that both open; the commitment forbids it."""
    key, other = secrets.token_bytes(32), secrets.token_bytes(32)
    sealed = seal(key, b"material", b"context")
    with pytest.raises(WrongKeyError):
        unseal(other, sealed, b"context")
    # Even with the other key's own commitment in place the rest does not open.
    theirs = seal(other, b"material", b"context", salt=sealed[1:33])
    with pytest.raises(DamagedError):
        unseal(other, sealed[:33] + theirs[33:81] + sealed[81:], b"context")


@pytest.mark.parametrize("vector", VECTORS["vectors"], ids=lambda vector: vector["name"])
def test_the_committed_vectors_hold(vector: dict[str, str]) -> None:
    key, sealed = bytes.fromhex(vector["key"]), bytes.fromhex(vector["sealed"])
    context = bytes.fromhex(vector["context"])
    if vector["outcome"] == "opens":
        assert unseal(key, sealed, context) == bytes.fromhex(vector["plaintext"])
        assert seal(key, bytes.fromhex(vector["plaintext"]), context, salt=sealed[1:33]) == sealed
    else:
        with pytest.raises(KeystoreError) as caught:
            unseal(key, sealed, context)
        assert type(caught.value) is FAILURES[vector["outcome"]]
        assert caught.value.code == vector["outcome"]


def test_the_derived_keys_are_the_committed_ones() -> None:
    facts = VECTORS["keys"]
    ring = KeyRing(bytes.fromhex(facts["root"]), bytes.fromhex(facts["store_id"]))
    for name in ("index", "name", "row", "header", "audit", "audit_seal", "anchor"):
        assert getattr(ring, name).hex() == facts[name]
    assert ring.wrap(1).hex() == facts["wrap/1"]
    assert ring.wrap(2).hex() == facts["wrap/2"]
    assert ring.tag("subject", "default", "alice").hex() == facts["tag of alice in default"]
    mac, weight = ring.authenticate("heads", (b"tag", 1, None, "text"))
    assert (mac.hex(), f"{weight:064x}") == (facts["row code"], facts["row weight"])
    assert facts["root"] not in repr(ring)


def test_sealing_is_what_the_format_says() -> None:
    """The layout, built again from the primitives as docs/keystore-format.md describes it."""
    vector = VECTORS["vectors"][0]
    key, sealed = bytes.fromhex(vector["key"]), bytes.fromhex(vector["sealed"])
    salt, context = sealed[1:33], bytes.fromhex(vector["context"])
    prk = hmac.digest(salt, key, "sha256")
    okm, block = b"", b""
    for counter in (1, 2, 3, 4):
        block = hmac.digest(prk, block + b"anonymix/keystore/1/seal" + bytes((counter,)), "sha256")
        okm += block
    assert sealed[0] == 1
    assert sealed[33:65] == okm[44:76]
    assert sealed[65:81] == hmac.digest(okm[76:108], context, "sha256")[:16]
    assert AESGCM(okm[:32]).decrypt(okm[32:44], sealed[81:], context) == bytes.fromhex(vector["plaintext"])
