"""What is to be done on a machine with a GPU, and what each step of it is given."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from anonymix_lab.gpu.carried import Carried
from anonymix_plugin.generator import GeneratorName

Progress = Callable[[str], None]


@dataclass(frozen=True)
class GpuSettings:
    """What is to be done.

    Attributes:
        device: "cuda", or "cpu" for a rehearsal.
        minutes: The budget of all steps together.
        steps: Names of `STEPS` in the order in which they are done.
        limits: Step -> seconds that it may take; the others share what is left by their usual weights.
        rehearsal: Whether counts are so small that every line is gone through on two cores in a minute.
        start: Mixer weights that tuning goes on from; None takes the shipped ones.
        photos: Folder of photos named PERSON_NUMBER for whole photos; None takes the drawn people of the tests.
        presets: Presets of the refine method, and "fast", that share the time of the step.
        variants: Names of tuning variants (`learning.VARIANTS`) that share the time of the step.
        generator: Which one tuning goes through. The small one is cheap enough for a CPU.
    """

    device: str = "cuda"
    minutes: float = 12.0
    steps: tuple[str, ...] = ("engine", "compiled", "stream", "tune", "refine", "small")
    limits: Mapping[str, float] | None = None
    rehearsal: bool = False
    start: Path | None = None
    photos: Path | None = None
    presets: tuple[str, ...] = ("fast", "quick", "paper", "anchored")
    variants: tuple[str, ...] = ("layers to 128 px", "as before")
    generator: GeneratorName = "mobilestylegan"


@dataclass(frozen=True, eq=False)
class Context:
    """What a step is given.

    Attributes:
        settings: What is to be done.
        carried: The numbers that stand for photos.
        folder: Where the step's files go.
        until: When the step has to be done, in seconds of `time.monotonic`.
        say: Told what happens.
    """

    settings: GpuSettings
    carried: Carried
    folder: Path
    until: float
    say: Progress

    @property
    def left(self) -> float:
        """Seconds that are left."""
        return self.until - time.monotonic()
