"""Recognisers in ONNX files, on OpenVINO or ONNX Runtime."""

from __future__ import annotations

from typing import ClassVar, Final

import numpy as np

from anonymix_plugin.recognisers._engines import RecogniserEngine, Weights, load_network
from anonymix_plugin.recognisers._recogniser import PointsCrop, checked, normalised
from anonymix_plugin.values import Floats, Pixels


class _OnnxRecogniser(PointsCrop):
    """A recogniser in an ONNX file with crops in and embeddings out.

    On the CPU, and on one engine, the embedding of a crop has the same bits whatever the batch and the
    number of threads.

    Args:
        model: The ONNX file: its content, what reads it, or its path, which is read once.
        threads: Threads for one crop; the engine's own choice by default.
        at_once: Crops that OpenVINO runs at the same time; others wait.
        engine: What runs it.
    """

    seen_by_mixer: Final = True
    mean: ClassVar[float]
    scale: ClassVar[float]

    def __init__(
        self,
        model: Weights,
        *,
        threads: int | None = None,
        at_once: int = 1,
        engine: RecogniserEngine = "auto",
    ) -> None:
        self._network = load_network(model, self.input_size, threads=threads, at_once=at_once, engine=engine)
        self.dim = self._network.dim

    def embed(self, crops: Pixels) -> Floats:
        """See `Recogniser.embed`."""
        return self.embed_with_lengths(crops)[0]

    def embed_with_lengths(self, crops: Pixels) -> tuple[Floats, Floats]:
        """See `MeasuringRecogniser.embed_with_lengths`."""
        checked(crops, self.input_size)
        if not len(crops):
            return np.zeros((0, self.dim), np.float32), np.zeros(0, np.float32)
        values = (crops.transpose(0, 3, 1, 2).astype(np.float32) - self.mean) / self.scale
        raw = self._network.run(values)
        lengths: Floats = np.linalg.norm(raw, axis=1).astype(np.float32)
        return normalised(raw), lengths


class ArcFace(_OnnxRecogniser):
    """MobileFaceNet trained with ArcFace on WebFace600K; 512-d.

    Its input is RGB, (x - 127.5) / 127.5.
    """

    mean = 127.5
    scale = 127.5

    def __init__(
        self,
        model: Weights,
        *,
        name: str = "arcface-mbf",
        threads: int | None = None,
        at_once: int = 1,
        engine: RecogniserEngine = "auto",
    ) -> None:
        super().__init__(model, threads=threads, at_once=at_once, engine=engine)
        self.name = name


class SFace(_OnnxRecogniser):
    """MobileFaceNet trained with the sigmoid-constrained hypersphere loss; 128-d.

    Its input is RGB, 0..255: the graph itself subtracts 127.5 and divides by 128, and so OpenCV's
    `FaceRecognizerSF` passes on what `alignCrop` returns, with the channels swapped from BGR.
    """

    mean = 0.0
    scale = 1.0

    def __init__(
        self,
        model: Weights,
        *,
        name: str = "sface",
        threads: int | None = None,
        at_once: int = 1,
        engine: RecogniserEngine = "auto",
    ) -> None:
        super().__init__(model, threads=threads, at_once=at_once, engine=engine)
        self.name = name
