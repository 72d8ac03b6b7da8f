"""The small generator as an OpenVINO graph: the large one's builder up to 64 px, then the head."""

from __future__ import annotations

from typing import Any

import numpy as np

from anonymix_plugin.generator.openvino_graph import WHOLE, GraphBuilder, Node, Strip, SynthesisGraph
from anonymix_plugin.generator.published_weights import MIDDLE, SLOPE, Affine, SynthesisWeights
from anonymix_plugin.generator.small_weights import FIRST_STYLE, SIZES, STYLES, SmallWeights
from anonymix_plugin.inference import runtime
from anonymix_plugin.values import Floats


def small_graph(weights: SynthesisWeights, small: SmallWeights, size: int) -> SynthesisGraph:
    """Build the graph; 128 px are exactly the 2x2 average of 256."""
    openvino = runtime()

    builder = SmallGraphBuilder(openvino.opset13, weights, small, size)
    return SynthesisGraph(openvino.Model([builder.picture()], builder.inputs, "small"), builder.fixed)


class SmallGraphBuilder(GraphBuilder):
    """Builds the small generator's graph.

    Args:
        op: As for `GraphBuilder`.
        weights: The published weights.
        small: What was learned.
        size: 128 or 256.
    """

    def __init__(self, op: Any, weights: SynthesisWeights, small: SmallWeights, size: int) -> None:
        super().__init__(op, weights, size, WHOLE)
        self._small = small

    def picture(self) -> Node:
        """Build everything; returns the output."""
        small = self._small
        deep, up, first, second, leave = (
            self.modulation(small.style(number), FIRST_STYLE + number) for number in range(len(STYLES) - 1)
        )
        x, noise = self.blocks(MIDDLE)
        op, block = self._op, self._weights.blocks[MIDDLE]
        rows = Strip(0, 4 << MIDDLE, 4 << MIDDLE)  # all of them
        x = self.convolved_once(MIDDLE, x, noise, rows)
        modulated = self.modulation(block.conv2.modulation, 3 + 3 * MIDDLE)
        x = self.activated(x, self.noise(block.conv1), modulated)
        x = self._bent(self._convolve("enter", self.depthwise(x, block.conv2, rows)))
        x = self._residual("deep", x, deep)
        x = self._convolve("up", op.multiply(x, up))
        x = self._bent(op.depth_to_space(x, "depth_first", 2))
        x = self._residual("second", self._residual("first", x, first), second)
        x = op.multiply(x, leave)
        weight, bias = small.tensors["leave.weight"], small.tensors["leave.bias"]
        colours, last = small.style(len(STYLES) - 1), FIRST_STYLE + len(STYLES) - 1
        if self._size == max(SIZES):
            x = op.add(self.convolution(x, weight, bias, None, pad=1), self.modulation(colours, last))
            return op.depth_to_space(x, "depth_first", 2)
        # Half the size is the average of the four pixels that each colour has here.
        shades = self.modulation(Affine(_averaged(colours.weight), _averaged(colours.bias)), last)
        return op.add(self.convolution(x, _averaged(weight), _averaged(bias), None, pad=1), shades)

    def _residual(self, name: str, x: Node, factors: Node) -> Node:
        return self._op.add(x, self._bent(self._convolve(name, self._op.multiply(x, factors))))

    def _convolve(self, name: str, x: Node) -> Node:
        weight, bias = (self._small.tensors[f"{name}.{part}"] for part in ("weight", "bias"))
        return self.convolution(x, weight, bias, None, pad=weight.shape[-1] // 2)

    def _bent(self, x: Node) -> Node:
        return self._op.prelu(x, self._op.constant(np.array([SLOPE], np.float32)))


def _averaged(values: Floats) -> Floats:
    """(12, ...) -> (3, ...)."""
    return np.asarray(values.reshape(3, 4, *values.shape[1:]).mean(axis=1), np.float32)
