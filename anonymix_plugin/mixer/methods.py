"""Two methods, one contract: a face that was read and a key become a W+ code."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import numpy as np

from anonymix_plugin.errors import UsageError
from anonymix_plugin.mixer.fast import FastMixer
from anonymix_plugin.mixer.key_schedule import KeySchedule
from anonymix_plugin.values import Floats, ReadFace

if TYPE_CHECKING:
    from anonymix_plugin.mixer.refine import Refiner, RefineStep


class Method(Protocol):
    """How a code is made."""

    @property
    def name(self) -> str:
        """Which method: fast or refine."""
        ...

    def describe(self) -> dict[str, str | float]:
        """Return name and settings for the fingerprint."""
        ...

    def code(self, read: ReadFace, schedule: KeySchedule, key_name: bytes) -> Floats:
        """Return the W+ code, (layers.total, 512) float32."""
        ...

    def forget(self) -> None:
        """Drop everything that was derived from keys."""
        ...


class FastMethod:
    """One step, the default."""

    name = "fast"

    def __init__(self, mixer: FastMixer) -> None:
        self._mixer = mixer

    def describe(self) -> dict[str, str | float]:
        """Return name and settings for the fingerprint."""
        return {"name": self.name}

    def code(self, read: ReadFace, schedule: KeySchedule, key_name: bytes) -> Floats:
        """Return the W+ code, (layers.total, 512) float32."""
        return self._mixer.mix(read.person, schedule, key_name, read.kept)

    def forget(self) -> None:
        """Drop everything that was derived from keys."""
        self._mixer.forget()


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
        import torch

        start = torch.from_numpy(self._mixer.mix(read.person, schedule, key_name, read.kept))
        anchors = self._refiner.anchors(schedule, read.person)
        refined = self._refiner.refine(start, read.crop, read.framed, schedule, anchors, progress=self._progress).w_plus
        return np.asarray(refined.numpy(), np.float32)

    def forget(self) -> None:
        """Drop everything that was derived from keys."""
        self._mixer.forget()
