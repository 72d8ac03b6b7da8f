"""What the mixer asks of a generator; MobileStyleGAN meets it, and so can a StyleGAN2."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

from anonymix_plugin.errors import UsageError
from anonymix_plugin.values import Floats, Pixels

if TYPE_CHECKING:
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
        return sum(self.counts)

    @property
    def counts(self) -> tuple[int, int, int]:
        """Number of style inputs of each group."""
        return len(self.coarse), len(self.identity), len(self.fine)


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


@runtime_checkable
class ArrayGenerator(Protocol):
    """A generator that can be used without torch, whose import alone takes longer than drawing ten faces."""

    def map_arrays(self, z: Floats) -> Floats:
        """Map Gaussian codes (N, z_dim) float32 to style vectors (N, w_dim) float32."""
        ...

    def draw(self, w_plus: Floats, size: int) -> Floats:
        """Draw faces.

        Args:
            w_plus: (N, layers.total, w_dim) float32.
            size: Side of the image in pixels, one of the generator's `sizes`.

        Returns:
            (N, 3, size, size) float32 RGB, nominally in [-1, 1]. A face does not depend on its neighbours.

        Raises:
            UsageError: If `size` or the shape of `w_plus` does not fit.
        """
        ...


def styles_of(generator: Generator, z: Floats) -> Floats:
    """Map Gaussian codes by any generator: (N, z_dim) float32 to (N, w_dim) float32, arrays both."""
    if isinstance(generator, ArrayGenerator):
        return generator.map_arrays(z)
    import torch

    with torch.inference_mode():
        return np.asarray(generator.map(_tensor(z)).numpy(), np.float32)


def pictures_of(generator: Generator, w_plus: Floats, size: int) -> Floats:
    """Draw by any generator: (N, layers.total, w_dim) float32 to (N, 3, size, size) float32, arrays both."""
    if isinstance(generator, ArrayGenerator):
        return generator.draw(w_plus, size)
    import torch

    with torch.inference_mode():
        return np.asarray(generator.synthesise(_tensor(w_plus), size).cpu().numpy(), np.float32)


def as_pictures(pixels: Pixels) -> torch.Tensor:
    """Scale photos as generators draw: (N, S, S, 3) uint8 to (N, 3, S, S) float32 in -1..1, channels last in memory."""
    return _tensor(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1


def _tensor(values: Floats | Pixels) -> torch.Tensor:
    """A tensor of a copy: torch refuses strides below 0, which `ascontiguousarray` leaves to an axis of length 1."""
    import torch

    return torch.from_numpy(np.array(values, order="C"))


def check_codes(generator: Generator, w_plus: Floats | torch.Tensor, size: int) -> None:
    """Refuse codes and sizes that a generator does not draw.

    Raises:
        UsageError: The generator has other codes, or does not draw this size.
    """
    expected = generator.layers.total, generator.w_dim
    if size not in generator.sizes:
        raise UsageError(f"this generator draws {generator.sizes} px, not {size}", where="size")
    if w_plus.ndim != 3 or tuple(w_plus.shape[1:]) != expected:
        raise UsageError(
            f"a W+ code has shape (N, {expected[0]}, {expected[1]}), not {tuple(w_plus.shape)}", where="w_plus"
        )


def drawn_one_by_one(generator: Generator, w_plus: Floats, size: int, device: torch.device | None = None) -> Floats:
    """Draw codes one at a time by a torch generator on a device, so that no face depends on others; as `draw`."""
    import torch

    check_codes(generator, w_plus, size)
    with torch.inference_mode():
        codes = _tensor(w_plus).to(device)
        pictures = [generator.synthesise(code[None], size).cpu().numpy() for code in codes]
    return np.concatenate(pictures) if pictures else np.zeros((0, 3, size, size), np.float32)
