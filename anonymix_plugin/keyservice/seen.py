"""How far the store was when this machine last heard of it, kept across restarts."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Final

from anonymix_keystore import AnchorError, AnchorState, RolledBackError
from anonymix_plugin.errors import OutputError
from anonymix_plugin.files import write_text
from anonymix_plugin.keyservice.wire import state_of, state_text

_WRITE_SECONDS: Final = 1.0


class Seen:
    """The latest state of the store that was seen; an older one, or another store's, is refused.

    Args:
        path: Where it is kept; made at the first answer. None keeps it in memory alone.

    Raises:
        AnchorError: The file is damaged, or can't be read.
    """

    def __init__(self, path: Path | None) -> None:
        self._path, self._lock = path, threading.Lock()
        self._written: AnchorState | None = None
        self._due = 0.0
        self.state: AnchorState | None = None
        if path is not None and path.exists():
            try:
                self.state = self._written = state_of(path.read_text(encoding="ascii").strip())
            except (OSError, ValueError):
                raise AnchorError(
                    "what was last seen of the key service's store is damaged, or can't be read",
                    where=str(path),
                    fix="look whether the store is the right one; then remove the file",
                ) from None

    def take(self, state: AnchorState, shown: AnchorState | None, where: str) -> None:
        """Note the state of an answer.

        Args:
            state: The answer's.
            shown: What was shown with the question.
            where: The service.

        Raises:
            RolledBackError: The answer comes from an older store, or from another.
            AnchorError: The file can't be written.
        """
        if shown is not None and (state.store_id != shown.store_id or state.epoch < shown.epoch):
            raise RolledBackError(
                "the service answers from an older store, or from another",
                where=where,
                fix="put the current file back on the machine of the store",
            )
        with self._lock:
            if self.state is None or state.epoch > self.state.epoch:
                self.state = state
            if self._path is not None and self.state != self._written and time.monotonic() >= self._due:
                self._write(self._path, self.state)

    def close(self) -> None:
        """Write down what is not written yet.

        Raises:
            AnchorError: The file can't be written.
        """
        with self._lock:
            if self._path is not None and self.state is not None and self.state != self._written:
                self._write(self._path, self.state)

    def _write(self, path: Path, state: AnchorState) -> None:
        try:
            write_text(path, state_text(state) + "\n")
            if os.name == "posix":
                path.chmod(0o600)
        except (OutputError, OSError) as error:
            raise AnchorError(
                f"what was seen of the key service's store can't be kept ({type(error).__name__})",
                where=str(path),
                fix="see to the folder and the space left, or leave the file out",
            ) from None
        self._written, self._due = state, time.monotonic() + _WRITE_SECONDS
