"""What the mixer asks of a generator; MobileStyleGAN meets it, and so can a StyleGAN2."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch


@dataclass(frozen=True)
class LayerGroups:
    """Which style inputs steer what, as half-open ranges over the W+ code.

    The groups follow the resolutions of StyleGAN2 (Karras et al. 2020) as FaceAnonyMixer (arXiv 2508.05636)
    divides them: coarse is 4x4 to 8x8 (pose, outline), identity is 16x16 to the first convolution at 64x64
    (features of the face), fine is all above (colour, light, texture).
    """

    coarse: range
    identity: range
    fine: range

    @property
    def total(self) -> int:
        """Number of style inputs."""
        return len(self.coarse) + len(self.identity) + len(self.fine)


@runtime_checkable
class Generator(Protocol):
    """Turns latent codes into faces.

    Attributes:
        name: Short name for messages and cards.
        z_dim: Size of a Gaussian code z.
        w_dim: Size of one style vector w.
        layers: Which style inputs of a W+ code are coarse, identity and fine.
        sizes: Output sizes in pixels that `synthesise` takes.
    """

    @property
    def name(self) -> str:  # noqa: D102 - described by the class
        ...
    @property
    def z_dim(self) -> int:  # noqa: D102 - described by the class
        ...
    @property
    def w_dim(self) -> int:  # noqa: D102 - described by the class
        ...
    @property
    def layers(self) -> LayerGroups:  # noqa: D102 - described by the class
        ...
    @property
    def sizes(self) -> tuple[int, ...]:  # noqa: D102 - described by the class
        ...

    def map(self, z: torch.Tensor) -> torch.Tensor:
        """Map Gaussian codes (N, z_dim) float32 to style vectors (N, w_dim) float32."""
        ...

    def synthesise(self, w_plus: torch.Tensor, size: int) -> torch.Tensor:
        """Draw faces.

        Args:
            w_plus: (N, layers.total, w_dim) float32.
            size: Side of the image in pixels, one of `sizes`.

        Returns:
            (N, 3, size, size) float32 RGB, nominally in [-1, 1].
        """
        ...

    def weights_hash(self) -> str:
        """Return the SHA-256 (hex) that stands for these weights in the mixer fingerprint."""
        ...
