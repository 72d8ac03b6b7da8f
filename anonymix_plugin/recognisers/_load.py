"""Recognisers by name."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from anonymix_plugin.errors import UsageError
from anonymix_plugin.models import content_of_model, load_checked, sources
from anonymix_plugin.recognisers._dlib import Dlib
from anonymix_plugin.recognisers._facenet import FaceNet
from anonymix_plugin.recognisers._onnx_recogniser import ArcFace, SFace
from anonymix_plugin.recognisers._recogniser import Recogniser

if TYPE_CHECKING:
    from anonymix_plugin.recognisers._torch_recogniser import TorchRecogniser

_LOADERS: Final[dict[str, Callable[[int | None, int], Recogniser]]] = {
    "arcface-mbf": lambda threads, at_once: ArcFace(content_of_model("arcface-mbf"), threads=threads, at_once=at_once),
    "sface": lambda threads, at_once: SFace(content_of_model("sface"), threads=threads, at_once=at_once),
    "sface-int8": lambda threads, _: SFace(
        load_checked("sface-int8"), name="sface-int8", threads=threads, engine="onnxruntime"
    ),
    "facenet": lambda *_: FaceNet(load_checked("facenet")),
    "dlib-recognition": lambda *_: Dlib(
        load_checked("dlib-recognition", "dlib_face_recognition_resnet_model_v1.dat"),
        load_checked("dlib-recognition", "shape_predictor_5_face_landmarks.dat"),
    ),
}
_NEEDS: Final = {"facenet": ("h5py", "torch"), "dlib-recognition": ("dlib",)}
_TORCH_NAMES: Final = ("arcface-mbf", "sface", "facenet")


def load_recogniser(name: str, *, threads: int | None = None, at_once: int = 1) -> Recogniser:
    """Load a recogniser by its name in the registry of weights.

    Args:
        name: "arcface-mbf", "sface", "sface-int8", "facenet" or "dlib-recognition".
        threads: Threads for one crop, where OpenVINO or ONNX Runtime run it; their own choice by default.
        at_once: Crops that OpenVINO runs at the same time; others wait.

    Raises:
        UsageError: No recogniser has that name.
        MissingModelError: Its weights are not on this machine.
        DamagedModelError: They are, but altered.
        ModelError: A package that it needs is not installed.
    """
    if name not in _LOADERS:
        raise _unknown(name, tuple(_LOADERS))
    return _LOADERS[name](threads, at_once)


def available_recognisers() -> tuple[str, ...]:
    """Names of the recognisers whose weights and packages are on this machine."""
    return tuple(
        name
        for name in _LOADERS
        if all(source.path.is_file() for source in sources(name))
        and all(importlib.util.find_spec(package) is not None for package in _NEEDS.get(name, ()))
    )


def torch_recogniser(name: str) -> TorchRecogniser:
    """Load a recogniser as a frozen torch module with gradients to its input.

    It takes (N, 3, size, size) float32 RGB in -1..1, size being its attribute `input_size`, and returns
    (N, dim) float32 embeddings that are not normalised. It stays in evaluation mode.

    Args:
        name: "arcface-mbf", "sface" or "facenet".

    Raises:
        UsageError: No recogniser has that name, or it can't be differentiated.
        MissingModelError: Its weights are not on this machine.
        DamagedModelError: They are, but altered.
        ModelError: A package is not installed, or a file of the user's own has an unknown operator.
    """
    if name not in _TORCH_NAMES:
        raise _unknown(name, _TORCH_NAMES)
    from anonymix_plugin.recognisers._torch_recogniser import build

    return build(name)


def _unknown(name: str, known: tuple[str, ...]) -> UsageError:
    return UsageError("no such recogniser", where=name, fix="known recognisers: " + ", ".join(known))
