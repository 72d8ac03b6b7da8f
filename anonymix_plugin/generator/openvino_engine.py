"""The generator compiled by OpenVINO: the same weights, several times faster on a CPU than eager torch."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from anonymix_plugin.generator import small_weights
from anonymix_plugin.generator.openvino_graph import STRIPS, Strips, synthesis_graph
from anonymix_plugin.generator.protocol import LayerGroups, check_codes
from anonymix_plugin.generator.published_weights import (
    LAYERS,
    NAME,
    SIZES,
    W_DIM,
    Z_DIM,
    PublishedFiles,
    PublishedWeights,
)
from anonymix_plugin.generator.small_graph import small_graph
from anonymix_plugin.generator.small_weights import SmallWeights
from anonymix_plugin.inference import Network, Recipe, opened, runtime
from anonymix_plugin.pool import Pool
from anonymix_plugin.values import Floats

if TYPE_CHECKING:
    import torch


class OpenVinoGenerator:
    """Meets `protocol.Generator` and `protocol.ArrayGenerator` without importing torch for the latter.

    Args:
        weights: The published weights, in memory, or in files that are read where no compiled network is kept.
        threads: CPU threads for one picture; 0 lets OpenVINO decide.
        at_once: How many pictures are drawn at the same time; each takes memory of its own.
        precision: "f32"; others are for measuring only.
        small: The small generator's learned weights; the large generator without.
        strips: How the picture is cut up while it is drawn; see `openvino_graph`. It changes no byte.

    The graph of a size is built and compiled when it is first needed, in less than a second (`prepare`
    does so in advance). Inference is float32 on purpose: a lower precision would make the same key and
    photo give other bytes on other processors. Codes are drawn one at a time, so that a face's bytes do
    not depend on its neighbours in a batch; they do not depend on the number of threads either.
    """

    engine: str = "openvino"

    def __init__(
        self,
        weights: PublishedWeights | PublishedFiles,
        *,
        threads: int = 0,
        at_once: int = 1,
        precision: str = "f32",
        small: SmallWeights | None = None,
        strips: Strips = STRIPS,
    ) -> None:
        self._weights, self._small, self._strips = weights, small, strips
        self._threads, self._precision = threads, precision
        self._lock = threading.Lock()
        self._requests: dict[int, Pool[Any]] = {}
        self.batch: int = at_once
        self.name: str = NAME if small is None else small_weights.NAME
        self.z_dim: int = Z_DIM
        self.w_dim: int = W_DIM
        self.layers: LayerGroups = LAYERS
        self.sizes: tuple[int, ...] = SIZES if small is None else small_weights.SIZES
        self.teacher: str | None = None if small is None else small.teacher

    def weights_hash(self) -> str:
        """Return the hash of the weights: an engine is not part of what a face depends on."""
        return self._weights.sha256 if self._small is None else self._small.weights_hash()

    def prepare(self, size: int | None = None) -> None:
        """Compile the graph of a size now; without one, of the usual one."""
        with self._pool(min(512, max(self.sizes)) if size is None else size).lent():
            pass

    def map_arrays(self, z: Floats) -> Floats:
        """See `protocol.ArrayGenerator.map_arrays`."""
        return self._weights.mapping.apply(z)

    def draw(self, w_plus: Floats, size: int) -> Floats:
        """See `protocol.ArrayGenerator.draw`."""
        check_codes(self, w_plus, size)
        pictures = np.empty((len(w_plus), 3, size, size), np.float32)
        pool = self._pool(size)

        def draw(number: int) -> None:
            with pool.lent() as request:  # for each face: nobody waits for all faces of a large group
                request.infer({0: np.ascontiguousarray(w_plus[number, None], np.float32)})
                pictures[number] = request.get_output_tensor(0).data[0]

        if min(len(w_plus), self.batch) < 2:
            for number in range(len(w_plus)):
                draw(number)
        else:
            with ThreadPoolExecutor(self.batch, thread_name_prefix="anonymix-draw") as threads:
                list(threads.map(draw, range(len(w_plus))))
        return pictures

    def map(self, z: torch.Tensor) -> torch.Tensor:
        """Map Gaussian codes (N, 512) float32 to style vectors (N, 512) float32."""
        import torch

        return torch.from_numpy(self.map_arrays(z.detach().numpy()))

    def synthesise(self, w_plus: torch.Tensor, size: int = 512) -> torch.Tensor:
        """Draw faces, (N, 23, 512) float32 to (N, 3, size, size) float32 in about [-1, 1]; no gradients."""
        import torch

        return torch.from_numpy(self.draw(w_plus.detach().numpy(), size))

    def _pool(self, size: int) -> Pool[Any]:
        with self._lock:
            if size not in self._requests:
                self._requests[size] = Pool(self._compile(size), self.batch)
            return self._requests[size]

    def _compile(self, size: int) -> Callable[[], Any]:
        """What makes requests; each has memory of its own, and runs one picture at a time."""

        def build() -> Network:
            synthesis = self._weights.synthesis
            if self._small is None:
                graph = synthesis_graph(synthesis, size, self._strips)
            else:
                graph = small_graph(synthesis, self._small, size)
            return Network(graph.model, numbered(graph.fixed))

        network = self._opened(f"{self.name}-{size}", build, self._precision)
        return lambda: request_of(network, 1)

    def _opened(self, name: str, build: Callable[[], Network], precision: str = "f32") -> Network:
        recipe = None
        if isinstance(self._weights, PublishedFiles):  # what was given in memory is nobody's to keep
            recipe = Recipe(name, f"{self.weights_hash()} {self._strips}", Path(__file__).parent)
        return opened(recipe, build, threads=self._threads, at_once=self.batch, precision=precision)


def numbered(arrays: Sequence[Floats]) -> dict[str, Floats]:
    """What inputs are to be set to, by names that sort in their order."""
    return {f"{index:02}": values for index, values in enumerate(arrays)}


def request_of(network: Network, first: int) -> Any:
    """A request of a compiled network, its inputs from `first` on set to the network's arrays."""
    request = network.model.create_infer_request()
    for index, (_, values) in enumerate(sorted(network.arrays.items()), first):
        request.set_input_tensor(index, runtime().Tensor(values))
    return request
