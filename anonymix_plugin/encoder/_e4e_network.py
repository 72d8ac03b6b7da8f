"""The encoder of pSp and e4e (Tov et al. 2021, arXiv 2102.02766): an IR-SE-50 trunk, a pyramid, heads.

The trunk (He et al.; squeeze and excitation by Hu et al.) halves 256 px four times. A feature pyramid joins
its maps of 16, 32 and 64 px; each style input has a head that shrinks one of those maps to a single position.
pSp's `GradualStyleEncoder` answers with each head's vector; e4e's `Encoder4Editing` takes the first head's
vector for all style inputs and the others as offsets from it.

Names of attributes follow the checkpoints, so that a state dict loads as it is. Widths are the checkpoint's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - the name that torch users expect

Kind = Literal["Encoder4Editing", "GradualStyleEncoder"]

INPUT: Final = 256
"""Side of the pictures in pixels."""

UNITS: Final = 24
"""Residual units of the trunk: 3, 4, 14 and 3 of one width each."""

_HALVING: Final = frozenset({0, 3, 7, 21})  # the first unit of each stage
_TAPS: Final = (6, 20, 23)  # units after which maps of 64, 32 and 16 px are taken
_COARSE, _MIDDLE = 3, 7  # heads 0..2 see 16 px, 3..6 see 32 px, the rest 64 px
_HALVINGS: Final = (4, 5, 6)  # of a head, until one position is left


@dataclass(frozen=True)
class E4eShape:
    """Widths of an encoder.

    Attributes:
        stem: Channels after the first convolution.
        units: (in, out, bottleneck of the squeeze, whether the shortcut is a convolution) of each unit.
        codes: Size of a style vector, and of the pyramid's maps.
        heads: Style inputs.
    """

    stem: int
    units: tuple[tuple[int, int, int, bool], ...]
    codes: int
    heads: int


class _SqueezeExcite(nn.Module):
    """Weighs channels by what the picture as a whole looks like."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, squeezed, 1, bias=False)
        self.fc2 = nn.Conv2d(squeezed, channels, 1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = x.mean(dim=(2, 3), keepdim=True)
        return x * torch.sigmoid(self.fc2(F.relu(self.fc1(weight))))


class _Unit(nn.Module):
    """Norm, convolution, PReLU, convolution (may halve), norm, squeeze and excitation; plus a shortcut."""

    def __init__(self, inside: int, outside: int, squeezed: int, stride: int, *, projected: bool) -> None:
        super().__init__()
        self.stride = stride
        self.shortcut_layer = nn.Sequential()
        if projected:
            self.shortcut_layer.append(nn.Conv2d(inside, outside, 1, stride, bias=False))
            self.shortcut_layer.append(nn.BatchNorm2d(outside))
        self.res_layer = nn.Sequential(
            nn.BatchNorm2d(inside),
            nn.Conv2d(inside, outside, 3, 1, 1, bias=False),
            nn.PReLU(outside),
            nn.Conv2d(outside, outside, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outside),
            _SqueezeExcite(outside, squeezed),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        projected = len(self.shortcut_layer) > 0
        shortcut = self.shortcut_layer(x) if projected else x[:, :, :: self.stride, :: self.stride]
        summed: torch.Tensor = self.res_layer(x) + shortcut
        return summed


class _Scaled(nn.Module):
    """A fully connected layer whose weights are stored without the factor 1/sqrt(fan in)."""

    def __init__(self, inside: int, outside: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(outside, inside))
        self.bias = nn.Parameter(torch.zeros(outside))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, self.weight / math.sqrt(self.weight.shape[1]), self.bias)


class _Head(nn.Module):
    """Halves a map until one position is left, and turns that into a style vector."""

    def __init__(self, channels: int, halvings: int) -> None:
        super().__init__()
        self.convs = nn.Sequential()
        for _ in range(halvings):
            self.convs.append(nn.Conv2d(channels, channels, 3, 2, 1))
            self.convs.append(nn.LeakyReLU(0.01))
        self.linear = _Scaled(channels, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        styles: torch.Tensor = self.linear(self.convs(x).flatten(1))
        return styles


def halvings_of(head: int) -> int:
    """How often a head halves its map."""
    return _HALVINGS[0 if head < _COARSE else 1 if head < _MIDDLE else 2]


class E4eNetwork(nn.Module):
    """The whole encoder.

    Args:
        shape: Its widths.
        kind: How the heads' vectors become a W+ code.
    """

    def __init__(self, shape: E4eShape, kind: Kind) -> None:
        super().__init__()
        self.kind = kind
        self.input_layer = nn.Sequential(
            nn.Conv2d(3, shape.stem, 3, 1, 1, bias=False), nn.BatchNorm2d(shape.stem), nn.PReLU(shape.stem)
        )
        self.body = nn.ModuleList(
            _Unit(inside, outside, squeezed, 2 if i in _HALVING else 1, projected=projected)
            for i, (inside, outside, squeezed, projected) in enumerate(shape.units)
        )
        fine, middle, _ = (shape.units[tap][1] for tap in _TAPS)
        self.latlayer1 = nn.Conv2d(middle, shape.codes, 1)
        self.latlayer2 = nn.Conv2d(fine, shape.codes, 1)
        self.styles = nn.ModuleList(_Head(shape.codes, halvings_of(i)) for i in range(shape.heads))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Encode (N, 3, 256, 256) float32 RGB in [-1, 1] to (N, heads, codes), relative to the mean style."""
        x = self.input_layer(pixels)
        taken = []
        for i, unit in enumerate(self.body):
            x = unit(x)
            if i in _TAPS:
                taken.append(x)
        fine, middle, coarse = taken
        middle = _joined(coarse, self.latlayer1(middle))
        fine = _joined(middle, self.latlayer2(fine))
        maps = (coarse, middle, fine)
        vectors = [head(maps[0 if i < _COARSE else 1 if i < _MIDDLE else 2]) for i, head in enumerate(self.styles)]
        code = torch.stack(vectors, dim=1)
        if self.kind == "GradualStyleEncoder":
            return code
        return torch.cat([code[:, :1], code[:, :1] + code[:, 1:]], dim=1)


def _joined(coarse: torch.Tensor, lateral: torch.Tensor) -> torch.Tensor:
    """Enlarge a map to another's size, corner to corner, and add."""
    return F.interpolate(coarse, size=lateral.shape[-2:], mode="bilinear", align_corners=True) + lateral


def shape_of(shapes: Mapping[str, tuple[int, ...]]) -> E4eShape:
    """Read the widths off the shapes of a state dict.

    Raises:
        KeyError: A tensor is missing.
        IndexError: One has fewer axes than it should.
        ValueError: Units do not fit together.
    """
    units = tuple(
        (
            shapes[f"body.{i}.res_layer.1.weight"][1],
            shapes[f"body.{i}.res_layer.1.weight"][0],
            shapes[f"body.{i}.res_layer.5.fc1.weight"][0],
            f"body.{i}.shortcut_layer.0.weight" in shapes,
        )
        for i in range(UNITS)
    )
    heads = 0
    while f"styles.{heads}.linear.bias" in shapes:
        heads += 1
    stem, codes = shapes["input_layer.0.weight"][0], shapes["styles.0.linear.weight"][0]
    inside = stem
    for i, (expected, outside, _, projected) in enumerate(units):
        if expected != inside or (not projected and outside != inside):
            raise ValueError(f"unit {i} takes {expected} channels and gets {inside}")
        inside = outside
    if inside != codes:
        raise ValueError(f"heads of {codes} channels on maps of {inside}")
    return E4eShape(stem, units, codes, heads)
