"""Looking at a photo at several sizes, and with a border around it, until a face turns up."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import Final

import cv2
import numpy as np

from anonymix_plugin.errors import MissingModelError, UsageError
from anonymix_plugin.faces._found import NOTHING, Found, suppress, without_parts
from anonymix_plugin.inference import Content
from anonymix_plugin.values import Face, Photo, Pixels

# Tight crops: a border, as a share of each side, gives the detector room around the face. It is plain
# grey: measured on crops of face boxes, a mirrored border shows the detector faces that are not there,
# and a smeared one hides up to half of those that are.
_BORDER: Final = 0.5
_GREY: Final = (128, 128, 128)
_MAX_ENLARGEMENT: Final = 2.0
_OVERLAP: Final = 0.4

# A thorough search ends with a look so close that a face of 1/128 of the photo's longer side is 20 pixels
# wide. What it sees of larger faces are their parts, some of which it takes for faces.
_CLOSE: Final = 2560
_PART: Final = 0.5


def read_model(model: Content | bytes | str | PathLike[str], name: str) -> bytes:
    """Content of a detector's weights: as it is given, or of the file at a path.

    Raises:
        MissingModelError: There is no file.
    """
    if isinstance(model, bytes):
        return model
    if isinstance(model, Content):
        return model.read()
    try:
        return Path(model).read_bytes()
    except OSError:
        raise MissingModelError(f"the weights of {name} are missing", where=str(model)) from None


class Search(ABC):
    """The search that detectors share; a subclass looks at one picture at a time.

    The photo is tried at each of `sizes` in turn, and the first that shows a face settles it. If none
    does, it is tried again at `padded_sizes` with a border around it. A thorough search looks at all sizes
    and, if the photo is larger than these, from close by, and joins what it sees.
    """

    def __init__(
        self,
        *,
        sizes: Sequence[int],
        padded_sizes: Sequence[int],
        score_threshold: float,
        thorough: bool,
    ) -> None:
        if not sizes or any(size < 32 for size in (*sizes, *padded_sizes)):
            raise UsageError("a detector needs sizes of at least 32 pixels", where="sizes", fix="try (640, 1280)")
        if not 0 < score_threshold < 1:
            raise UsageError(
                f"the score threshold is {score_threshold}",
                where="score_threshold",
                fix="use one between 0 and 1",
            )
        self._sizes, self._padded_sizes = tuple(sizes), tuple(padded_sizes)
        self._threshold, self._thorough = score_threshold, thorough

    @abstractmethod
    def _look(self, picture: Pixels) -> Found:
        """All detections above the threshold in one RGB picture, without regard to its size."""

    def detect(self, photo: Photo) -> list[Face]:
        """Finds all faces of a photo; see `Detector.detect`."""
        found = NOTHING
        longest = max(photo.height, photo.width)
        close = (min(_CLOSE, longest),) if self._thorough and longest > max(self._sizes) else ()
        for scale in _scales(photo, (*self._sizes, *close), border=0.0):
            found = found.joined(self._look_at(photo.pixels, scale, border=0.0))
            if len(found) and not self._thorough:
                break
        if not len(found):
            for scale in _scales(photo, self._padded_sizes, border=_BORDER):
                found = self._look_at(photo.pixels, scale, border=_BORDER)
                if len(found):
                    break
        found = suppress(found, _OVERLAP)
        if self._thorough:
            found = without_parts(found, _PART)
        areas = np.prod(found.boxes[:, 2:] - found.boxes[:, :2], axis=1)
        return list(_faces(photo, found.picked(np.argsort(-areas, kind="stable"))))

    def _look_at(self, pixels: Pixels, scale: float, border: float) -> Found:
        height, width = pixels.shape[:2]
        shown = (max(1, round(width * scale)), max(1, round(height * scale)))
        real = (shown[0] / width, shown[1] / height)
        if shown != (width, height):
            kind = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
            pixels = np.asarray(cv2.resize(pixels, shown, interpolation=kind), np.uint8)
        if not border:
            return self._look(pixels).mapped(real, (0, 0))
        x, y = round(shown[0] * border), round(shown[1] * border)
        framed = cv2.copyMakeBorder(pixels, y, y, x, x, cv2.BORDER_CONSTANT, value=_GREY)
        return self._look(np.asarray(framed, np.uint8)).mapped(real, (x / real[0], y / real[1]))


def _scales(photo: Photo, sizes: Sequence[int], border: float) -> list[float]:
    """The scales that bring the photo with its border to the sizes, each once and at most 2."""
    longest = max(photo.height, photo.width) * (1 + 2 * border)
    return list(dict.fromkeys(min(size / longest, _MAX_ENLARGEMENT) for size in sizes))


def _faces(photo: Photo, found: Found) -> Iterator[Face]:
    for box, landmarks, score in zip(found.boxes, found.landmarks, found.scores, strict=True):
        x0, y0, x1, y1 = (float(value) for value in box)
        yield Face(photo, (x0, y0, x1, y1), landmarks, float(score))
