"""Is a face good enough to be told from others? Asked alike at enrolment and at probe.

A recogniser's embedding has a length before it is normalised, and the length falls where the network sees
little of a face: with blur, noise, glare, occlusion, in profile, and on things that are no face. (Meng et
al., "MagFace", CVPR 2021, train networks for that; those that were trained without that aim show it, too.)
The measure here is the mean of two such lengths, those of ArcFace and SFace, each divided by what it is on
ordinary photos: 1 is ordinary, and `LEAST_QUALITY` the limit below which a face is refused. It costs nothing,
because both embeddings are needed anyway.

What was measured, and on what, stands in docs/results.md; `anonymix measure quality` prints it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np

from anonymix_plugin.errors import LowQualityError
from anonymix_plugin.values import Face, Pixels

ORDINARY_LENGTHS: Final = (23.6, 12.5)
"""Mean lengths of ArcFace's (w600k_mbf) and SFace's embeddings on photos of LFW view 1."""

LEAST_QUALITY: Final = 0.70
"""Refuses none of 200 ordinary photos of LFW and halves the share of unusable ones among spoilt photos. Tight
crops, as some detectors hand them on, have .74 where the whole photo has 1; hence not higher."""

# What a face has to be off from before it is named as a likely cause; they refuse nothing by themselves.
_SMALL_EYES: Final = 12.0
_DARK, _GLARING = 40.0, 215.0
_TURNED: Final = 0.22
_BLURRED: Final = 15.0
_TILTED, _OVER = 45.0, 135.0


@dataclass(frozen=True)
class Quality:
    """How good a face is, and what it looks like where it is not.

    Attributes:
        value: Mean of both recognisers' embedding lengths, in multiples of the ordinary; > 0.
        eyes: Distance of the eyes in pixels of the photo.
        brightness: Mean luminance of the aligned crop, 0..255.
        sharpness: Variance of the Laplacian of the aligned crop's luminance, >= 0.
        tilt: Degrees by which the line from the eyes to the mouth is turned away from straight down,
            clockwise as seen in the picture: 0 for an upright face, 90 and -90 for one on its side, 180 for
            one upside down.
        turn: How far the tip of the nose is from the middle of the eyes, in distances of the eyes along their
            line: 0 from the front, about .3 at half profile; negative to the left of the picture.
    """

    value: float
    eyes: float
    brightness: float
    sharpness: float
    turn: float
    tilt: float = 0.0

    @property
    def causes(self) -> tuple[str, ...]:
        """What of the photo is likely to blame, in words."""
        named = {
            "upside down": abs(self.tilt) > _OVER,
            "on its side": _TILTED < abs(self.tilt) <= _OVER,
            f"only {self.eyes:.0f} pixels between the eyes": self.eyes < _SMALL_EYES,
            "dark": self.brightness < _DARK,
            "glaring": self.brightness > _GLARING,
            "turned away": abs(self.turn) > _TURNED,
            "blurred": self.sharpness < _BLURRED,
        }
        return tuple(cause for cause, given in named.items() if given)


def measure_quality(face: Face, crop: Pixels, arcface_length: float, sface_length: float) -> Quality:
    """Measure one face.

    Args:
        face: With its landmarks.
        crop: (112, 112, 3) uint8 RGB, aligned for recognisers.
        arcface_length: Length of ArcFace's embedding of the crop before it was normalised.
        sface_length: The same of SFace's.
    """
    left, right, nose, mouth_left, mouth_right = face.landmarks.astype(np.float64)
    down = mouth_left + mouth_right - left - right
    eyes = float(np.linalg.norm(right - left))
    along = (right - left) / max(eyes, 1e-9)
    grey = cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY).astype(np.float32)
    ordinary = (arcface_length / ORDINARY_LENGTHS[0], sface_length / ORDINARY_LENGTHS[1])
    return Quality(
        value=sum(ordinary) / len(ordinary),
        eyes=eyes,
        brightness=float(grey.mean()),
        sharpness=float(cv2.Laplacian(grey, cv2.CV_32F).var()),
        tilt=math.degrees(math.atan2(-down[0], down[1])),
        turn=float((nose - (left + right) / 2) @ along / max(eyes, 1e-9)),
    )


TURNS: Final = (
    "a quarter turn counterclockwise",
    "half a turn",
    "a quarter turn clockwise",
)
"""What `numpy.rot90` does to a picture once, twice and three times."""

LYING: Final = "turn the photo upright; if you have turned it already, remove the orientation from its EXIF"
"""The remedy for a photo that lies on its side."""


def require_quality(quality: Quality, least: float, source: str, turn: str = "") -> None:
    """Refuse a face that would enrol or probe badly.

    Args:
        quality: Of the face.
        least: The least value that passes; 0 lets everything pass.
        source: The photo, named in the error.
        turn: The one of `TURNS` that makes the face a good one, or "".

    Raises:
        LowQualityError: The value is below, or is no number.
    """
    if quality.value >= least:
        return
    if turn:
        lies = "is upside down" if turn == TURNS[1] else "lies on its side"
        raise LowQualityError(
            f"the face {lies}: quality {quality.value:.2f}, at least {least:.2f} is asked for; {turn} makes"
            " it a good one",
            where=source,
            fix=LYING,
        )
    why = ", ".join(quality.causes) or "covered, turned away, or no face at all"
    raise LowQualityError(
        f"the face is too poor to be told from others: quality {quality.value:.2f}, at least {least:.2f} is"
        f" asked for ({why})",
        where=source,
        fix="take a sharp, evenly lit photo from the front, or lower the limit (min_quality, --min-quality)",
    )
