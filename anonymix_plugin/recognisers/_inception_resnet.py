"""Inception-ResNet-v1 as FaceNet uses it.

Szegedy, Ioffe, Vanhoucke, Alemi, "Inception-v4, Inception-ResNet and the impact of residual connections on
learning", 2016, arXiv:1602.07261, figures 10 to 15, with the 128-d bottleneck of FaceNet. It is meant for
recognition only, so each batch normalisation is part of the layer before it, which is half again as fast.
Layers carry the names that published weights have.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional


class _Kernel(NamedTuple):
    """One convolution of a branch: its name's last part, channels, size, stride, padded or not."""

    name: str
    channels: int
    size: tuple[int, int] = (1, 1)
    stride: int = 1
    padded: bool = True


class ConvRelu(nn.Module):
    """Convolution and ReLU; the batch normalisation between them is part of the convolution's weights.

    Args:
        name: Name of the layer in the published weights.
        inputs: Channels in.
        kernel: The convolution.
    """

    def __init__(self, name: str, inputs: int, kernel: _Kernel) -> None:
        super().__init__()
        self.name = name
        height, width = kernel.size
        padding = (height // 2, width // 2) if kernel.padded else (0, 0)
        self.conv = nn.Conv2d(inputs, kernel.channels, kernel.size, kernel.stride, padding)

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) to (N, channels, H', W')."""
        return functional.relu(self.conv(x))


class Residual(nn.Module):
    """Parallel branches, merged by a convolution of 1x1 and added to the input at a small scale.

    Args:
        name: Name of the block in the published weights.
        inputs: Channels in and out.
        branches: The convolutions of each branch; a single branch of a single layer has its short name.
        scale: Factor of what is added.
        activate: Whether a ReLU follows.
    """

    def __init__(
        self, name: str, inputs: int, branches: list[list[_Kernel]], *, scale: float, activate: bool = True
    ) -> None:
        super().__init__()
        self.name, self.scale, self.activate = f"{name}_Conv2d_1x1", scale, activate
        self.branches = _branches(name, inputs, branches)
        self.merge = nn.Conv2d(sum(branch[-1].channels for branch in branches), inputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) to the same shape."""
        merged = self.merge(torch.cat([branch(x) for branch in self.branches], dim=1))
        result: Tensor = x + self.scale * merged
        return functional.relu(result) if self.activate else result


class Reduction(nn.Module):
    """Parallel branches of stride 2 and a maximum pooling, side by side.

    Args:
        name: Name of the block in the published weights.
        inputs: Channels in.
        branches: The convolutions of each branch.
    """

    def __init__(self, name: str, inputs: int, branches: list[list[_Kernel]]) -> None:
        super().__init__()
        self.branches = _branches(name, inputs, branches)

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) to (N, inputs + sum of the branches' channels, (H-1)//2, (W-1)//2)."""
        return torch.cat([*(branch(x) for branch in self.branches), functional.max_pool2d(x, 3, 2)], dim=1)


class InceptionResnetV1(nn.Module):
    """The whole network, from standardised pixels to an unnormalised embedding of 128 numbers."""

    dim = 128

    def __init__(self) -> None:
        super().__init__()
        square = (3, 3)
        self.stem = nn.Sequential(
            ConvRelu("Conv2d_1a_3x3", 3, _Kernel("", 32, square, 2, padded=False)),
            ConvRelu("Conv2d_2a_3x3", 32, _Kernel("", 32, square, padded=False)),
            ConvRelu("Conv2d_2b_3x3", 32, _Kernel("", 64, square)),
            nn.MaxPool2d(3, 2),
            ConvRelu("Conv2d_3b_1x1", 64, _Kernel("", 80, padded=False)),
            ConvRelu("Conv2d_4a_3x3", 80, _Kernel("", 192, square, padded=False)),
            ConvRelu("Conv2d_4b_3x3", 192, _Kernel("", 256, square, 2, padded=False)),
        )
        self.body = nn.Sequential(
            *(Residual(f"Block35_{index}", 256, _block35(), scale=0.17) for index in range(1, 6)),
            Reduction("Mixed_6a", 256, _mixed_6a()),
            *(Residual(f"Block17_{index}", 896, _block17(), scale=0.10) for index in range(1, 11)),
            Reduction("Mixed_7a", 896, _mixed_7a()),
            *(Residual(f"Block8_{index}", 1792, _block8(), scale=0.20) for index in range(1, 6)),
            Residual("Block8_6", 1792, _block8(), scale=1.0, activate=False),
        )
        self.bottleneck = nn.Linear(1792, self.dim)

    def forward(self, x: Tensor) -> Tensor:
        """Embed.

        Args:
            x: (N, 3, H, W) float32 RGB, standardised; 160 pixels are what it was trained on.

        Returns:
            (N, 128) float32, of any length.
        """
        result: Tensor = self.bottleneck(self.body(self.stem(x)).mean(dim=(2, 3)))
        return result


def standardised(x: Tensor) -> Tensor:
    """Each image brought to mean 0 and standard deviation 1 over all its pixels and channels.

    The standard deviation is kept from falling below that of a single grey level in one value, 1 / sqrt(n).

    Args:
        x: (N, 3, H, W) float32, 0..255.

    Returns:
        The same shape.
    """
    count = x[0].numel()
    std = x.std(dim=(1, 2, 3), keepdim=True, unbiased=False).clamp_min(count**-0.5)
    return (x - x.mean(dim=(1, 2, 3), keepdim=True)) / std


def _branches(name: str, inputs: int, branches: list[list[_Kernel]]) -> nn.ModuleList:
    result = nn.ModuleList()
    for index, kernels in enumerate(branches):
        layers, channels = [], inputs
        for kernel in kernels:
            layers.append(ConvRelu(f"{name}_Branch_{index}_{kernel.name}", channels, kernel))
            channels = kernel.channels
        result.append(nn.Sequential(*layers))
    return result


def _block35() -> list[list[_Kernel]]:
    return [
        [_Kernel("Conv2d_1x1", 32)],
        [_Kernel("Conv2d_0a_1x1", 32), _Kernel("Conv2d_0b_3x3", 32, (3, 3))],
        [
            _Kernel("Conv2d_0a_1x1", 32),
            _Kernel("Conv2d_0b_3x3", 32, (3, 3)),
            _Kernel("Conv2d_0c_3x3", 32, (3, 3)),
        ],
    ]


def _block17() -> list[list[_Kernel]]:
    return [
        [_Kernel("Conv2d_1x1", 128)],
        [
            _Kernel("Conv2d_0a_1x1", 128),
            _Kernel("Conv2d_0b_1x7", 128, (1, 7)),
            _Kernel("Conv2d_0c_7x1", 128, (7, 1)),
        ],
    ]


def _block8() -> list[list[_Kernel]]:
    return [
        [_Kernel("Conv2d_1x1", 192)],
        [
            _Kernel("Conv2d_0a_1x1", 192),
            _Kernel("Conv2d_0b_1x3", 192, (1, 3)),
            _Kernel("Conv2d_0c_3x1", 192, (3, 1)),
        ],
    ]


def _mixed_6a() -> list[list[_Kernel]]:
    return [
        [_Kernel("Conv2d_1a_3x3", 384, (3, 3), 2, padded=False)],
        [
            _Kernel("Conv2d_0a_1x1", 192),
            _Kernel("Conv2d_0b_3x3", 192, (3, 3)),
            _Kernel("Conv2d_1a_3x3", 256, (3, 3), 2, padded=False),
        ],
    ]


def _mixed_7a() -> list[list[_Kernel]]:
    return [
        [_Kernel("Conv2d_0a_1x1", 256), _Kernel("Conv2d_1a_3x3", 384, (3, 3), 2, padded=False)],
        [_Kernel("Conv2d_0a_1x1", 256), _Kernel("Conv2d_1a_3x3", 256, (3, 3), 2, padded=False)],
        [
            _Kernel("Conv2d_0a_1x1", 256),
            _Kernel("Conv2d_0b_3x3", 256, (3, 3)),
            _Kernel("Conv2d_1a_3x3", 256, (3, 3), 2, padded=False),
        ],
    ]
