"""The fast method: a person's code and a key become a W+ code by a few small matrix products.

For each group of layers g (coarse, identity, fine), in whitened latent coordinates:

    x_g = person * M_g(R_k u)  +  P_g y_g

u is the person's code in the identity subspace (d numbers, length 1), R_k the key's rotation into D >= d
dimensions, M_g the learned map into the latent space (nothing for the fine layers, where the weights say
so), P_g the projection onto everything that is not the person's. y_g is the key's synthetic code, or the
photo's own where the attribute policy keeps it. P_g keeps both out of the directions that carry identity:
the key's code can't drown the person, and what is kept of the photo can't bring the person's own identity
back through the front door.
"""

from __future__ import annotations

import hashlib
import threading
from dataclasses import dataclass

import numpy as np
from cachetools import LRUCache

from anonymix_plugin.errors import DamagedModelError, UsageError
from anonymix_plugin.generator import Generator, LayerGroups, styles_of
from anonymix_plugin.mixer.identity_map import IdentityMap, Matrix, product
from anonymix_plugin.mixer.key_schedule import KeySchedule
from anonymix_plugin.mixer.policy import MixingPolicy
from anonymix_plugin.mixer.weights import MixerWeights
from anonymix_plugin.values import Floats

GROUPS = ("coarse", "identity", "fine")
_CACHED_KEYS = 1024


@dataclass(frozen=True, eq=False, repr=False)
class _KeyParts:
    """What depends on the key alone."""

    rotation: Matrix  # (D, d)
    synthetic: Matrix  # (groups, 512), whitened, already projected


class FastMixer:
    """Mixes in one step.

    Args:
        generator: What will draw the code.
        weights: Learned for that generator.
        policy: What is kept and how strongly.

    Raises:
        DamagedModelError: If the weights belong to another generator.

    What depends on the key alone is computed once for each key and kept for the last 1,024 keys. A cache
    entry is named by a hash of the key and is as secret as the key; `forget` drops them all.
    """

    def __init__(self, generator: Generator, weights: MixerWeights, policy: MixingPolicy) -> None:
        if weights.generator_hash != generator.weights_hash():
            raise DamagedModelError(
                f"the mixer's weights were learned for another generator than {generator.name}",
                fix="train them for yours: anonymix train mapper",
            )
        self.policy = policy
        self._generator, self._weights = generator, weights
        self._basis = weights.basis.astype(np.float64)
        self._centre = weights.centre.astype(np.float64)
        self._inverse = weights.inverse
        self._map = IdentityMap(weights.person, weights.bend, weights.removed)
        self._spans = _spans(weights)
        self._counts = _counts(generator.layers, weights.identity_end)
        self._cache: LRUCache[bytes, _KeyParts] = LRUCache(_CACHED_KEYS)
        self._lock = threading.Lock()

    def mix(self, person: Matrix, schedule: KeySchedule, key_name: bytes, kept: Floats | None = None) -> Floats:
        """Make the W+ code of one face.

        Args:
            person: (d,) float64, the person's code, length 1.
            schedule: Streams of the key.
            key_name: Any bytes that name the key, for the cache.
            kept: (3, 512) float32, the photo's own style vectors for coarse, identity and fine layers;
                needed unless the attribute policy is "none".

        Returns:
            (layers.total, 512) float32.

        Raises:
            UsageError: If `kept` is missing where the policy needs it, or `person` has another length.
        """
        if person.shape != (self._weights.subspace.dims,):
            raise UsageError(f"a person's code has shape ({self._weights.subspace.dims},), not {person.shape}")
        parts = self._parts(schedule, key_name)
        turned = product(parts.rotation, person)
        rest = parts.synthetic.copy()
        if self.policy.attributes.keeps_coarse:
            rest[0] = self._kept(0, kept)
        if self.policy.attributes.keeps_fine:
            rest[2] = self._kept(2, kept)
        moved = self._map(turned)
        rest[: len(moved)] += self.policy.person * moved
        offsets = np.stack([product(self._basis, code) for code in rest])
        styles: Floats = (self._centre + offsets).astype(np.float32)
        return np.repeat(styles, self._counts, axis=0)

    def forget(self) -> None:
        """Drop everything that was derived from keys."""
        with self._lock:
            self._cache.clear()

    def _kept(self, group: int, kept: Floats | None) -> Matrix:
        if kept is None:
            raise UsageError(f"the attribute policy {self.policy.attributes} needs the photo's own code")
        own = product(self._inverse, kept[group].astype(np.float64) - self._centre)
        return self.policy.kept * self._outside(group, own)

    def _outside(self, group: int, code: Matrix) -> Matrix:
        """Take the directions that carry identity out of a whitened code."""
        span = self._spans[group]
        return code - product(span, product(span.T, code))

    def _parts(self, schedule: KeySchedule, key_name: bytes) -> _KeyParts:
        name = hashlib.sha256(key_name).digest()
        with self._lock:
            if (parts := self._cache.get(name)) is not None:
                return parts
        parts = self._derive(schedule)
        with self._lock:
            self._cache[name] = parts
        return parts

    def _derive(self, schedule: KeySchedule) -> _KeyParts:
        rotation = schedule.rotation("person", self._weights.keyed_dims, self._weights.subspace.dims)
        noise = schedule.gaussian("synthetic code", self._generator.z_dim).astype(np.float32)
        style = styles_of(self._generator, noise[None])[0].astype(np.float64)
        synthetic = self.policy.key * product(self._inverse, style - self._centre)
        return _KeyParts(rotation, np.stack([self._outside(group, synthetic) for group in range(len(GROUPS))]))


def _spans(weights: MixerWeights) -> list[Matrix]:
    """Orthonormal directions that are the person's, (512, S) for each group."""
    if weights.span is not None:
        return [weights.span.astype(np.float64)] * len(GROUPS)
    spans = [np.linalg.qr(matrix.astype(np.float64))[0] for matrix in weights.person]
    return spans + [spans[-1]] * (len(GROUPS) - len(spans))


def _counts(layers: LayerGroups, identity_end: int | None) -> list[int]:
    """How many style inputs each group has in the mixer."""
    end = layers.identity.stop if identity_end is None else identity_end
    if not layers.coarse.stop < end <= layers.total:
        raise DamagedModelError(
            f"the mixer's weights end identity at layer {end} of {layers.total}",
            fix="reinstall anonymix-plugin, or train them again: anonymix train mapper",
        )
    return [len(layers.coarse), end - layers.coarse.stop, layers.total - end]
