"""One run of the bench: everything in it sees the same machine, the same photos and the same load."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from anonymix_lab.bench.baselines import blurred, pixelated
from anonymix_lab.bench.clock import Clock, Times
from anonymix_lab.bench.cold import ColdStart, cold_start
from anonymix_lab.bench.counts import Counts, generator_counts, onnx_counts
from anonymix_lab.bench.engines import EngineTimes, compare_engines
from anonymix_lab.bench.peak import Peak, measure_peak
from anonymix_lab.data.keys import SeededKeys
from anonymix_lab.machine import machine, versions
from anonymix_plugin.anonymixer import Anonymixer
from anonymix_plugin.faces import YuNet, ffhq_crop, recogniser_crop
from anonymix_plugin.generator import Engine, Generator, PublishedWeights, pictures_of, read_published
from anonymix_plugin.images import decode_photo
from anonymix_plugin.mixer.policy import AttributePolicy, MixingPolicy
from anonymix_plugin.mixer.weights import load_mixer_weights
from anonymix_plugin.models import locate
from anonymix_plugin.production import PhotoRequest
from anonymix_plugin.recognisers import load_recogniser
from anonymix_plugin.values import CancelableFace, Floats

REFINE_STEPS = 50  # of the paper's preset
_WARM_UP = 2
_SIZE = 512

Progress = Callable[[str], None]


@dataclass(frozen=True)
class BenchSettings:
    """What to measure.

    Attributes:
        repeats: Counted faces, after two that are not.
        policy: What is kept of a photo.
        engine: What draws.
        batches: How many photos are handed over at once, for throughput.
        refine_steps: How many of the refine preset's 50 steps are run, the rest being extrapolated; 0
            leaves it out.
        cold_starts: Fresh processes; 0 leaves them out.
        engines: Rounds in which all engines are compared; 0 leaves them out.
        compiled: Whether torch.compile is one of them.
    """

    repeats: int = 20
    policy: AttributePolicy = AttributePolicy.NONE
    engine: Engine = "auto"
    batches: tuple[int, ...] = (1, 4, 16)
    refine_steps: int = 3
    cold_starts: int = 2
    engines: int = 0
    compiled: bool = False


@dataclass(frozen=True)
class Throughput:
    """Faces a second where photos come in batches: one call after the other, and as one stream."""

    batch: int
    one_by_one: float
    streamed: float
    cpu_per_face: float


@dataclass(frozen=True)
class Refined:
    """The refine preset.

    Attributes:
        seconds: Of one face at 50 steps.
        steps_run: How many of them were run.
        extrapolated: Whether the others were added at the median of those.
        ratio: To the median of the fast method in the same run.
    """

    seconds: float
    steps_run: int
    extrapolated: bool
    ratio: float


@dataclass(frozen=True)
class Floor:
    """What a stage would take at the machine's measured peak, beside what it takes.

    Attributes:
        counts: Operations and bytes.
        at_peak: Seconds for its operations at the peak of convolutions.
        moving: Seconds for its traffic at the speed of a copy, if nothing stayed in the cache.
        share: at_peak / the measured median.
    """

    counts: Counts
    at_peak: float
    moving: float
    share: float


@dataclass(frozen=True)
class BenchResult:
    """Everything that was measured; times in seconds, memory in bytes.

    Attributes:
        machine: Date, cores, load, versions.
        policy: Attribute policy.
        engine: What drew.
        photos: How many different photos were used.
        total: Decode to cancelable face at 512 px.
        stages: The same by stage.
        generator: The generator's pass alone.
        ratio: Median over the runs of total / generator, pair by pair.
        baselines: Gaussian blur and pixelation (with finding the face), and the recogniser alone.
        throughput: By batch size.
        cold_starts: Fresh processes.
        refine: The refine preset.
        peak: What the machine can do.
        floors: By stage.
        engines: All engines side by side.
    """

    machine: Mapping[str, Any]
    policy: str
    engine: str
    photos: int
    total: Times
    stages: Mapping[str, Times]
    generator: Times
    ratio: float
    baselines: Mapping[str, Times]
    throughput: Sequence[Throughput]
    cold_starts: Sequence[ColdStart]
    refine: Refined | None
    peak: Peak
    floors: Mapping[str, Floor]
    engines: Sequence[EngineTimes] = field(default_factory=tuple)

    def as_json(self) -> dict[str, Any]:
        """Everything, as JSON takes it."""
        return asdict(self)


def run_bench(photos: Sequence[Path], settings: BenchSettings, progress: Progress = lambda _: None) -> BenchResult:
    """Measure.

    Args:
        photos: At least one photo with a face; they take turns.
        settings: What to measure.
        progress: Told what comes next.

    Raises:
        PhotoError: A photo can't be used.
        ModelError: Weights are missing or damaged.
    """
    place = _place()
    cold = []
    for number in range(settings.cold_starts):
        progress(f"fresh process {number + 1} of {settings.cold_starts}")
        cold.append(cold_start(photos[0], policy=settings.policy.value, engine=settings.engine))
    policy = replace(MixingPolicy(), attributes=settings.policy)
    weights = read_published(
        locate("mobilestylegan", "MappingNetwork.xml"), locate("mobilestylegan", "SynthesisNetwork.xml")
    )
    progress("the machine's peak")
    peak = measure_peak()
    with Anonymixer(SeededKeys(1), policy=policy, engine=settings.engine) as mixer:
        rounds = _Rounds(mixer, photos)
        for number in range(-_WARM_UP, settings.repeats):
            progress(f"face {max(0, number + 1)} of {settings.repeats}")
            rounds.run(counted=number >= 0)
        throughput = []
        for batch in settings.batches:
            progress(f"throughput, {batch} at a time")
            throughput.append(_throughput(mixer, photos, batch))
        refine = None
        if settings.refine_steps:
            progress(f"{settings.refine_steps} steps of the refine preset")
            refine = _refine(photos[0], settings, rounds)
        engine = mixer.engine
    engines = []
    if settings.engines:
        progress("all engines, one after the other")
        engines = compare_engines(
            weights, _mean_code(mixer.generator), rounds=settings.engines, compile_too=settings.compiled
        )
    stages = {name: clock.times() for name, clock in rounds.stages.items()}
    place["load_after"] = _load()
    return BenchResult(
        place,
        settings.policy.value,
        engine,
        len(photos),
        rounds.total.times(),
        stages,
        rounds.generator.times(),
        rounds.ratio,
        {name: clock.times() for name, clock in rounds.baselines.items()},
        throughput,
        cold,
        refine,
        peak,
        _floors(weights, peak, rounds.generator.times(), stages),
        engines,
    )


class _Rounds:
    """Each round makes one face, and does everything that it is compared with, on the same photo."""

    def __init__(self, mixer: Anonymixer, photos: Sequence[Path]) -> None:
        self._mixer, self._photos, self._done = mixer, [photo.read_bytes() for photo in photos], 0
        self._detector, self._recogniser = YuNet(locate("yunet")), load_recogniser("arcface-mbf")
        self._code = _mean_code(mixer.generator)
        self.total, self.generator = Clock(), Clock()
        self.stages: dict[str, Clock] = {}
        self.baselines: dict[str, Clock] = {name: Clock() for name in ("blur", "pixelation", "recogniser alone")}

    def run(self, *, counted: bool) -> None:
        """Do one round; the first ones warm caches up and do not count."""
        content = self._photos[self._done % len(self._photos)]
        self._done += 1
        if not counted:
            total, generator, baselines = Clock(), Clock(), {name: Clock() for name in self.baselines}
        else:
            total, generator, baselines = self.total, self.generator, self.baselines
        generator.run(lambda: pictures_of(self._mixer.generator, self._code, _SIZE))
        face = total.run(lambda: self._mixer.protect(content, subject="bench"))
        baselines["blur"].run(lambda: blurred(self._found(content)))
        baselines["pixelation"].run(lambda: pixelated(self._found(content)))
        crop = recogniser_crop(self._detector.detect(decode_photo(content))[0])[None]
        baselines["recogniser alone"].run(lambda: self._recogniser.embed(crop))
        if counted:
            self._note(face)

    def _found(self, content: bytes) -> Any:
        return ffhq_crop(self._detector.detect(decode_photo(content))[0], _SIZE)

    def _note(self, face: CancelableFace) -> None:
        for stage, seconds in face.timings.items():
            if stage != "total":
                self.stages.setdefault(stage, Clock()).add(seconds)

    @property
    def ratio(self) -> float:
        """Median of total / generator, pair by pair."""
        return float(np.median(np.array(self.total.wall) / np.array(self.generator.wall)))


def _throughput(mixer: Anonymixer, photos: Sequence[Path], batch: int) -> Throughput:
    contents = [photo.read_bytes() for photo in photos]
    chosen = [contents[number % len(contents)] for number in range(batch)]
    rounds = max(1, 8 // batch)
    alone, streamed = Clock(), Clock()
    for _ in range(rounds):
        alone.run(lambda: [mixer.protect(content, subject="bench") for content in chosen])
        streamed.run(lambda: _drain(mixer, chosen))
    faces = batch * rounds
    return Throughput(batch, faces / sum(alone.wall), faces / sum(streamed.wall), sum(streamed.cpu) / faces)


def _drain(mixer: Anonymixer, contents: Sequence[bytes]) -> None:
    for outcome in mixer.protect_stream(PhotoRequest(content, "bench") for content in contents):
        if outcome.error is not None:
            raise outcome.error


def _refine(photo: Path, settings: BenchSettings, rounds: _Rounds) -> Refined:
    from anonymix_plugin.mixer.refine.refiner import RefineSettings

    stamps: list[float] = []
    run = min(settings.refine_steps, REFINE_STEPS)
    refinement = replace(RefineSettings(), steps=run)
    with Anonymixer(
        SeededKeys(1),
        method="refine",
        policy=replace(MixingPolicy(), attributes=settings.policy),
        engine=settings.engine,
        refinement=refinement,
        progress=lambda _: stamps.append(time.perf_counter()),
    ) as mixer:
        started = time.perf_counter()
        mixer.protect(photo, subject="bench")
        spent = time.perf_counter() - started
    # The first step also warms up; a later one is what each of the missing steps would take.
    step = float(np.median(np.diff(stamps))) if len(stamps) > 1 else spent / run
    seconds = spent + (REFINE_STEPS - run) * step
    ratio = seconds / float(np.median(rounds.total.wall))
    return Refined(seconds, run, run < REFINE_STEPS, ratio)


def _floors(weights: PublishedWeights, peak: Peak, generator: Times, stages: Mapping[str, Times]) -> dict[str, Floor]:
    recognisers = [onnx_counts(locate(name), (1, 3, 112, 112)) for name in ("arcface-mbf", "sface")]
    embed = Counts(*(sum(getattr(counts, name) for counts in recognisers) for name in Counts.__annotations__))
    counted = {
        "generate": (generator_counts(weights, _SIZE), generator.p50),
        "embed": (embed, stages["embed"].p50),
        "detect": (onnx_counts(locate("yunet"), (1, 3, 640, 640)), stages["detect"].p50),
    }
    return {
        name: Floor(
            counts,
            counts.operations / peak.convolution,
            counts.traffic / peak.memory,
            counts.operations / peak.convolution / seconds,
        )
        for name, (counts, seconds) in counted.items()
    }


def _mean_code(generator: Generator) -> Floats:
    centre = load_mixer_weights().centre
    return np.ascontiguousarray(np.broadcast_to(centre, (1, generator.layers.total, len(centre))))


def _place() -> dict[str, Any]:
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "load_before": _load(),
        "versions": versions(("anonymix-plugin", "openvino", "torch", "numpy")),
    }


def _load() -> float | None:
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None
