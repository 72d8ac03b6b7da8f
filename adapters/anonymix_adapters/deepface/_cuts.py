"""The face cut out of a cancelable picture where DeepFace is told to look for none (detector "skip")."""

from __future__ import annotations

import threading
from typing import Any, Final

import numpy as np

from anonymix_adapters.local import finder
from anonymix_plugin.errors import NoFaceError
from anonymix_plugin.faces import RECOGNISER_TEMPLATE, Detector, box_crop, recogniser_crop
from anonymix_plugin.values import Face, Photo, Pixels

SKIP: Final = "skip"
# Trained on ArcFace's template.
_ALIGNED: Final = frozenset({"SFace", "ArcFace", "Buffalo_L", "GhostFaceNet"})
_SIDE = 224
_MARGIN = 0.1
_LOCK = threading.Lock()


def cut(detector: Detector, pixels: Pixels, model: str) -> Pixels:
    """Cut out the face as a model was trained on it: RGB pixels to (224, 224, 3) uint8 BGR.

    Raises:
        NoFaceError: The picture has no face.
    """
    found = detector.detect(Photo(pixels, "picture"))
    if not found:
        raise NoFaceError("the picture has no face", where="deepface", fix="use another photo")
    face: Face = found[0]
    crop = recogniser_crop(face, _SIDE) if model in _ALIGNED else box_crop(face, _SIDE, _MARGIN)
    return np.ascontiguousarray(crop[..., ::-1])


class CancelableFinder:
    """A detector for DeepFace's `find`, which reads the pictures of a folder itself.

    `find` with detector "skip" would embed whole pictures. With this one it cuts the enrolled picture and
    the probe in one and the same way.
    """

    def __init__(self, aligned: bool) -> None:
        self._aligned, self._detector = aligned, finder()

    def detect_faces(self, img: Any) -> list[Any]:
        """Where DeepFace shall cut: one region of a (height, width, 3) uint8 BGR picture."""
        from deepface.models.Detector import FacialAreaRegion

        height, width = img.shape[:2]
        found = self._detector.detect(Photo(np.ascontiguousarray(img[..., ::-1]), "picture"))
        if not found:  # a crop that is too tight to be searched is the face
            return [FacialAreaRegion(x=0, y=0, w=width, h=height, confidence=0.0)]
        x0, y0, x1, y1 = self._region(found[0])
        left, top = max(round(x0), 0), max(round(y0), 0)
        right, bottom = min(round(x1), width), min(round(y1), height)
        eye, other = ((int(x), int(y)) for x, y in found[0].landmarks[:2])
        return [
            FacialAreaRegion(
                x=left,
                y=top,
                w=right - left,
                h=bottom - top,
                left_eye=other,
                right_eye=eye,
                confidence=found[0].score,
            )
        ]

    def _region(self, face: Face) -> tuple[float, float, float, float]:
        if not self._aligned:
            x0, y0, x1, y1 = face.box
            dx, dy = (x1 - x0) * _MARGIN, (y1 - y0) * _MARGIN
            return x0 - dx, y0 - dy, x1 + dx, y1 + dy
        # The template's square; a cancelable picture stands upright, so that nothing is to be turned.
        points = face.landmarks.astype(np.float64)
        template = RECOGNISER_TEMPLATE.astype(np.float64)
        scale = float(np.std(points - points.mean(0)) / np.std(template - template.mean(0)))
        x, y = points.mean(0) + (56 - template.mean(0)) * scale
        half = 56 * scale
        return float(x - half), float(y - half), float(x + half), float(y + half)


def finder_for(model: str) -> str:
    """Make `CancelableFinder` known to DeepFace; returns the name of the detector for a model."""
    from deepface.modules import modeling

    aligned = model in _ALIGNED
    name = "anonymix" if aligned else "anonymix-box"
    with _LOCK:
        if "cached_models" not in vars(modeling):  # DeepFace makes it at its first model
            tasks = getattr(modeling, "AVAILABLE_MODELS", None) or (
                "facial_recognition",
                "spoofing",
                "facial_attribute",
                "face_detector",
            )
            modeling.cached_models = {task: {} for task in tasks}
        modeling.cached_models["face_detector"].setdefault(name, CancelableFinder(aligned))
    return name
