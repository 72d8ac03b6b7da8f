"""MobileStyleGAN (Belousov 2021, arXiv 2104.04767) as a differentiable torch module.

The weights are read straight from the published OpenVINO files. The published graph takes one style vector
for all layers; every layer has modulation weights of its own, though, so the module here takes one vector
per layer: 23 style inputs in W+.
"""

from __future__ import annotations

import hashlib
import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - the name that torch users expect

from anonymix_plugin.errors import UsageError
from anonymix_plugin.generator._ir import IrGraph
from anonymix_plugin.generator.protocol import LayerGroups

_BLOCKS = 7  # 8x8 ... 512x512
_HAAR = 0.5  # every entry of the 2x2 inverse Haar kernels is +-1/2


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
    return F.pixel_shuffle(blocks.reshape(n, 4 * c, h, w), 2) * _HAAR


class MappingNetwork(nn.Module):
    """z -> w: pixel norm, then eight fully connected layers with leaky ReLU times sqrt(2)."""

    def __init__(self, graph: IrGraph) -> None:
        super().__init__()
        weights, biases = _mapping_layers(graph)
        self.weights = nn.ParameterList(_frozen(weight) for weight in weights)
        self.biases = nn.ParameterList(_frozen(bias) for bias in biases)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """Map (N, 512) float32 Gaussian codes to (N, 512) float32 style vectors."""
        x = z * torch.rsqrt(z.square().mean(dim=1, keepdim=True) + 1e-8)
        for weight, bias in zip(self.weights, self.biases, strict=True):
            x = F.leaky_relu(F.linear(x, weight, bias), 0.2) * math.sqrt(2)
        return x


class _Modulation(nn.Module):
    """The affine map from one style vector to one factor per channel."""

    def __init__(self, graph: IrGraph, name: str) -> None:
        super().__init__()
        weight = graph.find(f"{name}.modulation.weight")
        affine = graph.consumer(graph.consumer(weight, "MatMul"), "Add")
        product = graph.consumer(graph.consumer(affine, "Reshape"), "Multiply")
        # Convolutions carry a constant 1/sqrt(fan in) after the affine map; upsamplings do not.
        constants = graph.constant_inputs(product)
        scale = float(graph.value(constants[0]).reshape(())) if constants else 1.0
        self.weight = _frozen(graph.value(weight) * scale)
        self.bias = _frozen(graph.named(f"{name}.modulation.bias").reshape(-1) * scale)

    def forward(self, w: torch.Tensor) -> torch.Tensor:
        """(N, 512) -> (N, C, 1, 1)."""
        return F.linear(w, self.weight, self.bias)[:, :, None, None]


class _StyledConv(nn.Module):
    """Modulate, convolve (depthwise and pointwise, or plain), add noise map and bias, leaky ReLU."""

    depthwise: nn.Parameter | None

    def __init__(self, graph: IrGraph, name: str) -> None:
        super().__init__()
        self.modulation = _Modulation(graph, f"{name}.conv")
        bias = graph.find(f"{name}.bias")
        with_noise = graph.computed_input(graph.consumer(bias, "Add"))
        convolution = graph.computed_input(with_noise)
        self.weight = _frozen(graph.value(graph.constant_input(convolution)))
        # One addition in place of two: the noise map is fixed, so it and the bias are one constant. The
        # sum is kept in two parts here because (C, H, W) of it would be 100 MB; torch broadcasts.
        self.bias = _frozen(graph.value(bias).reshape(-1))
        self.noise = _frozen(graph.value(graph.constant_input(with_noise)))
        if f"{name}.conv.weight_dw" in graph:
            depthwise = graph.named(f"{name}.conv.weight_dw")
            self.depthwise = _frozen(depthwise.reshape(depthwise.shape[0], 1, 3, 3))
        else:
            self.depthwise = None

    def forward(self, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        x = x * self.modulation(w)
        if self.depthwise is None:
            x = F.conv2d(x, self.weight, self.bias, padding=1)
        else:
            x = F.conv2d(x, self.depthwise, padding=1, groups=x.shape[1])
            x = F.conv2d(x, self.weight, self.bias)
        return F.leaky_relu(x + self.noise, 0.2)


class _Block(nn.Module):
    """Upsample by an inverse wavelet and convolve twice; three style inputs."""

    def __init__(self, graph: IrGraph, name: str) -> None:
        super().__init__()
        self.up = _Modulation(graph, f"{name}.up")
        self.conv1 = _StyledConv(graph, f"{name}.conv1")
        self.conv2 = _StyledConv(graph, f"{name}.conv2")

    def forward(self, x: torch.Tensor, styles: torch.Tensor) -> torch.Tensor:
        x = x * self.up(styles[:, 0])
        channels = x.shape[1] // 4
        x = inverse_haar(x[:, :channels], x[:, channels:])
        convolved: torch.Tensor = self.conv2(self.conv1(x, styles[:, 1]), styles[:, 2])
        return convolved


class MobileStyleGan(nn.Module):
    """The generator that a fresh machine can fetch; meets `protocol.Generator`.

    Args:
        mapping_xml: Path of `MappingNetwork.xml`, its .bin beside it.
        synthesis_xml: Path of `SynthesisNetwork.xml`, its .bin beside it.

    Raises:
        DamagedModelError: If the files are not the graph that this module expects.

    Its parameters are frozen; gradients flow to z and to each of the 23 style vectors. It draws without
    any randomness: the noise maps are constants of the published files.
    """

    name = "mobilestylegan"
    z_dim = 512
    w_dim = 512
    # Style input 0 is the convolution at 4x4, 1 + 3 i to 3 + 3 i are (up, conv1, conv2) of block i, 22 is
    # the output head. Block 0 works at 8x8, block 6 at 512x512.
    layers = LayerGroups(coarse=range(4), identity=range(4, 11), fine=range(11, 23))
    sizes = (512, 1024)

    def __init__(self, mapping_xml: Path, synthesis_xml: Path) -> None:
        super().__init__()
        self.mapping = MappingNetwork(IrGraph(mapping_xml))
        graph = IrGraph(synthesis_xml)
        self.constant = _frozen(graph.named("m.input.input"))
        self.stem = _StyledConv(graph, "m.conv1")
        self.blocks = nn.ModuleList(_Block(graph, f"m.layers.{i}") for i in range(_BLOCKS))
        head = f"m.layers.{_BLOCKS - 1}.to_img"
        self.head_modulation = _Modulation(graph, f"{head}.conv")
        self.head_weight = _frozen(graph.named(f"{head}.conv.weight"))
        self.head_bias = _frozen(graph.named(f"{head}.bias").reshape(-1))
        self._hash = _files_hash(mapping_xml, synthesis_xml)
        self.eval()

    def weights_hash(self) -> str:
        """Return the SHA-256 (hex) over the four published files."""
        return self._hash

    def map(self, z: torch.Tensor) -> torch.Tensor:
        """Map Gaussian codes (N, 512) float32 to style vectors (N, 512) float32."""
        mapped: torch.Tensor = self.mapping(z)
        return mapped

    def features(self, w_plus: torch.Tensor, blocks: int = _BLOCKS) -> torch.Tensor:
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
        if size not in self.sizes:
            raise UsageError(f"this generator draws {self.sizes} px, not {size}", where="size")
        if w_plus.ndim != 3 or w_plus.shape[1:] != (self.layers.total, self.w_dim):
            raise UsageError(f"a W+ code has shape (N, 23, 512), not {tuple(w_plus.shape)}", where="w_plus")
        x = self.features(w_plus) * self.head_modulation(w_plus[:, -1])
        if size == 512:
            return F.conv2d(x, self.head_weight[:3], self.head_bias[:3]) * _HAAR
        bands = F.conv2d(x, self.head_weight, self.head_bias)
        return inverse_haar(bands[:, :3], bands[:, 3:])

    def forward(self, w_plus: torch.Tensor) -> torch.Tensor:
        """Draw at 512 px; the form that engines compile."""
        return self.synthesise(w_plus, 512)


def _frozen(values: npt.NDArray[np.float32]) -> nn.Parameter:
    return nn.Parameter(torch.from_numpy(np.ascontiguousarray(values)), requires_grad=False)


def _mapping_layers(graph: IrGraph) -> tuple[list[npt.NDArray[np.float32]], list[npt.NDArray[np.float32]]]:
    """Return weights (out, in) and biases (out,) in the order of the graph, from the input on."""
    weights, biases = [], []
    for product in graph.chain("MatMul"):
        weights.append(graph.value(graph.constant_input(product)))
        # The bias reaches its Add through a Reshape to the batch's shape.
        reshaped = graph.input_of_kind(graph.consumer(product, "Add"), "Reshape")
        biases.append(graph.value(graph.constant_input(reshaped)).reshape(-1))
    return weights, biases


def _files_hash(*graphs: Path) -> str:
    digest = hashlib.sha256()
    for xml in graphs:
        for path in (xml, xml.with_suffix(".bin")):
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()
