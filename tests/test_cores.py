"""How many threads and workers there are follows from the cores that the process may use, not from the machine's."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SEVERAL = (os.cpu_count() or 1) > 1
TOLD = """
from anonymix_lab.machine import machine
from anonymix_plugin import assembly
from anonymix_plugin.cli.bulk_work import WorkChoice
from anonymix_plugin.inference import compiled, runtime
from anonymix_plugin.pool import CORES, MOST

openvino = runtime()
number = openvino.opset13.parameter([1], openvino.Type.f32)
network = compiled(openvino.Model([openvino.opset13.abs(number)], [number]))
print(CORES, MOST, machine()["cores"], assembly._RECOGNISER_THREADS, WorkChoice().count,
      network.get_property("INFERENCE_NUM_THREADS"))
"""
ONE_CORE = "1 2 1 1 1 1"
QUOTAS = {
    "version 2": {"cpu.max": "100000 100000"},
    "version 2, one core and a half": {"cpu.max": "150000 100000"},
    "version 1": {"cpu/cpu.cfs_quota_us": "100000", "cpu/cpu.cfs_period_us": "100000"},
}


def told(*before: str) -> str:
    command = [*before, sys.executable, "-c", TOLD]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=120).stdout.strip()


@pytest.mark.skipif(not SEVERAL or not hasattr(os, "sched_getaffinity"), reason="one core, or no affinity here")
def test_a_process_that_is_held_to_one_core_counts_one() -> None:
    assert told("taskset", "--cpu-list", str(min(os.sched_getaffinity(0)))) == ONE_CORE


@pytest.mark.skipif(not SEVERAL, reason="one core")
@pytest.mark.parametrize("quota", QUOTAS.values(), ids=QUOTAS)
def test_a_container_with_the_time_of_one_core_counts_one(quota: dict[str, str], tmp_path: Path) -> None:
    for name, content in quota.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    inside = ["unshare", "--user", "--map-root-user", "--mount"]
    if subprocess.run([*inside, "mount", "--bind", str(tmp_path), "/sys/fs/cgroup"], check=False).returncode:
        pytest.skip("nobody may mount here, or there is no /sys/fs/cgroup")
    laid_over = f'mount --bind "{tmp_path}" /sys/fs/cgroup && exec "$@"'
    assert told(*inside, "sh", "-c", laid_over, "sh") == ONE_CORE
