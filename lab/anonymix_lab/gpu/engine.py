"""The engine `cuda` beside the CPU: is it the same face, and how fast is it?"""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from anonymix_lab.gpu.context import Context, Progress
from anonymix_lab.gpu.faces import SIZE, Watcher, drawn_and_seen, mixed_codes
from anonymix_lab.training.examples import Landmarks, draw_landmarks
from anonymix_lab.training.teachers import TEACHERS
from anonymix_plugin.faces import YuNet
from anonymix_plugin.generator import ArrayGenerator, Generator, OpenVinoGenerator, load_reference_generator
from anonymix_plugin.generator.torch_engine import Precision, TorchGenerator
from anonymix_plugin.mixer.weights import MixerWeights, load_mixer_weights
from anonymix_plugin.models import locate
from anonymix_plugin.recognisers import torch_recogniser
from anonymix_plugin.values import Floats
from anonymix_plugin.verification import THRESHOLDS

RECOGNISERS = ("arcface-mbf", "sface", "facenet")
_BATCHES = (1, 4, 8, 16, 32, 64, 128)
_COMPILED_BATCHES = (16, 64, 8)  # the best first


def london_codes(generator: Generator, weights: MixerWeights, codes: Floats, who: Any) -> Floats:
    """The mixer's codes of photos, each person's under a key of their own: (N, layers, 512) float32."""
    return mixed_codes(generator, weights, codes, [int(person) for person in who])


def landmarks_of(
    folder: Path, weights: MixerWeights, drawer: ArrayGenerator, say: Progress, *, rehearsal: bool = False
) -> Landmarks:
    """Where landmarks lie on faces that these weights draw; drawn once, then read from FOLDER/landmarks."""
    return draw_landmarks(
        drawer,
        load_reference_generator(),
        weights,
        YuNet(locate("yunet")),
        folder / "landmarks",
        lambda done, total: say(f"landmarks: {done} of {total}") if done % 200 == 0 else None,
        count=6 if rehearsal else 600,
        seed=11,
        together=32,
    )


def landmarks_in(context: Context, weights: MixerWeights, drawer: ArrayGenerator) -> Landmarks:
    """`landmarks_of` for a step."""
    rehearsal = context.settings.rehearsal
    return landmarks_of(context.folder.parent, weights, drawer, context.say, rehearsal=rehearsal)


def watcher(device: str, weights: MixerWeights, landmarks: Landmarks, names: tuple[str, ...]) -> Watcher:
    """Recognisers on a device."""
    modules = {name: torch_recogniser(name).to(device) for name in names}
    return Watcher(weights, landmarks, modules, device, load_reference_generator().layers.identity.start)


def seen_on_cpu(
    generator: OpenVinoGenerator, looking: Watcher, weights: MixerWeights, codes: Floats, who: Any
) -> dict[str, Floats]:
    """What recognisers see of the faces that a CPU's engine draws: the reference for a GPU's."""
    return drawn_and_seen(generator, looking, london_codes(generator, weights, codes, who))


def check_engine(context: Context) -> dict[str, Any]:
    """Compare engine `cuda` with the CPU's faces, and time it.

    Returns:
        Cosines and decisions beside the CPU's, whether bytes depend on the batch, faces a second by batch,
        the counted floor, memory, power and cold start.
    """
    device = context.settings.device
    weights = load_mixer_weights()
    count = 2 if context.settings.rehearsal else len(context.carried.london)
    codes, who = context.carried.london[:count], context.carried.london_who[:count]
    result: dict[str, Any] = {"device": _device_name(device), "faces compared": count}

    started = time.monotonic()
    usual: Precision = "float32" if device == "cpu" else "float16"  # which a CPU computes slowly
    generator = TorchGenerator(load_reference_generator(), device, batch=2 if device == "cpu" else 16, precision=usual)
    generator.draw(np.zeros((1, generator.layers.total, generator.w_dim), np.float32), SIZE)
    result["cold start, s"] = time.monotonic() - started
    w_plus = london_codes(generator, weights, codes, who)
    result["bytes depend on the batch"] = _depends_on_batch(generator, w_plus[:3])
    looking = watcher(device, weights, landmarks_in(context, weights, generator), RECOGNISERS)
    exact = TorchGenerator(load_reference_generator(), device, batch=generator.batch, precision="float32")
    for precision, made in ((usual, generator), ("float32", exact)):
        seen = drawn_and_seen(made, looking, w_plus)
        result[f"beside the CPU, {precision}"] = {
            name: _beside(seen[name], context.carried.seen[name][:count], THRESHOLDS[name]["fmr-0.1%"])
            for name in seen
            if name in context.carried.seen
        }
    reference = load_reference_generator()
    some = w_plus[: 1 if context.settings.rehearsal else 4]
    difference = np.abs(generator.draw(some, SIZE) - reference.draw(some, SIZE))
    result["greatest difference to the CPU's picture, of 255"] = float(127.5 * difference.max())
    del exact

    result["faces a second"] = _rates(context, (1,) if context.settings.rehearsal else _BATCHES)
    result["memory, MiB"] = _memory(device)
    result["two CPU threads, torch, faces a second"] = _two_threads(some[:1])
    result["ceilings"] = _ceilings(device, small=context.settings.rehearsal)
    result["floor, faces a second"] = _floor(context.carried.counts, result["ceilings"])
    return result


def check_compiled(context: Context) -> dict[str, Any]:
    """Let torch.compile fuse the pass, compare it with the pass as it is, and time it.

    Returns:
        Kernels, least cosine and greatest difference of a pixel beside the pass that is not compiled, whether
        bytes depend on the batch, and faces a second by batch.
    """
    from torch._inductor import metrics

    device, rehearsal = context.settings.device, context.settings.rehearsal
    usual: Precision = "float32" if device == "cpu" else "float16"
    count = 2 if rehearsal else 32
    weights, reference = load_mixer_weights(), load_reference_generator()
    w_plus = london_codes(reference, weights, context.carried.london[:count], context.carried.london_who[:count])
    made = {}
    for compiled in (False, True):
        began = time.monotonic()
        generator = TorchGenerator(
            load_reference_generator(), device, batch=1 if rehearsal else 16, precision=usual, compiled=compiled
        )
        made[compiled] = generator.draw(w_plus, SIZE)
    names = TEACHERS if rehearsal else RECOGNISERS
    looking = watcher(device, weights, landmarks_in(context, weights, generator), names)
    seen = [looking.see(w_plus, torch.from_numpy(pictures)) for pictures in made.values()]
    return {
        "ready after, s": time.monotonic() - began,
        "kernels": metrics.generated_kernel_count,
        "bytes depend on the batch": _depends_on_batch(generator, w_plus[:3]),
        "greatest difference of a pixel, of 255": float(127.5 * np.abs(made[True] - made[False]).max()),
        "cosine, least": {name: float((seen[0][name] * seen[1][name]).sum(axis=1).min()) for name in names},
        "faces a second": _rates(context, (1,) if rehearsal else _COMPILED_BATCHES, compiled=True),
        "not compiled": _rates(context, (1,) if rehearsal else _COMPILED_BATCHES[:2]),
    }


def _depends_on_batch(generator: TorchGenerator, w_plus: Floats) -> bool:
    """Whether a face's bytes change with its neighbours, their number or its place."""
    together = generator.draw(w_plus, SIZE)
    backwards = generator.draw(w_plus[::-1], SIZE)[::-1]
    alone = np.concatenate([generator.draw(code[None], SIZE) for code in w_plus])
    return not (np.array_equal(together, backwards) and np.array_equal(together, alone))


def _beside(seen: Floats, expected: Floats, threshold: float) -> dict[str, Any]:
    """Cosines of faces with those of a CPU, and which decisions on pairs differ at FMR 0.1 %."""
    cosines = (seen.astype(np.float64) * expected).sum(axis=1)
    upper = np.triu_indices(len(seen), 1)
    here, there = ((faces.astype(np.float64) @ faces.T)[upper] for faces in (seen, expected))
    differ = (here >= threshold) != (there >= threshold)
    return {
        "cosine, least": float(cosines.min()),
        "cosine, mean": float(cosines.mean()),
        "pairs": len(upper[0]),
        "decisions that differ": int(differ.sum()),
        "their cosines, and the CPU's": np.stack([here[differ], there[differ]], axis=1).tolist(),
        "threshold": threshold,
        "greatest difference of a pair's cosine": float(np.abs(here - there).max(initial=0)),
    }


def _rates(context: Context, batches: tuple[int, ...], *, compiled: bool = False) -> dict[str, dict[str, float]]:
    """Faces a second by batch: with transfers to the CPU's memory, and of the pass alone."""
    rehearsal, device = context.settings.rehearsal, context.settings.device
    found: dict[str, dict[str, float]] = {}
    for batch in batches:
        if context.left < 5 and not rehearsal:
            break
        began = time.monotonic()
        usual: Precision = "float32" if device == "cpu" else "float16"
        generator = TorchGenerator(load_reference_generator(), device, batch=batch, precision=usual, compiled=compiled)
        codes = np.random.Generator(np.random.Philox(7)).standard_normal(
            (batch, generator.layers.total, generator.w_dim), np.float32
        )
        generator.draw(codes, SIZE)
        ready = time.monotonic() - began
        rounds = 1 if rehearsal else max(2, 256 // batch)
        many = np.concatenate([codes] * rounds)
        with _power(device) as power:
            started = time.perf_counter()
            generator.draw(many, SIZE)
            whole = len(many) / (time.perf_counter() - started)
            alone = batch / generator.pass_seconds(SIZE, 1 if rehearsal else 20)
        found[str(batch)] = {
            "with transfers": whole,
            "pass alone": alone,
            "ready after, s": ready,
            "watts": power(),
        }
    return found


def _two_threads(code: Floats) -> float:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        reference = load_reference_generator()
        reference.draw(code, SIZE)
        started = time.perf_counter()
        reference.draw(code, SIZE)
        return len(code) / (time.perf_counter() - started)
    finally:
        torch.set_num_threads(before)


def _ceilings(device: str, *, small: bool) -> dict[str, float]:
    """Measured rates of the device: bytes a second of a copy, operations a second of a float16 product."""
    side, length = (256, 1 << 16) if small else (8192, 1 << 30)
    kind = torch.float32 if device == "cpu" else torch.float16
    one = torch.randn(side, side, device=device, dtype=kind)
    source = torch.empty(length, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return {
        "bytes a second": 2 * length / _timed(lambda: target.copy_(source), device),
        "operations a second": 2 * side**3 / _timed(lambda: one @ one, device),
    }


def _timed(work: Callable[[], object], device: str) -> float:
    """Median seconds of ten runs."""
    seconds = []
    for _ in range(13):
        if device != "cpu":
            torch.cuda.synchronize()
        started = time.perf_counter()
        work()
        if device != "cpu":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    return float(np.median(seconds[3:]))


def _floor(counts: Any, ceilings: Mapping[str, float]) -> dict[str, float]:
    """Faces a second that the device allows: by operations, and by bytes of float16 tensors moved once."""
    operations, _, _, traffic = (float(value) for value in counts)
    if not operations:
        return {}
    by_operations = ceilings["operations a second"] / operations
    by_bytes = ceilings["bytes a second"] / (traffic / 2)
    picture = ceilings["bytes a second"] / (3 * SIZE * SIZE * 4)
    return {"operations": by_operations, "bytes, layer by layer": by_bytes, "the picture alone": picture}


def _device_name(device: str) -> str:
    return torch.cuda.get_device_name() if device.startswith("cuda") else "cpu"


def _memory(device: str) -> float:
    return torch.cuda.max_memory_allocated() / 2**20 if device.startswith("cuda") else 0.0


@contextmanager
def _power(device: str) -> Iterator[Callable[[], float]]:
    """Watts of the card while something runs: the mean of what its driver says, 0 where it says nothing."""
    readings: list[float] = []
    stop = threading.Event()

    def read() -> None:
        while not stop.wait(0.2):
            answer = subprocess.run(
                ["nvidia-smi", "--query-gpu=power.draw", "--format=csv,noheader,nounits"],  # noqa: S607
                capture_output=True,
                text=True,
                check=False,
            )
            try:
                readings.append(float(answer.stdout.split()[0]))
            except (ValueError, IndexError):
                return

    thread = threading.Thread(target=read, daemon=True)
    if device.startswith("cuda"):
        thread.start()
    try:
        yield lambda: float(np.mean(readings)) if readings else 0.0
    finally:
        stop.set()
        if thread.is_alive():
            thread.join(2)
