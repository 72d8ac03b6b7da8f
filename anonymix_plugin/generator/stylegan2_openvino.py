"""A StyleGAN2 compiled by OpenVINO: the same weights, faster on a CPU than eager torch."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from anonymix_plugin.generator.protocol import check_codes
from anonymix_plugin.generator.stylegan2 import (
    MappingNetwork,
    StyleGan2,
    offered_sizes,
    stylegan2_layers,
)
from anonymix_plugin.generator.stylegan2_graph import synthesis_graph
from anonymix_plugin.generator.stylegan2_weights import StyleGan2Weights
from anonymix_plugin.inference import compiled, runtime
from anonymix_plugin.values import Floats

if TYPE_CHECKING:
    from anonymix_plugin.generator.protocol import LayerGroups


class OpenVinoStyleGan2:
    """Meets `protocol.Generator` and `protocol.ArrayGenerator`.

    Args:
        weights: The generator's.
        threads: CPU threads for one picture; 0 lets OpenVINO decide.

    The graph of a size is built and compiled when it is first needed. Inference is float32 on purpose: a
    lower precision would make the same key and photo give other bytes on other processors. Codes are drawn
    one at a time, so that a face's bytes do not depend on its neighbours in a batch.
    """

    def __init__(self, weights: StyleGan2Weights, *, threads: int = 0) -> None:
        self._weights, self._threads = weights, threads
        self._mapping = MappingNetwork(weights)
        self._hash = weights.sha256()
        self._lock = threading.Lock()
        self._requests: dict[int, Any] = {}
        self.name: str = StyleGan2.name
        self.z_dim: int = weights.z_dim
        self.w_dim: int = weights.w_dim
        self.layers: LayerGroups = stylegan2_layers(weights.style_inputs)
        self.sizes: tuple[int, ...] = offered_sizes(weights.resolution)
        self.engine = "openvino"

    def weights_hash(self) -> str:
        """Return the hash of the weights: an engine is not part of what a face depends on."""
        return self._hash

    def prepare(self, size: int | None = None) -> None:
        """Compile the graph of a size now, by default of the one that is drawn unless told otherwise."""
        with self._lock:
            self._request(size or min(512, max(self.sizes)))

    def map(self, z: torch.Tensor) -> torch.Tensor:
        """Map Gaussian codes (N, z_dim) float32 to style vectors (N, w_dim) float32."""
        with torch.inference_mode():
            mapped: torch.Tensor = self._mapping(z)
            return mapped

    def map_arrays(self, z: Floats) -> Floats:
        """See `protocol.ArrayGenerator.map_arrays`."""
        return self._mapping.map_arrays(z)

    def synthesise(self, w_plus: torch.Tensor, size: int) -> torch.Tensor:
        """Draw faces as `StyleGan2.synthesise` does, without gradients."""
        return torch.from_numpy(self.draw(w_plus.detach().numpy(), size))

    def draw(self, w_plus: Floats, size: int) -> Floats:
        """See `protocol.ArrayGenerator.draw`."""
        check_codes(self, w_plus, size)
        pictures = np.empty((len(w_plus), 3, size, size), np.float32)
        for picture, code in zip(pictures, w_plus, strict=True):
            with self._lock:  # for each face: nobody waits for all faces of a large group
                request = self._request(size)
                request.infer({0: np.ascontiguousarray(code[None], np.float32)})
                picture[:] = request.get_output_tensor(0).data[0]
        return pictures

    def _request(self, size: int) -> Any:
        if size not in self._requests:
            model, noise = synthesis_graph(self._weights, size)
            request = compiled(model, threads=self._threads).create_infer_request()
            for index, values in enumerate(noise, 1):
                request.set_input_tensor(index, runtime().Tensor(values))
            self._requests[size] = request
        return self._requests[size]
