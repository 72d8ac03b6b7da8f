"""A StyleGAN2 compiled by OpenVINO: the same weights, faster on a CPU than eager torch."""

from __future__ import annotations

import threading
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from anonymix_plugin.generator.stylegan2 import StyleGan2
from anonymix_plugin.values import Floats

if TYPE_CHECKING:
    from collections.abc import Callable

    from anonymix_plugin.generator.protocol import LayerGroups


class OpenVinoStyleGan2:
    """Meets `protocol.Generator`; draws `drawn_size` through OpenVINO and everything else through torch.

    Args:
        reference: The torch module whose graph is compiled.
        threads: CPU threads for one picture; 0 lets OpenVINO decide.

    The graph is traced once, when the first face is drawn. Inference is float32 on purpose: a lower precision
    would make the same key and photo give other bytes on other processors. Codes are drawn one at a time, so
    that a face's bytes do not depend on its neighbours in a batch.
    """

    def __init__(self, reference: StyleGan2, *, threads: int = 0) -> None:
        self._reference, self._threads = reference, threads
        self._lock = threading.Lock()
        self._compiled: Callable[[Any], Any] | None = None
        self.name: str = reference.name
        self.z_dim: int = reference.z_dim
        self.w_dim: int = reference.w_dim
        self.layers: LayerGroups = reference.layers
        self.sizes: tuple[int, ...] = reference.sizes
        self.engine = "openvino"

    def weights_hash(self) -> str:
        """Return the hash of the weights: an engine is not part of what a face depends on."""
        return self._reference.weights_hash()

    def map(self, z: torch.Tensor) -> torch.Tensor:
        """Map Gaussian codes (N, z_dim) float32 to style vectors (N, w_dim) float32."""
        with torch.inference_mode():
            return self._reference.map(z)

    def map_arrays(self, z: Floats) -> Floats:
        """See `StyleGan2.map_arrays`."""
        return self._reference.map_arrays(z)

    def synthesise(self, w_plus: torch.Tensor, size: int) -> torch.Tensor:
        """Draw faces as `StyleGan2.synthesise` does, without gradients."""
        return torch.from_numpy(self.draw(w_plus.detach().numpy(), size))

    def draw(self, w_plus: Floats, size: int) -> Floats:
        """See `StyleGan2.draw`."""
        if size != self._reference.drawn_size or w_plus.shape[1:] != (self.layers.total, self.w_dim):
            return self._reference.draw(w_plus, size)
        pictures = [self._draw(code[None]) for code in w_plus]
        return np.concatenate(pictures) if pictures else np.zeros((0, 3, size, size), np.float32)

    def _draw(self, code: Floats) -> Floats:
        with self._lock:
            if self._compiled is None:
                self._compiled = self._compile()
            picture: Floats = self._compiled(np.ascontiguousarray(code, np.float32))[0].copy()
            return picture

    def _compile(self) -> Callable[[Any], Any]:
        import openvino

        example = torch.zeros(1, self.layers.total, self.w_dim)
        with warnings.catch_warnings():
            # Tracing warns that shape checks become constants: they do, and the shape is static here.
            warnings.simplefilter("ignore")
            graph = openvino.convert_model(self._reference, example_input=example)
        graph.reshape([1, self.layers.total, self.w_dim])
        options: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
        if self._threads:
            options["INFERENCE_NUM_THREADS"] = self._threads
        compiled: Callable[[Any], Any] = openvino.Core().compile_model(graph, "CPU", options)
        return compiled
