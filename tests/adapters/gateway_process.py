"""A gateway as a process of its own, in front of an upstream that keeps what it is sent."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2
from patience import PATIENCE, eventually, reserved_port

from anonymix_adapters.gateway import Tokens
from anonymix_keystore import Argon2Cost, Keystore, PassphraseUnlock

HERE = Path(__file__).parent
PASSPHRASE = "swordfish"


class _Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.server.bodies.append(self.rfile.read(int(self.headers["content-length"])))  # type: ignore[attr-defined]
        body = json.dumps({"image_id": str(uuid4()), "subject": "x", "result": []}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the library's name
        pass


class Process:
    """A gateway with a store of its own, open in this process as well.

    Args:
        folder: An empty folder.
        options: Of the command.
        environment: Besides.
    """

    def __init__(self, folder: Path, *options: str, tls: bool = False, **environment: str) -> None:
        cheap = Argon2Cost(memory_kib=8_192, passes=1, lanes=1)
        unlock = PassphraseUnlock(PASSPHRASE, cost=cheap)
        path = folder / "keystore.db"
        self.keystore = Keystore.open(path, unlock) if path.exists() else Keystore.create(path, unlock)
        self.tokens = Tokens(folder / "tokens.json")
        self.token, _ = self.tokens.create(("probe", "enrol", "administer", "audit"))
        self._upstream = ThreadingHTTPServer(("127.0.0.1", 0), _Answers)
        self.bodies: list[bytes] = []
        self._upstream.bodies = self.bodies  # type: ignore[attr-defined]
        threading.Thread(target=self._upstream.serve_forever, args=[0.05], daemon=True).start()
        self.port = reserved_port()
        self.url = f"http{'s' if tls else ''}://127.0.0.1:{self.port}"
        reading, writing = os.pipe()
        os.write(writing, PASSPHRASE.encode() + b"\n")
        os.close(writing)
        given = ["--upstream", f"http://127.0.0.1:{self._upstream.server_address[1]}", "--port", str(self.port)]
        given += ["--tokens", str(self.tokens.path), "--passphrase-fd", str(reading), *options]
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "quick_gateway.py"), *given],
            env=os.environ | {"ANONYMIX_KEYSTORE": str(path)} | environment,
            stderr=subprocess.PIPE,
            text=True,
            pass_fds=[reading],
        )
        os.close(reading)
        self.said: list[str] = []
        self.metrics, self.figures = "", 0
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        assert self.process.stderr is not None
        self.said.extend(self.process.stderr)

    def client(self, **how: Any) -> httpx2.Client:
        headers = {"authorization": f"Bearer {self.token}", "x-api-key": "key-not-real"}
        return httpx2.Client(base_url=self.url, headers=headers, timeout=PATIENCE, trust_env=False, **how)

    def ready(self, workers: int = 1, **how: Any) -> Process:
        """Wait until it answers, and so do all of its workers."""
        with self.client(**how) as client:

            def answers() -> bool:
                with suppress(httpx2.HTTPError):
                    ready = client.get("/v1/readyz").status_code == 200
                    return ready and (workers == 1 or len(self.workers()) >= workers)
                return False

            eventually(lambda: self.process.poll() is not None or answers())
            assert self.process.poll() is None, "".join(self.said)
            assert answers(), "".join(self.said)
        return self

    def workers(self) -> list[int]:
        """The processes below it."""
        pid = self.process.pid
        return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def end(self, how: signal.Signals = signal.SIGTERM) -> str:
        """End it; what it said."""
        if self.process.poll() is None:
            self.process.send_signal(how)
        self.process.wait(PATIENCE)
        self._listener.join(PATIENCE)
        return "".join(self.said)

    def close(self) -> None:
        with suppress(subprocess.TimeoutExpired):
            self.end()
        if self.process.poll() is None:
            self.process.kill()
        self._listener.join(PATIENCE)
        assert self.process.stderr is not None
        self.process.stderr.close()
        self._upstream.shutdown()
        self._upstream.server_close()
        self.keystore.close()

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
