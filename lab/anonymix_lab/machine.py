"""What a measurement ran on, without anything that names the machine or its owner."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from anonymix_plugin.errors import UsageError
from anonymix_plugin.pool import CORES


def machine() -> dict[str, str | int]:
    """Return system, architecture, processor and the number of cores that may be used."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "system": platform.system(),
        "architecture": platform.machine(),
        "processor": named[0] if named else platform.processor(),
        "cores": CORES,
    }


def require_gpu(device: str) -> None:
    """Refuse a GPU that is not there.

    Raises:
        UsageError: Torch finds none of that name.
    """
    import torch

    try:
        wanted = torch.device(device)
    except RuntimeError:
        wanted = torch.device("cpu")
    here = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if wanted.type != "cuda" or (wanted.index or 0) >= here:
        raise UsageError(
            "torch finds no such GPU",
            where=f"--device {device}",
            fix="use cpu, or install torch for your GPU",
        )


def peak_memory() -> int:
    """The most bytes of memory that this process has held."""
    # Linux hands the peak that getrusage tells down from the process that started this one.
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        import resource  # Windows has none

        scale = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Return the versions of Python and of packages; "unknown" where one is not installed."""
    found = {"python": platform.python_version()}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "unknown"
    return found
