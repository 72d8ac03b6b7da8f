"""A generator and recognisers that take microseconds."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from anonymix_plugin.generator import LayerGroups


class ToyGenerator:
    """Five layers of eight numbers; each layer adds waves of its own to a picture of 48 px."""

    name, z_dim, w_dim, sizes = "toy", 8, 8, (48,)
    layers = LayerGroups(coarse=range(1), identity=range(1, 4), fine=range(4, 5))

    def __init__(self) -> None:
        waves = torch.from_numpy(np.random.default_rng(1).standard_normal((40, 3, 6, 6))).float()
        self.waves = nn.functional.interpolate(waves, size=48, mode="bilinear").reshape(40, -1) / 6

    def map(self, z: torch.Tensor) -> torch.Tensor:
        return z

    def synthesise(self, w_plus: torch.Tensor, size: int) -> torch.Tensor:
        return torch.tanh(w_plus.flatten(1) @ self.waves).reshape(-1, 3, size, size)

    def weights_hash(self) -> str:
        return "0" * 64


class ToyRecogniser(nn.Module):
    """A fixed random look at 14 x 14 averages of the crop."""

    def __init__(self, seed: int, dim: int = 12) -> None:
        super().__init__()
        weight = np.random.default_rng(seed).standard_normal((dim, 3 * 14 * 14)) / 24
        self.register_buffer("weight", torch.from_numpy(weight).float())

    def forward(self, crops: torch.Tensor) -> torch.Tensor:
        return nn.functional.avg_pool2d(crops, 8).flatten(1) @ self.get_buffer("weight").T
