"""Bulk work on Ray: the same bytes, whatever dies, and no key where Ray keeps things. Run by `make test-ray`."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.ray, pytest.mark.filterwarnings("ignore")]
ray = pytest.importorskip("ray", reason="runs in the environment of `make test-ray`")
STUBS = Path(__file__).parents[1] / "bulk"
sys.path.insert(0, str(STUBS))
os.environ["PYTHONPATH"] = os.pathsep.join([*sys.path])  # Ray's processes find what this one finds
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

import bulk_stub  # noqa: E402 - of tests/bulk
import pyarrow as pa  # noqa: E402
from bulk_stub import PHOTOS, contents  # noqa: E402
from PIL import Image  # noqa: E402
from pyarrow import parquet  # noqa: E402

from anonymix_keystore import KeyFileUnlock, Keystore  # noqa: E402
from anonymix_plugin import Anonymixer, bulk  # noqa: E402
from anonymix_plugin.bulk import BulkError, Cluster, Progress  # noqa: E402
from anonymix_plugin.cli import main  # noqa: E402
from anonymix_plugin.errors import OutputError  # noqa: E402


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return bulk_stub.photos_in(tmp_path / "source")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return bulk_stub.store_at(tmp_path / "keys.db")


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("anonymix_plugin.bulk._driver.Worker", bulk_stub.StubWorker)


def added(machines: Any, **options: Any) -> Any:
    """A node; Ray gives one 30 seconds to start, which a machine with much to do may not make."""
    for _ in range(3):
        with suppress(Exception):
            return machines.add_node(**options)
    return machines.add_node(**options)


@contextmanager
def two_nodes(cpus: int = 1) -> Iterator[Any]:
    """A cluster of two machines on this one; `first` and `second` are its nodes."""
    from ray.cluster_utils import Cluster as Machines

    made = Machines()
    try:
        made.first = added(made, num_cpus=cpus, include_dashboard=False)
        made.second = added(made, num_cpus=cpus)
        made.wait_for_nodes()
        yield made
    finally:
        ray.shutdown()
        made.shutdown()


def memory_of(process: int) -> bytes:
    """All that a process has in its memory, the object store included."""
    found = []
    with suppress(OSError), Path(f"/proc/{process}/mem").open("rb", 0) as memory:
        for line in Path(f"/proc/{process}/maps").read_text().splitlines():
            span, rights, *_ = line.split()
            start, end = (int(place, 16) for place in span.split("-"))
            if rights.startswith("rw"):
                with suppress(OSError, OverflowError, ValueError):
                    memory.seek(start)
                    found.append(memory.read(min(end - start, 1 << 28)))
    return b"".join(found)


def processes(words: tuple[str, ...]) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError, ValueError):
            command = (entry / "cmdline").read_bytes().decode("utf-8", "replace")
            if any(word in command for word in words):
                found.append(int(entry.name))
    return found


def test_the_command_gives_the_bytes_of_protect_and_no_key_lies_about(
    tmp_path: Path,
    portraits: Path,
    model: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in ("mobilestylegan", "yunet", "arcface-mbf", "sface"):
        model(name)
    monkeypatch.setenv("ANONYMIX_KEYSTORE", str(tmp_path / "keys.db"))
    monkeypatch.setenv("ANONYMIX_KEYFILE", str(tmp_path / "keys.key"))
    for person in ("001", "002", "003"):
        folder = tmp_path / "photos" / person
        folder.mkdir(parents=True)
        for photo in (f"{person}_neutral", f"{person}_smiling"):
            with Image.open(portraits / f"{photo}.jpg") as picture:
                picture.save(folder / f"{photo}.png")
    with Keystore.create(tmp_path / "keys.db", KeyFileUnlock.generate(tmp_path / "keys.key")) as keys:
        issued = [keys.issue(person) for person in ("001", "002", "003")]
        keys.originals.enable(KeyFileUnlock.generate(tmp_path / "second.key"))
        keys.references.enable()
    monkeypatch.setenv("ANONYMIX_SECOND_KEYFILE", str(tmp_path / "second.key"))
    shutil.copyfile(tmp_path / "keys.db", tmp_path / "other.db")
    alone = ["protect", str(tmp_path / "photos"), "--subjects-from-folders", "--enrol"]
    assert main([*alone, "--keystore", str(tmp_path / "other.db"), "-o", str(tmp_path / "one")]) == 0
    # The photos are in the table, and large, so that tasks go through the object store and not by a message.
    paths = sorted((tmp_path / "photos").glob("*/*.png"))
    originals = [path.read_bytes() for path in paths]
    photos = str(tmp_path / "photos.parquet")
    parquet.write_table(pa.table({"subject": [path.parent.name for path in paths], "photo": originals}), photos)
    seen: list[bytes] = []
    with two_nodes() as machines:
        command = [
            "bulk",
            "protect",
            photos,
            "--enrol",
            "-o",
            str(tmp_path / "many"),
            "--block",
            "3",
            "--ray",
            machines.address,
        ]
        assert main(command) == 2  # and not: a job that waits for good
        assert "--workers" in capsys.readouterr().err
        assert main([*command, "--workers", "3"]) == 1
        assert "have room for 2" in capsys.readouterr().err
        control, held = secrets.token_hex(16).encode(), []

        def look(progress: Progress) -> None:
            if progress.done == 1:  # both tasks are in hand
                held.append(ray.put(control * 8_000))  # what lies in the object store is found there
                others = set(processes(("raylet", "gcs_server", "ray::", "agent"))) - set(progress.workers)
                seen.extend(memory_of(each) for each in others)

        monkeypatch.setattr("anonymix_plugin.cli.bulk_work.Bar.show", lambda *_: None)
        original = __import__("anonymix_plugin.bulk", fromlist=["x"]).protect_in_bulk

        def watched(*given: Any, progress: Callable[[Progress], None]) -> Any:
            return original(*given, progress=lambda it: (look(it), progress(it)))

        monkeypatch.setattr("anonymix_plugin.bulk.protect_in_bulk", watched)
        assert main([*command, "--workers", "2"]) == 0, capsys.readouterr()
        session = Path(machines.first.get_session_dir_path())
        seen += [path.read_bytes() for path in session.rglob("*") if path.is_file()]
        shared = Path("/dev/shm")  # noqa: S108 - looked at, not written
        seen += [path.read_bytes() for path in shared.rglob("*") if path.is_file()]
    made = contents(tmp_path / "many")
    made.pop("outcomes.csv")
    assert sorted(made.values()) == sorted(contents(tmp_path / "one").values())
    assert len(made) == 6
    assert any(control in each for each in seen), "the search would find nothing"
    with Anonymixer.open(tmp_path / "keys.db") as mixer:
        how = {"fingerprint": mixer.guided_fingerprint, "subspace": mixer.subspace}
        codes = [mixer.keystore.references.read(key, **how) for key in issued]  # type: ignore[attr-defined]
    hidden = [*codes, *(key.material for key in issued)]
    secret = [form for each in hidden for form in (each, each.hex().encode())]
    secret += [photo[len(photo) // 2 :][:64] for photo in originals]
    for each in secret:
        assert not any(each in found for found in seen), (
            "a key, a photo or a reference lies in clear where Ray keeps things"
        )


@pytest.mark.usefixtures("stub")
def test_killed_actors_and_a_killed_machine_cost_nothing(tmp_path: Path, source: Path, store: Path) -> None:
    whole = bulk_stub.drive(source, store, tmp_path / "whole", workers=1)
    killed: list[int] = []
    with two_nodes() as machines:

        def kill(progress: Progress) -> None:
            if progress.done in {4, 11} and len(killed) < 2:
                victim = next(each for each in progress.workers if each and each not in killed)
                killed.append(victim)
                os.kill(victim, signal.SIGKILL)
            if progress.done >= 20 and len(killed) == 2:
                killed.append(0)
                machines.remove_node(machines.second, allow_graceful=False)

        summary = bulk_stub.drive(
            source, store, tmp_path / "killed", progress=kill, cluster=Cluster(machines.address), patience=60.0
        )
    assert len(killed) == 3
    assert summary == whole
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


@pytest.mark.usefixtures("stub")
def test_a_killed_head_ends_the_job_and_the_same_command_goes_on_with_another_cluster_and_with_none(
    tmp_path: Path, source: Path, store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in sorted(source.iterdir())[12:]:
        path.write_bytes(b"slow %d" % int(path.stem))
    rows = "".join(f"{row.subject},{row.source}\n" for row in bulk_stub.rows_of(source))
    (tmp_path / "table.csv").write_text(f"subject,photo\n{rows}")
    monkeypatch.setenv("ANONYMIX_KEYSTORE", str(store))
    monkeypatch.setenv("ANONYMIX_KEYFILE", str(store.with_suffix(".key")))
    monkeypatch.setattr("anonymix_plugin.bulk._actors._HEAD_SILENCE", 5.0)
    command = ["bulk", "protect", str(tmp_path / "table.csv"), "--block", "5", "--workers", "2", "-o"]
    assert main([*command, str(tmp_path / "whole")]) == 0
    target = tmp_path / "killed"
    with two_nodes() as machines:
        original = bulk.protect_in_bulk

        def kill(progress: Progress) -> None:
            if progress.done == 12:
                dead = [each.process.pid for many in machines.first.all_processes.values() for each in many]
                for process in [*dead, progress.workers[0]]:
                    os.kill(process, signal.SIGKILL)

        monkeypatch.setattr(bulk, "protect_in_bulk", lambda *given, **_: original(*given, progress=kill))
        assert main([*command, str(target), "--ray", machines.address]) == 1
        told = capsys.readouterr().err
        assert "the head of the Ray cluster can't be reached any more" in told
        assert "the same command goes on" in told
        monkeypatch.setattr(bulk, "protect_in_bulk", original)
    written = set(contents(target))
    assert 10 <= len(written) < PHOTOS
    with two_nodes() as machines:
        assert main([*command, str(target), "--ray", machines.address, "--limit", "10"]) == 0
    assert written < set(contents(target))
    assert main([*command, str(target)]) == 0
    assert contents(target) == contents(tmp_path / "whole")


@pytest.mark.usefixtures("stub")
def test_a_photo_that_kills_ends_itself_and_a_full_disk_loses_nothing(
    tmp_path: Path, source: Path, store: Path
) -> None:
    (source / "007.jpg").write_bytes(b"poison")
    target = tmp_path / "small"
    target.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=90k", "tmpfs", str(target)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("needs the right to mount a small disk")
    try:
        with pytest.raises(OutputError):
            bulk_stub.drive(source, store, target, cluster=Cluster())
        subprocess.run(["mount", "-o", "remount,size=20m", str(target)], check=True)
        summary = bulk_stub.drive(source, store, target, cluster=Cluster())
        assert (summary.made, summary.failed, summary.finished) == (PHOTOS - 1, 1, True)
        assert "worker_died" in (target / "outcomes.csv").read_text()
    finally:
        subprocess.run(["umount", str(target)], check=True)


@pytest.mark.usefixtures("stub")
def test_a_killed_driver_goes_on_and_leaves_no_worker(tmp_path: Path, source: Path, store: Path) -> None:
    bulk_stub.drive(source, store, tmp_path / "whole", workers=1)
    workers = ("raylet/raylet", "gcs_server", "ray::Actor")  # two of Ray's own agents stay for some minutes
    before, others = set(processes(workers)), set(processes(("ray::",)))
    command = [sys.executable, bulk_stub.__file__, str(source), str(store), str(tmp_path / "killed"), "ray"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as driver:
        assert driver.stdout is not None
        for _ in range(12):
            driver.stdout.readline()
        driver.kill()
    until = time.monotonic() + 60
    while set(processes(workers)) - before and time.monotonic() < until:
        time.sleep(0.2)
    assert not set(processes(workers)) - before
    for agent in set(processes(("ray::",))) - others:
        with suppress(ProcessLookupError):
            os.kill(agent, signal.SIGTERM)
    bulk_stub.drive(source, store, tmp_path / "killed")  # without Ray: it is the same job
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


def test_what_is_no_cluster_is_told(tmp_path: Path, source: Path, store: Path) -> None:
    with pytest.raises(BulkError, match="can't be reached or started: ConnectionRefusedError"):
        bulk_stub.drive(source, store, tmp_path / "out", cluster=Cluster("127.0.0.1:1"))
