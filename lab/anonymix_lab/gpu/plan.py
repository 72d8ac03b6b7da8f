"""Steps one after the other within a budget of time, each of which saves its result at once."""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from anonymix_lab.gpu.carried import Carried
from anonymix_lab.gpu.context import Context, GpuSettings, Progress
from anonymix_lab.machine import machine, require_gpu, versions
from anonymix_plugin.errors import UsageError
from anonymix_plugin.files import write_text


@dataclass(frozen=True)
class StepResult:
    """What became of a step.

    Attributes:
        name: Which.
        state: "done", "failed", or "left out" where too little time was left.
        seconds: How long it took.
        result: What it measured; of a failed one what it had measured until then is in its folder.
        error: What went wrong, or "".
    """

    name: str
    state: str
    seconds: float
    result: Mapping[str, Any]
    error: str = ""


def _engine(context: Context) -> dict[str, Any]:
    from anonymix_lab.gpu.engine import check_engine

    return check_engine(context)


def _compiled(context: Context) -> dict[str, Any]:
    from anonymix_lab.gpu.engine import check_compiled

    return check_compiled(context)


def _tune(context: Context) -> dict[str, Any]:
    from anonymix_lab.gpu.learning import tune_map

    return tune_map(context)


def _small(context: Context) -> dict[str, Any]:
    from anonymix_lab.gpu.learning import distil_small

    return distil_small(context)


def _refine(context: Context) -> dict[str, Any]:
    from anonymix_lab.gpu.refining import compare_presets

    return compare_presets(context)


def _stream(context: Context) -> dict[str, Any]:
    from anonymix_lab.gpu.streaming import measure_streams

    return measure_streams(context)


STEPS: Final[Mapping[str, tuple[Callable[[Context], dict[str, Any]], float, float]]] = {
    "engine": (_engine, 0.08, 20),
    "compiled": (_compiled, 0.12, 45),
    "stream": (_stream, 0.14, 10),
    "tune": (_tune, 0.36, 40),
    "refine": (_refine, 0.20, 20),
    "small": (_small, 0.10, 40),
}
"""Name -> the step, its usual share of the budget, and the seconds under which it is not begun."""


def run_steps(settings: GpuSettings, carried: Carried, folder: Path, say: Progress) -> list[StepResult]:
    """Do the steps in their order, each within its share of what is left.

    Args:
        settings: What is to be done.
        carried: The numbers that stand for photos.
        folder: FOLDER/STEP.json and the files of each step go here, as soon as it ends.
        say: Told what happens.

    Returns:
        What became of each step. A step that fails does not stop the others.

    Raises:
        UsageError: There is no such step, variant, preset, GPU or folder of photos.
        ModelError: What a step is to start from can't be read, or a teacher is missing.
    """
    _require_known(settings)
    _require_there(settings)
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "machine.json", json.dumps({**machine(), **versions(["torch", "numpy"])}, indent=1))
    end = time.monotonic() + 60 * settings.minutes
    results = []
    for place, name in enumerate(settings.steps):
        results.append(_run(name, settings.steps[place:], settings, carried, folder, end, say))
        write_text(folder / f"{name}.json", json.dumps(asdict(results[-1]), indent=1, default=float))
    return results


def _require_known(settings: GpuSettings) -> None:
    from anonymix_lab.gpu.learning import VARIANTS
    from anonymix_plugin.mixer.refine.presets import PRESETS

    for kind, where, named, known in (
        ("step", "--steps", settings.steps, tuple(STEPS)),
        ("way to tune", "--variants", settings.variants, tuple(VARIANTS)),
        ("preset", "--presets", settings.presets, ("fast", *PRESETS)),
    ):
        if unknown := [name for name in named if name not in known]:
            raise UsageError(f"no such {kind}: {unknown[0]}", where=where, fix="known: " + ", ".join(known))


def _require_there(settings: GpuSettings) -> None:
    """What a later step would miss is told before the first one takes minutes."""
    from anonymix_lab.gpu.learning import VARIANTS
    from anonymix_lab.training.teachers import check_teachers
    from anonymix_plugin.mixer.weights import load_mixer_weights

    if settings.device != "cpu":
        require_gpu(settings.device)
    if "tune" in settings.steps:
        if settings.start is not None:
            load_mixer_weights(settings.start)
        for name in settings.variants:
            check_teachers(VARIANTS[name].teachers)
    photos = settings.photos or Path("tests/people")
    if {"refine", "stream"} & set(settings.steps) and not any(photos.glob("*.jpg")):
        raise UsageError(
            "there are no photos for the steps refine and stream",
            where=str(photos),
            fix="name a folder of photos PERSON_NUMBER.jpg by --photos, or leave the two out of --steps",
        )


def _run(
    name: str,
    rest: Sequence[str],
    settings: GpuSettings,
    carried: Carried,
    folder: Path,
    end: float,
    say: Progress,
) -> StepResult:
    step, share, least = STEPS[name]
    began = time.monotonic()
    left = end - began
    seconds = (settings.limits or {}).get(name, left * share / sum(STEPS[one][1] for one in rest))
    seconds = min(seconds, left)
    if seconds < least and not settings.rehearsal:
        say(f"{name}: left out, {seconds:.0f} s are too few")
        return StepResult(name, "left out", 0.0, {}, f"{seconds:.0f} s were left, {least:.0f} are needed")
    own = folder / name
    own.mkdir(parents=True, exist_ok=True)
    say(f"{name}: {seconds:.0f} s")
    try:
        result = step(Context(settings, carried, own, began + seconds, say))
    except Exception as error:  # noqa: BLE001 - one step's fault must not cost the others their time
        write_text(own / "error.txt", traceback.format_exc())
        say(f"{name}: failed, {type(error).__name__}: {error}")
        return StepResult(name, "failed", time.monotonic() - began, {}, f"{type(error).__name__}: {error}")
    say(f"{name}: done in {time.monotonic() - began:.0f} s")
    return StepResult(name, "done", time.monotonic() - began, result)
