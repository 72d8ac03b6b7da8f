"""Which photos are meant, whose they are, and what their cancelable faces will be called."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from anonymix_plugin.errors import UsageError
from anonymix_plugin.images import PHOTO_SUFFIXES
from anonymix_plugin.words import shown

_DIGITS = re.compile(r"(\d+)")


@dataclass(frozen=True)
class Job:
    """One photo to protect.

    Attributes:
        source: The photo.
        subject: Whose key; None for the gallery key.
        folder: Folder of the output, relative to the output folder.
    """

    source: Path
    subject: str | None
    folder: Path = field(default_factory=Path)

    @property
    def name(self) -> str:
        """The photo in words (`words.shown`)."""
        return shown(self.source)

    @property
    def stem(self) -> str:
        """What its cancelable face is called; "photo" where what was given is no path to be shown."""
        return self.source.stem if self.name == str(self.source) else "photo"


@dataclass
class Names:
    """Gives every cancelable face a file name that no other one has, the same ones in every run.

    Attributes:
        root: The output folder.
        suffix: With the dot; "" for that of the photo.
    """

    root: Path
    suffix: str
    _taken: set[str] = field(default_factory=set)

    def allot(self, job: Job) -> Path:
        """The next free path for a face of a photo: `stem`, `stem-2`, `stem-3`, ..."""
        folder, stem = self.root / job.folder, job.stem
        suffix = self.suffix or job.source.suffix
        number = 1
        while True:
            path = folder / f"{stem if number == 1 else f'{stem}-{number}'}{suffix}"
            # Without case: on some file systems A.png and a.png are one file.
            name = str(path).casefold()
            if name not in self._taken:
                self._taken.add(name)
                return path
            number += 1


def jobs_for(photos: Sequence[Path], subject: str | None, *, recursive: bool, every: bool = False) -> list[Job]:
    """One job for each photo; a folder stands for the images in it, or with `every` for every file.

    A path that does not exist gives a job, too: it fails in its turn, and the others don't.

    Raises:
        UsageError: A folder holds no images.
    """
    jobs: dict[Path, Job] = {}
    for path in photos:
        if not _is_folder(path):
            jobs.setdefault(path, Job(path, subject))
            continue
        found = list(_images(path, recursive=recursive, every=every))
        if not found:
            raise UsageError(
                "there are no images in this folder",
                where=str(path),
                fix="name another folder" if recursive else "name another folder, or add --recursive",
            )
        for image in found:
            jobs.setdefault(image, Job(image, subject, image.parent.relative_to(path)))
    return list(jobs.values())


def jobs_by_folder(folders: Sequence[Path], *, recursive: bool, every: bool = False) -> list[Job]:
    """One job for each image, or with `every` each file, in each sub-folder, whose name is the subject.

    Raises:
        UsageError: A path is no folder, or there are no images in sub-folders.
    """
    jobs: list[Job] = []
    for folder in folders:
        if not _is_folder(folder):
            raise UsageError(
                "this is not a folder",
                where=str(folder),
                fix="name the folder that holds one folder for each subject",
            )
        for child in _sorted(entry for entry in folder.iterdir() if entry.is_dir() and not _hidden(entry)):
            jobs += (
                Job(image, child.name, child.name / image.parent.relative_to(child))
                for image in _images(child, recursive=recursive, every=every)
            )
    if not jobs:
        raise UsageError(
            "there are no images in sub-folders",
            where=", ".join(map(shown, folders)),
            fix="put the photos of each subject in a folder with the subject's id as its name",
        )
    return jobs


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):  # too long for the name of a file, say: it fails in its turn
        return False


def _images(folder: Path, *, recursive: bool, every: bool) -> Iterator[Path]:
    for entry in _sorted(folder.iterdir()):
        if _hidden(entry):
            continue
        if entry.is_dir():
            # A link to a folder could lead round in a circle.
            if recursive and not entry.is_symlink():
                yield from _images(entry, recursive=True, every=every)
        elif every or entry.suffix.lower() in PHOTO_SUFFIXES:
            yield entry


def _hidden(path: Path) -> bool:
    return path.name.startswith(".")


def _sorted(paths: Iterable[Path]) -> list[Path]:
    """In the order that people expect: photo2 before photo10."""

    def order(path: Path) -> list[tuple[int, str]]:
        return [(int(part) if part.isdecimal() else 0, part) for part in _DIGITS.split(path.name)]

    return sorted(paths, key=order)
