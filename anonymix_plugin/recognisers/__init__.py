"""Recognisers: what makes an embedding out of a face, on ONNX Runtime, torch or dlib."""

from anonymix_plugin.recognisers._dlib import Dlib
from anonymix_plugin.recognisers._facenet import FaceNet
from anonymix_plugin.recognisers._load import available_recognisers, load_recogniser, torch_recogniser
from anonymix_plugin.recognisers._onnx_recogniser import ArcFace, SFace
from anonymix_plugin.recognisers._recogniser import Alignment, MeasuringRecogniser, Recogniser

__all__ = [
    "Alignment",
    "ArcFace",
    "Dlib",
    "FaceNet",
    "MeasuringRecogniser",
    "Recogniser",
    "SFace",
    "available_recognisers",
    "load_recogniser",
    "torch_recogniser",
]
