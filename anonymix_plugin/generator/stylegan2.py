"""StyleGAN2 (Karras et al. 2020, arXiv 1912.04958), for checkpoints that a user brings.

The network is the paper's configuration with skip connections: a mapping network, a constant of 4x4, two
modulated convolutions for each resolution of which the first one upsamples, and colour layers whose pictures
are upsampled and added.

A modulated convolution is computed in the form that needs no weights per sample: with kernel W, style s and
input x it scales x by s, convolves with W, and scales each output channel o by

    d_o = 1 / sqrt(sum_{i,k} (W_{oik} s_i)^2 + 1e-8) = 1 / sqrt(sum_i E_{oi} s_i^2 + 1e-8)

E, the energy of each slice of the kernel, is a constant. These are the paper's equations 1 to 3 with the
factors taken out of the sum, so that a batch is one convolution and a compiler sees constant weights.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - the name that torch users expect

from anonymix_plugin.generator.checkpoint import open_checkpoint
from anonymix_plugin.generator.protocol import LayerGroups, check_codes, drawn_one_by_one
from anonymix_plugin.generator.stylegan2_formats import stylegan2_weights
from anonymix_plugin.generator.stylegan2_weights import StyleGan2Weights
from anonymix_plugin.values import Floats

_TAPS: Final = (0.25, 0.75, 0.75, 0.25)  # 1 3 3 1 over 4: each axis of an upsampling filter has gain 2
_SLOPE: Final = 0.2
_GAIN: Final = math.sqrt(2)
_PREFERRED: Final = 512  # px that are drawn unless told otherwise, where the generator reaches so far


def stylegan2_layers(style_inputs: int) -> LayerGroups:
    """The groups of a W+ code by resolution.

    Style input 0 belongs to 4 px, 2b - 1 and 2b to block b of 4 * 2**b px; the last one to the last colour
    layer. Coarse is 4 and 8 px, identity 16 px to the first convolution of 64 px, fine the rest.
    """
    return LayerGroups(coarse=range(3), identity=range(3, 8), fine=range(8, style_inputs))


def offered_sizes(resolution: int) -> tuple[int, ...]:
    """The sizes in pixels that a generator offers: its own, and halves of it down to 256."""
    return tuple(size for size in (256, 512, 1024) if size <= resolution) or (resolution,)


def filter_kernel(channels: int) -> torch.Tensor:
    """The filter 1 3 3 1 along both axes, of gain 4, for each channel: (channels, 1, 4, 4) float32."""
    taps = torch.tensor(_TAPS)
    # With two passes of its halves a CPU would take 1.6 times as long.
    return torch.outer(taps, taps)[None, None].repeat(channels, 1, 1, 1)


def upsample(pictures: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
    """Double the resolution: zeros between pixels, then the filter.

    Args:
        pictures: (N, C, H, W).
        kernel: `filter_kernel(C)`.

    Returns:
        (N, C, 2 H, 2 W), of the same mean away from the edges.
    """
    return F.conv_transpose2d(pictures, kernel, stride=2, padding=1, groups=kernel.shape[0])


def smooth(maps: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
    """Filter what a transposed convolution of stride 2 leaves: (N, C, 2 H + 1, ...) to (N, C, 2 H, ...)."""
    return F.conv2d(maps, kernel, padding=1, groups=kernel.shape[0])


class MappingNetwork(nn.Module):
    """z -> w: pixel norm, then fully connected layers with leaky ReLU times sqrt(2)."""

    def __init__(self, weights: StyleGan2Weights) -> None:
        super().__init__()
        rate = weights.mapping_rate
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for i in range(weights.depth):
            weight = _tensor(weights, f"mapping.{i}.weight")
            self.weights.append(_frozen(weight * (rate / math.sqrt(weight.shape[1]))))
            self.biases.append(_frozen(_tensor(weights, f"mapping.{i}.bias") * rate))
        self._precise = [
            (weight.numpy().astype(np.float64), bias.numpy().astype(np.float64))
            for weight, bias in zip(self.weights, self.biases, strict=True)
        ]

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """Map (N, z_dim) float32 Gaussian codes to (N, w_dim) float32 style vectors."""
        x = z * torch.rsqrt(z.square().mean(dim=1, keepdim=True) + 1e-8)
        for weight, bias in zip(self.weights, self.biases, strict=True):
            x = F.leaky_relu(F.linear(x, weight, bias), _SLOPE) * _GAIN
        return x

    def map_arrays(self, z: Floats) -> Floats:
        """Map arrays, (N, z_dim) float32 to (N, w_dim) float32.

        It is computed in float64 and without BLAS, whose sums depend on processor and threads, and rounded
        once at the end: the synthetic code of a key is the same on every engine and machine.
        """
        x = z.astype(np.float64)
        x = x / np.sqrt(np.square(x).mean(axis=1, keepdims=True) + 1e-8)
        for weight, bias in self._precise:
            x = np.einsum("ij,nj->ni", weight, x) + bias
            x = np.where(x >= 0, x, _SLOPE * x) * _GAIN
        return np.asarray(x, np.float32)


class _Style(nn.Module):
    """The affine map from a style vector to one factor for each input channel."""

    def __init__(self, weights: StyleGan2Weights, name: str, gain: float = 1.0) -> None:
        super().__init__()
        weight = _tensor(weights, f"{name}.style.weight")
        self.weight = _frozen(weight * (gain / math.sqrt(weight.shape[1])))
        self.bias = _frozen(_tensor(weights, f"{name}.style.bias") * gain)

    def forward(self, w: torch.Tensor) -> torch.Tensor:
        """(N, w_dim) -> (N, C)."""
        return F.linear(w, self.weight, self.bias)


class ModulatedConv(nn.Module):
    """A 3x3 modulated and demodulated convolution with noise, bias and leaky ReLU.

    Args:
        weights: The generator's.
        k: Which style input it takes; odd ones upsample.
    """

    def __init__(self, weights: StyleGan2Weights, k: int) -> None:
        super().__init__()
        name = f"conv.{k}"
        self.up = k % 2 == 1
        self.style = _Style(weights, name)
        kernel = _tensor(weights, f"{name}.weight")
        kernel = kernel / math.sqrt(kernel[0].numel())
        self.energy = _frozen(kernel.square().sum(dim=(2, 3)))
        self.kernel = _frozen(kernel.transpose(0, 1).contiguous() if self.up else kernel)
        self.filter = _frozen(filter_kernel(len(kernel) if self.up else 0))
        noise = _tensor(weights, f"{name}.noise") * _tensor(weights, f"{name}.strength")
        self.noise = _frozen(noise[None, None])
        self.bias = _frozen(_tensor(weights, f"{name}.bias").reshape(1, -1, 1, 1))
        self.clamp = weights.clamp

    def forward(self, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        """(N, C_in, S, S) and (N, w_dim) -> (N, C_out, S or 2 S, ...)."""
        style = self.style(w)
        scale = torch.rsqrt(F.linear(style.square(), self.energy) + 1e-8)
        x = x * style[:, :, None, None]
        if self.up:
            x = smooth(F.conv_transpose2d(x, self.kernel, stride=2), self.filter)
        else:
            x = F.conv2d(x, self.kernel, padding=1)
        x = x * scale[:, :, None, None] + self.noise + self.bias
        return _bounded(F.leaky_relu(x, _SLOPE) * _GAIN, self.clamp)


class _Colours(nn.Module):
    """A 1x1 modulated convolution to RGB, without demodulation."""

    def __init__(self, weights: StyleGan2Weights, block: int) -> None:
        super().__init__()
        kernel = _tensor(weights, f"rgb.{block}.weight")
        self.style = _Style(weights, f"rgb.{block}", gain=1 / math.sqrt(kernel.shape[1]))
        self.kernel = _frozen(kernel[:, :, None, None].contiguous())
        self.bias = _frozen(_tensor(weights, f"rgb.{block}.bias"))
        self.clamp = weights.clamp

    def forward(self, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        """(N, C, S, S) and (N, w_dim) -> (N, 3, S, S)."""
        x = x * self.style(w)[:, :, None, None]
        return _bounded(F.conv2d(x, self.kernel, self.bias), self.clamp)


class StyleGan2(nn.Module):
    """A StyleGAN2 generator; meets `protocol.Generator`.

    Args:
        weights: Read by `stylegan2_weights`.

    Its parameters are frozen; gradients flow to z and to each style vector. It draws without any randomness:
    the noise maps are those of the checkpoint, and where a checkpoint has none, there is no noise.

    Attributes:
        resolution: Side of the pictures that the network itself draws.
        drawn_size: What `forward` draws: 512 px, or the resolution where that is less.
        source: Format of the checkpoint.
    """

    name = "stylegan2"
    engine = "torch"

    def __init__(self, weights: StyleGan2Weights) -> None:
        super().__init__()
        self.z_dim, self.w_dim = weights.z_dim, weights.w_dim
        self.resolution, self.source = weights.resolution, weights.format
        self.layers = stylegan2_layers(weights.style_inputs)
        self.sizes = offered_sizes(self.resolution)
        self.drawn_size = min(_PREFERRED, self.resolution)
        self.mapping = MappingNetwork(weights)
        self.constant = _frozen(_tensor(weights, "constant")[None])
        self.filter = _frozen(filter_kernel(3))
        count = weights.style_inputs - 1
        self.convolutions = nn.ModuleList(ModulatedConv(weights, k) for k in range(count))
        self.colours = nn.ModuleList(_Colours(weights, block) for block in range((count + 1) // 2))
        self._hash, self._centre = weights.sha256(), weights.centre
        self.eval()

    def weights_hash(self) -> str:
        """Return the SHA-256 (hex) over all weights, the same in whatever format they came."""
        return self._hash

    @property
    def centre(self) -> Floats:
        """(w_dim,) float32, the centre of truncation: the checkpoint's, or measured where it has none."""
        if self._centre is None:
            noise = np.random.Generator(np.random.Philox(0)).standard_normal((10_000, self.z_dim), np.float32)
            with torch.inference_mode():
                self._centre = self.map(torch.from_numpy(noise)).double().mean(dim=0).float().numpy()
        return self._centre

    def map(self, z: torch.Tensor) -> torch.Tensor:
        """Map Gaussian codes (N, z_dim) float32 to style vectors (N, w_dim) float32."""
        mapped: torch.Tensor = self.mapping(z)
        return mapped

    def map_arrays(self, z: Floats) -> Floats:
        """See `MappingNetwork.map_arrays`."""
        return self.mapping.map_arrays(z)

    def draw(self, w_plus: Floats, size: int) -> Floats:
        """Draw (N, layers.total, w_dim) float32, one at a time, so that a face does not depend on others.

        Returns (N, 3, size, size) float32; raises UsageError as `synthesise` does.
        """
        return drawn_one_by_one(self, w_plus, size, self.constant.device)

    def synthesise(self, w_plus: torch.Tensor, size: int) -> torch.Tensor:
        """Draw faces.

        Args:
            w_plus: (N, layers.total, w_dim) float32.
            size: One of `sizes`. Less than the resolution is the exact average over squares of pixels.

        Returns:
            (N, 3, size, size) float32 RGB, nominally in [-1, 1].

        Raises:
            UsageError: If `size` or the shape of `w_plus` does not fit.
        """
        check_codes(self, w_plus, size)
        drawn = self._draw(w_plus)
        return drawn if size == self.resolution else F.avg_pool2d(drawn, self.resolution // size)

    def forward(self, w_plus: torch.Tensor) -> torch.Tensor:
        """Draw at `drawn_size`; the form that engines compile."""
        return self.synthesise(w_plus, self.drawn_size)

    def _draw(self, w_plus: torch.Tensor) -> torch.Tensor:
        x: torch.Tensor = self.constant.expand(w_plus.shape[0], -1, -1, -1)
        x = self.convolutions[0](x, w_plus[:, 0])
        picture: torch.Tensor = self.colours[0](x, w_plus[:, 1])
        for block in range(1, len(self.colours)):
            x = self.convolutions[2 * block - 1](x, w_plus[:, 2 * block - 1])
            x = self.convolutions[2 * block](x, w_plus[:, 2 * block])
            # A block's colours take the style vector of the next block's first convolution.
            picture = upsample(picture, self.filter) + self.colours[block](x, w_plus[:, 2 * block + 1])
        return picture


def load_stylegan2(path: Path) -> StyleGan2:
    """Load a StyleGAN2 generator from a checkpoint, without running anything in it.

    Args:
        path: rosinality's `.pt`, NVIDIA's `.pkl`, genforce's `.pth`, or e4e's and pSp's `.pt`.

    Raises:
        MissingModelError: There is no such file.
        CheckpointError: It can't be read, or holds no StyleGAN2 of 64 to 1024 px; the error says why.
    """
    return StyleGan2(stylegan2_weights(open_checkpoint(path)))


def _bounded(x: torch.Tensor, bound: float | None) -> torch.Tensor:
    return x if bound is None else x.clamp(-bound, bound)


def _tensor(weights: StyleGan2Weights, name: str) -> torch.Tensor:
    return torch.from_numpy(weights.tensors[name])


def _frozen(values: torch.Tensor) -> nn.Parameter:
    return nn.Parameter(values, requires_grad=False)
