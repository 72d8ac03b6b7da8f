"""How long one face takes, beside the floor: the generator's pass alone, in the same run."""

from __future__ import annotations

import io
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from PIL import Image

from anonymix_plugin.anonymixer import Anonymixer
from anonymix_plugin.evaluation.keys import SeededKeys
from anonymix_plugin.generator import load_generator
from anonymix_plugin.mixer.policy import AttributePolicy, MixingPolicy
from anonymix_plugin.mixer.weights import load_mixer_weights


@dataclass(frozen=True)
class Cost:
    """Medians in seconds.

    Attributes:
        policy: Attribute policy.
        cold_start: From nothing loaded (but imported modules) to the first face.
        generator: The generator's pass alone.
        total: Decode to cancelable face at 512 px.
        ratio: Median over the runs of total / generator, pair by pair.
        stages: Seconds by stage.
    """

    policy: str
    cold_start: float
    generator: float
    total: float
    ratio: float
    stages: Mapping[str, float]


def measure(photo: Path | None, *, repeats: int, policy: str = "") -> Cost:
    """Time the fast road.

    Args:
        photo: A photo with a face; None draws one first (not counted).
        repeats: Counted runs; each is paired with one pass of the generator alone.
        policy: Attribute policy, "" for the default one.
    """
    source = photo.read_bytes() if photo is not None else _drawn()
    settings = MixingPolicy()
    if policy:
        settings = replace(settings, attributes=AttributePolicy(policy))
    started = time.perf_counter()
    with Anonymixer(SeededKeys(1), policy=settings) as mixer:
        mixer.protect(source, subject="bench")
        cold_start = time.perf_counter() - started
        generator = mixer.generator
        code = (
            torch.from_numpy(load_mixer_weights().centre).expand(1, generator.layers.total, -1).contiguous()
        )
        totals, floors = [], []
        stages: dict[str, list[float]] = {}
        for run in range(repeats + 2):
            begun = time.perf_counter()
            generator.synthesise(code, 512)
            floor = time.perf_counter() - begun
            begun = time.perf_counter()
            face = mixer.protect(source, subject="bench")
            total = time.perf_counter() - begun
            if run >= 2:  # the first ones warm caches up
                totals.append(total)
                floors.append(floor)
                for stage, seconds in face.timings.items():
                    stages.setdefault(stage, []).append(seconds)
    ratio = statistics.median(total / floor for total, floor in zip(totals, floors, strict=True))
    medians = {stage: statistics.median(values) for stage, values in stages.items() if stage != "total"}
    return Cost(
        str(settings.attributes),
        cold_start,
        statistics.median(floors),
        statistics.median(totals),
        ratio,
        medians,
    )


def _drawn() -> bytes:
    """Draw the generator's mean face as a JPEG of 512 px."""
    weights = load_mixer_weights()
    generator = load_generator("torch")
    code = torch.from_numpy(weights.centre).expand(1, generator.layers.total, -1)
    with torch.inference_mode():
        picture = generator.synthesise(code, 512)[0]
    pixels = ((picture.clamp(-1, 1) + 1) * 127.5).byte().permute(1, 2, 0).numpy()
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=92)
    return buffer.getvalue()
