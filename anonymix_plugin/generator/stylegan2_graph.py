"""StyleGAN2 as an OpenVINO graph, built straight from the weights: nothing is traced or converted."""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from anonymix_plugin.generator.stylegan2_weights import StyleGan2Weights
from anonymix_plugin.inference import runtime

Node = Any  # OpenVINO's nodes and outputs have no types of their own for mypy

_SLOPE: Final = 0.2
_GAIN: Final = math.sqrt(2)
_TAPS: Final = np.array([0.25, 0.75, 0.75, 0.25])


def synthesis_graph(weights: StyleGan2Weights, size: int) -> tuple[Any, tuple[npt.NDArray[np.float32], ...]]:
    """Build the graph.

    Args:
        weights: The generator's.
        size: The resolution, or a half, a quarter, ... of it: the average over squares of pixels.

    Returns:
        An `openvino.Model` from (1, style inputs, w_dim) float32 to (1, 3, size, size) float32, and what its
        inputs from 1 on are to be set to. Those are noise maps: as constants OpenVINO would add them to the
        biases beforehand, and make of 5 MB for 1024 px a gigabyte.
    """
    openvino = runtime()

    builder = _Builder(openvino.opset13, weights)
    picture = builder.picture(size)
    return openvino.Model([picture], [builder.code, *builder.noises], "stylegan2"), tuple(builder.maps)


class _Builder:
    """Builds the graph of one face, in the operations of `stylegan2`."""

    def __init__(self, op: Any, weights: StyleGan2Weights) -> None:
        self._op, self._weights, self._tensors = op, weights, weights.tensors
        self.code = op.parameter([1, weights.style_inputs, weights.w_dim], np.float32, name="w_plus")
        self.noises: list[Node] = []
        self.maps: list[npt.NDArray[np.float32]] = []

    def picture(self, size: int) -> Node:
        """The whole network; returns the output."""
        op = self._op
        x = self._modulated(self._constant(self._tensors["constant"][None]), 0)
        picture = self._colours(x, 0)
        for block in range(1, self._weights.style_inputs // 2):
            x = self._modulated(x, 2 * block - 1)
            x = self._modulated(x, 2 * block)
            picture = op.add(self._upsampled(picture), self._colours(x, block))
        factor = self._weights.resolution // size
        if factor > 1:
            sides = [factor, factor]
            picture = op.avg_pool(picture, sides, [0, 0], [0, 0], sides, True)
        return picture

    def _modulated(self, x: Node, k: int) -> Node:
        op, tensors, name = self._op, self._tensors, f"conv.{k}"
        kernel = tensors[f"{name}.weight"]
        kernel = kernel / np.float32(math.sqrt(kernel[0].size))
        style = self._style(name, k, 1.0)
        energy = self._constant(np.square(kernel).sum(axis=(2, 3)))
        lengths = op.matmul(op.multiply(style, style), energy, False, True)
        scale = op.divide(self._constant(1.0), op.sqrt(op.add(lengths, self._constant(1e-8))))
        x = op.multiply(x, self._factors(style))
        if k % 2:
            none = [0, 0]
            turned = self._constant(kernel.transpose(1, 0, 2, 3))
            x = op.convolution_backprop_data(x, turned, [2, 2], pads_begin=none, pads_end=none)
            x = self._filtered(x, kernel.shape[0])
        else:
            x = op.convolution(x, self._constant(kernel), [1, 1], [1, 1], [1, 1], [1, 1])
        x = op.add(op.multiply(x, self._factors(scale)), self._noise(name))
        x = op.add(x, self._constant(tensors[f"{name}.bias"].reshape(1, -1, 1, 1)))
        return self._bounded(op.multiply(op.prelu(x, self._constant([_SLOPE])), self._constant(_GAIN)))

    def _colours(self, x: Node, block: int) -> Node:
        op, name = self._op, f"rgb.{block}"
        kernel = self._tensors[f"{name}.weight"][:, :, None, None]
        style = self._style(name, 2 * block + 1, 1 / math.sqrt(kernel.shape[1]))
        x = op.multiply(x, self._factors(style))
        x = op.convolution(x, self._constant(kernel), [1, 1], [0, 0], [0, 0], [1, 1])
        return self._bounded(op.add(x, self._constant(self._tensors[f"{name}.bias"].reshape(1, 3, 1, 1))))

    def _filtered(self, x: Node, channels: int) -> Node:
        kernel = np.broadcast_to(np.outer(_TAPS, _TAPS), (channels, 1, 1, 4, 4))
        return self._op.group_convolution(x, self._constant(kernel), [1, 1], [1, 1], [1, 1], [1, 1])

    def _upsampled(self, picture: Node) -> Node:
        kernel = np.broadcast_to(np.outer(_TAPS, _TAPS), (3, 1, 1, 4, 4))
        return self._op.group_convolution_backprop_data(
            picture, self._constant(kernel), [2, 2], pads_begin=[1, 1], pads_end=[1, 1]
        )

    def _style(self, name: str, k: int, gain: float) -> Node:
        """(1, C): the affine map of style input k."""
        op = self._op
        weight = self._tensors[f"{name}.style.weight"]
        vector = op.gather(self.code, self._integers(k), self._integers(1))
        product = op.matmul(vector, self._constant(weight * (gain / math.sqrt(weight.shape[1]))), False, True)
        return op.add(product, self._constant(self._tensors[f"{name}.style.bias"][None] * gain))

    def _noise(self, name: str) -> Node:
        values = self._tensors[f"{name}.noise"] * self._tensors[f"{name}.strength"]
        self.maps.append(np.ascontiguousarray(values[None, None], np.float32))
        node = self._op.parameter(list(self.maps[-1].shape), np.float32, name=f"noise_{len(self.maps)}")
        self.noises.append(node)
        return node

    def _bounded(self, x: Node) -> Node:
        bound = self._weights.clamp
        return x if bound is None else self._op.clamp(x, -bound, bound)

    def _factors(self, values: Node) -> Node:
        """(1, C) as (1, C, 1, 1)."""
        return self._op.unsqueeze(values, self._integers([2, 3]))

    def _constant(self, values: npt.ArrayLike) -> Node:
        return self._op.constant(np.ascontiguousarray(values, dtype=np.float32))

    def _integers(self, values: int | list[int]) -> Node:
        return self._op.constant(np.array(values, dtype=np.int64))
