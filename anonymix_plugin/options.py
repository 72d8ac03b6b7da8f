"""The options of a mixer: one frozen value, from which constructor and command line derive."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypedDict

from anonymix_plugin.faces import FacePolicy
from anonymix_plugin.generator import Engine
from anonymix_plugin.limits import ImageLimits
from anonymix_plugin.mixer.policy import MixingPolicy
from anonymix_plugin.quality import LEAST_QUALITY

if TYPE_CHECKING:
    from anonymix_plugin.mixer.refine.presets import PresetName
    from anonymix_plugin.mixer.refine.refiner import RefineSettings, RefineStep

MethodName = Literal["fast", "refine"]
DetectorName = Literal["yunet", "scrfd-500m"]


@dataclass(frozen=True)
class MixerOptions:
    """What a mixer is to be like.

    Attributes:
        method: "fast" is one forward pass; "refine" adds the paper's optimisation (slow without a GPU).
        policy: What of the photo is kept, and how strongly person and key speak.
        faces: What to do where a photo shows several faces: "largest", "central", "all" or "error". For "all"
            and "error" the photo is searched thoroughly, which takes some tenths of a second.
        detector: "yunet" (permissive licence) or "scrfd-500m".
        engine: What draws: "auto" (the fastest that this machine's processor can run), "openvino", "torch"
            (the reference), "cuda", or "openvino-bf16": twice as fast on processors that compute in bfloat16, the
            same faces to a recogniser; see docs/performance.md.
        generator: "small": the generator that draws 256 px in a third of the pass, see docs/performance.md.
            Or a StyleGAN2 checkpoint of your own; it needs mixer weights that were learned for it, see
            docs/own-generator.md. None takes MobileStyleGAN. Faces of two generators are two spaces of
            templates.
        size: Side of the cancelable faces in pixels, one of the generator's sizes (512 or 1024 for
            MobileStyleGAN, 128 or 256 for the small one); None takes 512, or what a smaller generator draws.
        limits: What is refused before decoding; None takes those of the configuration file.
        threads: CPU threads of the generator for one face; 0 takes all cores that the process may use, or with
            `at_once` its share.
        at_once: How many faces are drawn at the same time. One is the quickest for a photo alone. One for each core
            makes the most faces a second, in a stream or for callers in several threads. It changes no byte. The
            engines on OpenVINO have it; others draw as before.
        mixer_weights: Safetensors file made by `anonymix train mapper` for a generator of your own; None
            takes the shipped one.
        encoder_weights: The same, made by `anonymix train encoder`.
        refinement: Settings of the refine method, from the fast method's code on, or the name of a preset:
            "quick" (the default: 8 steps towards the keyed anchor), "anchored" (the paper's weights and
            schedule towards it), "paper" and "paper-code" (FaceAnonyMixer by the paper and by the
            authors' code; they start from the photo's own code, whatever the policy says).
        progress: Called after each step of the refine method.
        min_quality: The least quality of a face, the same at enrolment and probe; 0 takes every face. The
            measure and what the default refuses stand in `anonymix_plugin.quality`.
    """

    method: MethodName = "fast"
    policy: MixingPolicy | None = None
    faces: FacePolicy = "largest"
    detector: DetectorName = "yunet"
    engine: Engine = "auto"
    generator: Path | Literal["small"] | None = None
    size: int | None = None
    limits: ImageLimits | None = None
    threads: int = 0
    at_once: int = 1
    mixer_weights: Path | None = None
    encoder_weights: Path | None = None
    refinement: RefineSettings | PresetName | None = None
    progress: Callable[[RefineStep], None] | None = None
    min_quality: float = LEAST_QUALITY


class GivenOptions(TypedDict, total=False):
    """Fields of `MixerOptions` as keyword arguments; a test compares the two."""

    method: MethodName
    policy: MixingPolicy | None
    faces: FacePolicy
    detector: DetectorName
    engine: Engine
    generator: Path | Literal["small"] | None
    size: int | None
    limits: ImageLimits | None
    threads: int
    at_once: int
    mixer_weights: Path | None
    encoder_weights: Path | None
    refinement: RefineSettings | PresetName | None
    progress: Callable[[RefineStep], None] | None
    min_quality: float
