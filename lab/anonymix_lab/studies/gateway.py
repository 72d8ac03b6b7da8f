"""The gateway under load, as a process of its own, beside the library's own call for the same photo."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import numpy as np

from anonymix_keystore import KeyFileUnlock, Keystore
from anonymix_plugin import Anonymixer
from anonymix_plugin.errors import AnonymixError

_TICKS: Final = os.sysconf("SC_CLK_TCK")
_WARM: Final = 4
_PAUSE: Final = 2.0


@dataclass(frozen=True)
class Load:
    """What a load found.

    Attributes:
        clients: How many asked at once.
        seconds: For how long.
        answers: Answers by status.
        p50: Median latency of the answers with status 200, milliseconds.
        p99: The same for 99 in a hundred.
        cpu_ms: Seconds of the processor a request in the gateway, in thousandths.
        library_ms: The same for the library's own call, in a process beside it, meanwhile.
        memory_mb: Resident memory of the gateway after a quarter of the time, and at the end.
    """

    clients: int
    seconds: float
    answers: dict[str, int]
    p50: float
    p99: float
    cpu_ms: float
    library_ms: float
    memory_mb: tuple[float, float]

    @property
    def cpu_ratio(self) -> float:
        """The gateway's processor time a request over the library's."""
        return self.cpu_ms / self.library_ms


@dataclass(frozen=True)
class Kills:
    """What was left after kill -9 in the middle.

    Attributes:
        kills: How often.
        acknowledged: Enrolments that a client was told of.
        lost: Those of them that the keystore does not hold.
    """

    kills: int
    acknowledged: int
    lost: int


class _Answers(BaseHTTPRequestHandler):
    """An upstream that is always there and does nothing."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """Answer as CompreFace would."""
        self.rfile.read(int(self.headers.get("content-length", "0")))
        enrols = "/recognition/faces" in self.path
        content: dict[str, Any] = {"image_id": str(uuid4()), "subject": "somebody"} if enrols else {"result": []}
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the library's name
        """Say nothing."""


class Rig:
    """A keystore, an upstream, and a gateway process that can be started again.

    Args:
        folder: For the keystore; empty.
    """

    def __init__(self, folder: Path) -> None:
        self._upstream = ThreadingHTTPServer(("127.0.0.1", 0), _Answers)
        threading.Thread(target=self._upstream.serve_forever, daemon=True).start()
        self.store, self.key = folder / "keystore.db", folder / "key"
        self.unlock = KeyFileUnlock.generate(self.key)
        with Keystore.create(self.store, self.unlock) as made:
            made.gallery()
        self._environment = os.environ | {"ANONYMIX_KEYFILE": str(self.key), "ANONYMIX_KEYSTORE": str(self.store)}
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> subprocess.Popen[bytes]:
        """Start the gateway, and wait until it is ready.

        Raises:
            AnonymixError: It ended, or was not ready within a minute.
        """
        import httpx2

        upstream = f"http://127.0.0.1:{self._upstream.server_address[1]}"
        command = [sys.executable, "-m", "anonymix_plugin", "gateway", "--upstream", upstream]
        self.process = subprocess.Popen(  # noqa: S603 - our own program
            [*command, "--port", str(self.port)], env=self._environment, stderr=subprocess.DEVNULL
        )
        for _ in range(600):
            if self.process.poll() is not None:
                break
            try:
                if httpx2.get(f"http://127.0.0.1:{self.port}/v1/readyz", timeout=5).status_code == 200:
                    return self.process
            except httpx2.HTTPError:
                time.sleep(0.1)
        raise AnonymixError("the gateway did not start", where=" ".join(command[1:4]), fix="run it by hand")

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End the gateway."""
        if self.process is not None:
            self.process.send_signal(how)
            self.process.wait(60)
            self.process = None

    def close(self) -> None:
        """End everything."""
        if self.process is not None and self.process.poll() is None:
            self.stop()
        self._upstream.shutdown()
        self._upstream.server_close()


@contextmanager
def rig(folder: Path) -> Iterator[Rig]:
    """A rig for a block."""
    made = Rig(folder)
    try:
        yield made
    finally:
        made.close()


def load(made: Rig, photo: bytes, *, clients: int, seconds: float) -> Load:
    """Have clients send the same photo for a search, each as soon as it has its answer or the wait it is told.

    A process beside the gateway makes the library's own call for the same photo all the while, with a pause after
    each: what the machine is busy with weighs on both.
    """
    process = made.start()
    answers: Counter[str] = Counter()
    took: list[float] = []
    lock = threading.Lock()
    with _library(made, photo) as library, ThreadPoolExecutor(_WARM) as pool:
        list(pool.map(lambda _: _ask(made.port, photo), range(_WARM)))  # the first faces of each thread are slower
        library()
        before, end = _cpu(process.pid), time.monotonic() + seconds
        memory: list[float] = []

        def client() -> None:
            import httpx2

            with httpx2.Client(timeout=60, trust_env=False) as http:
                while time.monotonic() < end:
                    start = time.monotonic()
                    status, wait = _one(http, made.port, photo)
                    with lock:
                        answers[status] += 1
                        if status == "200":
                            took.append(time.monotonic() - start)
                    time.sleep(wait)

        threads = [threading.Thread(target=client) for _ in range(clients)]
        for each in threads:
            each.start()
        for share in (0.25, 1.0):
            time.sleep(max(0.0, end - seconds * (1 - share) - time.monotonic()))
            memory.append(_memory(process.pid))
        for each in threads:
            each.join()
        cpu, alone = (_cpu(process.pid) - before) / max(1, answers["200"]), library()
    made.stop()
    p50, p99 = (float(np.percentile(took, q)) * 1000 if took else 0.0 for q in (50, 99))
    return Load(clients, seconds, dict(answers), p50, p99, cpu * 1000, alone * 1000, (memory[0], memory[1]))


def kills(made: Rig, photo: bytes, *, times: int) -> Kills:
    """Kill the gateway in the middle of enrolments, and look for what was acknowledged."""
    import httpx2

    told: list[str] = []
    for turn in range(times):
        made.start()
        stopped = threading.Event()

        def enrol(stopped: threading.Event = stopped) -> None:
            with httpx2.Client(timeout=10, trust_env=False) as http:
                while not stopped.is_set():
                    try:
                        answer = http.post(
                            f"http://127.0.0.1:{made.port}/api/v1/recognition/faces",
                            params={"subject": f"p{uuid4().hex[:8]}"},
                            files={"file": ("a.jpg", photo)},
                            headers={"x-api-key": "k"},
                        )
                        if answer.status_code == 200:
                            told.append(answer.json()["image_id"])
                    except httpx2.HTTPError:
                        return

        threads = [threading.Thread(target=enrol) for _ in range(2)]
        for each in threads:
            each.start()
        known, patience = len(told), time.monotonic() + 30
        while len(told) < known + 1 and time.monotonic() < patience:
            time.sleep(0.01)
        time.sleep(turn % 10 * 0.03)  # at another point of the next enrolments each time
        made.stop(signal.SIGKILL)
        stopped.set()
        for each in threads:
            each.join()
    with Keystore.open(made.store, made.unlock) as store:
        held = {item.external_id for item in store.enrolments()}
    return Kills(times, len(told), len(set(told) - held))


@contextmanager
def _library(made: Rig, photo: bytes) -> Iterator[Callable[[], float]]:
    """A process that makes the library's own call again and again.

    Yields:
        What tells the seconds of the processor that a call took, the mean of those since it was last asked.
    """
    spawn = multiprocessing.get_context("spawn")
    mine, theirs = spawn.Pipe()
    process = spawn.Process(target=_calls, args=(theirs, made.store, made.key, photo), daemon=True)
    process.start()

    def asked() -> float:
        mine.send("how long")
        found: float = mine.recv()
        return found

    try:
        asked()  # it is ready
        yield asked
    finally:
        process.terminate()
        process.join()


def _calls(asked: Connection, store: Path, key: Path, photo: bytes) -> None:
    with Keystore.open(store, KeyFileUnlock(key)) as keystore, Anonymixer(keystore) as mixer:
        mixer.protect(photo)
        spent, count = 0.0, 0
        while True:
            start = time.process_time()
            mixer.protect(photo)
            spent, count = spent + time.process_time() - start, count + 1
            if asked.poll(_PAUSE):
                asked.recv()
                asked.send(spent / count)
                spent, count = 0.0, 0


def _one(http: Any, port: int, photo: bytes) -> tuple[str, float]:
    import httpx2

    try:
        answer = http.post(
            f"http://127.0.0.1:{port}/api/v1/recognition/recognize",
            files={"file": ("a.jpg", photo)},
            headers={"x-api-key": "k"},
        )
    except httpx2.HTTPError as error:
        return type(error).__name__, 0.1
    return str(answer.status_code), float(answer.headers.get("retry-after", 0))


def _ask(port: int, photo: bytes) -> None:
    import httpx2

    with httpx2.Client(timeout=60, trust_env=False) as http:
        _one(http, port, photo)


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _memory(pid: int) -> float:
    """Resident memory in megabytes."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1024
