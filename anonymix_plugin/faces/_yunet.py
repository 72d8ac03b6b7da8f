"""YuNet, the permissive default detector, run by OpenVINO, or by OpenCV where OpenVINO can't be had."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from os import PathLike
from threading import Lock
from typing import Any, Final, Literal, Protocol

import cv2
import numpy as np

from anonymix_plugin.errors import DamagedModelError, ModelError
from anonymix_plugin.faces._found import NOTHING, Found
from anonymix_plugin.faces._search import Search, read_model
from anonymix_plugin.inference import Content, Network, Recipe, opened, runtime
from anonymix_plugin.pool import Pool
from anonymix_plugin.values import Floats, Pixels

DetectorEngine = Literal["auto", "openvino", "opencv"]

_STRIDES: Final = (8, 16, 32)
_OVERLAP: Final = 0.3
_MOST: Final = 5000  # detections that are compared with each other
_LOG_LEVEL = Lock()


class YuNet(Search):
    """YuNet (Wu, Peng, Yu 2023), with the decoding of `cv2.FaceDetectorYN`.

    Args:
        model: `face_detection_yunet_2023mar.onnx`: its content, what reads it, or its path, which is read once.
        sizes: Longest side in pixels at which the photo is looked at, one after the other, until a face
            is found.
        padded_sizes: The same with a border around the photo, tried last; for tight crops.
        score_threshold: Least confidence, 0..1.
        thorough: Look at all `sizes`, and at a photo larger than these from close by, and join what is seen:
            several times slower, and finds faces from 1/128 of the photo's longer side on.
        at_once: Pictures that OpenVINO looks at at the same time, each on a thread; others wait.
        engine: What runs it; "auto" takes OpenVINO, and OpenCV where that can't. Landmarks of the two differ by
            rounding.

    Raises:
        MissingModelError: There is no file at the path.
        DamagedModelError: The file can't be loaded.
        UsageError: Sizes or threshold are out of range.
    """

    def __init__(
        self,
        model: Content | bytes | str | PathLike[str],
        *,
        sizes: Sequence[int] = (640, 320, 1280),
        padded_sizes: Sequence[int] = (320, 640),
        score_threshold: float = 0.6,
        thorough: bool = False,
        at_once: int = 1,
        engine: DetectorEngine = "auto",
    ) -> None:
        super().__init__(sizes=sizes, padded_sizes=padded_sizes, score_threshold=score_threshold, thorough=thorough)
        self._where = "yunet" if isinstance(model, bytes | Content) else str(model)
        content = model if isinstance(model, Content) else read_model(model, "YuNet")
        try:
            self._network = _network(content, score_threshold, at_once, engine)
        except (cv2.error, RuntimeError) as error:
            raise DamagedModelError("the weights of YuNet can't be loaded", where=self._where) from error

    def _look(self, picture: Pixels) -> Found:
        try:
            rows = self._network.rows(np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), np.uint8))
        except (cv2.error, RuntimeError) as error:
            raise ModelError("YuNet failed on this picture", where=self._where) from error
        if not len(rows):
            return NOTHING
        corners = np.concatenate([rows[:, :2], rows[:, :2] + rows[:, 2:4]], axis=1)
        return Found(corners, rows[:, 4:14].reshape(-1, 5, 2), np.clip(rows[:, 14], 0, 1))


class _Network(Protocol):
    def rows(self, picture: Pixels) -> Floats:
        """All faces of a (height, width, 3) uint8 BGR picture, (n, 15) float32.

        A row is x, y, width, height, five points from left to right, score.
        """
        ...


def _network(content: Content | bytes, threshold: float, at_once: int, engine: DetectorEngine) -> _Network:
    if engine == "opencv":
        return _OpenCv(read_model(content, "YuNet"), threshold)
    try:
        return _OpenVino(content, threshold, at_once)
    except (ImportError, RuntimeError):
        if engine == "openvino":
            raise
    return _OpenCv(read_model(content, "YuNet"), threshold)


class _OpenVino:
    """One graph for pictures of any size; what a size needs is prepared when it first comes."""

    def __init__(self, content: Content | bytes, threshold: float, at_once: int) -> None:
        recipe = Recipe.of(content, __file__)
        self._compiled = opened(recipe, lambda: Network(_graph(read_model(content, "YuNet"))), at_once=at_once).model
        self._threshold = threshold
        self._requests: Pool[Any] = Pool(self._compiled.create_infer_request)  # each has buffers of its own

    def rows(self, picture: Pixels) -> Floats:
        """See `_Network`."""
        height, width = picture.shape[:2]
        # The coarsest stride must divide both sides.
        bottom, right = -height % _STRIDES[-1], -width % _STRIDES[-1]
        padded = np.asarray(cv2.copyMakeBorder(picture, 0, bottom, 0, right, cv2.BORDER_CONSTANT), np.uint8)
        with self._requests.lent() as request:
            request.infer({0: padded[None]})
            found = [
                self._found([request.get_tensor(f"{kind}_{stride}").data[0] for kind in _KINDS], stride, padded)
                for stride in _STRIDES
            ]
        rows = np.concatenate(found)
        # OpenCV compares boxes of whole pixels.
        boxes = np.trunc(rows[:, :4]).astype(np.int32)
        kept = cv2.dnn.NMSBoxes(boxes.tolist(), rows[:, 14].tolist(), self._threshold, _OVERLAP, 1.0, _MOST)
        return rows[np.asarray(kept, np.intp)]

    def _found(self, outputs: Sequence[Floats], stride: int, padded: Pixels) -> Floats:
        """Rows of what is sure enough at one stride, in which everything is told relative to its cell."""
        classes, objects, boxes, points = outputs
        scores = np.sqrt(np.clip(classes[:, 0], 0, 1) * np.clip(objects[:, 0], 0, 1))
        sure = np.flatnonzero(scores >= self._threshold)
        columns = padded.shape[1] // stride
        cells = np.stack([sure % columns, sure // columns], axis=1).astype(np.float32)
        centres = (cells + boxes[sure, :2]) * stride
        sides = np.exp(boxes[sure, 2:]) * stride
        landmarks = (np.tile(cells, 5) + points[sure]) * stride
        return np.concatenate([centres - sides / 2, sides, landmarks, scores[sure, None]], axis=1, dtype=np.float32)


def _graph(content: bytes) -> Any:
    """The network for pictures of any size, (1, height, width, 3) uint8."""
    openvino = runtime()
    network = openvino.Core().read_model(content)
    network.reshape({network.input(0): openvino.PartialShape([1, 3, -1, -1])})
    steps = openvino.preprocess.PrePostProcessor(network)
    steps.input().tensor().set_element_type(openvino.Type.u8).set_layout(openvino.Layout("NHWC"))
    steps.input().model().set_layout(openvino.Layout("NCHW"))
    return steps.build()


_KINDS: Final = ("cls", "obj", "bbox", "kps")


class _OpenCv:
    """`cv2.FaceDetectorYN`. It holds the size of its input and its buffers: each call takes one for itself."""

    def __init__(self, content: bytes, threshold: float) -> None:
        self._content, self._threshold = np.frombuffer(content, np.uint8), threshold
        self._detectors = Pool(self._make)
        with self._detectors.lent():
            pass

    def _make(self) -> Any:
        with _quietly():
            return cv2.FaceDetectorYN.create(
                "onnx",
                self._content,
                np.zeros(0, np.uint8),
                (320, 320),
                self._threshold,
                nms_threshold=_OVERLAP,
                top_k=_MOST,
            )

    def rows(self, picture: Pixels) -> Floats:
        """See `_Network`."""
        with self._detectors.lent() as detector:
            detector.setInputSize((picture.shape[1], picture.shape[0]))
            _, rows = detector.detect(picture)
        return np.zeros((0, 15), np.float32) if rows is None else np.asarray(rows, np.float32)


@contextmanager
def _quietly() -> Iterator[None]:
    """Keeps OpenCV from writing to the terminal that its new engine chooses the processor by itself."""
    with _LOG_LEVEL:
        before = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)
        try:
            yield
        finally:
            cv2.utils.logging.setLogLevel(before)
