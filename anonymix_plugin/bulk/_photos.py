"""Photos by subject: a folder with a folder for each, or a table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, TypeAlias

from anonymix_plugin.bulk._places import PhotoAt, is_address
from anonymix_plugin.bulk._table import is_table, rows_of_table
from anonymix_plugin.errors import UsageError
from anonymix_plugin.images import PHOTO_SUFFIXES, default_limits, read_source

PhotoStore: TypeAlias = Callable[[str, str], Sequence[bytes]]
"""Gives the image files of a subject in a scope; none where there is none."""

MOST: Final = 10
"""So many photos of a subject are read, the first ones by name, or in the table."""


def photo_store(place: str, scope: str) -> PhotoStore:
    """Photos by subject.

    Args:
        place: A folder in which each sub-folder holds the photos of the subject that it is named after; or a table
            as for `rows_of_table`, whose paths are held in memory.
        scope: Scope of the folder's subjects, or of rows that name none. Subjects of one name in two scopes may be
            two people.

    Raises:
        UsageError: It is neither.
    """
    if not is_address(place) and Path(place).is_dir():
        return lambda subject, of: [_content(path) for path in _photos_in(Path(place), subject)] if of == scope else []
    if not is_table(place):
        fix = "name a folder with a folder for each subject, or a table: .csv, .parquet"
        raise UsageError("there are no photos here", where=place, fix=fix)
    paths: dict[tuple[str, str], list[Path | str]] = {}
    for row in rows_of_table(place, "", scope):
        if row.load is not None:
            fix = "put them into files, and their paths or addresses into the table"
            raise UsageError("the table holds the photos themselves, which can't be looked up", where=place, fix=fix)
        several = paths.setdefault((row.subject or "", row.scope), [])
        if len(several) < MOST:
            several.append(row.source)
    return lambda subject, of: [_content(path) for path in paths.get((subject, of), ())]


def _photos_in(folder: Path, subject: str) -> list[Path]:
    own = folder / subject
    # A subject's id is no path: "../others" has no folder here.
    if subject in {"", ".", ".."} or own.name != subject or own.parent != folder or not own.is_dir():
        return []
    return sorted(path for path in own.iterdir() if path.suffix.lower() in PHOTO_SUFFIXES)[:MOST]


def _content(path: Path | str) -> bytes:
    source = PhotoAt(path) if isinstance(path, str) else path
    return read_source(source, default_limits())[0]  # type: ignore[arg-type]
