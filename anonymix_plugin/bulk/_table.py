"""Rows of a bulk job from a table, CSV or Parquet, or from a folder at an address."""

from __future__ import annotations

import csv
import hashlib
import io
import posixpath
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from anonymix_plugin.bulk._places import EXTRA, beside, file_system, is_address, opened, photos_in
from anonymix_plugin.bulk._values import Row
from anonymix_plugin.csv_cells import as_text
from anonymix_plugin.errors import UsageError, naming_extras
from anonymix_plugin.words import is_plausible_path

_FOLDER: Final = 1_000  # files in a folder: more make file systems slow
_BATCH: Final = 64  # rows of a Parquet table that are read at a time
_SUFFIXES: Final = (".csv", ".parquet")
_COLUMNS: Final = ("photo", "subject", "scope")


def is_table(place: str) -> bool:
    """Whether a source is a table, by its suffix."""
    return place.lower().endswith(_SUFFIXES) and not (not is_address(place) and Path(place).is_dir())


def rows_of_table(table: str, suffix: str, scope: str, *, gallery: bool = False) -> Iterator[Row]:
    """The rows of a table, one by one, in constant memory.

    Columns are `photo` (a path or an address, relative to the table's folder; in Parquet also the image file itself,
    as bytes), `subject` and, if wanted, `scope`. Faces are named after their photos, in folders of a thousand:
    `000000/alice.png`. A second alice there is `alice-2.png`.

    Args:
        table: Path or address of a CSV file, UTF-8, with a header; or of a Parquet file.
        suffix: Suffix of the faces, with the dot.
        scope: Scope of rows that name none.
        gallery: Take the gallery key of the scope for all rows.

    Raises:
        UsageError: It can't be read, a column is missing or there twice, or a row names no photo or no subject, or
            has more cells than there are columns.
        MissingPackageError: It is Parquet, or lies at an address, and pyarrow is not installed.
    """
    lines = _parquet(table, gallery=gallery) if table.lower().endswith(".parquet") else _csv(table, gallery=gallery)
    taken: set[str] = set()
    for number, (where, cells) in enumerate(lines):
        photo, subject = cells["photo"], None if gallery else cells["subject"]
        place = f"{table}, {where}"
        if not photo or not (gallery or subject):
            fix = "fill in both, or take the row out"
            raise UsageError("a row names no photo, or no subject", where=place, fix=fix)
        for name in ("scope",) if gallery else ("subject", "scope"):
            if not isinstance(cells.get(name) or "", str):
                what = f"what a row has in the column {name} is no text"
                raise UsageError(what, where=place, fix="make it a column of texts, numbers among them")
        if not (isinstance(photo, bytes) or (isinstance(photo, str) and is_plausible_path(photo))):
            fix = "write paths or addresses of photos there"
            raise UsageError("what a row has in the column photo is no path", where=place, fix=fix)
        if number % _FOLDER == 0:
            taken.clear()
        source, load = _photo(table, photo, number)
        name = _free(posixpath.splitext(source.rpartition("/")[2])[0], suffix, taken)
        whence = source if is_address(source) or load else Path(source)
        output = Path(f"{number // _FOLDER:06d}") / name
        yield Row(whence, subject, cells.get("scope") or scope, output, load)


def count_rows(table: str, *, gallery: bool = False) -> int:
    """How many rows a table has; errors are those of `rows_of_table`."""
    if not table.lower().endswith(".parquet"):
        return sum(1 for _ in rows_of_table(table, "", "default", gallery=gallery))
    with _parquet_file(table) as file:
        _need(file.schema_arrow.names, table, gallery=gallery)
        return int(file.metadata.num_rows)


def rows_at(address: str, suffix: str, subject: str | None, scope: str, *, recursive: bool) -> Iterator[Row]:
    """The rows of a folder at an address: each sub-folder holds the photos of the subject it is named after.

    Args:
        address: The folder's address.
        suffix: Suffix of the faces, with the dot.
        subject: "" takes the subjects from the sub-folders; otherwise the photos of the folder itself are this
            subject's, None: of the gallery key.
        scope: The scope of the keys.
        recursive: Folders within folders, too.

    Raises:
        UsageError: It can't be read.
    """
    by_folder = subject == ""
    taken: set[str] = set()
    for name in photos_in(address, recursive=recursive or by_folder):
        folder, _, file = name.rpartition("/")
        if by_folder and (not folder or ("/" in folder and not recursive)):
            continue
        who = folder.partition("/")[0] if by_folder else subject
        stem = posixpath.splitext(posixpath.join(folder, file))[0]
        yield Row(f"{address.rstrip('/')}/{name}", who, scope, Path(_free(stem, suffix, taken)))


def _photo(table: str, photo: str | bytes, number: int) -> tuple[str, Callable[[], Sequence[bytes]] | None]:
    if isinstance(photo, bytes):
        # Named by what it holds: a table that changed is another source.
        return f"row-{number + 1}-{hashlib.sha256(photo).hexdigest()[:16]}", lambda: [photo]
    if is_address(table) or is_address(photo):
        return beside(table, photo), None
    return str(Path(table).parent / photo), None


def _csv(table: str, *, gallery: bool) -> Iterator[tuple[str, Mapping[str, Any]]]:
    try:
        raw: Any = opened(table) if is_address(table) else io.FileIO(table)
        with closing(raw), io.TextIOWrapper(raw, encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream, strict=True)
            _need(reader.fieldnames or (), table, gallery=gallery)
            for cells in reader:
                if None in cells:  # a comma in a name shifts the cells behind it: whose photo it is, is not known
                    fix = "put texts that hold a comma in double quotes"
                    where = f"{table}, line {reader.line_num}"
                    raise UsageError("a row has more cells than the table has columns", where=where, fix=fix)
                where = f"{table}, line {reader.line_num}"
                for name in ("scope",) if gallery else ("subject", "scope"):
                    cell = cells.get(name) or ""
                    if cell != as_text(cell):  # of a table of ours, say: with it, the name is another one
                        what = f"the column {name} has an apostrophe before what a spreadsheet takes for a formula"
                        fix = "take it away (anonymix_plugin.csv_cells.as_text); a name that has it goes into Parquet"
                        raise UsageError(what, where=where, fix=fix)
                yield f"line {reader.line_num}", cells
    except (OSError, UnicodeError, csv.Error) as error:
        what = getattr(error, "strerror", None) or "it is no CSV table in UTF-8"
        raise UsageError(f"the table can't be read: {what}", where=table, fix="check the file") from None


def _parquet(table: str, *, gallery: bool) -> Iterator[tuple[str, Mapping[str, Any]]]:
    with _parquet_file(table) as file:
        names = file.schema_arrow.names
        _need(names, table, gallery=gallery)
        columns = [name for name in _COLUMNS if name in names]
        number = 0
        try:
            for batch in file.iter_batches(_BATCH, columns=columns):
                for cells in batch.to_pylist():
                    number += 1
                    yield f"row {number}", cells
        except (OSError, ValueError) as error:
            raise _no_parquet(table, error) from None


def _parquet_file(table: str) -> Any:
    system, path = file_system(table)
    with naming_extras(EXTRA):
        from pyarrow.parquet import ParquetFile
    try:
        return closing(ParquetFile(path, filesystem=system))
    except (OSError, ValueError) as error:
        raise _no_parquet(table, error) from None


def _no_parquet(table: str, error: Exception) -> UsageError:
    return UsageError(f"the table can't be read: {type(error).__name__}", where=table, fix="check the file")


def _need(names: Sequence[str], table: str, *, gallery: bool) -> None:
    doubled = [name for name in _COLUMNS if list(names).count(name) > 1]
    if doubled:
        fix = "leave one of them, so that it is clear which counts"
        raise UsageError(f"the table has several columns {doubled[0]}", where=table, fix=fix)
    missing = {"photo", *(() if gallery else ("subject",))} - set(names)
    if missing:
        fix = "name the columns in the first line, in small letters and with commas between them: subject,photo"
        raise UsageError(f"the table has no column {sorted(missing)[0]}", where=table, fix=fix)


def _free(stem: str, suffix: str, taken: set[str]) -> str:
    number, name = 1, f"{stem}{suffix}"
    while name.casefold() in taken:
        number += 1
        name = f"{stem}-{number}{suffix}"
    taken.add(name.casefold())
    return name
