"""Fetching: the real pip, wheels made here, and everything that can go wrong in between."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from patience import eventually

from anonymix_plugin.errors import DownloadError, UsageError
from anonymix_plugin.models import PullEvent, _pip, _pull, _unpack, locate, pull
from anonymix_plugin.models._lock import exclusive


def _never_run(*_):
    raise AssertionError("pip was started")


def test_a_pull_places_the_named_files_and_nothing_else(index):
    index.add("toy", {"a.bin": b"aa", "b.bin": b"bb" * 3_000_000}, **{"toy/photo.jpg": b"private"})
    results = pull(["toy"])
    assert [(result.name, result.status) for result in results] == [("toy", "fetched")]
    assert index.placed() == {"models/toy/a.bin": b"aa", "models/toy/b.bin": b"bb" * 3_000_000}


def test_a_second_pull_touches_neither_network_nor_disk(index, monkeypatch):
    index.add("toy", {"a.bin": b"aa"})
    pull(["toy"])
    before = {path: path.stat().st_mtime_ns for path in index.home.rglob("*")}
    monkeypatch.setattr(_pip, "_run", _never_run)
    assert [result.status for result in pull(["toy"])] == ["present"]
    assert {path: path.stat().st_mtime_ns for path in index.home.rglob("*")} == before


def test_models_of_one_wheel_are_fetched_at_once(index):
    one, two = {"a.bin": b"aa"}, {"b.bin": b"bb"}
    wheel = index.wheel("shared", {"toy/a.bin": b"aa", "toy/b.bin": b"bb"})
    index.register("one", wheel, one)
    index.register("two", wheel, two)
    pull(["one", "two", "one"])
    assert len(index.downloads) == 1
    assert set(index.placed()) == {"models/one/a.bin", "models/two/b.bin"}


def test_only_what_is_missing_is_fetched(index):
    index.add("old", {"a.bin": b"aa"})
    index.add("new", {"a.bin": b"bb"})
    pull(["old"])
    assert [result.status for result in pull(["old", "new"])] == ["present", "fetched"]
    assert len(index.downloads) == 2


def test_a_damaged_file_is_fetched_again(index):
    index.add("toy", {"a.bin": b"weights"})
    pull(["toy"])
    locate("toy").write_bytes(b"broken!")
    assert [result.status for result in pull(["toy"])] == ["fetched"]
    assert locate("toy").read_bytes() == b"weights"


def test_nothing_of_a_package_is_run(index, tmp_path):
    trap = tmp_path / "ran"
    code = f"open({str(trap)!r}, 'w').close()\n".encode()
    index.add("toy", {"a.bin": b"aa"}, **{"toy/__init__.py": code, "setup.py": code, "toypkg.pth": code})
    pull(["toy"])
    assert not trap.exists()
    assert "toy" not in sys.modules


def test_a_pip_in_the_current_folder_is_not_taken_for_pip(index, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("pip.py").write_text("raise SystemExit('the wrong pip')")
    index.add("toy", {"a.bin": b"aa"})
    assert pull(["toy"])[0].status == "fetched"


def test_a_wheel_that_is_not_the_pinned_one_is_refused(index):
    entry = index.add("toy", {"a.bin": b"aa"})
    index.wheel("toypkg", {"toy/a.bin": b"aa", "toy/more": b"!"})
    with pytest.raises(DownloadError, match=entry.wheel.sha256):
        pull(["toy"])
    assert index.placed() == {}


def test_a_wheel_is_hashed_even_if_pip_does_not_mind(index, monkeypatch):
    entry = index.add("toy", {"a.bin": b"aa"})

    def careless(command, advance):
        (Path(command[-1]) / "toypkg-1.0-py3-none-any.whl").write_bytes(b"anything")
        return 0, []

    monkeypatch.setattr(_pip, "_run", careless)
    with pytest.raises(DownloadError, match=entry.wheel.sha256):
        pull(["toy"])
    assert index.placed() == {}


@pytest.mark.parametrize(
    ("inside", "complaint"),
    [
        ({"toy/a.bin": b"aa"}, "is not in the package"),
        ({"toy/a.bin": b"aa", "toy/b.bin": b"b?"}, "does not have the pinned SHA-256"),
        ({"toy/a.bin": b"aa", "toy/b.bin": b"b"}, "does not have the pinned SHA-256"),
        ({"toy/a.bin": b"aa", "toy/b.bin": bytes(50_000_000)}, "is larger than the pinned 2 bytes"),
    ],
)
def test_if_one_file_is_wrong_none_is_placed(index, inside, complaint):
    index.register("toy", index.wheel("toypkg", inside), {"a.bin": b"aa", "b.bin": b"bb"})
    with pytest.raises(DownloadError, match=complaint):
        pull(["toy"])
    assert index.placed() == {}


def test_a_package_that_can_not_be_found_is_named(index):
    index.add("toy", {"a.bin": b"aa"})
    (index.folder / "toypkg-1.0-py3-none-any.whl").unlink()
    with pytest.raises(DownloadError, match=r"toypkg 1\.0 could not be fetched.*index and proxy") as caught:
        pull(["toy"])
    assert caught.value.exit_code == 5
    assert index.placed() == {}


def test_a_python_without_pip_is_told_how_to_get_it(index, tmp_path, monkeypatch):
    bare = tmp_path / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", bare], check=True)
    monkeypatch.setattr(sys, "executable", str(bare / ("Scripts" if os.name == "nt" else "bin") / "python"))
    index.add("toy", {"a.bin": b"aa"})
    with pytest.raises(DownloadError, match="-m ensurepip"):
        pull(["toy"])


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device")])
def test_a_stop_while_writing_leaves_nothing_behind(index, monkeypatch, stop):
    index.add("toy", {"a.bin": b"aa", "b.bin": b"bb"})
    calls = []

    def fsync(_):
        calls.append(1)
        if len(calls) == 2:
            raise stop

    with monkeypatch.context() as patch:
        patch.setattr(_unpack.os, "fsync", fsync)
        with pytest.raises((KeyboardInterrupt, DownloadError)) as caught:
            pull(["toy"])
    if isinstance(stop, OSError):
        assert "no space is left" in str(caught.value)
    assert index.placed() == {}
    assert pull(["toy"])[0].status == "fetched"


def test_an_interrupt_ends_pip_too(monkeypatch):
    started = []
    popen = subprocess.Popen

    def remember(*args, **options):
        started.append(popen(*args, **options))
        return started[-1]

    def interrupt(done):
        assert done == 3
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess, "Popen", remember)
    endless = "import time; print('Progress 3 of 9', flush=True); time.sleep(3000)"
    with pytest.raises(KeyboardInterrupt):
        _pip._run([sys.executable, "-c", endless], interrupt)
    assert started[0].poll() is not None


def test_what_a_killed_process_left_behind_is_cleared_away(index):
    index.add("toy", {"a.bin": b"aa"})
    rest = index.home / "models" / ".partial" / "tmp123"
    rest.mkdir(parents=True)
    (rest / "toy-a.bin").write_bytes(b"a")
    pull(["toy"])
    assert index.placed() == {"models/toy/a.bin": b"aa"}


def test_pulls_at_once_fetch_once(index, monkeypatch):
    index.add("toy", {"a.bin": b"aa"})
    results, events = [], []
    run, others = _pip._run, PullEvent("waiting")
    monkeypatch.setattr(_pip, "_run", lambda *how: (eventually(lambda: events.count(others) == 2), run(*how))[1])
    threads = [threading.Thread(target=lambda: results.extend(pull(["toy"], progress=events.append))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [result.name for result in results] == ["toy"] * 3
    assert len(index.downloads) == 1
    assert events.count(others) == 2
    assert index.placed() == {"models/toy/a.bin": b"aa"}


def test_a_process_that_ends_lets_go_of_the_lock(tmp_path):
    path = tmp_path / "lock"
    hold = (
        "import sys, pathlib\nfrom anonymix_plugin.models._lock import exclusive\n"
        "with exclusive(pathlib.Path(sys.argv[1]), waiting=lambda: None):\n"
        "    print('held', flush=True)\n    sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", hold, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline() == "held\n"
        with (
            pytest.raises(DownloadError, match="another process"),
            exclusive(path, waiting=lambda: None, timeout=0.3),
        ):
            pass
        other.kill()
        other.wait()
        with exclusive(path, waiting=lambda: None, timeout=60):
            pass


def test_a_cache_that_can_not_be_written_is_named(index):
    index.add("toy", {"a.bin": b"aa"})
    index.home.write_text("a file where a folder should be")
    with pytest.raises(DownloadError, match="ANONYMIX_HOME"):
        pull(["toy"])


def test_progress_goes_from_nothing_to_the_whole_package(index, monkeypatch):
    entry = index.add("toy", {"a.bin": b"aa"})
    run = _pip._run

    def talkative(command, advance):
        advance(entry.wheel.size // 2)
        advance(entry.wheel.size + 5)
        return run(command, advance)

    monkeypatch.setattr(_pip, "_run", talkative)
    events = []
    pull(["toy"], progress=events.append)
    size = entry.wheel.size
    assert [event.done for event in events if event.stage == "downloading"][:3] == [0, size // 2, size]
    assert events[-1] == PullEvent("placed", "toypkg", size, size)


def test_without_names_the_core_is_pulled(monkeypatch):
    asked = []
    monkeypatch.setattr(_pull, "_is_wanting", lambda item: asked.append(item.name))
    assert {result.name for result in pull()} == {"mobilestylegan", "yunet", "arcface-mbf", "sface"}
    assert len(asked) == 4


def test_an_unknown_name_is_refused_before_anything_is_fetched(index):
    index.add("toy", {"a.bin": b"aa"})
    with pytest.raises(UsageError):
        pull(["toy", "nonsense"])
    assert index.downloads == []
