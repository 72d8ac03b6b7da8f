"""Compiling networks, and opening those that an earlier process compiled."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from anonymix_plugin.inference._kept import KeptNetworks
from anonymix_plugin.inference._runtime import runtime
from anonymix_plugin.pool import CORES, ENGINE_THREADS
from anonymix_plugin.values import Floats


@dataclass(frozen=True)
class Content:
    """A file of weights that is read when it is needed.

    Attributes:
        name: The model's name.
        sha256: What its content is held to, 64 hex digits.
        read: Reads and checks it; the errors are its own.
    """

    name: str
    sha256: str
    read: Callable[[], bytes] = field(repr=False)


@dataclass(frozen=True, eq=False)
class Network:
    """A network.

    Attributes:
        model: `openvino.Model`, or `openvino.CompiledModel` once it is compiled.
        arrays: What belongs to it and is no part of the graph, by name, float32.
    """

    model: Any
    arrays: Mapping[str, Floats] = field(default_factory=dict)


@dataclass(frozen=True)
class Recipe:
    """All that a compiled network depends on, apart from OpenVINO, the processor and the options.

    Attributes:
        name: Of the network, for its file's name.
        weights: SHA-256 of the weights that go into it.
        code: A folder; the source files in it build the graph.
    """

    name: str
    weights: str
    code: Path

    @classmethod
    def of(cls, content: object, code: str) -> Recipe | None:
        """The recipe of a network that one file of weights holds.

        Args:
            content: The file. What is not named by its hash has no recipe.
            code: Path of a source file; those in its folder build the graph.
        """
        return cls(content.name, content.sha256, Path(code).parent) if isinstance(content, Content) else None


def compiled(model: Any, *, threads: int = 0, at_once: int = 1, precision: str = "f32") -> Any:
    """A network compiled for the processor.

    Its threads are bound to no core: OpenVINO would bind them to the first ones, in each process the same.

    Args:
        model: `openvino.Model`.
        threads: Threads of one run; 0 takes all cores that the process may use, or its share of them.
        at_once: How many runs go on at the same time; further ones wait.
        precision: What OpenVINO may compute in: "f32", or "bf16" where the processor has it.

    Returns:
        `openvino.CompiledModel`.
    """
    return runtime().Core().compile_model(model, "CPU", _options(threads, at_once, precision))


def opened(
    recipe: Recipe | None,
    build: Callable[[], Network],
    *,
    threads: int = 0,
    at_once: int = 1,
    precision: str = "f32",
) -> Network:
    """A compiled network, by an earlier process if there was one.

    Opening one takes a third of the time of building and compiling it, reads no weights, and leaves the layers' own
    copies in a file that is mapped into memory. Both compute the same bytes.

    Args:
        recipe: What it is made of. Two networks of one recipe must be the same. None keeps nothing.
        build: Builds the graph, and reads the weights for it. It is called where no compiled network is kept.
        threads: As for `compiled`.
        at_once: As for `compiled`.
        precision: As for `compiled`.

    Returns:
        The compiled network, and the arrays that `build` gave with it.
    """
    options = _options(threads, at_once, precision)
    kept = None if recipe is None else KeptNetworks.of_this_user(recipe.name, recipe.weights, recipe.code, options)
    if kept is None:
        return _built(build, options)
    found = _imported(kept, options)
    if found is not None:
        return found
    made = _built(build, options)
    if not kept.keep(made.model, made.arrays):
        return made
    del made  # its memory serves the one that is opened
    return _imported(kept, options) or _built(build, options)


def _built(build: Callable[[], Network], options: Mapping[str, Any]) -> Network:
    made = build()
    return Network(runtime().Core().compile_model(made.model, "CPU", dict(options)), made.arrays)


def _imported(kept: KeptNetworks, options: Mapping[str, Any]) -> Network | None:
    content = kept.content()
    if content is None:
        return None
    openvino = runtime()
    try:
        model = openvino.Core().import_model(openvino.Tensor(content.graph, shared_memory=True), "CPU", dict(options))
    except (RuntimeError, TypeError):  # OpenVINO changed its mind, or is too old to read from memory
        return None
    content.forget_pages()
    return Network(model, content.arrays)


def _options(threads: int, at_once: int, precision: str) -> dict[str, Any]:
    options: dict[str, Any] = {
        "INFERENCE_PRECISION_HINT": precision,
        "PERFORMANCE_HINT": "LATENCY",
        "ENABLE_CPU_PINNING": False,
    }
    if at_once > 1:
        threads = threads or max(1, CORES // at_once)
        options["NUM_STREAMS"] = at_once
    threads = threads or ENGINE_THREADS
    if threads:
        options["INFERENCE_NUM_THREADS"] = threads * at_once
    return options
