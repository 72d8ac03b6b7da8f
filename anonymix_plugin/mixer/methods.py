"""Two methods, one contract: a face that was read and a key become a W+ code."""

from __future__ import annotations

from typing import Protocol

from anonymix_plugin.mixer.fast import FastMixer
from anonymix_plugin.mixer.key_schedule import KeySchedule
from anonymix_plugin.values import Floats, ReadFace


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
