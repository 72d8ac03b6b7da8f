"""Numpy arrays as photos: what is accepted, and how each becomes 8-bit RGB."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from anonymix_plugin.errors import BadArrayError, UsageError
from anonymix_plugin.limits import ImageLimits
from anonymix_plugin.pool import DECODING
from anonymix_plugin.values import Pixels

ChannelOrder: TypeAlias = Literal["rgb", "bgr"]

BACKGROUND = 128
"""The grey, 0..255, that shows through where an image is transparent."""

TRANSPARENT = "the image is fully transparent: its alpha is 0 everywhere"

_WHERE = "<array>"
_FLOAT_NOISE = 1e-3  # what rounding and resampling leave beyond 0 and 1: a quarter of a step of 8 bits


def pixels_from_array(array: npt.NDArray[Any], limits: ImageLimits, order: ChannelOrder) -> Pixels:
    """Checks an array and converts it, always into memory of its own.

    Args:
        array: (height, width), (height, width, 1), (height, width, 3) or (height, width, 4); uint8
            0..255, uint16 0..65535, or any float type 0..1 (within .001). A fourth channel is alpha.
        limits: Applied to height and width.
        order: Order of the colour channels; alpha comes last in either.

    Raises:
        BadArrayError: Another shape or dtype, NaN, infinity, values out of range, or alpha that is 0
            everywhere.
        ImageTooLargeError, ImageTooSmallError: Outside the limits.
        UsageError: `order` is neither "rgb" nor "bgr".
    """
    if order not in {"rgb", "bgr"}:
        raise UsageError(f"channel_order is {order!r}", fix="use 'rgb' or 'bgr'")
    if array.ndim not in {2, 3} or (array.ndim == 3 and array.shape[2] not in {1, 3, 4}):
        fix = "give (height, width), (height, width, 3) or (height, width, 4)"
        if array.ndim == 3 and array.shape[0] in {1, 3, 4}:
            fix = "move the channels to the end with array.transpose(1, 2, 0)"
        elif array.ndim == 4:
            fix = "give one image after the other: array[0], array[1], ..."
        raise BadArrayError(f"the array has shape {array.shape}", where=_WHERE, fix=fix)
    if 0 in array.shape:
        raise BadArrayError(f"the array is empty, shape {array.shape}", where=_WHERE, fix="give an image")
    limits.check_size(array.shape[1], array.shape[0], _WHERE)
    with DECODING.taken(array.shape[0] * array.shape[1]):
        return _converted(np.asarray(array), order)


def _converted(array: npt.NDArray[Any], order: ChannelOrder) -> Pixels:
    values = _to_bytes(array)
    if values.ndim == 2:
        values = values[:, :, None]
    alpha = values[:, :, 3:]
    values = values[:, :, :3]
    if values.shape[2] == 1:
        values = np.repeat(values, 3, axis=2)
    elif order == "bgr":
        values = values[:, :, ::-1]
    if alpha.size:
        if not alpha.any():
            raise BadArrayError(TRANSPARENT, where=_WHERE, fix="leave alpha out: array[:, :, :3]")
        weight = alpha.astype(np.uint32)
        values = ((values * weight + BACKGROUND * (255 - weight) + 127) // 255).astype(np.uint8)
    return np.array(values, dtype=np.uint8, order="C", copy=True)


def sixteen_to_eight(values: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """0..65535 to 0..255, rounded to the nearest."""
    return ((values.astype(np.uint32) * 255 + 32_767) // 65_535).astype(np.uint8)


def unit_to_eight(values: npt.NDArray[Any], where: str) -> npt.NDArray[np.uint8]:
    """Floats 0..1 to 0..255, rounded to the nearest; BadArrayError for NaN, infinity, other ranges.

    What lies beyond 0 or 1 by no more than rounding errors is cut off.
    """
    low, high = float(values.min()), float(values.max())  # NaN anywhere makes both NaN
    if not (np.isfinite(low) and np.isfinite(high)):
        raise BadArrayError("the array holds NaN or infinity", where=where, fix="clean it before passing it on")
    if low < -_FLOAT_NOISE or high > 1 + _FLOAT_NOISE:
        raise BadArrayError(
            f"the floats reach from {low:.7g} to {high:.7g} instead of staying within 0 to 1",
            where=where,
            fix="scale them to 0..1, or convert them to uint8 if they are 0..255",
        )
    return (np.clip(values.astype(np.float32), 0, 1) * 255 + 0.5).astype(np.uint8)


def _to_bytes(array: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind == "u" and array.dtype.itemsize == 2:
        return sixteen_to_eight(array)
    if array.dtype.kind == "f":
        return unit_to_eight(array, _WHERE)
    raise BadArrayError(
        f"the array is of dtype {array.dtype}",
        where=_WHERE,
        fix="convert it to uint8 (0..255), uint16 (0..65535) or float (0..1)",
    )
