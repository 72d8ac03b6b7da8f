"""Faces: found in photos, chosen, and cut out for recognisers and the generator."""

from anonymix_plugin.faces._align import (
    RECOGNISER_TEMPLATE,
    box_crop,
    ffhq_crop,
    ffhq_matrix,
    recogniser_crop,
    recogniser_crops,
)
from anonymix_plugin.faces._detector import Detector
from anonymix_plugin.faces._scrfd import Scrfd
from anonymix_plugin.faces._select import FaceChoice, FacePolicy, meant_face, select_faces
from anonymix_plugin.faces._similarity import umeyama
from anonymix_plugin.faces._yunet import YuNet

__all__ = [
    "RECOGNISER_TEMPLATE",
    "Detector",
    "FaceChoice",
    "FacePolicy",
    "Scrfd",
    "YuNet",
    "box_crop",
    "ffhq_crop",
    "ffhq_matrix",
    "meant_face",
    "recogniser_crop",
    "recogniser_crops",
    "select_faces",
    "umeyama",
]
