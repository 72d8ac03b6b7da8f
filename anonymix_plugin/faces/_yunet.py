"""YuNet, the permissive default detector, run by OpenCV."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from os import PathLike
from threading import Lock
from typing import Any

import cv2
import numpy as np

from anonymix_plugin.errors import DamagedModelError, ModelError
from anonymix_plugin.faces._found import NOTHING, Found
from anonymix_plugin.faces._search import Search, read_model
from anonymix_plugin.pool import Pool
from anonymix_plugin.values import Pixels

_LOG_LEVEL = Lock()


@contextmanager
def _quietly() -> Iterator[None]:
    """Keeps OpenCV from writing to the terminal that its new engine chooses the processor by itself."""
    with _LOG_LEVEL:
        before = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)
        try:
            yield
        finally:
            cv2.utils.logging.setLogLevel(before)


class YuNet(Search):
    """YuNet (Wu, Peng, Yu 2023) through `cv2.FaceDetectorYN`.

    Args:
        model: `face_detection_yunet_2023mar.onnx`, its content or its path, which is read once.
        sizes: Longest side in pixels at which the photo is looked at, one after the other, until a face
            is found.
        padded_sizes: The same with a border around the photo, tried last; for tight crops.
        score_threshold: Least confidence, 0..1.
        thorough: Look at all `sizes`, and at a photo larger than these from close by, and join what is seen:
            several times slower, and finds faces from 1/128 of the photo's longer side on.

    Raises:
        MissingModelError: There is no file at the path.
        DamagedModelError: The file can't be loaded.
        UsageError: Sizes or threshold are out of range.
    """

    def __init__(
        self,
        model: bytes | str | PathLike[str],
        *,
        sizes: Sequence[int] = (640, 320, 1280),
        padded_sizes: Sequence[int] = (320, 640),
        score_threshold: float = 0.6,
        thorough: bool = False,
    ) -> None:
        super().__init__(sizes=sizes, padded_sizes=padded_sizes, score_threshold=score_threshold, thorough=thorough)
        self._where = "yunet" if isinstance(model, bytes) else str(model)
        self._content = np.frombuffer(read_model(model, "YuNet"), np.uint8)
        # An OpenCV detector holds the size of its input and its buffers: each call takes one for itself.
        self._networks = Pool(self._make)
        with self._networks.lent():
            pass

    def _make(self) -> Any:
        try:
            with _quietly():
                return cv2.FaceDetectorYN.create(
                    "onnx",
                    self._content,
                    np.zeros(0, np.uint8),
                    (320, 320),
                    self._threshold,
                    nms_threshold=0.3,
                    top_k=5000,
                )
        except cv2.error as error:
            raise DamagedModelError("the weights of YuNet can't be loaded", where=self._where) from error

    def _look(self, picture: Pixels) -> Found:
        with self._networks.lent() as network:
            try:
                network.setInputSize((picture.shape[1], picture.shape[0]))
                _, rows = network.detect(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
            except cv2.error as error:
                raise ModelError("YuNet failed on this picture", where=self._where) from error
        if rows is None:
            return NOTHING
        # A row is x, y, width, height, five points from left to right, score.
        rows = np.asarray(rows, np.float32)
        corners = np.concatenate([rows[:, :2], rows[:, :2] + rows[:, 2:4]], axis=1)
        return Found(corners, rows[:, 4:14].reshape(-1, 5, 2), np.clip(rows[:, 14], 0, 1))
