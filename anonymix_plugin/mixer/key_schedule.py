"""From 32 bytes of key to everything random that the mixer needs, the same on every machine.

    seed(label)     = HKDF-SHA256(key, salt = "anonymix key schedule v1", info = label), 32 bytes  (RFC 5869)
    stream(label)   = ChaCha20(seed, nonce = 0, counter = 0) over zeros                            (RFC 8439)
    uniform(label)  = little-endian 64-bit words of the stream, top 53 bits: (k + 1/2) / 2**53, in (0, 1)
    gaussian(label) = Box-Muller on pairs (u1, u2): sqrt(-2 ln u1) cos(2 pi u2), sqrt(-2 ln u1) sin(2 pi u2),
                      in float64, rounded to multiples of 2**-24
    rotation(label) = Gram-Schmidt on the columns of an n x n Gaussian matrix, in float64: Haar-distributed

Rounding takes away the last bits, in which the logarithms and cosines of two C libraries may differ. No
library's default generator is involved anywhere. The test vectors are in `tests/mixer/vectors.json`.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from anonymix_plugin.errors import KeyUnavailableError

KEY_BYTES = 32
_SALT = b"anonymix key schedule v1"
_GRID = float(1 << 24)


class KeySchedule:
    """The streams that belong to one key.

    Args:
        material: 32 bytes of key material.

    Raises:
        KeyUnavailableError: If the material does not have 32 bytes.

    Two labels give independent streams. Nothing here keeps or shows a derived seed.
    """

    __slots__ = ("_material",)

    def __init__(self, material: bytes) -> None:
        if len(material) != KEY_BYTES:
            raise KeyUnavailableError(
                f"a key has {KEY_BYTES} bytes, this one has {len(material)}",
                fix="issue it through the keystore",
            )
        self._material = bytes(material)

    def __repr__(self) -> str:
        return "KeySchedule(...)"

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("a key schedule is not pickled")

    def stream(self, label: str, count: int) -> bytes:
        """Return the first `count` bytes of the stream called `label`."""
        seed = HKDF(hashes.SHA256(), KEY_BYTES, _SALT, label.encode()).derive(self._material)
        return Cipher(ChaCha20(seed, bytes(16)), mode=None).encryptor().update(bytes(count))

    def uniform(self, label: str, count: int) -> npt.NDArray[np.float64]:
        """Return `count` numbers in (0, 1), (count,) float64."""
        words = np.frombuffer(self.stream(label, 8 * count), dtype="<u8")
        uniform: npt.NDArray[np.float64] = ((words >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
        return uniform

    def gaussian(self, label: str, count: int) -> npt.NDArray[np.float64]:
        """Return `count` standard normal numbers, (count,) float64, on a grid of 2**-24."""
        pairs = self.uniform(label, count + count % 2).reshape(-1, 2)
        radius = np.sqrt(-2.0 * np.log(pairs[:, 0]))
        angle = 2.0 * math.pi * pairs[:, 1]
        values = np.stack((radius * np.cos(angle), radius * np.sin(angle)), axis=1).reshape(-1)
        rounded: npt.NDArray[np.float64] = np.rint(values[:count] * _GRID) / _GRID
        return rounded

    def rotation(self, label: str, size: int, columns: int | None = None) -> npt.NDArray[np.float64]:
        """Return a random matrix with orthonormal columns.

        Args:
            label: Name of the stream.
            size: Number of rows.
            columns: Number of columns, at most `size`; None means `size` (an orthogonal matrix).

        Returns:
            (size, columns) float64, uniform under the Haar measure (Stewart 1980).
        """
        columns = size if columns is None else columns
        basis = self.gaussian(label, size * columns).reshape(columns, size).copy()
        for i in range(columns):
            # Twice is enough (Parlett): the second pass removes what rounding left of the first.
            for _ in range(2):
                for j in range(i):
                    basis[i] -= math.fsum(basis[i] * basis[j]) * basis[j]
            basis[i] /= math.sqrt(math.fsum(basis[i] * basis[i]))
        return basis.T
