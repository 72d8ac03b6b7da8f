"""What is done on a machine with a GPU, unattended, without a network and within minutes."""

from anonymix_lab.gpu.carried import (
    Carried,
    Package,
    WeightsFile,
    genuine_pairs,
    needed_packages,
    needed_weights,
    prepare,
)
from anonymix_lab.gpu.plan import STEPS, Context, GpuSettings, StepResult, run_steps

__all__ = [
    "STEPS",
    "Carried",
    "Context",
    "GpuSettings",
    "Package",
    "StepResult",
    "WeightsFile",
    "genuine_pairs",
    "needed_packages",
    "needed_weights",
    "prepare",
    "run_steps",
]
