"""Fills Inception-ResNet-v1 with weights from a Keras HDF5 file.

Only the arrays are read. The file also holds a description of the network, with Python byte code in it,
which Keras would run; here it is never looked at.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from anonymix_plugin.errors import DamagedModelError, naming_extras
from anonymix_plugin.recognisers._inception_resnet import ConvRelu, InceptionResnetV1, Residual
from anonymix_plugin.words import shown

_EPSILON = 1e-3  # of the batch normalisations


def read_inception_resnet(source: Path | bytes) -> InceptionResnetV1:
    """The network with the weights of a file, for evaluation and frozen.

    Args:
        source: The content of the HDF5 file, or its path.

    Raises:
        MissingPackageError: h5py is not installed.
        DamagedModelError: The file does not hold this network's weights.
    """
    with naming_extras():
        import h5py
    network = InceptionResnetV1()
    try:
        with h5py.File(io.BytesIO(source) if isinstance(source, bytes) else source, "r") as file:
            _fill(network, _Arrays(file["model_weights"], shown(source)))
    except (OSError, KeyError) as error:
        raise DamagedModelError(f"not FaceNet's weights: {error}", where=shown(source)) from error
    for module in network.modules():
        if isinstance(module, nn.Conv2d):  # the order of crops in memory, which spares turning each of them
            module.weight.data = module.weight.data.contiguous(memory_format=torch.channels_last)
    return network.eval().requires_grad_(False)


@dataclass(frozen=True)
class _Arrays:
    """The arrays of a file by layer and name."""

    group: Any
    where: str

    def get(self, layer: str, name: str, shape: tuple[int, ...]) -> Tensor:
        """An array as float64, with its axes in torch's order, after a check of its shape."""
        array = np.asarray(self.group[layer][f"{layer}/{name}:0"], np.float64)
        # Keras keeps the channels last, (height, width, in, out) and (in, out); torch first, out before in.
        axes = {4: (3, 2, 0, 1), 2: (1, 0)}.get(array.ndim, range(array.ndim))
        array = array.transpose(axes)
        if array.shape != shape:
            raise DamagedModelError(f"{layer}/{name} has the shape {array.shape} instead of {shape}", where=self.where)
        return torch.from_numpy(array.copy())


def _fill(network: InceptionResnetV1, arrays: _Arrays) -> None:
    for module in network.modules():
        if isinstance(module, ConvRelu):
            _fill_normalised(module.conv, module.name, f"{module.name}_BatchNorm", arrays)
        elif isinstance(module, Residual) and module.merge.bias is not None:
            weight, bias = module.merge.weight, module.merge.bias
            weight.data.copy_(arrays.get(module.name, "kernel", tuple(weight.shape)))
            bias.data.copy_(arrays.get(module.name, "bias", tuple(bias.shape)))
    _fill_normalised(network.bottleneck, "Bottleneck", "Bottleneck_BatchNorm", arrays)


def _fill_normalised(layer: nn.Conv2d | nn.Linear, name: str, norm: str, arrays: _Arrays) -> None:
    """Fill a layer so that it does its own work and that of the batch normalisation behind it.

    (Wx - mean) / sqrt(variance + epsilon) + beta; the file leaves the scales out, for they are all 1.
    """
    weight = arrays.get(name, "kernel", tuple(layer.weight.shape))
    channels = (len(weight),)
    mean, beta = arrays.get(norm, "moving_mean", channels), arrays.get(norm, "beta", channels)
    scale = (arrays.get(norm, "moving_variance", channels) + _EPSILON).rsqrt()
    layer.weight.data.copy_(weight * scale.reshape(-1, *(1,) * (weight.ndim - 1)))
    if layer.bias is not None:
        layer.bias.data.copy_(beta - mean * scale)
