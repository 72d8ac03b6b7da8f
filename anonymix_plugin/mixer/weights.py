"""The weights that the mixer ships: where people differ, and which way in the latent space says so."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import save_file

from anonymix_plugin.errors import DamagedModelError
from anonymix_plugin.files import content_of, safetensors_of
from anonymix_plugin.mixer.identity_map import Bend
from anonymix_plugin.mixer.subspace import IdentitySubspace, Matrix
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
            coordinates of the coarse, the identity and, where there are three groups, the fine layers.
            With two groups, the fine layers have nothing of the person.
        generator_hash: `weights_hash()` of the generator that this belongs to.
        sha256: Hash of the file, for the fingerprint.
        bend: What a small network adds to the linear map.
        removed: (512,) float32, a whitened direction of length 1 that no person moves along, or None.
        span: (512, S) float32, orthonormal: whitened directions that are the person's, and that neither the
            key nor the photo moves along. None: the span of each group's linear map.
        identity_end: The first style input that counts as fine; None for the generator's own.
    """

    subspace: IdentitySubspace
    centre: Floats
    basis: Floats
    person: Floats
    generator_hash: str
    sha256: str = ""
    bend: Bend | None = None
    removed: Floats | None = None
    span: Floats | None = None
    identity_end: int | None = None

    @property
    def keyed_dims(self) -> int:
        """D, in how many dimensions keys turn people: at least as many as the subspace has."""
        return int(self.person.shape[2])

    @cached_property
    def inverse(self) -> Matrix:
        """(512, 512) float64: style vector less the centre -> whitened coordinates."""
        # basis = axes * standard deviations, so its inverse is its transpose over the squared standard deviations.
        basis = self.basis.astype(np.float64)
        return np.asarray((basis / np.square(basis).sum(axis=0)).T)

    def save(self, path: Path, about: dict[str, str]) -> None:
        """Write a safetensors file with `about` (what was learned, from what) as its metadata."""
        tensors = {
            "subspace.mean": self.subspace.mean,
            "subspace.directions": self.subspace.directions,
            "latent.centre": self.centre,
            "latent.basis": self.basis,
            "mapper.person": self.person,
        }
        if self.bend is not None:
            tensors |= {f"mapper.bend.{name}": value for name, value in self.bend.tensors().items()}
        if self.removed is not None:
            tensors["mapper.removed"] = self.removed
        if self.span is not None:
            tensors["mapper.span"] = self.span
        metadata = {
            "generator": self.generator_hash,
            "about": json.dumps(about, sort_keys=True),
            **self.subspace.metadata(),
        }
        if self.identity_end is not None:
            metadata["identity_end"] = str(self.identity_end)
        save_file({name: np.ascontiguousarray(value) for name, value in tensors.items()}, path, metadata)


@lru_cache(maxsize=4)
def load_mixer_weights(path: Path = SHIPPED) -> MixerWeights:
    """Read mixer weights.

    Raises:
        DamagedModelError: The file is missing, no safetensors file, or lacks a tensor.
    """
    try:
        content = content_of(path)
        digest = hashlib.sha256(content).hexdigest()
        tensors, metadata = safetensors_of(content)
        prefix = "mapper.bend."
        bend = {name.removeprefix(prefix): tensors[name] for name in tensors if name.startswith(prefix)}
        return MixerWeights(
            subspace=IdentitySubspace.of_file(tensors, metadata),
            centre=tensors["latent.centre"],
            basis=tensors["latent.basis"],
            person=tensors["mapper.person"],
            generator_hash=metadata["generator"],
            sha256=digest,
            bend=Bend.of_tensors(bend) if bend else None,
            removed=tensors.get("mapper.removed"),
            span=tensors.get("mapper.span"),
            identity_end=int(metadata["identity_end"]) if "identity_end" in metadata else None,
        )
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise DamagedModelError(
            f"the mixer's own weights can't be read ({error})",
            where=str(path),
            fix="reinstall anonymix-plugin" if path == SHIPPED else "make them: anonymix train mapper",
        ) from error
