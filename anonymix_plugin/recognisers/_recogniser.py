"""What every recogniser can do, and what all of them have in common."""

from __future__ import annotations

from typing import Any, Final, Literal, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from anonymix_plugin.errors import BadArrayError
from anonymix_plugin.faces import box_crop, recogniser_crop
from anonymix_plugin.values import Face, Floats, Pixels

Alignment = Literal["arcface-112", "box-160"]
"""How crops are cut: "arcface-112" by five landmarks, "box-160" the detector's plain box."""


@runtime_checkable
class Recogniser(Protocol):
    """Turns crops of faces into embeddings, which are alike where the faces are one person's.

    The cosine of two embeddings, their inner product, is the similarity: higher is more similar.

    Attributes:
        name: Its name in the registry of weights.
        dim: Length of an embedding.
        input_size: Side of a crop in pixels.
        alignment: How `crop` cuts.
        seen_by_mixer: Whether the mixer or its training uses it. Results that it measures are white-box,
            and count for less than those of a recogniser that had no part in the making.
    """

    @property
    def name(self) -> str: ...
    @property
    def dim(self) -> int: ...
    @property
    def input_size(self) -> int: ...
    @property
    def alignment(self) -> Alignment: ...
    @property
    def seen_by_mixer(self) -> bool: ...

    def crop(self, face: Face) -> Pixels:
        """Cut out a face as `embed` wants it.

        Returns:
            (input_size, input_size, 3) uint8 RGB.

        Raises:
            NoFaceError: The box or the landmarks can't be used.
        """
        ...

    def embed(self, crops: Pixels) -> Floats:
        """Embed crops.

        Args:
            crops: (N, input_size, input_size, 3) uint8 RGB, N >= 0.

        Returns:
            (N, dim) float32, each row of length 1.

        Raises:
            BadArrayError: The array has another shape or dtype.
        """
        ...


@runtime_checkable
class MeasuringRecogniser(Recogniser, Protocol):
    """A recogniser that can say how long its embeddings were before they were brought to length 1."""

    def embed_with_lengths(self, crops: Pixels) -> tuple[Floats, Floats]:
        """Embed crops, (N, input_size, input_size, 3) uint8 RGB.

        Returns:
            (N, dim) float32, each row of length 1, and (N,) float32, the lengths before, > 0.

        Raises:
            BadArrayError: The array has another shape or dtype.
        """
        ...


class PointsCrop:
    """What recognisers have in common whose crops are aligned by five landmarks, at 112 pixels."""

    input_size: Final = 112
    alignment: Final[Alignment] = "arcface-112"

    def crop(self, face: Face) -> Pixels:
        """See `Recogniser.crop`."""
        return recogniser_crop(face, self.input_size)


class BoxCrop:
    """What recognisers have in common whose crops are the detector's plain box, at 160 pixels."""

    input_size: Final = 160
    alignment: Final[Alignment] = "box-160"

    def crop(self, face: Face) -> Pixels:
        """See `Recogniser.crop`."""
        return box_crop(face, self.input_size)


def checked(crops: npt.NDArray[Any], size: int) -> Pixels:
    """The crops, if they are what a recogniser takes.

    Raises:
        BadArrayError: They are not (N, size, size, 3) uint8.
    """
    if not isinstance(crops, np.ndarray) or crops.dtype != np.uint8 or crops.shape[1:] != (size, size, 3):
        shape, kind = getattr(crops, "shape", "?"), getattr(crops, "dtype", type(crops).__name__)
        raise BadArrayError(
            f"crops of shape {shape} and dtype {kind} can't be embedded",
            where="crops",
            fix=f"pass (N, {size}, {size}, 3) uint8 RGB",
        )
    return crops


def normalised(embeddings: npt.NDArray[np.floating[Any]]) -> Floats:
    """Rows brought to length 1: (N, dim) float32. A row of zeros stays one."""
    rows = embeddings.astype(np.float64)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    result: Floats = (rows / np.maximum(lengths, np.finfo(np.float64).tiny)).astype(np.float32)
    return result
