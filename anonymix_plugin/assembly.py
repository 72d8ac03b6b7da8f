"""Puts a mixer together: detector, recognisers, encoder, generator and method, by its options."""

from __future__ import annotations

import ctypes
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from anonymix_plugin.errors import DamagedModelError, ModelError, UsageError
from anonymix_plugin.faces import Detector, FacePolicy, Scrfd, YuNet
from anonymix_plugin.generator import Engine, Generator, load_generator, load_reference_generator
from anonymix_plugin.guiding import GuideSettings
from anonymix_plugin.mixer.fast import FastMixer
from anonymix_plugin.mixer.fingerprint import fingerprint
from anonymix_plugin.mixer.methods import FastMethod, Method
from anonymix_plugin.mixer.policy import AttributePolicy, MixingPolicy
from anonymix_plugin.mixer.weights import MixerWeights, load_mixer_weights
from anonymix_plugin.models import content_of_model, load_checked, weights_hash
from anonymix_plugin.options import DetectorName, MixerOptions
from anonymix_plugin.pool import CORES
from anonymix_plugin.reader import Reader
from anonymix_plugin.recognisers import MeasuringRecogniser, load_recogniser, torch_recogniser

if TYPE_CHECKING:  # these import torch, which takes seconds and which the fast method does without
    from collections.abc import Callable

    from anonymix_plugin.encoder import Encoder
    from anonymix_plugin.mixer.refine.presets import PresetName
    from anonymix_plugin.mixer.refine.refiner import RefineSettings, RefineStep

_RECOGNISERS = ("arcface-mbf", "sface")
_RECOGNISER_THREADS = min(2, CORES)  # a third does nothing for networks of this size


@dataclass(frozen=True, eq=False)
class Parts:
    """What a mixer is made of.

    Attributes:
        reader: Turns photos into faces with their codes.
        method: Turns a code and a key into a latent code.
        generator: Draws latent codes.
        size: Side of the cancelable faces in pixels.
        fingerprint: The mixer fingerprint, 32 hex digits.
        guide: How faces are made of subjects who have a sealed reference; None on the refine method, which
            knows no references.
    """

    reader: Reader
    method: Method
    generator: Generator
    size: int
    fingerprint: str
    guide: GuideSettings | None


def assemble(options: MixerOptions) -> Parts:
    """Load and compile what a mixer is made of; errors are those of `Anonymixer`."""
    policy = options.policy or MixingPolicy()
    refining = options.method == "refine"
    own_code = refining and options.refinement in {"paper", "paper-code"}
    if options.at_once < 1:
        raise UsageError(f"{options.at_once} faces can't be drawn at once", where="at_once", fix="give 1 or more")
    weights = load_mixer_weights(options.mixer_weights) if options.mixer_weights else load_mixer_weights()
    # Compiling is most of what opening takes, and the compilers leave the interpreter alone.
    with ThreadPoolExecutor(max_workers=2, thread_name_prefix="anonymix-load") as pool:
        drawing = pool.submit(_generator, options.generator, options.engine, options.threads, options.at_once)
        seeing = [pool.submit(_measuring, name, options.at_once) for name in _RECOGNISERS]
        finder = load_detector(options.detector, options.faces, options.at_once)
        encoder = (
            _encoder(options.encoder_weights) if own_code or policy.attributes is not AttributePolicy.NONE else None
        )
        arcface, sface = (future.result() for future in seeing)
        generator: Generator = drawing.result()
    weights = bound(weights, generator)
    size = min(512, max(generator.sizes)) if options.size is None else options.size
    if size not in generator.sizes:
        raise UsageError(f"faces are drawn at {generator.sizes} px, not {size}", where="size")
    if encoder is not None and encoder.generator_hash not in _codes_of(generator):
        raise DamagedModelError(
            "the encoder's weights were learned for another generator",
            fix="train them for yours: anonymix train encoder",
        )
    reader = Reader(
        detector=finder,
        arcface=arcface,
        sface=sface,
        subspace=weights.subspace,
        encoder=encoder,
        attributes=AttributePolicy.FULL if own_code else policy.attributes,
        faces=options.faces,
        limits=options.limits,
        framing=refining,
        min_quality=options.min_quality,
    )
    mixer = FastMixer(generator, weights, policy)
    method: Method = FastMethod(mixer)
    if refining:
        method = _refine_method(
            mixer,
            weights,
            load_detector(options.detector),
            options.refinement,
            options.progress,
            options.generator,
            "cuda" if options.engine == "cuda" else "cpu",
        )
    used = {"generator": generator.weights_hash(), "mixer": weights.sha256}
    used |= {name: weights_hash(name) for name in (*_RECOGNISERS, options.detector)}
    if encoder is not None:
        used["encoder"] = encoder.sha256
    guide = None
    if not refining:
        named = fingerprint(used, policy.describe(guided=True), method.describe())
        guide = GuideSettings(policy.guide, named, weights.subspace.sha256())
    plain = fingerprint(used, policy.describe(), method.describe())
    _give_memory_back()
    return Parts(reader, method, generator, size, plain, guide)


def _give_memory_back() -> None:
    """Hand what compiling has freed back to the system (50 MB), where the C library has a way to: glibc."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError, TypeError):  # another C library; Windows
        return


def _encoder(path: Path | None) -> Encoder:
    from anonymix_plugin.encoder import load_encoder, load_own_encoder

    return load_encoder() if path is None else load_own_encoder(path)


def _generator(chosen: Path | Literal["small"] | None, engine: Engine, threads: int, at_once: int = 1) -> Generator:
    if chosen is None:
        return load_generator(engine, threads=threads, at_once=at_once)
    if str(chosen) == "small":  # from the command line it comes as a path
        return load_generator(engine, threads=threads, at_once=at_once, name="small")
    if at_once > 1:
        raise UsageError("a generator of your own draws one face at a time", where="at_once", fix="leave it at 1")
    from anonymix_plugin.generator.stylegan2_engines import load_own_generator

    return load_own_generator(Path(chosen), engine, threads=threads)


def _codes_of(generator: Generator) -> set[str]:
    """Hashes of the generators whose codes it draws: its own, and its teacher's where it was distilled."""
    teacher: str | None = getattr(generator, "teacher", None)
    return {generator.weights_hash()} | ({teacher} if teacher else set())


def bound(weights: MixerWeights, generator: Generator) -> MixerWeights:
    """The mixer's weights, bound to a generator that was distilled from theirs and draws the same codes."""
    if weights.generator_hash in _codes_of(generator):
        return replace(weights, generator_hash=generator.weights_hash())
    return weights


def _refine_method(
    mixer: FastMixer,
    weights: MixerWeights,
    detector: Detector,
    refinement: RefineSettings | PresetName | None,
    progress: Callable[[RefineStep], None] | None,
    generator: Path | Literal["small"] | None,
    device: str,
) -> Method:
    from torch import nn

    from anonymix_plugin.mixer.refine.anchors import load_anchor_directions
    from anonymix_plugin.mixer.refine.attributes import load_attribute_distance
    from anonymix_plugin.mixer.refine.methods import RefineMethod, SwapMethod
    from anonymix_plugin.mixer.refine.presets import PRESETS, RefinePreset
    from anonymix_plugin.mixer.refine.refiner import Refiner, RefineSettings
    from anonymix_plugin.mixer.refine.swap import LayerSwap

    reference = _generator(generator, "torch", 0) if generator else load_reference_generator()
    size = min(512, max(reference.sizes))
    if isinstance(refinement, RefineSettings):
        preset = RefinePreset(refinement)
    else:
        if refinement is not None and refinement not in PRESETS:
            raise UsageError(
                f"there is no preset {refinement!r}",
                where="refinement",
                fix="use one of " + ", ".join(PRESETS),
            )
        preset = PRESETS[refinement or "quick"]
        layers = preset.settings.layers
        if preset.whole:
            end = weights.identity_end
            layers = range(reference.layers.identity.stop if end is None else end)
        preset = replace(preset, settings=replace(preset.settings, size=size, layers=layers))
    # Another mixer's faces reach other directions; its anchors are rotations into the whole space.
    directions = load_anchor_directions()
    attributes = load_attribute_distance(device)
    if isinstance(reference, nn.Module):  # every generator with gradients is one
        reference.to(device)
    refiner = Refiner(
        reference,
        {name: torch_recogniser(name).to(device) for name in _RECOGNISERS},
        preset.settings,
        attributes=attributes,
        detector=detector,
        directions=directions if directions.mixer == weights.sha256 else None,
    )
    if preset.swap is None or preset.inversion is None:
        return RefineMethod(mixer, refiner, progress)
    swap = LayerSwap(reference, weights.centre, preset.swap)
    inversion = replace(preset.inversion, size=size)
    return SwapMethod(reference, swap, refiner, inversion, attributes, progress)


def _measuring(name: str, at_once: int) -> MeasuringRecogniser:
    recogniser = load_recogniser(name, threads=_RECOGNISER_THREADS if at_once == 1 else 1, at_once=at_once)
    if not isinstance(recogniser, MeasuringRecogniser):
        raise ModelError("this recogniser does not measure how well it sees a face", where=name)
    return recogniser


def load_detector(name: DetectorName, faces: FacePolicy = "largest", at_once: int = 1) -> Detector:
    """Load a detector that searches as thoroughly as the policy for several faces needs."""
    # Whether a photo shows one person, or whom it shows, is answered only by whoever has looked everywhere.
    thorough = faces in {"all", "error"}
    if name == "yunet":
        return YuNet(content_of_model("yunet"), thorough=thorough, at_once=at_once)
    return Scrfd(load_checked("scrfd-500m"), thorough=thorough)
