"""What runs a recogniser's ONNX file: OpenVINO, or ONNX Runtime where OpenVINO can't."""

from __future__ import annotations

from pathlib import Path
from threading import BoundedSemaphore
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np

from anonymix_plugin.inference import Content, Recipe, opened, runtime
from anonymix_plugin.inference import Network as BuiltNetwork
from anonymix_plugin.pool import ENGINE_THREADS, MOST, Pool
from anonymix_plugin.values import Floats

RecogniserEngine = Literal["auto", "openvino", "onnxruntime"]

Weights: TypeAlias = Path | bytes | Content
"""An ONNX file: its path, its content, or what reads it."""

_BATCH = 32  # bounds the memory; larger ones are no faster


class Network(Protocol):
    """A loaded network; it may be run by several threads at the same time."""

    @property
    def dim(self) -> int:
        """Length of an embedding."""
        ...

    def run(self, values: Floats) -> Floats:
        """(N, 3, size, size) float32 to (N, dim) float32, N >= 1; a row does not depend on the others."""
        ...


class OpenVinoNetwork:
    """An ONNX file on OpenVINO, crop by crop.

    Args:
        model: The file.
        size: Side of a crop in pixels.
        threads: Threads for one crop. A second one makes it 1.6 x as fast where a core is idle; whoever runs
            several networks at a time leaves it at one.
        at_once: Crops that are run at the same time; others wait.

    Raises:
        ImportError: OpenVINO is not installed.
        RuntimeError: It can't run this file here.
    """

    def __init__(self, model: Weights, size: int, threads: int = 1, at_once: int = 1) -> None:
        def build() -> BuiltNetwork:
            network = runtime().Core().read_model(_content(model))
            # Published files fix the batch at one, at another size or not at all.
            network.reshape({network.input(0): [1, 3, size, size]})
            return BuiltNetwork(network)

        self._compiled = opened(Recipe.of(model, __file__), build, threads=threads, at_once=at_once).model
        self.dim = int(self._compiled.output(0).shape[1])
        # A request holds the buffers of one run.
        self._requests: Pool[Any] = Pool(self._compiled.create_infer_request)

    def run(self, values: Floats) -> Floats:
        """See `Network.run`."""
        rows = np.empty((len(values), self.dim), np.float32)
        with self._requests.lent() as request:
            for row, crop in zip(rows, values, strict=True):
                request.infer({0: np.ascontiguousarray(crop[None])})
                row[:] = request.get_output_tensor(0).data[0]
        return rows


class OnnxRuntimeNetwork:
    """An ONNX file on ONNX Runtime.

    Args:
        model: The file.
        threads: Threads for one crop; None takes all cores that the process may use.
    """

    def __init__(self, model: Weights, threads: int | None = None) -> None:
        import onnxruntime

        from anonymix_plugin.recognisers.onnx_file import read_onnx

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # no notes on how the graph was optimised
        # Threads that spin after a run would steal the cores from the generator, which draws next.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.intra_op_num_threads = threads or ENGINE_THREADS
        network = read_onnx(_content(model)).SerializeToString()
        self._session = onnxruntime.InferenceSession(network, options, providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name
        self._running = BoundedSemaphore(MOST)  # each run has buffers of its own
        self.dim = int(self._session.get_outputs()[0].shape[1])

    def run(self, values: Floats) -> Floats:
        """See `Network.run`."""
        parts = []
        for start in range(0, len(values), _BATCH):
            batch = np.ascontiguousarray(values[start : start + _BATCH])
            with self._running:
                parts.append(self._session.run(None, {self._input: batch})[0])
        return np.concatenate(parts)


def load_network(model: Weights, size: int, *, threads: int | None, at_once: int, engine: RecogniserEngine) -> Network:
    """Load a network on an engine; "auto" takes OpenVINO, and ONNX Runtime where OpenVINO can't run it.

    Raises:
        DamagedModelError: The file is no such network.
    """
    if engine == "onnxruntime":
        return OnnxRuntimeNetwork(model, threads)
    try:
        return OpenVinoNetwork(model, size, threads or 1, at_once)
    except (ImportError, RuntimeError):
        if engine == "openvino":
            raise
    return OnnxRuntimeNetwork(model, threads)


def _content(model: Weights) -> bytes:
    if isinstance(model, Content):
        return model.read()
    return model if isinstance(model, bytes) else model.read_bytes()
