"""Photos of one's own: one folder for each person."""

from __future__ import annotations

from pathlib import Path

from anonymix_lab.demo.values import Person, Sample, Skipped
from anonymix_plugin.errors import UsageError

PHOTOS_AT_MOST = 6

_IGNORED = {".txt", ".md", ".json", ".csv", ".html", ".xml", ".ini", ".db"}


def people_from(folder: Path, at_most: int) -> tuple[list[Person], list[Skipped]]:
    """Find the people of a folder.

    Args:
        folder: Holds one folder for each person, named after the person, with at least two photos.
        at_most: How many people are taken, in the order of their names.

    Returns:
        The people, and the files that can't be read. Whether what is in a file is a photo of a face turns
        out when it is looked at.

    Raises:
        UsageError: There is no such folder, or there are not two people in it.
    """
    try:
        places = sorted(entry for entry in folder.iterdir() if entry.is_dir() and not _hidden(entry))
    except OSError as error:
        raise UsageError(
            f"the folder of photos can't be read: {error.strerror}",
            where=str(folder),
            fix="give a folder with one folder for each person",
        ) from error
    people: list[Person] = []
    skipped: list[Skipped] = []
    for place in places:
        samples: list[Sample] = []
        for path in sorted(entry for entry in place.iterdir() if entry.is_file() and not _hidden(entry)):
            if path.suffix.lower() in _IGNORED or len(samples) == PHOTOS_AT_MOST:
                continue
            label = f"{place.name}/{path.name}"
            try:
                samples.append(Sample(label, path.read_bytes()))
            except OSError as error:
                skipped.append(Skipped(label, f"the file can't be read: {error.strerror}"))
        people.append(Person(place.name, tuple(samples)))
    if left := people[at_most:]:
        names = ", ".join(person.name for person in left)
        skipped.append(Skipped(names, f"the first {at_most} people are shown (--people takes more)"))
        people = people[:at_most]
    if len(people) < 2:
        raise UsageError(
            f"there are photos of {len(people)} people, and a story needs two",
            where=str(folder),
            fix="make one folder for each person, with two photos or more in each",
        )
    return people, skipped


def _hidden(path: Path) -> bool:
    return path.name.startswith(".")
