"""How the formats of StyleGAN2 checkpoints call their tensors, and where their conventions differ.

| format | top level | differs from ours by |
|---|---|---|
| `rosinality` (stylegan2-pytorch, `.pt`) | `g_ema`, `latent_avg` | leading axes of length 1 |
| `e4e` (encoder4editing and pSp, `.pt`) | `state_dict` with `decoder.`, `latent_avg` | as rosinality |
| `genforce` (`.pth`) | `generator_smooth` | flipped upsampling kernels; style biases without 1 |
| `nvidia` (stylegan2-ada-pytorch, stylegan3, `.pkl`) | `G_ema` | nothing but names |

Weights are kept as the files have them, without the constants of equalised learning rates; those are the
network's business.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

Format = Literal["rosinality", "e4e", "genforce", "nvidia"]


@dataclass(frozen=True)
class Naming:
    """How a format calls things.

    Attributes:
        format: Which it is.
        constant: Name of the constant.
        mapping: Layer -> prefix.
        conv: Style input -> prefix.
        noise: Style input -> name of its noise map.
        rgb: Block -> prefix.
        style: What stands between the prefix and `.weight` of a style's affine map.
        bias: Name of a convolution's bias, after its prefix.
        weight: Name of a convolution's weight, after its prefix.
        strength: Name of the noise's strength, after the prefix.
        rgb_weight: Name of a colour layer's weight, after its prefix.
        ignored: Names that are checked or dropped.
        flipped: Whether kernels of upsampling convolutions are flipped.
        style_offset: What is missing in the bias of styles.
    """

    format: Format
    constant: str
    mapping: Callable[[int], str]
    conv: Callable[[int], str]
    noise: Callable[[int], str]
    rgb: Callable[[int], str]
    style: str
    bias: str
    weight: str
    strength: str
    rgb_weight: str
    ignored: re.Pattern[str]
    flipped: bool = False
    style_offset: float = 0.0


def _nvidia_conv(k: int) -> str:
    return f"synthesis.b{4 << ((k + 1) // 2)}.conv{'0' if k % 2 else '1'}"


ROSINALITY: Final = Naming(
    format="rosinality",
    constant="input.input",
    mapping=lambda i: f"style.{i + 1}",
    conv=lambda k: f"convs.{k - 1}" if k else "conv1",
    noise=lambda k: f"noises.noise_{k}",
    rgb=lambda b: f"to_rgbs.{b - 1}" if b else "to_rgb1",
    style=".conv.modulation",
    bias=".activate.bias",
    weight=".conv.weight",
    strength=".noise.weight",
    rgb_weight=".conv.weight",
    ignored=re.compile(r".*\.kernel"),
)
GENFORCE: Final = Naming(
    format="genforce",
    constant="synthesis.early_layer.const",
    mapping=lambda i: f"mapping.dense{i}",
    conv=lambda k: f"synthesis.layer{k}",
    noise=lambda k: f"synthesis.layer{k}.noise",
    rgb=lambda b: f"synthesis.output{b}",
    style=".style",
    bias=".bias",
    weight=".weight",
    strength=".noise_strength",
    rgb_weight=".weight",
    ignored=re.compile(r".*\.kernel|truncation\.w_avg"),
    flipped=True,
    style_offset=1.0,
)
NVIDIA: Final = Naming(
    format="nvidia",
    constant="synthesis.b4.const",
    mapping=lambda i: f"mapping.fc{i}",
    conv=_nvidia_conv,
    noise=lambda k: f"{_nvidia_conv(k)}.noise_const",
    rgb=lambda b: f"synthesis.b{4 << b}.torgb",
    style=".affine",
    bias=".bias",
    weight=".weight",
    strength=".noise_strength",
    rgb_weight=".weight",
    ignored=re.compile(r".*\.resample_filter|mapping\.w_avg"),
)
