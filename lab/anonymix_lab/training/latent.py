"""The latent space's own axes: where its centre is, and how far it reaches in which direction."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from anonymix_lab.training.pairs import mean_style
from anonymix_plugin.generator import Generator
from anonymix_plugin.values import Floats


@dataclass(frozen=True, eq=False)
class LatentAxes:
    """Whitening of w.

    Attributes:
        centre: (512,) float32, mean of w.
        basis: (512, 512) float32, whitened coordinates -> w - centre; the widest axis first.
    """

    centre: Floats
    basis: Floats

    def whiten(self, styles: Floats) -> Floats:
        """Turn style vectors (..., 512) float32 into whitened coordinates (..., 512) float32."""
        whitened: Floats = ((styles - self.centre) @ (self.basis / np.square(self.basis).sum(axis=0))).astype(
            np.float32
        )
        return whitened


def latent_axes(generator: Generator, *, samples: int = 20_000, seed: int = 5) -> LatentAxes:
    """Measure centre and covariance of w over Gaussian z.

    Args:
        generator: Whose latent space.
        samples: How many z.
        seed: Seed of z.
    """
    noise = np.random.Generator(np.random.Philox(seed)).standard_normal((samples, generator.z_dim), np.float32)
    styles = torch.cat([generator.map(batch) for batch in torch.from_numpy(noise.reshape(-1, 1000, generator.z_dim))])
    values, vectors = np.linalg.eigh(np.cov(styles.numpy().astype(np.float64).T))
    values, vectors = values[::-1], vectors[:, ::-1]
    vectors = vectors * np.sign(vectors[np.abs(vectors).argmax(axis=0), np.arange(vectors.shape[1])])
    basis = (vectors * np.sqrt(values)).astype(np.float32)
    return LatentAxes(mean_style(generator).numpy(), basis)
