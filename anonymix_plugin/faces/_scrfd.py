"""SCRFD, a detector with five landmarks, run by ONNX Runtime."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from os import PathLike
from threading import BoundedSemaphore
from typing import Final

import numpy as np

from anonymix_plugin.errors import DamagedModelError
from anonymix_plugin.faces._found import Found
from anonymix_plugin.faces._search import Search, read_model
from anonymix_plugin.pool import ENGINE_THREADS, MOST
from anonymix_plugin.values import Floats, Pixels

_STRIDES: Final = (8, 16, 32)
_ANCHORS: Final = 2
_OUTPUTS: Final = [f"{kind}_{stride}" for kind in ("score", "bbox", "kps") for stride in _STRIDES]


class Scrfd(Search):
    """SCRFD-500M with landmarks (Guo, Deng, Lattas, Zafeiriou 2021) through ONNX Runtime.

    Args:
        model: `scrfd_500m_bnkps.onnx`, its content or its path, which is read once.
        sizes: Longest side in pixels at which the photo is looked at, one after the other, until a face
            is found.
        padded_sizes: The same with a border around the photo, tried last; for tight crops.
        score_threshold: Least confidence, 0..1.
        thorough: Look at all `sizes`, and at a photo larger than these from close by, and join what is seen:
            several times slower, and finds faces from 1/128 of the photo's longer side on.
        threads: Threads for one photo; 0 takes all cores that the process may use.

    Raises:
        MissingModelError: There is no file at the path.
        DamagedModelError: The file can't be loaded, or is another network.
        UsageError: Sizes or threshold are out of range.
    """

    def __init__(
        self,
        model: bytes | str | PathLike[str],
        *,
        sizes: Sequence[int] = (320, 640, 1280),
        padded_sizes: Sequence[int] = (320, 640),
        score_threshold: float = 0.5,
        thorough: bool = False,
        threads: int = 0,
    ) -> None:
        super().__init__(sizes=sizes, padded_sizes=padded_sizes, score_threshold=score_threshold, thorough=thorough)
        where = "scrfd" if isinstance(model, bytes) else str(model)
        content = read_model(model, "SCRFD")
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or ENGINE_THREADS
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # the runtime's own exception types are not public
            raise DamagedModelError("the weights of SCRFD can't be loaded", where=where) from error
        if not set(_OUTPUTS) <= {output.name for output in self._session.get_outputs()}:
            raise DamagedModelError("the model has not the outputs of SCRFD with landmarks", where=where)
        self._input = self._session.get_inputs()[0].name
        self._running = BoundedSemaphore(MOST)  # each run has buffers of its own

    def _look(self, picture: Pixels) -> Found:
        height, width = picture.shape[:2]
        # The coarsest stride must divide both sides. What is added is black before normalisation.
        padded = np.zeros((-(-height // 32) * 32, -(-width // 32) * 32, 3), np.float32)
        padded[:height, :width] = picture
        batch = ((padded - 127.5) / 128).transpose(2, 0, 1)[None]
        with self._running:
            found = self._session.run(_OUTPUTS, {self._input: batch})
        outputs = [output.reshape(-1, output.shape[-1]) for output in found]
        n = len(_STRIDES)
        boxes, landmarks, scores = [], [], []
        for stride, score, box, points in zip(_STRIDES, outputs[:n], outputs[n : 2 * n], outputs[2 * n :], strict=True):
            # Every anchor predicts in units of its stride: how far away the four sides of the box lie,
            # and how far the landmarks are displaced.
            sure = score[:, 0] >= self._threshold
            centres = anchor_centres(padded.shape[0] // stride, padded.shape[1] // stride, stride)[sure]
            sides = box[sure] * stride
            boxes.append(np.concatenate([centres - sides[:, :2], centres + sides[:, 2:]], axis=1))
            landmarks.append(centres[:, None] + points[sure].reshape(-1, 5, 2) * stride)
            scores.append(score[sure, 0])
        return Found(np.concatenate(boxes), np.concatenate(landmarks), np.concatenate(scores))


@lru_cache(maxsize=64)
def anchor_centres(rows: int, columns: int, stride: int) -> Floats:
    """Where the anchors of one head lie: (rows * columns * 2, 2) pixels x y, both of a cell together."""
    y, x = np.mgrid[:rows, :columns].astype(np.float32) * np.float32(stride)
    centres = np.repeat(np.stack([x, y], axis=-1).reshape(-1, 2), _ANCHORS, axis=0)
    centres.setflags(write=False)  # the cache hands the same array to everybody
    return centres
