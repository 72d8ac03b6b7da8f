"""Processes side by side share the cores: no thread of the engine is bound to one of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

# OpenVINO binds threads by default, in each process to the first core: two workers would share it.
DRAWS = """
import os, sys, threading
from pathlib import Path
from anonymix_keystore import KeyFileUnlock, Keystore
from anonymix_plugin import Anonymixer
from anonymix_plugin.options import MixerOptions

folder, photo = map(Path, sys.argv[1:])
unlock = KeyFileUnlock.generate(folder / "key")
seen, done = set(), threading.Event()

def look():
    while not done.wait(0.002):
        for thread in Path("/proc/self/task").iterdir():
            try:
                seen.add(frozenset(os.sched_getaffinity(int(thread.name))))
            except (OSError, ProcessLookupError):
                pass

with Keystore.create(folder / "keys.db", unlock) as keys, Anonymixer(keys, MixerOptions(threads=1)) as mixer:
    watch = threading.Thread(target=look)
    watch.start()
    for _ in range(3):
        mixer.protect(photo, subject=None)
    done.set()
    watch.join()
assert seen == {frozenset(os.sched_getaffinity(0))}, sorted(map(sorted, seen))
"""


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system does not say where a thread may run")
@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one core")
def test_no_thread_is_bound_to_a_core_while_faces_are_drawn(tmp_path: Path) -> None:
    photo = Path(__file__).parents[1] / "people" / "alex_1.jpg"
    command = [sys.executable, "-c", DRAWS, tmp_path, photo]
    ended = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
