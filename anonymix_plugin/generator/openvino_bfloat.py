"""MobileStyleGAN on OpenVINO, the larger layers in bfloat16, for processors that compute in it.

The blocks up to 32 px, every modulation and the map from the code stay in float32: they decide who is drawn, and
take a tenth of the time. What is left is rounding of half a grey level or less. It makes two graphs, because OpenVINO
sets the precision of a graph as a whole.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np

from anonymix_plugin.errors import UsageError
from anonymix_plugin.generator.openvino_engine import OpenVinoGenerator, numbered, request_of
from anonymix_plugin.generator.openvino_graph import STRIPS, WHOLE, GraphBuilder, Node
from anonymix_plugin.generator.published_weights import BLOCKS, LAYERS, Affine, BlockWeights, SynthesisWeights
from anonymix_plugin.inference import Network, runtime

NAME: Final = "openvino-bf16"
KEPT: Final = 3
"""How many blocks stay in float32. Least cosine of drawn London faces with float32's by ArcFace and SFace: .99935
with none, .9996 with 3 or 4, .9997 with 5 or 6, in .50 to .62 of the pass's time."""


def has_bfloat16() -> bool:
    """Whether this processor computes in bfloat16, as OpenVINO sees it."""
    return "BF16" in runtime().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


class BfloatGenerator(OpenVinoGenerator):
    """`OpenVinoGenerator`, in bfloat16 from the block at 64 px on: the same faces, not the same bytes.

    Raises:
        UsageError: On `prepare` or the first face, where the processor has no bfloat16.
    """

    engine: str = NAME

    def _compile(self, size: int) -> Callable[[], Any]:
        openvino = runtime()
        if not has_bfloat16():
            raise UsageError("this processor does not compute in bfloat16", where="engine", fix="use the engine auto")

        def first() -> Network:
            built = _First(openvino.opset13, self._weights.synthesis, size)
            return Network(openvino.Model(built.outputs(), built.inputs, "first"), numbered(built.fixed))

        def last() -> Network:
            built = _Last(openvino.opset13, self._weights.synthesis, size)
            picture = built.picture()
            model = openvino.Model([picture], [*built.given, *built.inputs[1:]], "last")  # all but the code
            return Network(model, numbered(built.fixed))

        exact = self._opened(f"{self.name}-{size}-first", first)
        rounded = self._opened(f"{self.name}-{size}-last", last, "bf16")
        count = len(exact.model.outputs)

        def request() -> _Both:
            before, after = request_of(exact, 1), request_of(rounded, count)
            for index in range(count):
                after.set_input_tensor(index, before.get_output_tensor(index))
            return _Both(before, after)

        return request


class _Both:
    """Two requests, the second of which reads what the first wrote."""

    def __init__(self, before: Any, after: Any) -> None:
        self._before, self._after = before, after

    def infer(self, inputs: Any) -> None:
        self._before.infer(inputs)
        self._after.infer()

    def get_output_tensor(self, index: int) -> Any:
        return self._after.get_output_tensor(index)


class _First(GraphBuilder):
    """The stem, the first blocks, and the modulation of all that follows."""

    def __init__(self, op: Any, weights: SynthesisWeights, size: int) -> None:
        super().__init__(op, weights, size, WHOLE)

    def outputs(self) -> list[Node]:
        """Features that wait for activation, then factors in the order in which `_Last.given` has them."""
        found = [self.blocks(KEPT)[0]]
        for index in range(KEPT, BLOCKS):
            block = self._weights.blocks[index]
            found.append(self.band_scale(index, block))
            found.append(self.modulation(block.conv2.modulation, 3 + 3 * index))
        return [*found, self.modulation(self._weights.head_modulation, LAYERS.total - 1)]


class _Last(GraphBuilder):
    """The other blocks; what `_First` puts out is given to it.

    Attributes:
        given: Inputs, in the order of `_First.outputs`.
    """

    def __init__(self, op: Any, weights: SynthesisWeights, size: int) -> None:
        super().__init__(op, weights, size, STRIPS)
        side = 4 << KEPT
        self.given: list[Node] = [op.parameter([1, len(weights.blocks[KEPT].up.bias), side, side], np.float32)]
        self._factors: dict[str, Node] = {}
        for index in range(KEPT, BLOCKS):
            block = weights.blocks[index]
            self._give(f"up {index}", len(block.up.bias))
            self._give(f"layer {3 + 3 * index}", len(block.conv2.modulation.bias))
        self._give(f"layer {LAYERS.total - 1}", len(weights.head_modulation.bias))

    def _give(self, name: str, channels: int) -> None:
        self._factors[name] = self._op.parameter([1, channels, 1, 1], np.float32)
        self.given.append(self._factors[name])

    def picture(self) -> Node:
        """Build it; returns the output."""
        return self.finished(KEPT, self.given[0], self.noise(self._weights.blocks[KEPT - 1].conv2))

    def band_scale(self, index: int, block: BlockWeights) -> Node:  # noqa: ARG002 - it is given
        """See `GraphBuilder`."""
        return self._factors[f"up {index}"]

    def modulation(self, values: Affine, layer: int) -> Node:  # noqa: ARG002 - it is given
        """See `GraphBuilder`."""
        return self._factors[f"layer {layer}"]
