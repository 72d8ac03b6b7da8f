"""The reference on a device of choice, in batches of a fixed size: for GPUs.

Everything but the GPU's own parts (graph capture, pinned memory, streams) runs on a CPU as well, and is
tested there. `anonymix measure gpu` checks and times the rest; docs/performance.md has its figures.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch

from anonymix_plugin.errors import UsageError
from anonymix_plugin.generator.mobilestylegan import MobileStyleGan
from anonymix_plugin.generator.protocol import LayerGroups, check_codes
from anonymix_plugin.generator.small import SmallGenerator
from anonymix_plugin.values import Floats

Precision = Literal["float32", "float16"]

_WARM_UP = 3  # runs before a capture, which the libraries use to choose and to allocate


class TorchGenerator:
    """Meets `protocol.Generator` and `protocol.ArrayGenerator` on a torch device.

    Args:
        reference: The module; it is moved to the device and laid out channels last.
        device: "cuda", "cuda:1", ... or "cpu".
        batch: How many codes are drawn at once. A smaller set is filled up to this size, so that a face's
            bytes do not depend on how many others came with it.
        precision: Of convolutions. What is not float32 is another device kind in the sense of the
            contract: the same face, not the same bytes. float16 keeps a recogniser's cosine to float32 at
            .9998; bfloat16, at .9991, came too near the limit of .999 to be offered.
        compiled: Whether torch.compile fuses the pass first; the first batch then waits for the compiler.

    Raises:
        UsageError: The device is not there.
    """

    def __init__(
        self,
        reference: MobileStyleGan | SmallGenerator,
        device: str = "cuda",
        *,
        batch: int = 16,
        precision: Precision = "float16",
        compiled: bool = False,
    ) -> None:
        if batch < 1:
            raise UsageError(f"{batch} codes can't be drawn at once", where="batch")
        if device.startswith("cuda") and not torch.cuda.is_available():
            raise UsageError(
                "torch finds no GPU", where=device, fix="use the engine auto, or install torch for your GPU"
            )
        self._device, self.batch = torch.device(device), batch
        self._precision: Precision = precision
        self._reference = reference.to(self._device)
        for parameter in self._reference.parameters():
            if parameter.ndim == 4:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
        self._synthesise: Callable[[torch.Tensor, int], torch.Tensor] = (
            torch.compile(reference.synthesise, dynamic=False) if compiled else reference.synthesise
        )
        self._lock = threading.Lock()
        self._graphs: dict[int, _Graph] = {}
        self.name: str = reference.name
        self.z_dim: int = reference.z_dim
        self.w_dim: int = reference.w_dim
        self.layers: LayerGroups = reference.layers
        self.sizes: tuple[int, ...] = reference.sizes
        self.teacher: str | None = getattr(reference, "teacher", None)
        self.engine = f"torch {self._device.type} {precision}"

    def weights_hash(self) -> str:
        """Return the hash of the weights."""
        return self._reference.weights_hash()

    def map_arrays(self, z: Floats) -> Floats:
        """See `protocol.ArrayGenerator.map_arrays`; computed on the CPU, once for each key."""
        return self._reference.map_arrays(z)

    def map(self, z: torch.Tensor) -> torch.Tensor:
        """Map Gaussian codes (N, 512) float32 to style vectors (N, 512) float32."""
        return torch.from_numpy(self.map_arrays(z.detach().cpu().numpy())).to(z.device)

    def synthesise(self, w_plus: torch.Tensor, size: int = 512) -> torch.Tensor:
        """Draw faces, (N, 23, 512) float32 to (N, 3, size, size) float32 on the CPU; no gradients."""
        return torch.from_numpy(self.draw(w_plus.detach().cpu().numpy(), size))

    def draw(self, w_plus: Floats, size: int) -> Floats:
        """See `protocol.ArrayGenerator.draw`."""
        check_codes(self, w_plus, size)
        pictures = np.empty((len(w_plus), 3, size, size), np.float32)
        with self._lock, torch.inference_mode(), _deterministic():
            if self._device.type == "cuda":
                self._draw_captured(w_plus, size, pictures)
            else:
                for start in range(0, len(w_plus), self.batch):
                    codes = self._filled(w_plus[start : start + self.batch])
                    drawn = self._pass(torch.from_numpy(codes).to(self._device), size)
                    pictures[start : start + self.batch] = drawn.numpy()[: len(w_plus) - start]
        return pictures

    def _pass(self, codes: torch.Tensor, size: int) -> torch.Tensor:
        if self._precision == "float32":
            return self._synthesise(codes, size)
        with torch.autocast(self._device.type, getattr(torch, self._precision)):
            return self._synthesise(codes, size).float()

    def _filled(self, codes: Floats) -> Floats:
        """Codes up to the size of a batch, by repeating the first."""
        missing = self.batch - len(codes)
        whole = codes if not missing else np.concatenate([codes, np.repeat(codes[:1], missing, axis=0)])
        return np.array(whole, np.float32, order="C")  # a copy: torch refuses strides below 0

    def pass_seconds(self, size: int, repeats: int = 20) -> float:
        """Median seconds of drawing one batch that is on the device already and stays there."""
        codes = torch.zeros(self.batch, self.layers.total, self.w_dim, device=self._device)
        seconds = []
        with self._lock, torch.inference_mode(), _deterministic():
            run = self._graph(size).replay if self._device.type == "cuda" else lambda: self._pass(codes, size)
            for _ in range(repeats):
                started = time.perf_counter()
                run()
                if self._device.type == "cuda":
                    torch.cuda.synchronize(self._device)
                seconds.append(time.perf_counter() - started)
        return float(np.median(seconds))

    # --- what only a GPU runs ------------------------------------------------------------------------

    def _draw_captured(self, w_plus: Floats, size: int, pictures: Floats) -> None:  # pragma: no cover
        """Draw batch after batch; a picture's way home overlaps the drawing of the next ones."""
        graph = self._graph(size)
        waiting: tuple[int, int] | None = None  # the batch whose pictures are under way, and its slot
        for number, start in enumerate(range(0, len(w_plus), self.batch)):
            slot = number % 2
            graph.launch(self._filled(w_plus[start : start + self.batch]), slot)
            if waiting is not None:
                graph.collect(waiting[1], pictures[waiting[0] : waiting[0] + self.batch])
            waiting = (start, slot)
        if waiting is not None:
            graph.collect(waiting[1], pictures[waiting[0] :])

    def _graph(self, size: int) -> _Graph:  # pragma: no cover
        if size not in self._graphs:
            self._graphs[size] = _Graph(self, size)
        return self._graphs[size]


class _Graph:  # pragma: no cover
    """A captured pass of one size, with pinned memory on the way in and, twice, on the way out."""

    def __init__(self, owner: TorchGenerator, size: int) -> None:
        device, batch = owner._device, owner.batch
        shape = (batch, owner.layers.total, owner.w_dim)
        cuda: Any = torch.cuda  # half of it has no types
        self._copying = cuda.Stream(device)
        self._codes = torch.zeros(shape, device=device)
        self._in = [torch.zeros(shape).pin_memory() for _ in range(2)]
        self._out = [torch.zeros(batch, 3, size, size).pin_memory() for _ in range(2)]
        self._copied: list[Any] = [cuda.Event() for _ in range(2)]
        warming = cuda.Stream(device)
        warming.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(warming):
            for _ in range(_WARM_UP):
                owner._pass(self._codes, size)
        torch.cuda.current_stream(device).wait_stream(warming)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._drawn = owner._pass(self._codes, size)
        self._device = device

    def replay(self) -> None:
        """Draw whatever codes are there."""
        self._graph.replay()

    def launch(self, codes: Floats, slot: int) -> None:
        """Queue one batch: codes in, pass, pictures out on a stream of their own."""
        self._copied[slot].synchronize()  # the slot's last pictures have left it
        self._in[slot].copy_(torch.from_numpy(codes))
        main = torch.cuda.current_stream(self._device)
        main.wait_stream(self._copying)  # the pass writes where the copy before it read
        self._codes.copy_(self._in[slot], non_blocking=True)
        self._graph.replay()
        result = self._drawn.clone()
        self._copying.wait_stream(main)
        with torch.cuda.stream(self._copying):
            result.record_stream(self._copying)
            self._out[slot].copy_(result, non_blocking=True)
            self._copied[slot].record(self._copying)

    def collect(self, slot: int, pictures: Floats) -> None:
        """Wait for a slot's pictures and take as many as are asked for."""
        self._copied[slot].synchronize()
        pictures[:] = self._out[slot].numpy()[: len(pictures)]


def _deterministic() -> Any:
    return torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
