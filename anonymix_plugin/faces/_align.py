"""Faces, cut out the way that recognisers and the generator want them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import cv2
import numpy as np

from anonymix_plugin.errors import NoFaceError, UsageError
from anonymix_plugin.faces._similarity import Matrix, umeyama
from anonymix_plugin.faces._warp import warp_square
from anonymix_plugin.values import Face, Pixels

RECOGNISER_TEMPLATE: Final = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)
"""Where ArcFace and its relatives want the five landmarks in a crop of 112 pixels, (5, 2) x y."""

RECOGNISER_TEMPLATE.setflags(write=False)


def recogniser_crop(face: Face, size: int = 112) -> Pixels:
    """Cuts out a face for a recogniser that was trained on the 5-point alignment of ArcFace.

    Args:
        face: The face; all five landmarks are used.
        size: Side of the crop in pixels; the template for 112 grows or shrinks with it.

    Returns:
        (size, size, 3) uint8 RGB; black beyond the edges of the photo.

    Raises:
        NoFaceError: The landmarks are all the same, or not finite.
        UsageError: `size` is not positive.
    """
    template = RECOGNISER_TEMPLATE * (_checked(size) / 112)
    try:
        matrix = umeyama(face.landmarks, template)
    except UsageError as error:
        raise _unusable(face) from error
    return warp_square(face.photo.pixels, matrix, size, "black")


def recogniser_crops(faces: Sequence[Face], size: int = 112) -> Pixels:
    """`recogniser_crop` for many faces: (n, size, size, 3) uint8 RGB."""
    crops = [recogniser_crop(face, size) for face in faces]
    return np.stack(crops) if crops else np.zeros((0, _checked(size), size, 3), np.uint8)


def ffhq_crop(face: Face, size: int = 256) -> Pixels:
    """Cuts out a face with the framing of the FFHQ data set, which StyleGAN generators work in.

    Args:
        face: The face; its eyes and the corners of its mouth are used.
        size: Side of the crop in pixels.

    Returns:
        (size, size, 3) uint8 RGB; beyond its edges the photo is continued by its mirror image.

    Raises:
        NoFaceError: Eyes or mouth fall together, or are not finite.
        UsageError: `size` is not positive.
    """
    return warp_square(face.photo.pixels, ffhq_matrix(face, size), size, "reflect")


def ffhq_matrix(face: Face, size: int = 256) -> Matrix:
    """The similarity from photo to FFHQ crop.

    Karras, Laine, Aila, "A style-based generator architecture for generative adversarial networks",
    2019, appendix A, with the constants of the published data set preparation. There, eyes and mouth
    are averages over 68 landmarks; here they are the two eye points and the mean of the mouth corners.

    Args:
        face: The face.
        size: Side of the crop in pixels.

    Returns:
        (2, 3) float64, for coordinates where the centre of the first pixel is (0, 0).

    Raises:
        NoFaceError: Eyes or mouth fall together, or are not finite.
        UsageError: `size` is not positive.
    """
    points = face.landmarks.astype(np.float64)
    eye, mouth = points[:2].mean(axis=0), points[3:].mean(axis=0)
    eye_to_eye, eye_to_mouth = points[1] - points[0], mouth - eye
    # Half a side of the square: along the eyes, and at right angles to the line from eyes to mouth.
    half = eye_to_eye - eye_to_mouth[::-1] * (-1, 1)
    length = float(np.hypot(*half))
    if not np.isfinite(length) or length < 1e-6:
        raise _unusable(face)
    half *= max(float(np.hypot(*eye_to_eye)) * 2.0, float(np.hypot(*eye_to_mouth)) * 1.8) / length
    down = half[::-1] * (-1, 1)
    centre = eye + eye_to_mouth * 0.1
    quad = np.array([centre - half - down, centre - half + down, centre + half + down, centre + half - down])
    side, edge = _checked(size), -0.5  # corners of pixels, while coordinates count from their centres
    corners = np.array([[0, 0], [0, side], [side, side], [side, 0]]) + edge
    return umeyama(quad + edge, corners)


def box_crop(face: Face, size: int = 160, margin: float = 0.0) -> Pixels:
    """Cuts out the box of a face and stretches it to a square, as FaceNet was trained on.

    Args:
        face: The face; only its box is used.
        size: Side of the crop in pixels.
        margin: What is added on each side, as a share of the box's width and height; >= 0.

    Returns:
        (size, size, 3) uint8 RGB. The box is cut off at the edges of the photo before it is stretched.

    Raises:
        NoFaceError: The box has no part in the photo.
        UsageError: `size` is not positive, or `margin` is negative.
    """
    if not margin >= 0:
        raise UsageError(f"the margin is {margin}", where="margin", fix="use 0 or more")
    side = _checked(size)
    if not np.isfinite(face.box).all():
        raise _unusable(face)
    x0, y0, x1, y1 = face.box
    dx, dy = (x1 - x0) * margin, (y1 - y0) * margin
    left, right = max(round(x0 - dx), 0), min(round(x1 + dx), face.photo.width)
    top, bottom = max(round(y0 - dy), 0), min(round(y1 + dy), face.photo.height)
    if left >= right or top >= bottom:
        raise _unusable(face)
    part = face.photo.pixels[top:bottom, left:right]
    shrinking = part.shape[0] > side and part.shape[1] > side
    kind = cv2.INTER_AREA if shrinking else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(part, (side, side), interpolation=kind), np.uint8)


def _checked(size: int) -> int:
    if size < 1:
        raise UsageError(f"the size is {size}", where="size", fix="use a positive number of pixels")
    return size


def _unusable(face: Face) -> NoFaceError:
    return NoFaceError(
        "the face found has landmarks or a box that can't be aligned",
        where=face.photo.source,
        fix="use another photo",
    )
