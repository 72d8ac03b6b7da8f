"""Augmentations of a face whose parameters come from the key: flip, turn, crop, brightness, contrast."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from anonymix_plugin.mixer.key_schedule import KeySchedule

AUGMENTATION_LABEL: Final = "augmentations/"
"""Streams of the key schedule for augmentations are called this and the step's number."""

_NUMBERS = 7  # that one augmentation is made of


@dataclass(frozen=True)
class Augmentation:
    """One way to look at a crop.

    Attributes:
        flip: Whether it is mirrored.
        angle: Degrees that it is turned by, -10..10.
        side: Share of the crop's side that is shown, 0.85..1.
        shift: Where that part lies within the crop, x and y, each from -1 (left, top) to 1.
        brightness: Added to pixels in -1..1, -0.2..0.2.
        contrast: Factor of the distance from the mean colour, 0.8..1.2.
    """

    flip: bool = False
    angle: float = 0.0
    side: float = 1.0
    shift: tuple[float, float] = (0.0, 0.0)
    brightness: float = 0.0
    contrast: float = 1.0

    def move(self, size: int) -> npt.NDArray[np.float64]:
        """Where each pixel of the augmented crop is taken from, as an affine map.

        Args:
            size: Side of the crop in pixels.

        Returns:
            (2, 3) float64, in coordinates where the centre of the first pixel is (0, 0).
        """
        turn = math.radians(self.angle)
        cosine, sine = math.cos(turn) * self.side, math.sin(turn) * self.side
        mirror = -1.0 if self.flip else 1.0
        linear = np.array([[cosine * mirror, -sine], [sine * mirror, cosine]])
        centre = np.full(2, (size - 1) / 2)
        slack = (1 - self.side) * size / 2
        return np.column_stack([linear, centre + slack * np.array(self.shift) - linear @ centre])


def keyed_augmentations(schedule: KeySchedule, step: int, count: int) -> tuple[Augmentation, ...]:
    """The augmentations of one step, evenly distributed over their ranges.

    Args:
        schedule: The key.
        step: Number of the step, from 0.
        count: How many.

    Returns:
        As many, the same each time.
    """
    numbers = schedule.uniform(f"{AUGMENTATION_LABEL}{step}", _NUMBERS * count).reshape(count, _NUMBERS)
    return tuple(
        Augmentation(
            flip=bool(flip < 0.5),
            angle=float(20 * angle - 10),
            side=float(0.85 + 0.15 * side),
            shift=(float(2 * x - 1), float(2 * y - 1)),
            brightness=float(0.4 * brightness - 0.2),
            contrast=float(0.8 + 0.4 * contrast),
        )
        for flip, angle, side, x, y, brightness, contrast in numbers
    )


def jitter(crops: torch.Tensor, augmentations: Sequence[Augmentation]) -> torch.Tensor:
    """Change brightness and contrast.

    Args:
        crops: (K, C, S, S) in -1..1.
        augmentations: K of them.

    Returns:
        (K, C, S, S), cut off at -1 and 1.
    """
    contrast = crops.new_tensor([one.contrast for one in augmentations])[:, None, None, None]
    brightness = crops.new_tensor([one.brightness for one in augmentations])[:, None, None, None]
    mean = crops.mean(dim=(2, 3), keepdim=True)
    return ((crops - mean) * contrast + mean + brightness).clamp(-1, 1)
