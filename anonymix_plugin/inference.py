"""How OpenVINO runs the plug-in's networks: one place for the options that all of them are compiled with."""

from __future__ import annotations

import os
from typing import Any


def compiled(model: Any, *, threads: int = 0, at_once: int = 1, precision: str = "f32") -> Any:
    """A network compiled for the processor.

    Its threads are bound to no core: OpenVINO would bind them to the first ones, in each process the same.

    Args:
        model: `openvino.Model`.
        threads: Threads of one run; 0 takes all cores, or its share of them.
        at_once: How many runs go on at the same time; further ones wait.
        precision: What OpenVINO may compute in: "f32", or "bf16" where the processor has it.

    Returns:
        `openvino.CompiledModel`.
    """
    import openvino

    options: dict[str, Any] = {
        "INFERENCE_PRECISION_HINT": precision,
        "PERFORMANCE_HINT": "LATENCY",
        "ENABLE_CPU_PINNING": False,
    }
    if at_once > 1:
        threads = threads or max(1, (os.cpu_count() or 1) // at_once)
        options["NUM_STREAMS"] = at_once
    if threads:
        options["INFERENCE_NUM_THREADS"] = threads * at_once
    return openvino.Core().compile_model(model, "CPU", options)
