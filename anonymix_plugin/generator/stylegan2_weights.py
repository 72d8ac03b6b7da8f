"""The weights of a StyleGAN2 generator, under one set of names whatever file they came in."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from anonymix_plugin.generator.stylegan2_naming import Format
from anonymix_plugin.values import Floats


@dataclass(frozen=True, eq=False)
class StyleGan2Weights:
    """One StyleGAN2 generator, whatever file it came from.

    Attributes:
        tensors: float32 arrays. With blocks b = 0 (4 px), 1 (8 px), ... of C_b channels, and style inputs
            k = 0, 1, ... (k = 2b - 1 the upsampling convolution of block b, k = 2b its second one):
            `constant` (C_0, 4, 4);
            `mapping.I.weight` (out, in), `mapping.I.bias` (out,);
            `conv.K.weight` (out, in, 3, 3), for odd K as a transposed convolution takes it,
            `conv.K.bias` (out,), `conv.K.style.weight` (in, w_dim), `conv.K.style.bias` (in,),
            `conv.K.strength` () and `conv.K.noise` (px, px);
            `rgb.B.weight` (3, C_b), `rgb.B.bias` (3,), `rgb.B.style.weight` (C_b, w_dim),
            `rgb.B.style.bias` (C_b,).
        resolution: Side of the pictures in pixels.
        mapping_rate: Learning rate multiplier of the mapping network.
        clamp: Bound of activations, None for none.
        centre: (w_dim,) float32, mean style vector, None where the file has none.
        noise: Whether the file has noise maps; without them pictures are drawn without noise.
        format: Where it came from.
    """

    tensors: Mapping[str, Floats]
    resolution: int
    mapping_rate: float
    clamp: float | None
    centre: Floats | None
    noise: bool
    format: Format

    @property
    def z_dim(self) -> int:
        """Size of a Gaussian code."""
        return int(self.tensors["mapping.0.weight"].shape[1])

    @property
    def w_dim(self) -> int:
        """Size of a style vector."""
        return int(self.tensors[f"mapping.{self.depth - 1}.weight"].shape[0])

    @property
    def depth(self) -> int:
        """Layers of the mapping network."""
        return sum(bool(re.fullmatch(r"mapping\.\d+\.bias", name)) for name in self.tensors)

    @property
    def style_inputs(self) -> int:
        """Length of a W+ code: 10 for 64 px, 14 for 256, 16 for 512, 18 for 1024."""
        return 2 * int(math.log2(self.resolution)) - 2

    def sha256(self) -> str:
        """SHA-256 over names, shapes and values of all tensors and over the settings, 64 hex digits.

        It depends on what is drawn and not on the format, so that a generator out of e4e's file and the same
        one out of its own file are one generator. The centre has no part in what a code draws, and none here.
        """
        digest = hashlib.sha256()
        settings = {"mapping_rate": self.mapping_rate, "clamp": self.clamp, "resolution": self.resolution}
        digest.update(json.dumps(settings, sort_keys=True).encode())
        for name, values in sorted(self.tensors.items()):
            digest.update(f"\n{name} {values.shape}\n".encode())
            digest.update(np.ascontiguousarray(values, "<f4").data)
        return digest.hexdigest()
