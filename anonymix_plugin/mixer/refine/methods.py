"""Methods that optimise: from the fast method's code, or as the paper has it (invert, swap layers, optimise)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from anonymix_plugin.errors import UsageError
from anonymix_plugin.generator import Generator
from anonymix_plugin.mixer.fast import FastMixer
from anonymix_plugin.mixer.key_schedule import KeySchedule
from anonymix_plugin.mixer.refine.attributes import AttributeDistance
from anonymix_plugin.mixer.refine.inversion import InversionSettings, invert
from anonymix_plugin.mixer.refine.refiner import Refiner, RefineStep
from anonymix_plugin.mixer.refine.swap import LayerSwap
from anonymix_plugin.values import Floats, ReadFace


class RefineMethod:
    """The fast method's code, refined by the paper's optimisation.

    Args:
        mixer: Makes the code to start from.
        refiner: Optimises it.
        progress: Called after each step.
    """

    name = "refine"

    def __init__(
        self, mixer: FastMixer, refiner: Refiner, progress: Callable[[RefineStep], None] | None = None
    ) -> None:
        self._mixer, self._refiner, self._progress = mixer, refiner, progress

    def describe(self) -> dict[str, str | float]:
        """Return name and settings for the fingerprint."""
        return {"name": self.name, **self._refiner.describe()}

    def code(self, read: ReadFace, schedule: KeySchedule, key_name: bytes) -> Floats:
        """Return the W+ code, (layers.total, 512) float32."""
        if read.framed is None:
            raise UsageError("the refine method needs the photo in FFHQ framing")
        start = torch.from_numpy(self._mixer.mix(read.person, schedule, key_name, read.kept))
        anchors = self._refiner.anchors(schedule, read.person)
        refined = self._refiner.refine(start, read.crop, read.framed, schedule, anchors, progress=self._progress).w_plus
        return np.asarray(refined.numpy(), np.float32)

    def forget(self) -> None:
        """Drop everything that was derived from keys."""
        self._mixer.forget()


class SwapMethod:
    """FaceAnonyMixer on one photo at a time, for comparison and for those who want the paper's method.

    What it keeps of the photo (`ReadFace.kept`) are all three groups of the encoder, identity included.

    Args:
        generator: With gradients to its code.
        swap: Mixes.
        refiner: Optimises.
        inversion: How the photo's own code is bettered first.
        perceptual: What the inversion compares.
        progress: Called after each step of the refiner.
    """

    name = "refine"

    def __init__(
        self,
        generator: Generator,
        swap: LayerSwap,
        refiner: Refiner,
        inversion: InversionSettings,
        perceptual: AttributeDistance,
        progress: Callable[[RefineStep], None] | None = None,
    ) -> None:
        self._generator, self._swap, self._refiner = generator, swap, refiner
        self._inversion, self._perceptual, self._progress = inversion, perceptual, progress

    def describe(self) -> dict[str, str | float]:
        """Return name and settings for the fingerprint."""
        return {
            "name": self.name,
            **self._swap.describe(),
            **self._inversion.describe(),
            **self._refiner.describe(),
        }

    def start(self, read: ReadFace, schedule: KeySchedule) -> Floats:
        """The mixed code that the optimisation starts from, (layers.total, 512) float32.

        Raises:
            UsageError: The photo was not encoded, or is not there in FFHQ framing.
        """
        if read.framed is None or read.kept is None:
            raise UsageError("the paper's method needs the photo's own code and its FFHQ framing")
        guess = torch.from_numpy(np.repeat(read.kept.astype(np.float32), self._generator.layers.counts, axis=0))
        own = invert(self._generator, self._perceptual, guess, read.framed, self._inversion)
        return self._swap.mix(np.asarray(own.numpy(), np.float32), schedule)

    def code(self, read: ReadFace, schedule: KeySchedule, key_name: bytes) -> Floats:  # noqa: ARG002
        """Return the W+ code, (layers.total, 512) float32."""
        start = self.start(read, schedule)
        if read.framed is None:  # `start` has seen to it; said again for the type
            raise UsageError("the paper's method needs the photo in FFHQ framing")
        anchors = self._refiner.anchors(schedule, read.person) if self._refiner.settings.anchored else {}
        refined = self._refiner.refine(
            torch.from_numpy(start), read.crop, read.framed, schedule, anchors, progress=self._progress
        ).w_plus
        return np.asarray(refined.numpy(), np.float32)

    def forget(self) -> None:
        """Nothing that was derived from keys is kept."""
