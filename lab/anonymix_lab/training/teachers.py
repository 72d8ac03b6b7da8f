"""Recognisers that tuning learns from: the mixer's own two, and FaceRes, which judges nothing.

FaceRes is the network of Savchenko 2019 ("Efficient facial representations for age, gender and identity
recognition in organizing photo albums using multi-output ConvNet", arXiv 1807.07718): MobileNet (Howard et al.
2017, arXiv 1704.04861), trained to name the people of VGGFace2. It learned from other photos than the mixer's
two recognisers, by another loss, and no figure of this project is taken by it. Its weights lie in the npm
package `@vladmandic/human`; `make teacher` fetches them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - the name that torch users expect

from anonymix_plugin.errors import DamagedModelError, MissingModelError, UsageError
from anonymix_plugin.recognisers import torch_recogniser
from anonymix_plugin.values import Floats

TEACHERS: Final = ("arcface-mbf", "sface")
"""Those that the mixer reads photos with; other recognisers judge."""

FACERES: Final = Path("out/teachers/faceres.json")
"""Where `make teacher` puts the list of FaceRes's weights; the weights themselves lie beside it, in a .bin."""

FACERES_FILES: Final = {FACERES: 71_432, FACERES.with_suffix(".bin"): 6_978_814}
"""Its files, and their bytes."""

_HASHES: Final = {
    ".json": "5b83d49c0385d2e68a05122441b94226313677cae9fcc40b9587ad50079eb4df",
    ".bin": "2c7d2d62b76c97528b736527aa09d310ea71743c9e3e79fb6c62d4b2d73af79b",
}
_SIDE = 224
_MEAN = (103.939, 116.779, 123.68)  # of blue, green and red over ImageNet's photos: what it was trained with
_HALVING = (2, 4, 6, 12)  # the blocks that halve the side
_BLOCKS = 13


class FaceRes(nn.Module):
    """The descriptor of FaceRes, 1,024 numbers that are 0 or more; frozen.

    Args:
        weights: Name in the published graph -> array, float32.
    """

    def __init__(self, weights: dict[str, Floats]) -> None:
        super().__init__()

        def keep(name: str, values: Floats) -> None:
            self.register_buffer(name, torch.from_numpy(np.ascontiguousarray(values)))

        # TensorFlow has height, width, inputs, outputs; torch has outputs, inputs, height, width. The factors of
        # the normalisations are in the kernels already, or go there.
        keep("kernel_0", weights["conv1/convolution/merged_input"].transpose(3, 2, 0, 1))
        keep("bias_0", weights["conv1_bn/batchnorm_1/sub"])
        for block in range(1, _BLOCKS + 1):
            factor = weights[f"conv_dw_{block}_bn/batchnorm_1/mul"].reshape(-1, 1, 1, 1)
            keep(f"deep_{block}", weights[f"conv_dw_{block}/depthwise_kernel"].transpose(2, 3, 0, 1) * factor)
            keep(f"deep_bias_{block}", weights[f"conv_dw_{block}_bn/batchnorm_1/sub"].reshape(-1))
            keep(f"point_{block}", weights[f"conv_pw_{block}/convolution/merged_input"].transpose(3, 2, 0, 1))
            keep(f"point_bias_{block}", weights[f"conv_pw_{block}_bn/batchnorm_1/sub"].reshape(-1))
        self.register_buffer("mean", torch.tensor(_MEAN).view(1, 3, 1, 1), persistent=False)
        self.mean: torch.Tensor

    def forward(self, crops: torch.Tensor) -> torch.Tensor:
        """(N, 3, S, S) float32 RGB in -1..1, aligned as for ArcFace -> (N, 1024) float32, not normalised."""
        x = F.interpolate(crops.flip(1) * 127.5 + 127.5, size=_SIDE, mode="bilinear") - self.mean
        x = F.relu6(F.conv2d(F.pad(x, (0, 1, 0, 1)), self.get_buffer("kernel_0"), self.get_buffer("bias_0"), 2))
        for block in range(1, _BLOCKS + 1):
            # TensorFlow's "same": what is padded at a step of two goes to the right and the bottom.
            step, padding = (2, (0, 1, 0, 1)) if block in _HALVING else (1, (1, 1, 1, 1))
            deep, point = self.get_buffer(f"deep_{block}"), self.get_buffer(f"point_{block}")
            x = F.conv2d(F.pad(x, padding), deep, self.get_buffer(f"deep_bias_{block}"), step, groups=len(deep))
            x = F.relu6(F.conv2d(F.relu6(x), point, self.get_buffer(f"point_bias_{block}")))
        return x.mean(dim=(2, 3))


def read_faceres(listing: Path) -> FaceRes:
    """Read FaceRes from the two files that TensorFlow.js keeps a graph in.

    Args:
        listing: The .json; the .bin lies beside it.

    Raises:
        MissingModelError: One of them is not there.
        DamagedModelError: One of them is another.
    """
    content = _content(listing)
    weights, start = {}, 0
    for tensor in json.loads(content[".json"])["weightsManifest"][0]["weights"]:
        stored = tensor.get("quantization", tensor)["dtype"]
        kind = np.dtype({"float16": "<f2", "int32": "<i4"}[stored])
        count = math.prod(tensor["shape"])
        values = np.frombuffer(content[".bin"], kind, count, start)
        weights[tensor["name"]] = values.astype(np.float32).reshape(tensor["shape"])
        start += count * kind.itemsize
    return FaceRes(weights)


def _content(listing: Path) -> dict[str, bytes]:
    content: dict[str, bytes] = {}
    for suffix, expected in _HASHES.items():
        path = listing.with_suffix(suffix)
        try:
            content[suffix] = path.read_bytes()
        except OSError as error:
            raise MissingModelError(
                "this teacher's weights are not here", where=str(path), fix="make teacher"
            ) from error
        if sha256(content[suffix]).hexdigest() != expected:
            raise DamagedModelError(
                "this teacher's weights are not those that were tested",
                where=str(path),
                fix="remove it, and make teacher",
            )
    return content


def check_teachers(names: Sequence[str]) -> None:
    """See that recognisers can be learned from, before anything is done.

    Args:
        names: As for `load_teacher`.

    Raises:
        UsageError: There is none, or no such one.
        MissingModelError: FaceRes's files are not on this machine.
        DamagedModelError: They are, but altered.
    """
    known = (*TEACHERS, "faceres")
    if not names or set(names) - set(known):
        unknown = next((name for name in names if name not in known), "")
        what = f"there is no teacher {unknown!r}" if unknown else "no recogniser is named to learn from"
        raise UsageError(what, where="--teachers", fix="known: " + ", ".join(known))
    if "faceres" in names:
        _content(FACERES)


def load_teacher(name: str) -> nn.Module:
    """Load a recogniser to learn from: it takes (N, 3, 112, 112) RGB crops in -1..1, aligned by five points.

    Args:
        name: "arcface-mbf", "sface", or "faceres".

    Raises:
        UsageError: There is no such recogniser, or it takes other crops.
        MissingModelError: Its weights are not on this machine.
        DamagedModelError: They are, but altered.
    """
    if name == "faceres":
        return read_faceres(FACERES)
    module = torch_recogniser(name)
    if module.alignment != "arcface-112":
        raise UsageError(
            "this recogniser is not aligned by five points", where=name, fix="take arcface-mbf, sface or faceres"
        )
    return module
