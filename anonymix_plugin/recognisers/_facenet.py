"""FaceNet, the recogniser that measures."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np

from anonymix_plugin.recognisers._recogniser import BoxCrop, checked, normalised
from anonymix_plugin.values import Floats, Pixels

_BATCH: Final = 16


class FaceNet(BoxCrop):
    """Inception-ResNet-v1 trained as FaceNet on MS-Celeb-1M; 128-d; runs on torch.

    It takes the detector's plain box at 160 pixels, standardised image by image. Neither the mixer nor its
    training uses it.

    Args:
        model: The content of the Keras HDF5 file, or its path.
        name: Its name.
    """

    dim: Final = 128
    seen_by_mixer: Final = False

    def __init__(self, model: Path | bytes, *, name: str = "facenet") -> None:
        from anonymix_plugin.recognisers.keras_weights import read_inception_resnet

        self.name = name
        self._network = read_inception_resnet(model)

    def embed(self, crops: Pixels) -> Floats:
        """See `Recogniser.embed`."""
        checked(crops, self.input_size)
        parts = [self._run(crops[start : start + _BATCH]) for start in range(0, len(crops), _BATCH)]
        return normalised(np.concatenate(parts)) if parts else np.zeros((0, self.dim), np.float32)

    def _run(self, crops: Pixels) -> Floats:
        import torch

        from anonymix_plugin.recognisers._inception_resnet import standardised

        values = torch.from_numpy(np.array(crops, order="C"))  # a copy: torch refuses strides below 0
        values = values.permute(0, 3, 1, 2).float()
        with torch.inference_mode():
            result: Floats = self._network(standardised(values)).numpy()
        return result
