"""Several processes on one store: one gateway, whoever of them answers."""

from __future__ import annotations

import base64
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import httpx2
import pytest
from gateway_process import HERE, Process
from patience import PATIENCE, eventually, reserved_port

from anonymix_adapters.gateway.shared import AnotherRequestError, Shared
from anonymix_plugin.errors import ConfigurationError

pytestmark = pytest.mark.services
PHOTO = (Path(__file__).parents[1] / "people" / "alex_1.jpg").read_bytes()
TEXT = base64.b64encode(PHOTO).decode()
ENROL = "/api/v1/recognition/faces"


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    port = reserved_port()
    options = ("--workers", "2", "--threads", "16", "--waiting", "64")
    options += ("--callers", "anyone", "--metrics-port", str(port))
    folder = tmp_path_factory.mktemp("two")
    with Process(folder, *options, QUICK_SECONDS="0.1", QUICK_HOLD=str(folder / "hold")) as made:
        made.metrics = f"http://127.0.0.1:{port}/metrics"
        yield made.ready(3)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def gone(pids: list[int]) -> bool:
    return eventually(lambda: not any(map(alive, pids)))


def test_a_key_that_is_rotated_counts_in_all_workers_within_the_stated_second(two: Process) -> None:
    def version(_: int = 0) -> int:
        with two.client() as client:  # a connection of its own, so that either worker may take it
            answer = client.post("/v1/protect", json={"image": TEXT, "subject": "alice"})
            return int(answer.json()["key_version"])

    two.keystore.issue("alice")
    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(version, range(12))) == {1}
        two.keystore.rotate("alice", reason="breach")
        time.sleep(1.0)
        assert set(pool.map(version, range(24))) == {2}


def test_an_idempotency_key_is_that_of_all_workers_and_nothing_can_be_read_in_its_file(two: Process) -> None:
    asked = {"image": TEXT, "subject": "bob", "collection": "door", "external_id": "e1"}

    def enrol(_: int) -> httpx2.Response:
        with two.client() as client:
            return client.post("/v1/enrol", json=asked, headers={"idempotency-key": "seventh-floor"})

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(enrol, range(16)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.content for answer in answers}) == 1
    assert len([line for line in two.keystore.audit() if line["action"] == "enrol"]) == 1
    file = two.tokens.path.with_name("gateway-shared.db")
    assert file.stat().st_mode & 0o077 == 0
    content = file.read_bytes() + file.with_name(f"{file.name}-wal").read_bytes()
    assert len(content) > len(answers[0].content)
    for secret in (b"bob", b"127.0.0.1", base64.b64decode(answers[0].json()["image"])[500:600], b"door", b"seventh"):
        assert secret not in content


@pytest.mark.parametrize("kills", [1, pytest.param(50, marks=pytest.mark.long)])
def test_workers_that_are_killed_lose_nothing_that_was_acknowledged_and_are_replaced(kills: int, two: Process) -> None:
    told: list[str] = []
    failed: list[str] = []
    stop = threading.Event()

    def enrol(number: int) -> None:
        with two.client() as client:
            turn = 0
            while not stop.is_set():
                turn += 1
                params = {"subject": f"k{kills}-{number}-{turn}"}
                try:
                    answer = client.post(ENROL, params=params, files={"file": ("a.jpg", PHOTO)})
                except httpx2.HTTPError as error:
                    failed.append(type(error).__name__)
                    continue
                if answer.status_code == 200:
                    told.append(answer.json()["image_id"])
                else:
                    failed.append(str(answer.status_code))

    def enrol_until_told() -> None:
        """Repeats each enrolment under its key until it is acknowledged, and once more."""
        with two.client() as client:
            turn = 0
            while not stop.is_set():
                turn += 1
                name = f"v{kills}-{turn}"
                asked = {"image": TEXT, "subject": name, "collection": "door", "external_id": name}
                answers: list[bytes] = []
                while len(answers) < 2 and not stop.is_set():
                    try:
                        answer = client.post("/v1/enrol", json=asked, headers={"idempotency-key": name})
                    except httpx2.HTTPError:
                        continue
                    if answer.status_code == 200:
                        answers.append(answer.content)
                        told.append(name)
                if len(set(answers)) > 1:
                    failed.append("two answers under one key")

    figures = max(two.workers()) if kills == 1 else two.figures
    two.figures = figures  # the process that serves figures was started last
    threads = [threading.Thread(target=enrol, args=[number]) for number in range(4)]
    threads.append(threading.Thread(target=enrol_until_told))
    for each in threads:
        each.start()
    killed = set()
    for turn in range(kills):
        time.sleep(0.3 + turn % 10 * 0.03)  # at another point of the enrolments each time
        found = [pid for pid in two.workers() if pid != figures]
        killed.add(found[turn % len(found)])
        os.kill(found[turn % len(found)], signal.SIGKILL)
        before = len(told)
        enough = partial(lambda least: len(two.workers()) >= 3 and len(told) >= least, before + 8)
        assert eventually(enough), "the other worker goes on"
    stop.set()
    for each in threads:
        each.join()
    assert set(failed) <= {"RemoteProtocolError", "ReadError", "WriteError", "ConnectError"}
    assert len(failed) <= 4 * kills, "those who were being answered by the one that died"
    assert len(killed) == kills
    assert not killed & set(two.workers())
    assert set(told) <= {item.external_id for item in two.keystore.enrolments()}
    assert two.keystore.verify().findings == ()
    assert PHOTO[2000:2400] not in b"".join(two.bodies)


def test_figures_are_those_of_all_workers_and_what_was_accepted_is_answered_at_the_end(two: Process) -> None:
    def count() -> float:
        found = re.findall(r'requests_total{call="/v1/protect".*status="200"} ([\d.]+)', httpx2.get(two.metrics).text)
        return sum(map(float, found))

    def protect(_: int) -> int:
        with two.client() as client:
            return client.post("/v1/protect", json={"image": TEXT}).status_code

    pids, before, hold = [two.process.pid, *two.workers()], count(), two.tokens.path.with_name("hold")
    with ThreadPoolExecutor(16) as pool:
        assert set(pool.map(protect, range(8))) == {200}
        assert count() == before + 8
        hold.mkdir()
        under_way = [pool.submit(protect, number) for number in range(16)]
        assert eventually(lambda: len(list(hold.iterdir())) == 16)
        two.process.send_signal(signal.SIGTERM)
        hold.rename(hold.with_name("held"))
        two.process.wait(PATIENCE)
        said = two.end()
        assert [each.result() for each in under_way] == [200] * 16
    assert two.process.returncode == 0
    assert gone(pids)
    assert "Traceback" not in said


def test_a_rate_is_that_of_all_processes_and_an_answer_outlives_them(tmp_path: Path) -> None:
    first, second = Shared(tmp_path / "shared.db"), Shared(tmp_path / "shared.db")
    waits = [each.take("door", 0.5, 5.0) for _ in range(4) for each in (first, second)]
    assert [wait > 0 for wait in waits] == [False] * 5 + [True] * 3
    assert max(waits) <= 2
    assert second.take("window", 0.5, 5.0) == 0
    first.remember(b"name", b"request", b"answer")
    first.close()
    assert second.recall(b"name", b"request") == b"answer"
    assert second.recall(b"other", b"request") is None
    with pytest.raises(AnotherRequestError):
        second.recall(b"name", b"another")
    second.close()


@pytest.mark.long
def test_workers_end_with_the_process_that_looks_after_them(tmp_path: Path) -> None:
    with Process(tmp_path, "--workers", "2") as made:
        pids = made.ready(2).workers()
        made.process.kill()
        assert gone(pids)


@pytest.mark.long
def test_workers_that_can_not_start_end_all(tmp_path: Path) -> None:
    with Process(tmp_path):
        pass
    environment = os.environ | {"ANONYMIX_KEYSTORE": str(tmp_path / "keystore.db"), "ANONYMIX_PASSPHRASE": "wrong"}
    port = str(reserved_port())
    command = [sys.executable, str(HERE / "quick_gateway.py"), "--workers", "2", "--port", port]
    ended = subprocess.run(command, check=False, env=environment, capture_output=True, text=True, timeout=PATIENCE)
    assert ended.returncode == 1


def test_a_memory_that_can_not_be_used_is_told(tmp_path: Path) -> None:
    (tmp_path / "shared.db").write_bytes(b"this is no database" * 100)
    with pytest.raises(ConfigurationError, match="can't be used"):
        Shared(tmp_path / "shared.db").take("x", 1, 1)
