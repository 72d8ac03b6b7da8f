"""How OpenVINO runs the plug-in's networks: one place for the options that all of them are compiled with."""

from __future__ import annotations

from typing import Any


def compiled(model: Any, *, threads: int = 0, precision: str = "f32") -> Any:
    """A network compiled for the processor.

    Its threads are bound to no core: OpenVINO would bind them to the first ones, in each process the same.

    Args:
        model: `openvino.Model`.
        threads: Threads of one run; 0 takes all cores.
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
    if threads:
        options["INFERENCE_NUM_THREADS"] = threads
    return openvino.Core().compile_model(model, "CPU", options)
