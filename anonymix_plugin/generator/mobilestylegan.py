"""MobileStyleGAN (Belousov 2021, arXiv 2104.04767) as a differentiable torch module: the reference."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - the name that torch users expect

from anonymix_plugin.errors import UsageError
from anonymix_plugin.generator.protocol import check_codes, drawn_one_by_one
from anonymix_plugin.generator.published_weights import (
    BLOCKS,
    HAAR,
    LAYERS,
    MIDDLE,
    NAME,
    SIZES,
    SLOPE,
    W_DIM,
    Z_DIM,
    Affine,
    BlockWeights,
    ConvWeights,
    MappingWeights,
    PublishedWeights,
)
from anonymix_plugin.values import Floats


def inverse_haar(low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
    """Double the resolution by an inverse 2-D Haar wavelet.

    Args:
        low: (N, C, H, W), the LL band: half the sum of each 2x2 block.
        high: (N, 3 C, H, W), for each channel the three detail bands in the order of the published files:
            vertical, horizontal, diagonal.

    Returns:
        (N, C, 2 H, 2 W).
    """
    n, c, h, w = low.shape
    v, u, d = high.reshape(n, c, 3, h, w).unbind(2)
    # Butterfly: eight additions a block in place of sixteen multiplications.
    lv, lu = low + v, low - v
    ud, um = u + d, u - d
    blocks = torch.stack((lv + ud, lv - ud, lu + um, lu - um), dim=2)
    return F.pixel_shuffle(blocks.reshape(n, 4 * c, h, w), 2) * HAAR


class MappingNetwork(nn.Module):
    """z -> w: pixel norm, then eight fully connected layers with leaky ReLU times sqrt(2)."""

    def __init__(self, values: MappingWeights) -> None:
        super().__init__()
        self.weights = nn.ParameterList(_frozen(weight) for weight in values.weights)
        self.biases = nn.ParameterList(_frozen(bias) for bias in values.biases)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """Map (N, 512) float32 Gaussian codes to (N, 512) float32 style vectors."""
        x = z * torch.rsqrt(z.square().mean(dim=1, keepdim=True) + 1e-8)
        for weight, bias in zip(self.weights, self.biases, strict=True):
            x = F.leaky_relu(F.linear(x, weight, bias), SLOPE) * math.sqrt(2)
        return x


class _Modulation(nn.Module):
    """The affine map from one style vector to one factor per channel."""

    def __init__(self, values: Affine) -> None:
        super().__init__()
        self.weight = _frozen(values.weight)
        self.bias = _frozen(values.bias)

    def forward(self, w: torch.Tensor) -> torch.Tensor:
        """(N, 512) -> (N, C, 1, 1)."""
        return F.linear(w, self.weight, self.bias)[:, :, None, None]


class _StyledConv(nn.Module):
    """Modulate, convolve (depthwise and pointwise, or plain), add noise map and bias, leaky ReLU."""

    depthwise: nn.Parameter | None

    def __init__(self, values: ConvWeights) -> None:
        super().__init__()
        self.modulation = _Modulation(values.modulation)
        self.weight = _frozen(values.weight)
        # One addition in place of two: the noise map is fixed, so it and the bias are one constant. The
        # sum is kept in two parts here because (C, H, W) of it would be 100 MB; torch broadcasts.
        self.bias = _frozen(values.bias)
        self.noise = _frozen(values.noise)
        self.depthwise = None if values.depthwise is None else _frozen(values.depthwise)

    def forward(self, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        x = x * self.modulation(w)
        if self.depthwise is None:
            x = F.conv2d(x, self.weight, self.bias, padding=1)
        else:
            x = F.conv2d(x, self.depthwise, padding=1, groups=x.shape[1])
            x = F.conv2d(x, self.weight, self.bias)
        return F.leaky_relu(x + self.noise, SLOPE)

    def each(self, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        """Modulate and convolve each channel by itself: the part before channels are mixed."""
        if self.depthwise is None:
            raise UsageError("a plain convolution mixes channels at once")
        return F.conv2d(x * self.modulation(w), self.depthwise, padding=1, groups=x.shape[1])


class _Block(nn.Module):
    """Upsample by an inverse wavelet and convolve twice; three style inputs."""

    def __init__(self, values: BlockWeights) -> None:
        super().__init__()
        self.up = _Modulation(values.up)
        self.conv1 = _StyledConv(values.conv1)
        self.conv2 = _StyledConv(values.conv2)

    def forward(self, x: torch.Tensor, styles: torch.Tensor) -> torch.Tensor:
        convolved: torch.Tensor = self.conv2(self.first(x, styles), styles[:, 2])
        return convolved

    def first(self, x: torch.Tensor, styles: torch.Tensor) -> torch.Tensor:
        """Upsample and convolve once."""
        x = x * self.up(styles[:, 0])
        channels = x.shape[1] // 4
        x = inverse_haar(x[:, :channels], x[:, channels:])
        convolved: torch.Tensor = self.conv1(x, styles[:, 1])
        return convolved


class MobileStyleGan(nn.Module):
    """The generator that a fresh machine can fetch; meets `protocol.Generator`.

    Args:
        weights: What `read_published` read.

    Its parameters are frozen; gradients flow to z and to each of the 23 style vectors. It draws without
    any randomness: the noise maps are constants of the published files.
    """

    name = NAME
    z_dim = Z_DIM
    w_dim = W_DIM
    layers = LAYERS
    sizes = SIZES
    engine = "torch"

    def __init__(self, weights: PublishedWeights) -> None:
        super().__init__()
        synthesis = weights.synthesis
        self.mapping = MappingNetwork(weights.mapping)
        self.constant = _frozen(synthesis.constant)
        self.stem = _StyledConv(synthesis.stem)
        self.blocks = nn.ModuleList(_Block(values) for values in synthesis.blocks)
        self.head_modulation = _Modulation(synthesis.head_modulation)
        self.head_weight = _frozen(synthesis.head_weight)
        self.head_bias = _frozen(synthesis.head_bias)
        self._hash = weights.sha256
        self._mapping_values = weights.mapping
        self.eval()

    def weights_hash(self) -> str:
        """Return the SHA-256 (hex) over the four published files."""
        return self._hash

    def map(self, z: torch.Tensor) -> torch.Tensor:
        """Map Gaussian codes (N, 512) float32 to style vectors (N, 512) float32."""
        mapped: torch.Tensor = self.mapping(z)
        return mapped

    def map_arrays(self, z: Floats) -> Floats:
        """See `protocol.ArrayGenerator.map_arrays`."""
        return self._mapping_values.apply(z)

    def draw(self, w_plus: Floats, size: int) -> Floats:
        """See `protocol.ArrayGenerator.draw`. Codes are drawn one at a time: batches change nothing."""
        return drawn_one_by_one(self, w_plus, size)

    def features(self, w_plus: torch.Tensor, blocks: int = BLOCKS) -> torch.Tensor:
        """Run the stem and the first `blocks` blocks.

        Args:
            w_plus: (N, 23, 512) float32.
            blocks: 0..7; after block i (counted from 1) features have side 4 * 2**i.

        Returns:
            (N, C, S, S) float32.
        """
        x: torch.Tensor = self.constant.expand(w_plus.shape[0], -1, -1, -1)
        x = self.stem(x, w_plus[:, 0])
        for i, block in enumerate(self.blocks[:blocks]):
            x = block(x, w_plus[:, 1 + 3 * i : 4 + 3 * i])
        return x

    def middle(self, w_plus: torch.Tensor) -> torch.Tensor:
        """Run everything up to the first convolution at 64 px: (N, 23, 512) -> (N, 512, 64, 64) float32."""
        x = self.features(w_plus, MIDDLE)
        return self._middle().first(x, w_plus[:, 1 + 3 * MIDDLE : 4 + 3 * MIDDLE])

    def middle_channels(self, middle: torch.Tensor, w_plus: torch.Tensor) -> torch.Tensor:
        """What the second convolution at 64 px makes of each channel of `middle`, before it mixes them."""
        return self._middle().conv2.each(middle, w_plus[:, 3 + 3 * MIDDLE])

    def finish(self, middle: torch.Tensor, w_plus: torch.Tensor) -> torch.Tensor:
        """Draw the 512 px picture on from what `middle` returned for the same codes."""
        x: torch.Tensor = self._middle().conv2(middle, w_plus[:, 3 + 3 * MIDDLE])
        for i, block in enumerate(self.blocks[MIDDLE + 1 :], MIDDLE + 1):
            x = block(x, w_plus[:, 1 + 3 * i : 4 + 3 * i])
        x = x * self.head_modulation(w_plus[:, -1])
        return F.conv2d(x, self.head_weight[:3], self.head_bias[:3]) * HAAR

    def _middle(self) -> _Block:
        block = self.blocks[MIDDLE]
        assert isinstance(block, _Block)  # noqa: S101 - for the type checker
        return block

    def synthesise(self, w_plus: torch.Tensor, size: int = 1024) -> torch.Tensor:
        """Draw faces.

        Args:
            w_plus: (N, 23, 512) float32.
            size: 1024, or 512: the LL band before the last inverse wavelet, halved, which is exactly the
                2x2 average of the large image at a fraction of the memory traffic.

        Returns:
            (N, 3, size, size) float32 RGB, nominally in [-1, 1].

        Raises:
            UsageError: If `size` or the shape of `w_plus` does not fit.
        """
        check_codes(self, w_plus, size)
        x = self.features(w_plus) * self.head_modulation(w_plus[:, -1])
        if size == 512:
            return F.conv2d(x, self.head_weight[:3], self.head_bias[:3]) * HAAR
        bands = F.conv2d(x, self.head_weight, self.head_bias)
        return inverse_haar(bands[:, :3], bands[:, 3:])

    def forward(self, w_plus: torch.Tensor) -> torch.Tensor:
        """Draw at 512 px."""
        return self.synthesise(w_plus, 512)


def _frozen(values: Floats) -> nn.Parameter:
    return nn.Parameter(torch.from_numpy(np.ascontiguousarray(values)), requires_grad=False)
