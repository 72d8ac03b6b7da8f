"""Recognisers that run on ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Final

import numpy as np
import numpy.typing as npt

from anonymix_plugin.recognisers._onnx_file import read_onnx
from anonymix_plugin.recognisers._recogniser import Alignment, checked, normalised
from anonymix_plugin.values import Floats, Pixels

_BATCH: Final = 32  # bounds the memory; larger ones are no faster


class _OnnxRecogniser:
    """A recogniser in an ONNX file with crops in and embeddings out.

    On the CPU the embedding of a crop has the same bits whatever the batch and the number of threads.

    Args:
        path: The ONNX file.
        threads: Threads for one crop; ONNX Runtime's own choice by default.
    """

    input_size: Final = 112
    alignment: Final[Alignment] = "arcface-112"
    seen_by_mixer: Final = True
    mean: ClassVar[float]
    scale: ClassVar[float]

    def __init__(self, path: Path, *, threads: int | None = None) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # no notes on how the graph was optimised
        # Threads that spin after a run would steal the cores from the generator, which draws next.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if threads is not None:
            options.intra_op_num_threads = threads
        model = read_onnx(path).SerializeToString()
        self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name
        self.dim = int(self._session.get_outputs()[0].shape[1])

    def embed(self, crops: Pixels) -> Floats:
        """See `Recogniser.embed`."""
        checked(crops, self.input_size)
        parts = [self._run(crops[start : start + _BATCH]) for start in range(0, len(crops), _BATCH)]
        return normalised(np.concatenate(parts)) if parts else np.zeros((0, self.dim), np.float32)

    def _run(self, crops: Pixels) -> npt.NDArray[np.float32]:
        values = (crops.transpose(0, 3, 1, 2).astype(np.float32) - self.mean) / self.scale
        (embeddings,) = self._session.run(None, {self._input: np.ascontiguousarray(values)})
        result: npt.NDArray[np.float32] = embeddings
        return result


class ArcFace(_OnnxRecogniser):
    """MobileFaceNet trained with ArcFace on WebFace600K; 512-d.

    Its input is RGB, (x - 127.5) / 127.5.
    """

    mean = 127.5
    scale = 127.5

    def __init__(self, path: Path, *, name: str = "arcface-mbf", threads: int | None = None) -> None:
        super().__init__(path, threads=threads)
        self.name = name


class SFace(_OnnxRecogniser):
    """MobileFaceNet trained with the sigmoid-constrained hypersphere loss; 128-d.

    Its input is RGB, 0..255: the graph itself subtracts 127.5 and divides by 128, and so OpenCV's
    `FaceRecognizerSF` passes on what `alignCrop` returns, with the channels swapped from BGR.
    """

    mean = 0.0
    scale = 1.0

    def __init__(self, path: Path, *, name: str = "sface", threads: int | None = None) -> None:
        super().__init__(path, threads=threads)
        self.name = name
