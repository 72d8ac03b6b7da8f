"""Reads an ONNX graph as a torch module, so that gradients reach its input.

Only the operators are known that the recognisers' graphs consist of, in the form that they have there;
anything else is refused. The operators are described in the ONNX operator specification, version 11.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from anonymix_plugin.errors import ModelError

if TYPE_CHECKING:
    import onnx

_Attributes = dict[str, Any]
_Operator = Callable[..., Tensor]


class OnnxModule(nn.Module):
    """An ONNX graph with one input and one output; its weights are buffers, hence frozen.

    Args:
        model: The model, as `read_onnx` returns it.

    Raises:
        ModelError: The graph has an operator, or a form of one, that is not known here.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        from onnx import numpy_helper

        super().__init__()
        graph = model.graph
        self._input, self._output = graph.input[0].name, graph.output[0].name
        self._buffer_names: dict[str, str] = {}
        for index, weight in enumerate(graph.initializer):
            self._buffer_names[weight.name] = f"weight_{index}"
            self.register_buffer(f"weight_{index}", torch.from_numpy(numpy_helper.to_array(weight).copy()))
        self._steps = [_step(node) for node in graph.node]

    def forward(self, batch: Tensor) -> Tensor:
        """Run the graph.

        Args:
            batch: (N, 3, H, W) float32, as the graph takes it.

        Returns:
            The graph's output, (N, dim) float32.
        """
        values = {name: self.get_buffer(buffer) for name, buffer in self._buffer_names.items()}
        values[self._input] = batch
        for step in self._steps:
            values[step.output] = step.operator(*(values[name] for name in step.inputs), **step.attributes)
        return values[self._output]


@dataclass(frozen=True)
class _Step:
    operator: _Operator
    inputs: tuple[str, ...]
    output: str
    attributes: _Attributes


def _step(node: onnx.NodeProto) -> _Step:
    from onnx import helper

    operator = _OPERATORS.get(node.op_type)
    if operator is None or node.domain not in {"", "ai.onnx"}:
        raise ModelError(
            f"the ONNX operator {node.domain or 'ai.onnx'}.{node.op_type} has no torch counterpart here",
            where=node.name or node.output[0],
            fix="known operators: " + ", ".join(_OPERATORS),
        )
    attributes = {item.name: helper.get_attribute_value(item) for item in node.attribute}
    unknown = attributes.keys() - _ATTRIBUTES[node.op_type]
    if unknown or len(node.output) > 1:
        raise ModelError(
            f"this form of the ONNX operator {node.op_type} has no torch counterpart here",
            where=node.name or node.output[0],
            fix="unknown attributes: " + ", ".join(sorted(unknown)) if unknown else "several outputs",
        )
    return _Step(operator, tuple(node.input), node.output[0], attributes)


def _conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    kernel_shape: Sequence[int] = (),  # noqa: ARG001 - the weight says it too
    strides: Sequence[int] = (1, 1),
    pads: Sequence[int] = (0, 0, 0, 0),
    dilations: Sequence[int] = (1, 1),
    group: int = 1,
) -> Tensor:
    top, left, bottom, right = pads
    padding = (top, left)
    if (top, left) != (bottom, right):
        x, padding = functional.pad(x, (left, right, top, bottom)), (0, 0)
    return functional.conv2d(x, weight, bias, tuple(strides), padding, tuple(dilations), group)


def _batch_norm(
    x: Tensor,
    scale: Tensor,
    bias: Tensor,
    mean: Tensor,
    variance: Tensor,
    *,
    epsilon: float = 1e-5,
    momentum: float = 0.9,  # noqa: ARG001 - for training only
) -> Tensor:
    return functional.batch_norm(x, mean, variance, scale, bias, training=False, eps=epsilon)


def _prelu(x: Tensor, slope: Tensor) -> Tensor:
    return torch.where(x >= 0, x, x * slope)


def _gemm(
    a: Tensor,
    b: Tensor,
    c: Tensor | None = None,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,
    transB: int = 0,
) -> Tensor:
    product = alpha * ((a.T if transA else a) @ (b.T if transB else b))
    return product if c is None else product + beta * c


def _flatten(x: Tensor, *, axis: int = 1) -> Tensor:
    return x.reshape(math.prod(x.shape[:axis]), -1)


def _dropout(x: Tensor, *, ratio: float = 0.5) -> Tensor:  # noqa: ARG001 - for training only
    return x


_OPERATORS: dict[str, _Operator] = {
    "Add": torch.add,
    "BatchNormalization": _batch_norm,
    "Conv": _conv,
    "Dropout": _dropout,
    "Flatten": _flatten,
    "Gemm": _gemm,
    "Mul": torch.mul,
    "PRelu": _prelu,
    "Sub": torch.sub,
}
_ATTRIBUTES: dict[str, set[str]] = {
    "Add": set(),
    "BatchNormalization": {"epsilon", "momentum"},
    "Conv": {"kernel_shape", "strides", "pads", "dilations", "group"},
    "Dropout": {"ratio"},
    "Flatten": {"axis"},
    "Gemm": {"alpha", "beta", "transA", "transB"},
    "Mul": set(),
    "PRelu": set(),
    "Sub": set(),
}
