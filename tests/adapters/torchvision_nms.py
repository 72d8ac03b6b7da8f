"""The one compiled operator of torchvision that facenet-pytorch needs, where its own can't be loaded.

Wheels of torchvision from the package index are built for CUDA; beside a torch without CUDA their operators
do not load, and the package then does not even import. `define` gives torch that operator, in Python.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch


def nms(boxes: torch.Tensor, scores: torch.Tensor, iou_threshold: float) -> torch.Tensor:
    """Greedy non-maximum suppression: boxes (n, 4) x0 y0 x1 y1; the indices that stay, best score first."""
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    rest, kept = scores.argsort(descending=True), []
    while rest.numel():
        best, rest = rest[0], rest[1:]
        kept.append(best)
        low = torch.maximum(boxes[best, :2], boxes[rest, :2])
        high = torch.minimum(boxes[best, 2:], boxes[rest, 2:])
        shared = (high - low).clamp_min(0).prod(dim=1)
        rest = rest[shared / (areas[best] + areas[rest] - shared) <= iou_threshold]
    return torch.stack(kept) if kept else torch.zeros(0, dtype=torch.int64)


def define() -> None:
    """Define the operator, unless torchvision brings its own or is not there."""
    found = importlib.util.find_spec("torchvision")
    if found is None or found.origin is None:
        return
    compiled = Path(found.origin).parent / "_C.so"
    try:
        torch.ops.load_library(str(compiled))
    except OSError:
        torch.library.define("torchvision::nms", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        torch.library.impl("torchvision::nms", "cpu", nms)
        # Asked for at import; facenet-pytorch, and so everything here, never calls it.
        torch.library.define("torchvision::qnms", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        import torchvision.extension

        torchvision.extension._has_ops = lambda: True
