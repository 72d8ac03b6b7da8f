"""The generator's graph in ONNX, for comparing engines: the operations of OpenVINO that it uses, by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from anonymix_plugin.generator.openvino_graph import WHOLE, GraphBuilder
from anonymix_plugin.generator.published_weights import SynthesisWeights
from anonymix_plugin.values import Floats

_OPSET = 13


class _Several:
    """The outputs of one node."""

    def __init__(self, names: list[str]) -> None:
        self._names = names

    def outputs(self) -> list[str]:
        return self._names


class _OnnxOperations:
    """What `GraphBuilder` asks of a library; a value is known by its name."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.weights: list[Any] = []
        self.inputs: list[Any] = []
        self._count = 0

    def _node(self, kind: str, *inputs: str, outputs: int = 1, **attributes: Any) -> list[str]:
        from onnx import helper

        names = [f"v{self._count + number}" for number in range(outputs)]
        self._count += outputs
        self.nodes.append(helper.make_node(kind, list(inputs), names, **attributes))
        return names

    def parameter(self, shape: Sequence[int], _: Any, name: str) -> str:
        from onnx import TensorProto, helper

        self.inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape)))
        return name

    def constant(self, values: npt.NDArray[Any]) -> str:
        from onnx import numpy_helper

        name = f"c{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(values, name))
        return name

    def add(self, a: str, b: str) -> str:
        return self._node("Add", a, b)[0]

    def subtract(self, a: str, b: str) -> str:
        return self._node("Sub", a, b)[0]

    def multiply(self, a: str, b: str) -> str:
        return self._node("Mul", a, b)[0]

    def prelu(self, x: str, slope: str) -> str:
        return self._node("PRelu", x, slope)[0]

    def convolution(
        self, x: str, weight: str, strides: list[int], begin: list[int], end: list[int], _: list[int]
    ) -> str:
        return self._node("Conv", x, weight, strides=strides, pads=[*begin, *end])[0]

    def group_convolution(
        self, x: str, weight: str, strides: list[int], begin: list[int], end: list[int], _: list[int]
    ) -> str:
        from onnx import numpy_helper

        place = next(number for number, value in enumerate(self.weights) if value.name == weight)
        kernels = numpy_helper.to_array(self.weights[place])
        flat = kernels.reshape(-1, *kernels.shape[2:])  # groups and outputs are one axis in ONNX
        self.weights[place] = numpy_helper.from_array(np.ascontiguousarray(flat), weight)
        groups = kernels.shape[0]
        return self._node("Conv", x, weight, strides=strides, pads=[*begin, *end], group=groups)[0]

    def concat(self, parts: list[str], axis: int) -> str:
        return self._node("Concat", *parts, axis=axis)[0]

    def split(self, x: str, _: str, count: int) -> _Several:
        return _Several(self._node("Split", x, outputs=count, axis=1))  # bands are channels

    def depth_to_space(self, x: str, _: str, block: int) -> str:
        return self._node("DepthToSpace", x, blocksize=block, mode="DCR")[0]  # blocks first

    def gather(self, x: str, index: str, _: str) -> str:
        return self._node("Gather", x, index, axis=1)[0]  # layers

    def matmul(self, a: str, b: str, _: bool, __: bool) -> str:
        return self._node("Gemm", a, b, transB=1)[0]

    def reshape(self, x: str, shape: str, _: bool) -> str:
        return self._node("Reshape", x, shape)[0]


def onnx_graph(weights: SynthesisWeights, size: int) -> tuple[bytes, tuple[Floats, ...]]:
    """The graph as an ONNX model, and what its inputs but the first are to be set to."""
    from onnx import TensorProto, helper

    op = _OnnxOperations()
    builder = GraphBuilder(op, weights, size, strips=WHOLE)
    picture = builder.picture()
    output = helper.make_tensor_value_info(picture, TensorProto.FLOAT, [1, 3, size, size])
    graph = helper.make_graph(op.nodes, "synthesis", op.inputs, [output], op.weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=8)
    return model.SerializeToString(), builder.fixed
