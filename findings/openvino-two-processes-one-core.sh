#!/bin/sh
# OpenVINO 2026.4.1: processes that compute side by side, one inference thread each, are all bound to the same core.
# While a process computes, its inference thread may run on a single core, and every process chooses the first one that it
# may use. Two workers of one thread each then take turns on that core, and the other stays idle.
# ENABLE_CPU_PINNING = False is the cure: nothing is bound.
# Linux with two cores or more. What is shown is where threads may run (sched_getaffinity), not a time.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/python -m pip install --quiet --disable-pip-version-check openvino==2026.4.1 numpy==2.4.6
cat > worker.py <<'END'
import os
import sys
import threading
from pathlib import Path

import numpy as np
import openvino
from openvino import opset13 as op

settings = {"INFERENCE_NUM_THREADS": 1} | ({"ENABLE_CPU_PINNING": False} if sys.argv[1:] == ["free"] else {})
given = op.parameter([1, 64, 256, 256], np.float32)
weights = op.constant(np.ones((64, 64, 3, 3), np.float32))
convolved = op.convolution(given, weights, [1, 1], [1, 1], [1, 1], [1, 1])
request = openvino.Core().compile_model(openvino.Model([convolved], [given], "m"), "CPU", settings).create_infer_request()
allowed, seen, done = os.sched_getaffinity(0), set(), threading.Event()


def look():
    while not done.wait(0.001):
        for thread in Path("/proc/self/task").iterdir():
            try:
                seen.add(frozenset(os.sched_getaffinity(int(thread.name))))
            except OSError:
                pass


watch = threading.Thread(target=look)
watch.start()
for _ in range(20):
    request.infer({0: np.ones((1, 64, 256, 256), np.float32)})
done.set()
watch.join()
print(sorted(min(some) for some in seen if some != allowed))
END
cat > both.py <<'END'
import json
import os
import subprocess
import sys

import openvino


def bound(*words):
    """To which cores the threads of two processes are bound that compute at the same time."""
    command = [sys.executable, "worker.py", *words]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    return [json.loads(one.communicate()[0]) for one in running]


allowed = sorted(os.sched_getaffinity(0))
assert len(allowed) > 1, "this needs two cores"
print("OpenVINO", openvino.__version__, "cores", allowed)
usual, free = bound(), bound("free")
print("bound to, as it comes:", usual)
print("bound to, ENABLE_CPU_PINNING = False:", free)
assert usual == [allowed[:1], allowed[:1]], "changed: the processes are no longer bound to the first core"
assert free == [[], []], "changed: threads are bound although nothing asks for it"
END
env/bin/python both.py
