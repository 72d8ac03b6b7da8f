"""What is done on a machine with a GPU, unattended, without a network and within minutes."""

from anonymix_lab.gpu.carried import Carried, Package, WeightsFile, needed_packages, needed_weights
from anonymix_lab.gpu.context import Context, GpuSettings
from anonymix_lab.gpu.plan import STEPS, StepResult, run_steps
from anonymix_lab.gpu.preparing import genuine_pairs, prepare

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
