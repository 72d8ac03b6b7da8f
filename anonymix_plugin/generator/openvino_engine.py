"""The generator compiled by OpenVINO: the same weights, several times faster on a CPU than eager torch."""

from __future__ import annotations

import threading
import warnings
from typing import TYPE_CHECKING, Any

import torch

from anonymix_plugin.errors import UsageError
from anonymix_plugin.generator.mobilestylegan import MobileStyleGan
from anonymix_plugin.generator.protocol import LayerGroups
from anonymix_plugin.values import Floats

if TYPE_CHECKING:
    from collections.abc import Callable


class OpenVinoGenerator:
    """Meets `protocol.Generator`; draws 512 px through OpenVINO and everything else through torch.

    Args:
        reference: The torch module whose graph is compiled; it keeps serving `map` and 1024 px.
        threads: CPU threads for one picture; 0 lets OpenVINO decide.

    The graph is traced from the torch module once per process (about a second). Inference is float32 on
    purpose: a lower precision would make the same key and photo give other bytes on other processors.
    Codes are drawn one at a time, so that a face's bytes do not depend on its neighbours in a batch.
    """

    def __init__(self, reference: MobileStyleGan, *, threads: int = 0) -> None:
        self._reference = reference
        self._threads = threads
        self._lock = threading.Lock()
        self._compiled: Callable[[Any], Any] | None = None
        self.name: str = reference.name
        self.z_dim: int = reference.z_dim
        self.w_dim: int = reference.w_dim
        self.layers: LayerGroups = reference.layers
        self.sizes: tuple[int, ...] = reference.sizes

    def weights_hash(self) -> str:
        """Return the hash of the weights: an engine is not part of what a face depends on."""
        return self._reference.weights_hash()

    def map(self, z: torch.Tensor) -> torch.Tensor:
        """Map Gaussian codes (N, 512) float32 to style vectors (N, 512) float32."""
        with torch.inference_mode():
            return self._reference.map(z)

    def synthesise(self, w_plus: torch.Tensor, size: int = 512) -> torch.Tensor:
        """Draw faces, (N, 23, 512) float32 to (N, 3, size, size) float32 in about [-1, 1]."""
        if size not in self.sizes:
            raise UsageError(f"this generator draws {self.sizes} px, not {size}", where="size")
        with torch.inference_mode():
            if size != 512:
                return self._reference.synthesise(w_plus, size)
            pictures = [torch.from_numpy(self._draw(code[None])) for code in w_plus.detach()]
            return pictures[0] if len(pictures) == 1 else torch.cat(pictures)

    def _draw(self, code: torch.Tensor) -> Floats:
        with self._lock:
            if self._compiled is None:
                self._compiled = self._compile()
            picture: Floats = self._compiled(code.contiguous().numpy())[0].copy()
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
