"""Text files, written whole or not at all."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path

from anonymix_plugin.errors import OutputError


def make_folder(folder: Path) -> None:
    """Make a folder, and those it lies in, unless it is there.

    Raises:
        OutputError: It can't be made, or is a file.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _refused(folder, error) from error


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 file under another name first and rename it, so that nobody ever sees half of it.

    Raises:
        OutputError: It could not be written; what was there before is still there.
    """
    draft = path.with_name(f".{path.name}-{secrets.token_hex(6)}.tmp")
    try:
        with draft.open("x", encoding="utf-8", newline="\n") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        draft.replace(path)
    except OSError as error:
        raise _refused(path, error) from error
    finally:
        with suppress(OSError):
            draft.unlink()


def _refused(path: Path, error: OSError) -> OutputError:
    return OutputError(
        f"it can't be written: {error.strerror or type(error).__name__}",
        where=str(path),
        fix="check the folder, its permissions and the space left",
    )
