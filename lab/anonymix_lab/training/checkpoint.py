"""States of unfinished training runs, as safetensors: parameters, Adam's moments and the step."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from anonymix_plugin.errors import UsageError
from anonymix_plugin.files import whole_file


def save_state(
    path: Path,
    module: nn.Module,
    optimiser: torch.optim.Optimizer,
    step: int,
    about: dict[str, str],
    more: Mapping[str, torch.Tensor] | None = None,
) -> None:
    """Write a state; the file is there in full or not at all.

    Args:
        path: Where to.
        module: Whose parameters and buffers.
        optimiser: One of the Adam family.
        step: How many steps are done.
        about: What the run is of; `load_state` refuses another.
        more: What else there is to keep (`chance`).
    """
    tensors = {f"more.{name}": value.contiguous() for name, value in (more or {}).items()}
    tensors |= {f"module.{name}": value.detach().contiguous() for name, value in module.state_dict().items()}
    for index, state in optimiser.state_dict()["state"].items():
        for name, value in state.items():
            tensors[f"optimiser.{index}.{name}"] = value.detach().clone().contiguous()
    with whole_file(path) as draft:
        save_file(tensors, draft, {**about, "step": str(step)})


def load_state(
    path: Path,
    module: nn.Module,
    optimiser: torch.optim.Optimizer,
    about: dict[str, str],
    more: dict[str, torch.Tensor] | None = None,
) -> int:
    """Read a state and return how many steps are done; 0 where there is no file.

    What `save_state` was given as `more` is put into the dictionary of that name.

    Raises:
        UsageError: The file can't be read, or is of another run.
    """
    if not path.exists():
        return 0
    again = "remove the file, or name another --work"
    try:
        with safe_open(path, framework="pt") as file:
            metadata = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise UsageError(f"the state of a run can't be read ({error})", where=str(path), fix=again) from error
    done = int(metadata.pop("step", "0"))
    if metadata != about:
        raise UsageError("the state is of a run with other settings", where=str(path), fix=again)
    module.load_state_dict(
        {name.removeprefix("module."): value for name, value in tensors.items() if name.startswith("module.")}
    )
    if more is not None:
        kept = [name for name in tensors if name.startswith("more.")]
        more |= {name.removeprefix("more."): tensors[name] for name in kept}
    moments: dict[int, dict[str, torch.Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("optimiser."):
            _, index, key = name.split(".", 2)
            moments.setdefault(int(index), {})[key] = value
    optimiser.load_state_dict({**optimiser.state_dict(), "state": moments})
    return done


def chance(random: np.random.Generator) -> dict[str, torch.Tensor]:
    """Where torch's generator of random numbers and a Philox one of numpy stand, for `save_state`."""
    state = random.bit_generator.state
    numbers = [*state["state"]["counter"], *state["state"]["key"], *state["buffer"]]
    rest = [state["buffer_pos"], state["has_uint32"], state["uinteger"]]
    philox = np.array([*numbers, *rest], np.uint64).view(np.int64)
    return {"chance.torch": torch.get_rng_state(), "chance.philox": torch.from_numpy(philox.copy())}


def set_chance(random: np.random.Generator, saved: Mapping[str, torch.Tensor]) -> None:
    """Put both generators back to where `chance` found them."""
    torch.set_rng_state(saved["chance.torch"])
    philox = saved["chance.philox"].numpy().view(np.uint64)
    random.bit_generator.state = {
        "bit_generator": "Philox",
        "state": {"counter": philox[:4], "key": philox[4:6]},
        "buffer": philox[6:10],
        "buffer_pos": int(philox[10]),
        "has_uint32": int(philox[11]),
        "uinteger": int(philox[12]),
    }


def one_cycle(step: int, steps: int, *, warm: float = 0.2) -> float:
    """Share of the peak learning rate at a step: up over the share `warm` of the steps, then a cosine down.

    After Smith and Topin 2018 (arXiv 1708.07120), without its change of momentum.
    """
    rise = max(1.0, warm * steps)
    if step < rise:
        return 0.04 + 0.96 * (step + 1) / rise if step + 1 < rise else 1.0
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1.0, steps - rise)))
