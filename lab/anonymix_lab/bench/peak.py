"""What the machine can do at best, measured rather than read from a data sheet."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from anonymix_plugin.inference import compiled, runtime

_SHAPES = ((512, 64, 1), (256, 128, 1), (256, 64, 3))  # channels, side, kernel


@dataclass(frozen=True)
class Peak:
    """The best of several attempts.

    Attributes:
        convolution: Floating-point operations a second of the best large convolution in float32, on all
            cores, in the library that the generator runs on.
        memory: Bytes a second that a copy of a large array reads and writes.
    """

    convolution: float
    memory: float


def measure_peak(*, attempts: int = 10) -> Peak:
    """Measure; takes a few seconds."""
    return Peak(max(_convolution(*shape, attempts) for shape in _SHAPES), _memory(attempts))


def _convolution(channels: int, side: int, kernel: int, attempts: int) -> float:
    openvino = runtime()
    op = openvino.opset13
    random = np.random.Generator(np.random.Philox(1))
    values = random.standard_normal((1, channels, side, side), np.float32)
    weights = random.standard_normal((channels, channels, kernel, kernel), np.float32)
    given = op.parameter(list(values.shape), np.float32)
    edge = [kernel // 2] * 2
    result = op.convolution(given, op.constant(weights), [1, 1], edge, edge, [1, 1])
    model = openvino.Model([result], [given], "peak")
    request = compiled(model).create_infer_request()
    operations = 2 * channels * channels * kernel**2 * side**2
    return operations / _least(lambda: request.infer({0: values}), attempts)


def _memory(attempts: int) -> float:
    source = np.ones(32 << 20, np.float32)  # 128 MiB, more than any cache
    target = np.empty_like(source)
    return 2 * source.nbytes / _least(lambda: np.copyto(target, source), attempts)


def _least(function: Callable[[], object], attempts: int) -> float:
    function()
    times = []
    for _ in range(attempts):
        started = time.perf_counter()
        function()
        times.append(time.perf_counter() - started)
    return min(times)
