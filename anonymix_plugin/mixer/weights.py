"""The weights that the mixer ships: where people differ, and which way in the latent space says so."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from anonymix_plugin.errors import DamagedModelError
from anonymix_plugin.mixer.subspace import IdentitySubspace
from anonymix_plugin.values import Floats

SHIPPED = Path(__file__).parents[1] / "weights" / "mixer.safetensors"


@dataclass(frozen=True, eq=False)
class MixerWeights:
    """What was learned for one generator.

    Attributes:
        subspace: Joint embedding -> d numbers of a person.
        centre: (512,) float32, mean style vector of the generator.
        basis: (512, 512) float32, whitened latent coordinates -> style vector: its columns are the principal
            axes of w, scaled to one standard deviation, the largest first.
        person: (groups, 512, D) float32, keyed code of a person (D numbers, length 1) -> whitened
            coordinates of the coarse, the identity and the fine layers.
        generator_hash: `weights_hash()` of the generator that this belongs to.
        sha256: Hash of the file, for the fingerprint.
    """

    subspace: IdentitySubspace
    centre: Floats
    basis: Floats
    person: Floats
    generator_hash: str
    sha256: str = ""

    @property
    def keyed_dims(self) -> int:
        """D, in how many dimensions keys turn people: at least as many as the subspace has."""
        return int(self.person.shape[2])

    def save(self, path: Path, about: dict[str, str]) -> None:
        """Write a safetensors file with `about` (what was learned, from what) as its metadata."""
        tensors = {
            "subspace.mean": self.subspace.mean,
            "subspace.directions": self.subspace.directions,
            "latent.centre": self.centre,
            "latent.basis": self.basis,
            "mapper.person": self.person,
        }
        ready = {name: np.ascontiguousarray(value) for name, value in tensors.items()}
        save_file(ready, path, {"generator": self.generator_hash, "about": json.dumps(about, sort_keys=True)})


@lru_cache(maxsize=4)
def load_mixer_weights(path: Path = SHIPPED) -> MixerWeights:
    """Read mixer weights.

    Raises:
        DamagedModelError: The file is missing, no safetensors file, or lacks a tensor.
    """
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        with safe_open(path, framework="np") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
            metadata = file.metadata() or {}
        return MixerWeights(
            subspace=IdentitySubspace(tensors["subspace.mean"], tensors["subspace.directions"]),
            centre=tensors["latent.centre"],
            basis=tensors["latent.basis"],
            person=tensors["mapper.person"],
            generator_hash=metadata["generator"],
            sha256=digest,
        )
    except (OSError, SafetensorError, KeyError) as error:
        raise DamagedModelError(
            f"the mixer's own weights can't be read ({error})",
            where=str(path),
            fix="reinstall anonymix-plugin",
        ) from error
