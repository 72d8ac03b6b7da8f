"""The encoder: an FFHQ-aligned photo in, style vectors for coarse, identity and fine layers out."""

from __future__ import annotations

import itertools

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - the name that torch users expect

INPUT_SIZE = 128
GROUPS = 3


class _Residual(nn.Module):
    """Two 3x3 convolutions with a shortcut; halves the resolution when `stride` is 2."""

    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inside, outside, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(outside)
        self.conv2 = nn.Conv2d(outside, outside, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outside)
        self.shortcut = nn.Conv2d(inside, outside, 1, bias=False) if inside != outside else nn.Identity()
        self.stride = stride

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.relu(self.norm1(self.conv1(x)))
        y = self.norm2(self.conv2(y))
        if self.stride == 2:
            x = F.avg_pool2d(x, 2)
        summed: torch.Tensor = y + self.shortcut(x)
        return F.relu(summed)


class EncoderNetwork(nn.Module):
    """A small residual network with one head for each group of layers.

    It sees 128 px, because what it is asked for (pose, outline, light, colour) shows at that size, and
    keeps a grid of 4x4 positions up to the heads, because pose is a matter of where things are.

    Args:
        latent: How many whitened latent coordinates a head predicts; the rest stays at the mean.
        width: Channels of the first stage.
    """

    def __init__(self, latent: int = 256, width: int = 24) -> None:
        super().__init__()
        self.latent, self.width = latent, width
        self.stem = nn.Conv2d(3, width, 5, 2, 2, bias=False)
        self.norm = nn.BatchNorm2d(width)
        widths = [width, 2 * width, 4 * width, 8 * width, 10 * width]
        self.stages = nn.Sequential(
            *(_Residual(inside, outside, 2) for inside, outside in itertools.pairwise(widths)),
            nn.Dropout(0.2),
        )
        self.heads = nn.ModuleList(nn.Linear(widths[-1] * 16, latent) for _ in range(GROUPS))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Predict whitened latent coordinates.

        Args:
            pixels: (N, 3, 128, 128) float32 RGB in [-1, 1].

        Returns:
            (N, 3, latent) float32, in standard deviations along the principal axes of w.
        """
        x = F.relu(self.norm(self.stem(pixels)))
        x = self.stages(x).flatten(1)
        return torch.stack([head(x) for head in self.heads], dim=1)
