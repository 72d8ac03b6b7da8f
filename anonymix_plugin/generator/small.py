"""The small generator in torch: MobileStyleGAN up to 64 px and a light head that draws 256 px.

Recognisers take crops of 112 to 160 px, so four fifths of what MobileStyleGAN computes (all from 128 px on)
is for the eye alone. The small generator keeps its layers up to the depthwise part of the second convolution
at 64 px, with their published weights, and learns what comes after:

    enter   1x1, 512 -> C          at 64 px
    deep    3x3, C -> C, residual  at 64 px, modulated by style input 13
    up      1x1, C -> 4 D          pixel shuffle to 128 px, modulated by 14
    first   3x3, D -> D, residual  at 128 px, modulated by 15
    second  3x3, D -> D, residual  at 128 px, modulated by 16
    leave   3x3, D -> 12           pixel shuffle to 256 px, modulated by 17; 18 adds to the 12 channels

Style inputs 19 to 22, which belong to 512 px, are not used.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - the name that torch users expect

from anonymix_plugin.generator.published_weights import SLOPE, W_DIM

FEATURES = 512  # channels of MobileStyleGAN at 64 px
FIRST_STYLE = 13  # of the head: the first style input that MobileStyleGAN uses at 128 px
WIDE, NARROW = 128, 64  # channels of the head at 64 and at 128 px
COLOURS = 12  # four pixels of three colours


class SmallHead(nn.Module):
    """What the small generator has learned: from features of 64 px to a picture of 256 px."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Conv2d(FEATURES, WIDE, 1)
        self.deep = nn.Conv2d(WIDE, WIDE, 3, padding=1)
        self.up = nn.Conv2d(WIDE, 4 * NARROW, 1)
        self.first = nn.Conv2d(NARROW, NARROW, 3, padding=1)
        self.second = nn.Conv2d(NARROW, NARROW, 3, padding=1)
        self.leave = nn.Conv2d(NARROW, COLOURS, 3, padding=1)
        self.affine = [nn.Linear(W_DIM, count) for count in (WIDE, WIDE, NARROW, NARROW, NARROW, COLOURS)]
        self.styles = nn.ModuleList(self.affine)

    def forward(self, features: torch.Tensor, styles: torch.Tensor) -> torch.Tensor:
        """Draw.

        Args:
            features: (N, 512, 64, 64) float32, what `MobileStyleGan.middle_channels` returns.
            styles: (N, 6, 512) float32, style inputs 13 to 18.

        Returns:
            (N, 3, 256, 256) float32 RGB, nominally in [-1, 1].
        """
        deep, up, first, second, leave, colours = (
            style(styles[:, number])[:, :, None, None] for number, style in enumerate(self.affine)
        )
        x = F.leaky_relu(self.enter(features), SLOPE)
        x = x + F.leaky_relu(self.deep(x * deep), SLOPE)
        x = F.leaky_relu(F.pixel_shuffle(self.up(x * up), 2), SLOPE)
        x = x + F.leaky_relu(self.first(x * first), SLOPE)
        x = x + F.leaky_relu(self.second(x * second), SLOPE)
        return F.pixel_shuffle(self.leave(x * leave) + colours, 2)
