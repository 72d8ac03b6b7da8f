"""MXNet's RecordIO: `train.rec` with its index `train.idx`, read and written without MXNet.

A record is a magic number, a word of 3 bits (whole, first, middle or last part) and 29 bits (length), the
data, and zeros up to a multiple of 4 bytes. Where the magic number stands in the data at a multiple of 4
bytes, the record is split there and the number left out. The data begin with MXNet's image header
(`IRHeader`: flag, label, id, id2; then `flag` further labels), and the encoded photo follows. A line of the
index is key, tab, offset.

The format is that of `mxnet.recordio` 1.9.1 and dmlc-core's `recordio.h`.
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from io import BufferedReader, BufferedWriter
from pathlib import Path
from typing import Final

from anonymix_plugin.datasets._packed import PackedPhoto
from anonymix_plugin.errors import OutputError, UsageError
from anonymix_plugin.files import content_of, require_regular, whole_file

_MAGIC: Final = (0xCED7230A).to_bytes(4, "little")
_HEADER: Final = struct.Struct("<IfQQ")
_WHOLE, _FIRST, _MIDDLE, _LAST = range(4)
_LONGEST: Final = (1 << 29) - 1
_MOST_LABELS: Final = 100_000
_CURE: Final = "fetch or pack it again; train.rec and train.idx belong together"


@dataclass(frozen=True)
class Record:
    """A record.

    Attributes:
        key: From the index; the place in the file, from 0, where there is no index.
        labels: The label of the header, or the further ones where there are any.
        several: Whether the labels are further ones, which MXNet gives as an array.
        ids: id and id2 of the header.
        photo: Where the photo lies; None where the record holds none.
    """

    key: int
    labels: tuple[float, ...]
    several: bool
    ids: tuple[int, int]
    photo: PackedPhoto | None

    @property
    def label(self) -> float:
        """The first label: who is on the photo."""
        return self.labels[0]


def read_records(path: Path) -> Iterator[Record]:
    """The records of a file in their order, by its index if that is there (`train.idx` beside `train.rec`).

    Records that the index does not name are left out, as its readers never see them. Photos are not read.

    Raises:
        UsageError: A file can't be read, is damaged or truncated, or file and index don't fit together.
    """
    index = path.with_suffix(".idx")
    try:
        keys = _read_index(index) if index.exists() else None
        require_regular(path)
        with path.open("rb") as stream:
            yield from _scan(stream, path, keys)
    except OSError as error:
        raise UsageError(
            f"the data set can't be read: {error.strerror or type(error).__name__}",
            where=str(path),
            fix="check the path and its permissions",
        ) from None
    if keys:
        what = f"the index names {len(keys):,} records that are not there"
        raise UsageError(what, where=str(index), fix=_CURE)


def _read_index(path: Path) -> dict[int, int]:
    """Key by offset."""
    keys: dict[int, int] = {}
    seen: set[int] = set()
    for number, line in enumerate(content_of(path).splitlines(), 1):
        parts = line.split(b"\t")
        if not line.strip():
            continue
        if len(parts) != 2 or not all(part.isdigit() and len(part) < 19 for part in parts):
            raise UsageError("this is no line of an index", where=f"{path}:{number}", fix=_CURE)
        key, offset = map(int, parts)
        if offset in keys or key in seen:
            raise UsageError("a record stands in the index twice", where=f"{path}:{number}", fix=_CURE)
        keys[offset] = key
        seen.add(key)
    return keys


def _scan(stream: BufferedReader, path: Path, keys: dict[int, int] | None) -> Iterator[Record]:
    size, place = os.fstat(stream.fileno()).st_size, 0
    while (offset := stream.tell()) < size:
        spans = _spans(stream, path, size)
        key = place if keys is None else keys.pop(offset, None)
        place += 1
        if key is not None:
            here = stream.tell()
            yield _record(stream, path, key, spans)
            stream.seek(here)


def _spans(stream: BufferedReader, path: Path, size: int) -> list[tuple[int, int]]:
    spans: list[tuple[int, int]] = []
    while True:
        at = stream.tell()
        word = stream.read(8)
        if len(word) < 8 or word[:4] != _MAGIC:
            raise UsageError(f"there is no record at byte {at:,}", where=str(path), fix=_CURE)
        part, length = word[7] >> 5, int.from_bytes(word[4:], "little") & _LONGEST
        if part not in ({_MIDDLE, _LAST} if spans else {_WHOLE, _FIRST}):
            raise UsageError(f"a part of a record is missing at byte {at:,}", where=str(path), fix=_CURE)
        end = at + 8 + length
        if end > size:
            raise UsageError(f"the file ends within the record at byte {at:,}", where=str(path), fix=_CURE)
        spans.append((at + 8, length))
        stream.seek(end + -length % 4)
        if part in {_WHOLE, _LAST}:
            return spans


def _record(stream: BufferedReader, path: Path, key: int, spans: list[tuple[int, int]]) -> Record:
    (offset, length), *rest = spans
    stream.seek(offset)
    header = stream.read(min(length, _HEADER.size))
    if len(header) < _HEADER.size:
        raise UsageError(f"record {key} has no image header", where=str(path), fix=_CURE)
    flag, label, first_id, second_id = _HEADER.unpack(header)
    taken = _HEADER.size + 4 * flag
    if flag > _MOST_LABELS or taken > length:
        raise UsageError(f"record {key} has {flag:,} labels, more than it has room for", where=str(path), fix=_CURE)
    labels = struct.unpack(f"<{flag}f", stream.read(4 * flag)) if flag else (label,)
    photo = None
    if length > taken or rest:
        photo = PackedPhoto(path, key, ((offset + taken, length - taken), *rest), joint=_MAGIC)
    if not all(map(math.isfinite, labels if photo is None else labels[:1])):  # ranges, or who is on the photo
        raise UsageError(f"a label of record {key} is no number", where=str(path), fix=_CURE)
    return Record(key, labels, bool(flag), (first_id, second_id), photo)


class RecordWriter:
    """Writes records and their index; made by `RecordWriter.into`."""

    def __init__(self, records: BufferedWriter, index: BufferedWriter) -> None:
        self._records, self._index = records, index
        self._places: dict[int, int] = {}

    @classmethod
    @contextmanager
    def into(cls, path: Path) -> Iterator[RecordWriter]:
        """Write a file and its index, each whole or not at all, the index last.

        Raises:
            OutputError: One can't be written.
        """
        with ExitStack() as stack:
            index = stack.enter_context(whole_file(path.with_suffix(".idx")))
            records = stack.enter_context(whole_file(path))
            with records.open("wb") as first, index.open("wb") as second:
                yield cls(first, second)

    def add(self, record: Record, photo: bytes = b"") -> None:
        """Add a record with an encoded photo."""
        place = self._records.tell()
        self._index.write(b"%d\t%d\n" % (record.key, place))
        if record.photo is None:
            self._places[record.key] = place
        self._write(_header(record) + photo)

    def relabel(self, record: Record) -> None:
        """Give a record without a photo that was added before other labels, as many as it had."""
        self._records.seek(self._places[record.key])
        self._write(_header(record))
        self._records.seek(0, os.SEEK_END)

    def _write(self, data: bytes) -> None:
        cuts, at = [0], data.find(_MAGIC)
        while at >= 0:
            if at % 4 == 0:
                cuts.append(at)
            at = data.find(_MAGIC, at + 1)
        parts = [
            data[start + (4 if number else 0) : stop]
            for number, (start, stop) in enumerate(zip(cuts, [*cuts[1:], len(data)], strict=True))
        ]
        for number, part in enumerate(parts):
            if len(part) > _LONGEST:
                raise OutputError(f"a record of {len(part):,} bytes has no place in RecordIO")
            first, last = number == 0, number == len(parts) - 1
            kind = _WHOLE if first and last else _FIRST if first else _LAST if last else _MIDDLE
            word = (kind << 29 | len(part)).to_bytes(4, "little")
            self._records.write(_MAGIC + word + part + bytes(-len(part) % 4))


def _header(record: Record) -> bytes:
    further: Sequence[float] = record.labels if record.several else ()
    label = 0.0 if further else record.label
    return _HEADER.pack(len(further), label, *record.ids) + struct.pack(f"<{len(further)}f", *further)
