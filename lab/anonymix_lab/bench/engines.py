"""The engines side by side: the same code drawn by each in turn, round after round."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from anonymix_lab.bench.clock import Clock, Times
from anonymix_lab.bench.onnx_graph import onnx_graph
from anonymix_plugin.generator import OpenVinoGenerator, PublishedWeights
from anonymix_plugin.generator.openvino_graph import WHOLE
from anonymix_plugin.generator.small_weights import read_small
from anonymix_plugin.values import Floats

if TYPE_CHECKING:
    from anonymix_plugin.generator import MobileStyleGan

_Draw = Callable[[], Floats]


@dataclass(frozen=True)
class EngineTimes:
    """One engine.

    Attributes:
        name: What was run.
        times: Of one face.
        ratio: Median over the rounds of its time / the fastest OpenVINO pass of the same round.
        difference: Largest difference of a pixel from the reference, in grey levels (0..255); from its 2x2
            average where an engine draws half the size.
    """

    name: str
    times: Times
    ratio: float
    difference: float


def compare_engines(
    weights: PublishedWeights, code: Floats, *, rounds: int, compile_too: bool = False
) -> list[EngineTimes]:
    """Time every engine that runs here.

    Args:
        weights: The published weights.
        code: (1, 23, 512) float32.
        rounds: Each engine draws once a round.
        compile_too: Also torch.compile, which needs a C++ compiler and takes minutes.
    """
    candidates = _candidates(weights, code, compile_too=compile_too)
    clocks = {name: Clock() for name in candidates}
    pictures = {name: draw() for name, draw in candidates.items()}  # warms up, too
    for _ in range(rounds):
        for name, draw in candidates.items():
            clocks[name].run(draw)
    best = np.array(clocks["OpenVINO float32"].wall)
    expected = pictures["torch"]
    return [
        EngineTimes(
            name,
            clock.times(),
            float(np.median(np.array(clock.wall) / best)),
            float(127.5 * np.abs(pictures[name] - _at(expected, pictures[name].shape[-1])).max()),
        )
        for name, clock in clocks.items()
    ]


def _at(picture: Floats, size: int) -> Floats:
    """Average (N, 3, S, S) down to a size that divides S."""
    n, colours, side, _ = picture.shape
    step = side // size
    blocks = picture.reshape(n, colours, size, step, size, step)
    return np.asarray(blocks.mean(axis=(3, 5)), np.float32)


def _candidates(weights: PublishedWeights, code: Floats, *, compile_too: bool) -> dict[str, _Draw]:
    import torch

    from anonymix_plugin.generator import MobileStyleGan

    reference = MobileStyleGan(weights)
    codes = torch.from_numpy(code)
    found: dict[str, _Draw] = {
        "torch": _by_torch(reference, codes),
        "torch, channels last": _by_torch(_channels_last(MobileStyleGan(weights)), codes),
        "OpenVINO float32": _by_openvino(OpenVinoGenerator(weights), code),
        "OpenVINO float32, 1 thread": _by_openvino(OpenVinoGenerator(weights, threads=1), code),
        "OpenVINO float32, no strips": _by_openvino(OpenVinoGenerator(weights, strips=WHOLE), code),
        "OpenVINO bfloat16 allowed": _by_openvino(OpenVinoGenerator(weights, precision="bf16"), code),
    }
    small = OpenVinoGenerator(weights, small=read_small(weights.sha256))
    found["OpenVINO float32, small generator"] = _by_openvino(small, code)
    found["ONNX Runtime"] = _by_onnx_runtime(weights, code)
    if compile_too:
        compiled: Any = torch.compile(MobileStyleGan(weights))
        found["torch.compile"] = _by_torch(compiled, codes)
    return found


def _by_torch(module: Any, codes: Any) -> _Draw:
    import torch

    def draw() -> Floats:
        with torch.inference_mode():
            picture: Floats = module(codes).numpy()
        return picture

    return draw


def _by_openvino(generator: OpenVinoGenerator, code: Floats) -> _Draw:
    generator.prepare()
    size = min(512, max(generator.sizes))
    return lambda: generator.draw(code, size)


def _by_onnx_runtime(weights: PublishedWeights, code: Floats) -> _Draw:
    import onnxruntime

    model, fixed = onnx_graph(weights.synthesis, 512)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    names = [item.name for item in session.get_inputs()]
    given = dict(zip(names, (code, *fixed), strict=True))

    def draw() -> Floats:
        picture: Floats = session.run(None, given)[0]
        return picture

    return draw


def _channels_last(module: MobileStyleGan) -> MobileStyleGan:
    import torch

    for parameter in module.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return module
