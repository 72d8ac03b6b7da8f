"""Two revisions side by side: a wheel in a folder of its own, this one, and processes that run on either."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import anonymix_keystore
import anonymix_plugin
from anonymix_plugin.errors import AnonymixError, UsageError

_WORKER = Path(__file__).with_name("_speed_worker.py")


@dataclass(frozen=True)
class Spent:
    """What something took: seconds by the clock, and of all processors together."""

    wall: float
    cpu: float


@dataclass(frozen=True)
class Side:
    """A revision.

    Attributes:
        folders: Where its packages lie; they come before all others on the path of its processes.
    """

    folders: tuple[Path, ...]

    @classmethod
    def here(cls) -> Side:
        """The revision that is running."""
        packages = (anonymix_plugin, anonymix_keystore)
        return cls(tuple(dict.fromkeys(Path(str(package.__file__)).parents[1] for package in packages)))

    @classmethod
    def of_wheel(cls, wheel: Path, folder: Path) -> Side:
        """A wheel, unpacked into an empty folder; the environment's other packages serve it, and stay as they are.

        Raises:
            UsageError: It is no wheel.
        """
        if wheel.suffix != ".whl" or not wheel.is_file():
            raise UsageError("this is no wheel", where=str(wheel), fix="name one: pip wheel --no-deps . makes it")
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-compile"]
        done = _run([*command, "--disable-pip-version-check", "--target", str(folder), str(wheel)], os.environ)
        if done.returncode:
            raise UsageError(
                f"the wheel can't be installed: {_last(done.stderr)}", where=str(wheel), fix="build it again"
            )
        # Compiled now: no process that is timed should have to.
        _run([sys.executable, "-m", "compileall", "-q", str(folder)], os.environ)
        return cls((folder,))

    def command(self, *words: str) -> list[str]:
        """A command line for a script or module of Python."""
        return [sys.executable, "-P", *words]

    def environment(self, **more: str) -> dict[str, str]:
        """The environment in which its packages are found first."""
        path = os.pathsep.join(map(str, self.folders))
        return {**os.environ, "PYTHONPATH": path, "OMP_WAIT_POLICY": "PASSIVE", **more}

    def run(self, *words: str, **more: str) -> Spent:
        """Run a process to its end.

        Raises:
            AnonymixError: It failed.
        """
        before, started = os.times(), time.perf_counter()
        done = _run(self.command(*words), self.environment(**more))
        wall, after = time.perf_counter() - started, os.times()
        if done.returncode:
            raise AnonymixError(f"a process failed: {_last(done.stderr)}", where="speed")
        cpu = after.children_user + after.children_system - before.children_user - before.children_system
        return Spent(wall, cpu)


class Worker:
    """A process of a revision that makes faces when it is told to; it does nothing in between.

    Args:
        side: The revision.
        photos: What it makes faces of, again and again.
        options: Fields of `MixerOptions`, as JSON has them.

    Raises:
        AnonymixError: It can't start, or runs another revision.
    """

    def __init__(self, side: Side, photos: Sequence[Path], **options: Any) -> None:
        words = side.command(str(_WORKER), json.dumps(options))
        self._process = subprocess.Popen(  # noqa: S603 - this interpreter, our own words
            words,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=side.environment(),
        )
        opened = self._answer()
        self.engine: str = opened["engine"]
        if not any(Path(opened["where"]).is_relative_to(folder) for folder in side.folders):
            self.close()
            raise AnonymixError("the process runs another revision than was asked for", where=opened["where"])
        self.fingerprint: str = self.ask("photos", paths=[str(path) for path in photos])["fingerprint"]

    def ask(self, what: str, **arguments: Any) -> dict[str, Any]:
        """Have something done, and return the answer.

        Raises:
            AnonymixError: The process ended.
        """
        assert self._process.stdin is not None  # noqa: S101 - it was asked for
        try:
            self._process.stdin.write(json.dumps({"do": what, **arguments}) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # what it said last stands in `_answer`
        return self._answer()

    def timed(self, what: str, **arguments: Any) -> Spent:
        """`ask`, for what the answer says of the time."""
        answer = self.ask(what, **arguments)
        return Spent(answer["wall"], answer["cpu"])

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None  # noqa: S101 - it was asked for
        line = self._process.stdout.readline()
        if not line:
            _, complaint = self._process.communicate()
            raise AnonymixError(f"a process made no face: {_last(complaint)}", where="speed")
        found: dict[str, Any] = json.loads(line)
        return found

    def close(self) -> None:
        """End the process."""
        self._process.communicate()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _run(command: Sequence[str], environment: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False, env=dict(environment))  # noqa: S603


def _last(complaint: str) -> str:
    return (complaint.strip().splitlines() or ["it said nothing"])[-1]
