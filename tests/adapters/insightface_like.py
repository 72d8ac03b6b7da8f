"""InsightFace's `FaceAnalysis` in small, with its names, for environments where the package is not installed.

YuNet is the detector, ArcFace w600k_mbf the recogniser; the calls have the package's own parameters.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from anonymix_plugin.faces import YuNet, recogniser_crop
from anonymix_plugin.models import locate
from anonymix_plugin.values import Face as Found
from anonymix_plugin.values import Photo


class Face(dict[str, Any]):
    def __init__(self, **values: Any) -> None:
        super().__init__()
        for name, value in values.items():
            setattr(self, name, value)

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        super().__setitem__(name, value)

    __setitem__ = __setattr__

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)

    @property
    def normed_embedding(self) -> Any:
        return None if self.embedding is None else self.embedding / np.linalg.norm(self.embedding)


class PickableInferenceSession(onnxruntime.InferenceSession):
    def __init__(self, model_path: str) -> None:
        super().__init__(model_path, providers=["CPUExecutionProvider"])
        self.model_path = model_path

    def __getstate__(self) -> dict[str, Any]:
        return {"model_path": self.model_path}

    def __setstate__(self, values: dict[str, Any]) -> None:
        self.__init__(values["model_path"])  # type: ignore[misc]


class ArcFaceONNX:
    taskname = "recognition"

    def __init__(self, path: Path) -> None:
        self.session = PickableInferenceSession(str(path))
        self.input_name = self.session.get_inputs()[0].name

    def prepare(self, ctx_id: int, **kwargs: Any) -> None:
        self.session.set_providers(["CPUExecutionProvider"])

    def get(self, img: Any, face: Any) -> Any:
        photo = Photo(np.ascontiguousarray(img[..., ::-1]), "photo")
        crop = recogniser_crop(Found(photo, (0, 0, 1, 1), np.asarray(face.kps, np.float32), 1.0))
        face.embedding = self.get_feat(np.ascontiguousarray(crop[..., ::-1])).flatten()
        return face.embedding

    def compute_sim(self, feat1: Any, feat2: Any) -> float:
        return float(feat1.ravel() @ feat2.ravel() / np.linalg.norm(feat1) / np.linalg.norm(feat2))

    def get_feat(self, imgs: Any) -> Any:
        batch = np.stack(imgs if isinstance(imgs, list) else [imgs])[..., ::-1].transpose(0, 3, 1, 2)
        return self.forward(batch.astype(np.float32))

    def forward(self, batch_data: Any) -> Any:
        return self.session.run(None, {self.input_name: (batch_data - 127.5) / 127.5})[0]


class Detection:
    taskname = "detection"

    def __init__(self) -> None:
        self._path = locate("yunet")

    def prepare(self, ctx_id: int, **kwargs: Any) -> None:
        pass

    def detect(self, img: Any, input_size: Any = None, max_num: int = 0, metric: str = "default") -> Any:
        found = YuNet(self._path).detect(Photo(np.ascontiguousarray(img[..., ::-1]), "photo"))
        found = found[:max_num] if max_num else found
        boxes = np.array([[*face.box, face.score] for face in found], np.float32).reshape(-1, 5)
        return boxes, np.array([face.landmarks for face in found], np.float32).reshape(-1, 5, 2)


class FaceAnalysis:
    def __init__(self) -> None:
        self.models: dict[str, Any] = {
            "detection": Detection(),
            "recognition": ArcFaceONNX(locate("arcface-mbf")),
        }
        self.det_model = self.models["detection"]

    def prepare(self, ctx_id: int = 0, det_thresh: float = 0.5, det_size: Any = None) -> None:
        for model in self.models.values():
            model.prepare(ctx_id)

    def get(self, img: Any, max_num: int = 0, det_metric: str = "default") -> list[Face]:
        boxes, points = self.det_model.detect(img, max_num=max_num, metric=det_metric)
        faces = []
        for box, kps in zip(boxes, points, strict=True):
            face = Face(bbox=box[:4], kps=kps, det_score=box[4])
            for name, model in self.models.items():
                if name != "detection":
                    model.get(img, face)
            faces.append(face)
        return faces
