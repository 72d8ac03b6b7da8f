"""What most people take for anonymisation: blurring and pixelating the face."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path

import cv2
import numpy as np

from anonymix_lab.protections._values import KeyName
from anonymix_plugin.faces import Detector, FacePolicy, ffhq_crop, select_faces
from anonymix_plugin.images import decode_photo
from anonymix_plugin.values import Pixels

_SIDE = 512


class _Plain(ABC):
    """Works on the FFHQ crop, in which the face is as large as in a cancelable face. There is no key."""

    keyed = False
    name: str
    title: str
    fingerprint: str

    def __init__(self, detector: Detector, faces: FacePolicy) -> None:
        self._detector, self._faces = detector, faces

    def protect(self, photo: Path | bytes, key: KeyName) -> Pixels:  # noqa: ARG002 - there is none
        """See `Protection.protect`."""
        picture = decode_photo(photo)
        face = select_faces(self._detector.detect(picture), self._faces, picture)[0]
        return self._spoil(ffhq_crop(face, _SIDE))

    @abstractmethod
    def _spoil(self, crop: Pixels) -> Pixels: ...


class Pixelation(_Plain):
    """Squares of one colour.

    Args:
        detector: Finds the face.
        blocks: How many squares lie along the side of the FFHQ crop; the face takes half of it.
        faces: Which of several faces.
    """

    def __init__(self, detector: Detector, blocks: int = 24, *, faces: FacePolicy = "largest") -> None:
        super().__init__(detector, faces)
        self._blocks = blocks
        self.name, self.title = "pixelation", f"Pixelation ({blocks // 2} blocks across the face)"
        self.fingerprint = f"pixelation {blocks} of {_SIDE}, {faces}"

    def _spoil(self, crop: Pixels) -> Pixels:
        small = cv2.resize(crop, (self._blocks, self._blocks), interpolation=cv2.INTER_AREA)
        return np.asarray(cv2.resize(small, (_SIDE, _SIDE), interpolation=cv2.INTER_NEAREST), np.uint8)


class Blur(_Plain):
    """Gaussian blur.

    Args:
        detector: Finds the face.
        sigma: In pixels of the 512 px crop; the face takes 256 of them.
        faces: Which of several faces.
    """

    def __init__(self, detector: Detector, sigma: float = 12.0, *, faces: FacePolicy = "largest") -> None:
        super().__init__(detector, faces)
        self._sigma = sigma
        self.name, self.title = "blur", f"Blur (sigma {sigma / 2.56:.1f} % of the face)"
        self.fingerprint = f"blur {sigma} of {_SIDE}, {faces}"

    def _spoil(self, crop: Pixels) -> Pixels:
        return np.asarray(cv2.GaussianBlur(crop, (0, 0), self._sigma), np.uint8)
