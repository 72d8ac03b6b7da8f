"""A breach drill in the background: on people of its own, under keys of its own, one at a time."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any, Final

from anonymix_adapters.drill import people_in, run
from anonymix_adapters.errors import AdapterError, in_words
from anonymix_adapters.gateway.page._preview import PageMixer
from anonymix_adapters.gateway.problems import ProblemError
from anonymix_adapters.registry import load, names
from anonymix_plugin.files import make_folder, write_text
from anonymix_plugin.locks import alone

MOST_PEOPLE: Final = 20
_LOCAL: Final = ("opencv", "insightface", "facenet", "deepface", "face_recognition")
"""Recognisers that run in this process. A drill on a service of the host's is the command line's."""

_TICK: Final = 0.5  # seconds between two notes of how far it is
_NONE: Final = {"running": False, "adapter": "", "people": 0, "step": "", "share": 0, "report": None, "error": ""}
_STEPS: Final = 7  # of a drill that searches nobody, and that are told person by person; for the bar


@cache
def recognisers() -> tuple[str, ...]:
    """Those that are installed here, as they were tested."""

    def usable(name: str) -> bool:
        try:
            for sdk in load(name).SDKS:
                sdk.check()
        except AdapterError:
            return False
        return True

    return tuple(name for name in _LOCAL if name in names() and usable(name))


class _OverError(Exception):
    """The gateway ends, and the drill with it."""


class Drills:
    """Runs a drill, and says how far it is. The state is a file, so that every worker of a gateway tells it.

    Args:
        folder: Where the state is kept.
        mixer: Its weights draw; none of its keys is used.
        photos: Folder of photos, two a person; None where none was given.
        ending: Whether the gateway is about to end.
    """

    def __init__(self, folder: Path, mixer: PageMixer, photos: Path | None, ending: Callable[[], bool]) -> None:
        self.photos = photos
        self._folder, self._mixer, self._ending = folder, mixer, ending
        self._state, self._lock_path = folder / "drill.json", folder / "drill.lock"

    def start(self, adapter: str, people: int) -> None:
        """Begin a drill.

        Raises:
            ProblemError: One is under way, or what is asked for is not here.
            UsageError: There are not as many people among the photos.
        """
        if self.photos is None:
            raise ProblemError(
                "no photos for drills were given", code="drill", fix="start the gateway with --drill-photos DIR"
            )
        if adapter not in recognisers() or not 2 <= people <= MOST_PEOPLE:
            raise ProblemError("there is no such recogniser, or not so many people", code="drill")
        people_in(self.photos, people)
        make_folder(self._folder)
        lock = ExitStack()
        try:
            if not lock.enter_context(alone(self._lock_path)):
                raise ProblemError("a drill is under way", status=409, code="drill", fix="wait for its end")
            self._note(adapter=adapter, people=people, running=True, step="opening the keystore", share=0)
            threading.Thread(target=self._run, args=(adapter, people, lock), name="anonymix-drill").start()
        except BaseException:
            lock.close()
            raise

    def state(self) -> dict[str, Any]:
        """How far it is: `running`, `adapter`, `people`, `step`, `share` (0..100); then `report` or `error`."""
        found: dict[str, Any] = dict(_NONE)
        with suppress(OSError, ValueError):
            found |= json.loads(self._state.read_text(encoding="utf-8"))
        if found.get("running"):
            with suppress(OSError), alone(self._lock_path) as free:
                if free:
                    found |= {"running": False, "error": "the drill was interrupted: its process ended"}
        return found

    def _run(self, adapter: str, people: int, lock: ExitStack) -> None:
        told, seen = 0.0, dict[str, None]()

        def progress(step: str, done: int, of: int) -> None:
            nonlocal told
            if self._ending():
                raise _OverError("the gateway ends")
            seen[step] = None
            if time.monotonic() - told >= _TICK:
                told = time.monotonic()
                share = min(99, round(100 * (len(seen) - 1 + done / of) / _STEPS))
                self._note(adapter=adapter, people=people, running=True, step=f"{step}: {done} of {of}", share=share)

        result: dict[str, Any] = {}
        try:
            assert self.photos is not None  # noqa: S101 - see start
            report = run(adapter, self.photos, people=people, mixer=self._mixer, progress=progress)
            result = {"report": asdict(report) | {"passed": report.passed}}
        except Exception as error:  # noqa: BLE001 - whatever a recogniser raises is told on the page
            result = {"error": in_words(error)}
        finally:
            with suppress(Exception):
                self._note(adapter=adapter, people=people, running=False, step="", share=100, **result)
            lock.close()

    def _note(self, **state: Any) -> None:
        write_text(self._state, json.dumps(state))
