"""What the local back ends recognise with: a real detector and a real recogniser, thresholds unchanged."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from threading import Lock
from typing import Final

import numpy as np

from anonymix_plugin.errors import PhotoError
from anonymix_plugin.faces import YuNet
from anonymix_plugin.images import decode_photo
from anonymix_plugin.models import locate
from anonymix_plugin.recognisers import load_recogniser
from anonymix_plugin.values import Floats
from anonymix_plugin.verification import named_threshold


@dataclass(frozen=True, eq=False)
class Seen:
    """One face of an uploaded picture.

    Attributes:
        box: (x0, y0, x1, y1) in pixels.
        size: (width, height) of the picture.
        embedding: (dim,) float32 of length 1.
        probability: How sure the detector is, 0..1.
    """

    box: tuple[float, float, float, float]
    size: tuple[int, int]
    embedding: Floats
    probability: float = 1.0

    def bounding_box(self) -> dict[str, float]:
        """The box as shares of the picture, the way Rekognition gives it."""
        x0, y0, x1, y1 = self.box
        width, height = self.size
        return {
            "Left": x0 / width,
            "Top": y0 / height,
            "Width": (x1 - x0) / width,
            "Height": (y1 - y0) / height,
        }

    def rectangle(self) -> dict[str, int]:
        """The box in whole pixels, the way Azure and Face++ give it."""
        x0, y0, x1, y1 = (round(value) for value in self.box)
        return {"left": x0, "top": y0, "width": x1 - x0, "height": y1 - y0}


class Recognition:
    """Finds faces in uploaded files and compares them.

    Args:
        name: The recogniser. FaceNet had no part in making the mixer, so its answers are those of a stranger.
        threshold: The name of the cosine at which two faces count as one person's.
    """

    def __init__(self, name: str = "facenet", threshold: str = "fmr-0.1%") -> None:
        self._recogniser = load_recogniser(name)
        self._detector = YuNet(locate("yunet"))
        self.threshold: Final = named_threshold(name, threshold).value
        self._known: dict[bytes, list[Seen]] = {}
        self._lock = Lock()

    def faces(self, data: bytes) -> list[Seen]:
        """All faces of a picture, the largest first; an empty list where it is no picture or shows none."""
        name = hashlib.sha256(data).digest()
        with self._lock:
            if name not in self._known:
                self._known[name] = self._look(data)
            return self._known[name]

    def cosine(self, a: Seen, b: Seen) -> float:
        """How alike two faces are, -1..1."""
        return float(np.dot(a.embedding.astype(np.float64), b.embedding.astype(np.float64)))

    def score(self, a: Seen, b: Seen, at_threshold: float, best: float) -> float:
        """The same on a vendor's scale from 0 to `best`, on which the threshold lies at `at_threshold`."""
        cosine, middle = self.cosine(a, b), self.threshold
        if cosine >= middle:
            return at_threshold + (best - at_threshold) * (cosine - middle) / (1 - middle)
        return max(0.0, at_threshold * (cosine + 1) / (middle + 1))

    def _look(self, data: bytes) -> list[Seen]:
        try:
            photo = decode_photo(data, allow_protected=True)
        except PhotoError:
            return []
        found = sorted(self._detector.detect(photo), key=lambda face: -_area(face.box))
        if not found:
            return []
        crops = np.stack([self._recogniser.crop(face) for face in found])
        embeddings = self._recogniser.embed(crops)
        return [
            Seen(face.box, (photo.width, photo.height), embedding, float(face.score))
            for face, embedding in zip(found, embeddings, strict=True)
        ]


def _area(box: tuple[float, float, float, float]) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])
