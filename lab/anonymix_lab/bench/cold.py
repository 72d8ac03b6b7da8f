"""The first face of a fresh process, and how much memory many faces take there."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from anonymix_plugin.errors import AnonymixError

# Runs in a process of its own; argv: photo, policy, engine, how many faces.
_CHILD = """
import json, sys, time
begun = time.perf_counter()
from anonymix_plugin.anonymixer import Anonymixer
from anonymix_plugin.production import PhotoRequest
from anonymix_lab.data.keys import SeededKeys
from anonymix_plugin.mixer.policy import AttributePolicy, MixingPolicy
imported = time.perf_counter()
from anonymix_lab.machine import peak_memory

photo, policy, engine, faces = sys.argv[1:]
policy = MixingPolicy(attributes=AttributePolicy(policy))
with Anonymixer(SeededKeys(1), policy=policy, engine=engine) as mixer:
    opened = time.perf_counter()
    mixer.protect(photo, subject="bench")
    first = time.perf_counter()
    parts = {"import": imported - begun, "open": opened - imported, "first": first - opened}
    parts["cpu"] = time.process_time()
    print(json.dumps(parts), flush=True)
    resident = [peak_memory()]
    stream = mixer.protect_stream(PhotoRequest(photo, "bench") for _ in range(int(faces)))
    for outcome in stream:
        if outcome.error is not None:
            raise outcome.error
    resident.append(peak_memory())
print(json.dumps({"resident": resident, "torch": "torch" in sys.modules}), flush=True)
"""


@dataclass(frozen=True)
class ColdStart:
    """A fresh process.

    Attributes:
        total: Seconds from starting the process to its first face.
        interpreter: Of those, until the first line of Python ran.
        imports: Importing modules.
        opening: Reading, checking and compiling weights.
        first: The first face.
        cpu: Processor seconds up to there; on a busy machine they say more than `total`.
        peak_first: Peak of resident memory after the first face, in bytes.
        peak_many: The same after a stream of `faces` more.
        faces: How many those were.
        torch: Whether torch was imported.
    """

    total: float
    interpreter: float
    imports: float
    opening: float
    first: float
    cpu: float
    peak_first: int
    peak_many: int
    faces: int
    torch: bool


def cold_start(photo: Path, *, policy: str, engine: str, faces: int = 20) -> ColdStart:
    """Start a process, let it make its first face and then some more.

    Raises:
        AnonymixError: The process failed.
    """
    command = [sys.executable, "-c", _CHILD, str(photo), policy, engine, str(faces)]
    started = time.perf_counter()
    with subprocess.Popen(  # noqa: S603 - this interpreter, our own words
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None  # noqa: S101 - it was asked for
        line = process.stdout.readline()
        total = time.perf_counter() - started
        rest, complaint = process.communicate()
    if process.returncode or not line:
        last = complaint.strip().splitlines()[-1:] or ["it said nothing"]
        raise AnonymixError(f"a fresh process made no face: {last[0]}", where="bench")
    parts, end = json.loads(line), json.loads(rest)
    spent = parts["import"] + parts["open"] + parts["first"]
    return ColdStart(
        total,
        total - spent,
        parts["import"],
        parts["open"],
        parts["first"],
        parts["cpu"],
        end["resident"][0],
        end["resident"][1],
        faces,
        end["torch"],
    )
