"""dlib's recogniser, for those who have dlib."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np

from anonymix_plugin.errors import naming_extras
from anonymix_plugin.recognisers._recogniser import BoxCrop, checked, normalised
from anonymix_plugin.values import Floats, Pixels


class Dlib(BoxCrop):
    """dlib's ResNet-29 with 128-d embeddings; runs on dlib, the extra `dlib`.

    It finds five landmarks of its own in the detector's box and aligns the crop by them. Its authors compare
    embeddings by Euclidean distance, at a threshold of .6; here they are brought to length 1, as everybody's
    are. They all lie in a narrow cone, so cosines of different people are high too: about .87.

    Args:
        network: Content of the file of the recogniser.
        landmarks: The same of the 5-point predictor.
        name: Its name.

    Raises:
        MissingPackageError: dlib is not installed.
    """

    dim: Final = 128
    seen_by_mixer: Final = False

    def __init__(self, network: bytes, landmarks: bytes, *, name: str = "dlib-recognition") -> None:
        self.name = name
        self._dlib = _dlib()
        # dlib reads files alone; in a folder that nobody else may enter, it reads what was checked.
        with TemporaryDirectory(prefix="anonymix-") as folder:
            file = Path(folder) / "model.dat"
            file.write_bytes(network)
            self._network = self._dlib.face_recognition_model_v1(str(file))
            file.write_bytes(landmarks)
            self._landmarks = self._dlib.shape_predictor(str(file))

    def embed(self, crops: Pixels) -> Floats:
        """See `Recogniser.embed`."""
        checked(crops, self.input_size)
        rows = [self._row(crop) for crop in crops]
        return normalised(np.stack(rows)) if rows else np.zeros((0, self.dim), np.float32)

    def _row(self, crop: Pixels) -> Floats:
        crop = np.ascontiguousarray(crop)
        box = self._dlib.rectangle(0, 0, self.input_size - 1, self.input_size - 1)
        chip = self._dlib.get_face_chip(crop, self._landmarks(crop, box), size=150, padding=0.25)
        return np.array(self._network.compute_face_descriptor(chip), np.float32)


def _dlib() -> Any:
    with naming_extras():
        import dlib
    return dlib
