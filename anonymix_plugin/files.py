"""Files that are written whole or not at all."""

from __future__ import annotations

import errno
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from anonymix_plugin.errors import OutputError


def make_folder(folder: Path) -> None:
    """Make a folder, and those it lies in, unless it is there.

    Raises:
        OutputError: It can't be made, or is a file.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        what = "it can't be written: a file is in the way of this folder"
        raise OutputError(what, where=str(folder), fix="name another folder") from None
    except OSError as error:
        raise _refused(folder, error) from error


@contextmanager
def whole_file(path: Path, drafts: Path | None = None) -> Iterator[Path]:
    """Yield the path of a draft in the same folder, which takes the name when the block ends well.

    Nobody ever sees half of the file, and what was there before stays if the block fails. The draft keeps
    the suffix of the name, because some writers look at it. With `drafts`, a folder on the same file system, it
    lies there: whoever is killed leaves a draft behind, and can find it then.

    Raises:
        OutputError: The folder can't be made, or the system refused to write.
    """
    make_folder(path.parent)
    draft = (drafts or path.parent) / f".{secrets.token_hex(6)}-{path.name}"
    try:
        yield draft
        with draft.open("rb+") as stream:
            os.fsync(stream.fileno())
        draft.replace(path)
    except OSError as error:
        raise _refused(path, error) from error
    finally:
        with suppress(OSError):
            draft.unlink()


def require_regular(path: Path) -> None:
    """Refuse what is no regular file: a pipe that nobody writes to is waited for, and devices never end.

    Raises:
        OSError: It is there, and is something else.
    """
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "not a regular file", str(path))


def content_of(path: Path) -> bytes:
    """The content of a regular file.

    Raises:
        OSError: It can't be read, or is something else.
    """
    require_regular(path)
    return path.read_bytes()


def write_bytes(path: Path, data: bytes, drafts: Path | None = None) -> None:
    """Write a file whole or not at all; arguments and errors are those of `whole_file`."""
    with whole_file(path, drafts) as draft:
        draft.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 file whole or not at all; errors are those of `whole_file`."""
    write_bytes(path, text.encode())


def _refused(path: Path, error: OSError) -> OutputError:
    return OutputError(
        f"it can't be written: {error.strerror or type(error).__name__}",
        where=str(path),
        fix="check the folder, its permissions and the space left",
    )


def safetensors_of(content: bytes) -> tuple[dict[str, Any], dict[str, str]]:
    """The arrays and the metadata of a safetensors file, from its content: what was hashed is what is used.

    Returns:
        Arrays by name, of numpy's types; and the metadata.

    Raises:
        ValueError: It is no such file (also as SafetensorError, which derives from Exception alone).
    """
    from safetensors.numpy import load

    tensors = load(content)
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    return tensors, dict(header.get("__metadata__") or {})
