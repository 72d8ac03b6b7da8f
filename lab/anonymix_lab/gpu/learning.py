"""The map tuned on through whole faces, looked at every minute; and the small generator.

Through the small generator the map is tuned on a CPU, too, with fewer faces a step and a look at the end alone.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
import torch

from anonymix_lab.gpu.context import Context, GpuSettings
from anonymix_lab.gpu.engine import RECOGNISERS, landmarks_in, watcher
from anonymix_lab.gpu.faces import SIZE, Watcher, drawn_and_seen, mixed_codes
from anonymix_lab.metrics.error_rates import eer, fnmr_at_fmr
from anonymix_lab.training.examples import SEEN_LAYERS, Landmarks
from anonymix_lab.training.teachers import TEACHERS, load_teacher
from anonymix_lab.training.tuning import StreetCodes, TuningStep, tune, whole_recipe
from anonymix_lab.training.whole import Disturbance, WholeReader
from anonymix_plugin.files import write_text
from anonymix_plugin.generator import (
    ArrayGenerator,
    Generator,
    MobileStyleGan,
    OpenVinoGenerator,
    load_generator,
    load_reference_generator,
)
from anonymix_plugin.generator.small import SmallGenerator
from anonymix_plugin.generator.torch_engine import Precision, TorchGenerator
from anonymix_plugin.mixer.weights import MixerWeights, load_mixer_weights
from anonymix_plugin.recognisers import torch_recogniser
from anonymix_plugin.values import Floats
from anonymix_plugin.verification import THRESHOLDS

_SEVERAL_KEYS = 16
_FEW: Final[dict[str, Any]] = {"people": 2, "photos": 2, "keys_a_step": 1}  # a rehearsal's step


@dataclass(frozen=True)
class _Pace:
    """How much is done at a time.

    Attributes:
        look_every: Seconds from one look to the next; the last step is always looked at.
        look_seconds: What a look takes; None takes what the first one took.
        looked_at: Genuine pairs of a look.
        people: People a step under each key, where the variant does not say.
        together: Faces drawn at once.
        trial: Steps that say how long a step takes.
        ways: Which of `WAYS` are tried.
        clock: What time is shared by, in seconds. On a CPU it is that of the processor, all threads together: what
            else runs there must not cost one way of tuning more than another.
        rate: Factor on the learning rates: a quarter of a GPU's faces a step goes with a quarter of its rates
            (Goyal et al. 2017, arXiv 1706.02677).
    """

    look_every: float
    look_seconds: float | None
    looked_at: int
    people: int
    together: int
    trial: int
    ways: tuple[str, ...]
    clock: Callable[[], float] = time.monotonic
    rate: float = 1.0


_ON_A_GPU = _Pace(45.0, 6.0, 400, 32, 32, 4, ("float32, drawn again", "bfloat16, drawn again", "bfloat16, kept"))
_ON_A_CPU = _Pace(
    float("inf"), None, 300, 8, 8, 2, ("float32, drawn again", "bfloat16, drawn again"), time.process_time, 0.25
)


def _pace(settings: GpuSettings) -> _Pace:
    return _ON_A_CPU if settings.device == "cpu" and not settings.rehearsal else _ON_A_GPU


@dataclass(frozen=True)
class Variant:
    """One way to tune: what differs from `tuning.whole_recipe`.

    Attributes:
        recipe: Fields of `TuningRecipe`.
        disturbance: Fields of `Disturbance`.
        teachers: Names of `training.teachers.load_teacher`.
    """

    recipe: Mapping[str, Any] = field(default_factory=dict)
    disturbance: Mapping[str, Any] = field(default_factory=dict)
    teachers: tuple[str, ...] = TEACHERS


VARIANTS: Final[Mapping[str, Variant]] = {
    "as before": Variant(),
    "street": Variant({"street": 0.5}),
    "hard": Variant({"hard": 0.1}),
    "wider": Variant(disturbance={"wider": 0.35}),
    "four keys": Variant({"keys_a_step": 4}),
    "layers to 128 px": Variant({"layers": 16}),
    "third teacher": Variant(teachers=(*TEACHERS, "faceres")),
    "street, hard and wider": Variant({"street": 0.5, "hard": 0.1}, {"wider": 0.35}),
    "street and hard": Variant({"street": 0.5, "hard": 0.1}),
    "all": Variant({"street": 0.5, "hard": 0.1, "keys_a_step": 4}, {"wider": 0.35}),
}
"""Name -> variant, as `train mapper` has them as options. Four keys have half of the people each."""


def tune_map(context: Context) -> dict[str, Any]:
    """Tune the map on by each variant for an equal share of the time; look at it every minute.

    Files: figures.json, as soon as a variant ends; VARIANT-best.safetensors (the best that was looked at, by d' on
    view 1 of a recogniser that is no teacher), VARIANT-last.safetensors.

    Returns:
        What each look showed, and what the best and the weights that were started from show on folds 6 to 10.
    """
    settings, pace = context.settings, _pace(context.settings)
    until = pace.clock() + context.left
    weights = load_mixer_weights(settings.start) if settings.start else load_mixer_weights()
    generator = _drawer(settings)
    # Faces lie where their codes put them, whichever generator draws.
    landmarks = landmarks_in(context, load_mixer_weights(), _drawer(replace(settings, generator="mobilestylegan")))
    names = TEACHERS if settings.rehearsal else RECOGNISERS
    weights = replace(weights, generator_hash=generator.weights_hash())
    looking = watcher(settings.device, weights, landmarks, names)
    pairs = {
        name: codes[:, :2] if settings.rehearsal else codes[:, :: max(1, codes.shape[1] // pace.looked_at)]
        for name, codes in context.carried.pairs.items()
    }
    way = fastest_way(context, weights, landmarks)
    began = pace.clock()
    result: dict[str, Any] = {
        "way": way,
        "started from": {name: looks(generator, looking, weights, codes) for name, codes in pairs.items()},
    }
    a_look = (pace.clock() - began) / max(1, len(pairs))
    context.say(f"started from: {_line(result['started from'].get('view1', {}))}")
    best: tuple[float, str, MixerWeights] | None = None
    for place, name in enumerate(settings.variants):
        left = until - pace.clock() - (0 if settings.rehearsal else max(12, 2 * a_look))
        share = left / (len(settings.variants) - place)
        seen, kept = _tuned(context, name, weights, generator, looking, landmarks, share, pairs["view1"], way, a_look)
        result[name] = seen
        write_text(context.folder / "figures.json", json.dumps(result, indent=1, default=float))
        if kept is not None and (best is None or kept[0] > best[0]):
            best = kept[0], name, kept[1]
    if best is not None:
        best[2].save(context.folder / "best.safetensors", {"variant": best[1]})
        result["best"] = {
            "variant": best[1],
            **{name: looks(generator, looking, best[2], codes) for name, codes in pairs.items()},
        }
        context.say(f"best, {best[1]}: {_line(result['best'].get('folds6-10', {}))}")
    return result


def _source(settings: GpuSettings) -> MobileStyleGan | SmallGenerator:
    """The generator with gradients, on the device."""
    generator = load_generator("torch", name=settings.generator)
    if not isinstance(generator, MobileStyleGan | SmallGenerator):  # for the type checker
        raise TypeError(type(generator).__name__)
    return generator.to(settings.device)


def _drawer(settings: GpuSettings) -> OpenVinoGenerator | TorchGenerator:
    """The fastest generator on the device: engine `cuda` on a GPU, OpenVINO on a CPU."""
    if settings.device == "cpu" and not settings.rehearsal:
        generator = load_generator("openvino", name=settings.generator)
        if isinstance(generator, OpenVinoGenerator):
            return generator
    rehearsal = settings.rehearsal
    precision: Precision = "float32" if settings.device == "cpu" else "float16"
    return TorchGenerator(_source(settings), settings.device, batch=2 if rehearsal else 64, precision=precision)


def _tuned(
    context: Context,
    name: str,
    weights: MixerWeights,
    generator: OpenVinoGenerator | TorchGenerator,
    looking: Watcher,
    landmarks: Landmarks,
    seconds: float,
    view1: Floats,
    way: str,
    a_look: float,
) -> tuple[dict[str, Any], tuple[float, MixerWeights] | None]:
    settings, variant, pace = context.settings, VARIANTS[name], _pace(context.settings)
    clock = pace.clock
    until = clock() + seconds
    street = StreetCodes(context.carried.street, context.carried.street_who)
    dims = weights.subspace.dims
    recipe = replace(whole_recipe(steps=1, people=pace.people, dims=dims, seed=5), **dict(variant.recipe))
    # As many faces a step however many keys share them.
    recipe = replace(
        recipe,
        people=2 * recipe.people // recipe.keys_a_step,
        linear_rate=pace.rate * recipe.linear_rate,
        bend_rate=pace.rate * recipe.bend_rate,
    )
    if settings.rehearsal:
        recipe = replace(recipe, **_FEW)
    reader = whole_reader(settings, weights, landmarks, variant, recipe.layers, way)
    source = _source(settings)
    # Two steps that count for nothing say how long a step takes.
    folder = context.folder / name.replace(" ", "-").replace(",", "")
    spent: list[float] = []
    began = clock()

    def trial(step: TuningStep) -> None:  # noqa: ARG001
        spent.append(clock())

    trial_folder = folder / "trial"
    trial_folder.mkdir(parents=True, exist_ok=True)
    steps = 1 if settings.rehearsal else pace.trial
    tune(reader, source, weights, replace(recipe, steps=steps), trial_folder, trial, street=street)
    step_seconds = spent[-1] - (spent[-2] if len(spent) > 1 else began)
    looking_seconds = pace.look_seconds or a_look
    looking_seconds *= max(1, (until - clock()) / pace.look_every)
    steps = max(1, int((until - clock() - looking_seconds) / step_seconds))
    if settings.rehearsal:
        steps = 2
    context.say(f"{name}: {steps} steps of {step_seconds:.2f} s")
    recipe = replace(recipe, steps=steps)
    seen: dict[str, Any] = {"steps": steps, "seconds a step": step_seconds, "looks": {}}
    best: tuple[float, MixerWeights] | None = None
    next_look = clock() + pace.look_every
    recent: list[TuningStep] = []

    def look(done: int, made: Callable[[], MixerWeights]) -> None:
        nonlocal next_look, best
        if clock() < next_look and done < steps:
            return
        next_look = clock() + pace.look_every
        now = made()
        found = looks(generator, looking, now, view1)
        found["training"] = {
            teacher: float(np.mean([step.separation(teacher) for step in recent[-20:]])) for teacher in variant.teachers
        }
        seen["looks"][str(done)] = found
        context.say(f"{name}, step {done}: {_line(found)}")
        score = _score(found)
        if best is None or score > best[0]:
            best = score, now
            now.save(context.folder / f"{folder.name}-best.safetensors", {"variant": name, "step": str(done)})

    last = tune(reader, source, weights, recipe, folder, recent.append, street=street, look=look)
    last.save(context.folder / f"{folder.name}-last.safetensors", {"variant": name, "step": str(steps)})
    return seen, best


WAYS: Final[Mapping[str, Mapping[str, Any]]] = {
    "float32, drawn again": {},
    "bfloat16, drawn again": {"half": True},
    "bfloat16, kept": {"together": 64, "half": True, "again": False},
}
"""How whole faces can be learned through; which is fastest depends on the card."""


def fastest_way(context: Context, weights: MixerWeights, landmarks: Landmarks) -> str:
    """Take two steps in each way, and choose the fastest that fits into the card's memory."""
    settings, pace = context.settings, _pace(context.settings)
    recipe = whole_recipe(steps=2, people=pace.people, dims=weights.subspace.dims, seed=4)
    if settings.rehearsal:
        recipe = replace(recipe, **_FEW)
    seconds: dict[str, float] = {}
    for way in pace.ways:
        spent: list[float] = []

        def told(step: TuningStep, spent: list[float] = spent) -> None:  # noqa: ARG001
            spent.append(pace.clock())

        folder = context.folder / "ways" / way.replace(", ", "-").replace(" ", "-")
        folder.mkdir(parents=True, exist_ok=True)
        try:
            reader = whole_reader(settings, weights, landmarks, Variant(), SEEN_LAYERS, way)
            tune(reader, _source(settings), weights, recipe, folder, told)
        except torch.OutOfMemoryError as error:
            context.say(f"{way}: {str(error)[:120]}")
            continue
        finally:
            if settings.device.startswith("cuda"):
                torch.cuda.empty_cache()
        seconds[way] = spent[-1] - spent[-2] if len(spent) > 1 else float("inf")
        context.say(f"{way}: {seconds[way]:.2f} s a step")
    return min(seconds, key=lambda way: seconds[way])


def whole_reader(
    settings: GpuSettings, weights: MixerWeights, landmarks: Landmarks, variant: Variant, layers: int, way: str
) -> WholeReader:
    """The generator and the teachers, to be learned through."""
    device = settings.device
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    return WholeReader(
        _source(settings),
        weights,
        landmarks,
        {name: load_teacher(name).to(device) for name in variant.teachers},
        device,
        disturbance=Disturbance(**dict(variant.disturbance)),
        layers=layers,
        **{"together": _pace(settings).together, **WAYS[way]},
    )


def looks(generator: ArrayGenerator, looking: Watcher, weights: MixerWeights, pairs: Floats) -> dict[str, Any]:
    """What recognisers see of the faces of genuine pairs, under one key and under a key each.

    Args:
        generator: Draws.
        looking: Sees.
        weights: With the map that is looked at.
        pairs: (2, P, dims) float32, codes of both photos of each pair.

    Returns:
        Recogniser -> EER, d' and FNMR at FMR 0.1 % under one key and with a key each, and how many of two
        strangers' faces pass the threshold of FMR 0.1 % on photos.
    """
    if not isinstance(generator, Generator):  # for the type checker: both engines are
        raise TypeError(type(generator).__name__)
    count = pairs.shape[1]
    each = [number % _SEVERAL_KEYS + 1 for number in range(count)]
    found: dict[str, Any] = {}
    for way, keys in (("one key", [0] * count), ("a key each", each)):
        mixed = [mixed_codes(generator, weights, codes, keys) for codes in pairs]
        sides = [drawn_and_seen(generator, looking, codes, min(SIZE, max(generator.sizes))) for codes in mixed]
        for name in looking.recognisers:
            cosines = sides[0][name].astype(np.float64) @ sides[1][name].T
            genuine = np.diagonal(cosines)
            apart = np.not_equal.outer(keys, keys) if way != "one key" else ~np.eye(count, dtype=bool)
            strangers = cosines[apart]
            if not len(strangers):
                continue
            spread = float(np.hypot(genuine.std(), strangers.std()))
            threshold = THRESHOLDS.get(name, {}).get("fmr-0.1%")
            found.setdefault(name, {})[way] = {
                "EER": float(eer(genuine, strangers)),
                "d'": float((genuine.mean() - strangers.mean()) / max(spread, 1e-9)),
                "FNMR at FMR 0.1 %": float(fnmr_at_fmr(genuine, strangers, 0.001)),
                "strangers at the photo threshold": None
                if threshold is None
                else float((strangers >= threshold).mean()),
            }
    return found


def _score(found: Mapping[str, Any]) -> float:
    """D' under one key of the recognisers that are no teachers; of all where there is none."""
    others = [name for name in found if name not in TEACHERS and name != "training"]
    names = others or [name for name in found if name != "training"]
    return float(np.mean([found[name]["one key"]["d'"] for name in names]))


def _line(found: Mapping[str, Any]) -> str:
    return "; ".join(
        f"{name} "
        + ", ".join(
            f"{way} EER {values['EER']:.4f} d' {values[chr(100) + chr(39)]:.2f}" for way, values in ways.items()
        )
        for name, ways in found.items()
        if name != "training"
    )


def distil_small(context: Context) -> dict[str, Any]:
    """Train the small generator within the time, and say where its file is."""
    from anonymix_lab.training.small import train_small

    settings = context.settings
    weights = load_mixer_weights()
    generator = TorchGenerator(
        load_reference_generator(),
        settings.device,
        batch=2 if settings.rehearsal else 32,
        precision="float32" if settings.device == "cpu" else "float16",
    )
    landmarks = landmarks_in(context, weights, generator)
    del generator
    few: dict[str, int] = {"steps": 1, "held": 2} if settings.rehearsal else {}
    path = train_small(
        load_reference_generator().to(settings.device),
        weights,
        landmarks,
        {name: torch_recogniser(name).to(settings.device) for name in RECOGNISERS},
        context.folder,
        device=settings.device,
        minutes=max(0.05, (context.left - 12) / 60),
        batch=2 if settings.rehearsal else 64,
        progress=context.say,
        seed=41,
        **few,
    )
    return {"file": path.name}
