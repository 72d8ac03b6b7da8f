"""Rows of a bulk job from a CSV table."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from anonymix_plugin.bulk._values import Row
from anonymix_plugin.errors import UsageError
from anonymix_plugin.words import is_plausible_path

_FOLDER: Final = 1_000  # files in a folder: more make file systems slow


def rows_of_table(table: Path, suffix: str, scope: str, *, gallery: bool = False) -> Iterator[Row]:
    """The rows of a table with a header, one by one, in constant memory.

    Columns are `photo` (a path, relative to the table's folder), `subject` and, if wanted, `scope`. Faces are named
    after their photos, in folders of a thousand: `000000/alice.png`. A second alice there is `alice-2.png`.

    Args:
        table: The CSV file, UTF-8.
        suffix: Suffix of the faces, with the dot.
        scope: Scope of rows that name none.
        gallery: Take the gallery key of the scope for all rows.

    Raises:
        UsageError: It can't be read, a column is missing, or a row names no photo or no subject.
    """
    try:
        with table.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream, strict=True)
            missing = {"photo", *(() if gallery else ("subject",))} - set(reader.fieldnames or ())
            if missing:
                fix = "name the columns in the first line: subject,photo"
                raise UsageError(f"the table has no column {sorted(missing)[0]}", where=str(table), fix=fix)
            taken: set[str] = set()
            for number, cells in enumerate(reader):
                photo, subject = cells["photo"], None if gallery else cells["subject"]
                if not photo or not is_plausible_path(photo) or subject == "" or (subject is None and not gallery):
                    raise UsageError(
                        "a row names no photo, or no subject",
                        where=f"{table}, line {reader.line_num}",
                        fix="fill in both, or take the row out",
                    )
                if number % _FOLDER == 0:
                    taken.clear()
                source = table.parent / photo
                name = _free(source.stem, suffix, taken)
                yield Row(source, subject, cells.get("scope") or scope, Path(f"{number // _FOLDER:06d}") / name)
    except (OSError, UnicodeError, csv.Error) as error:
        what = getattr(error, "strerror", None) or "it is no CSV table in UTF-8"
        raise UsageError(f"the table can't be read: {what}", where=str(table), fix="check the file") from None


def _free(stem: str, suffix: str, taken: set[str]) -> str:
    number, name = 1, f"{stem}{suffix}"
    while name.casefold() in taken:
        number += 1
        name = f"{stem}-{number}{suffix}"
    taken.add(name.casefold())
    return name
