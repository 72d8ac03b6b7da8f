"""Counting what a network has to compute and to move, from its graph."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anonymix_plugin.generator.openvino_graph import WHOLE, synthesis_graph
from anonymix_plugin.generator.published_weights import PublishedWeights
from anonymix_plugin.inference import runtime

_FREE = {"Parameter", "Constant", "Result", "Reshape", "Squeeze", "Unsqueeze", "ShapeOf", "Convert"}


@dataclass(frozen=True)
class Counts:
    """One pass of a network.

    Attributes:
        operations: Floating-point additions and multiplications, elementwise ones included.
        convolutions: Those of convolutions and matrix products.
        parameters: Bytes of weights.
        traffic: Bytes that are read and written if every layer reads its inputs from memory and writes its
            output there; what is fused or stays in the cache moves less.
    """

    operations: int
    convolutions: int
    parameters: int
    traffic: int


def generator_counts(weights: PublishedWeights, size: int) -> Counts:
    """Count one face of the generator (without the rows that strips compute twice)."""
    return count(synthesis_graph(weights.synthesis, size, strips=WHOLE).model)


def onnx_counts(path: Path, shape: tuple[int, int, int, int]) -> Counts:
    """Count one pass of an ONNX file for an input of a shape (N, C, H, W)."""
    model = runtime().Core().read_model(path)
    model.reshape({model.input(0): list(shape)})
    return count(model)


def count(model: Any) -> Counts:
    """Count an `openvino.Model` of fixed shapes."""
    operations = convolutions = parameters = traffic = 0
    for node in model.get_ordered_ops():
        kind = node.get_type_name()
        if kind == "Constant":
            parameters += _bytes(node.output(0))
        if kind in _FREE:
            continue
        multiplied = _products(node, kind)
        convolutions += multiplied
        operations += multiplied or _elementwise(node, kind)
        traffic += sum(_bytes(value) for value in (*node.inputs(), *node.outputs()))
    return Counts(operations, convolutions, parameters, traffic)


def _products(node: Any, kind: str) -> int:
    """Two operations for each product of a convolution or of a matrix product, else 0."""
    if kind == "Convolution":
        reach = math.prod(node.input(1).get_shape()[1:])  # in, height, width
    elif kind == "GroupConvolution":
        reach = math.prod(node.input(1).get_shape()[2:])  # groups, out | in, height, width
    elif kind == "MatMul":
        columns = node.input(0).get_shape()
        reach = columns[-2] if node.get_attributes().get("transpose_a") else columns[-1]
    else:
        return 0
    return 2 * int(reach) * _size(node.output(0))


def _elementwise(node: Any, kind: str) -> int:
    moving = {
        "Concat",
        "Split",
        "VariadicSplit",
        "Slice",
        "StridedSlice",
        "Gather",
        "DepthToSpace",
        "Transpose",
    }
    return 0 if kind in moving else _size(node.output(0))


def _size(value: Any) -> int:
    return math.prod(int(side) for side in value.get_shape())


def _bytes(value: Any) -> int:
    return _size(value) * int(value.get_element_type().size)
