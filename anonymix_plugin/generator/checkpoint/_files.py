"""The three containers that checkpoints come in: torch's zip file, torch's older file, a plain pickle."""

from __future__ import annotations

import hashlib
import io
import struct
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from anonymix_plugin.errors import CheckpointError, MissingModelError
from anonymix_plugin.generator.checkpoint._machine import Machine, shown
from anonymix_plugin.generator.checkpoint._names import names
from anonymix_plugin.generator.checkpoint._values import DAMAGED, Storage, storage_of

Container = Literal["torch zip", "torch legacy", "pickle"]

MAX_BYTES: Final = 4 << 30
"""Size of the largest file that is read: e4e's has 1.2 GB, NVIDIA's snapshots .4 GB."""

_MAGIC: Final = 0x1950A86A20F9469CFC6C
_PROTOCOL: Final = 1001
_ZIP_FAULTS: Final = (zipfile.BadZipFile, OSError, EOFError, ValueError, RuntimeError, struct.error)
"""What the zip module raises on damaged files, RuntimeError standing for NotImplementedError as well."""
_MAX_MEMBERS: Final = 100_000
_MAX_STORAGES: Final = 100_000


@dataclass(frozen=True, eq=False)
class CheckpointFile:
    """What is in a file.

    Attributes:
        path: The file.
        container: How it is packed.
        sha256: SHA-256 of the file, 64 hex digits.
        content: Its value, made of dictionaries, lists, texts, numbers, `Tensor`, `Array` and `Module`.
    """

    path: Path
    container: Container
    sha256: str
    content: Any


def open_checkpoint(path: Path) -> CheckpointFile:
    """Read a checkpoint without running anything in it.

    The file is read once: what is hashed is what is parsed. Tensors stay where they are until they are asked
    for.

    Raises:
        MissingModelError: There is no such file.
        CheckpointError: It is too large, no checkpoint, damaged, or asks for something that weights do not
            need.
    """
    where = str(path)
    try:
        if not path.is_file():
            raise MissingModelError("no such file", where=where, fix="check the path of the checkpoint")
        if path.stat().st_size > MAX_BYTES:
            raise CheckpointError(f"larger than {MAX_BYTES >> 30} GB", where=where)
        data = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"can't be read ({error.strerror})", where=where) from error
    digest = hashlib.sha256(data).hexdigest()
    try:
        if data[:4] == b"PK\x03\x04":
            return CheckpointFile(path, "torch zip", digest, _zip_content(data, where))
        if data[:1] != b"\x80":
            raise CheckpointError("this is no checkpoint of PyTorch's and no pickle", where=where, fix=_hint(data))
        first = _plain(data, where)
        if isinstance(first, int) and first == _MAGIC:
            return CheckpointFile(path, "torch legacy", digest, _legacy(data, where))
        return CheckpointFile(path, "pickle", digest, first)
    except CheckpointError as error:
        if error.where:
            raise
        raise CheckpointError(error.what, where=where, fix=error.fix) from error


def _hint(data: bytes) -> str:
    if data[:64].lstrip().startswith(b"<"):
        return "it looks like a web page: the download went wrong"
    return DAMAGED


def _plain(data: bytes, where: str) -> Any:
    """The first pickle of a file; tensors in it lie in it as torch's older files of their own."""
    nested_where = f"{where}, a tensor in it"
    return Machine(names(lambda raw: _nested(raw, nested_where)), where).run(io.BytesIO(data))


def _nested(raw: Any, where: str) -> Storage:
    if not isinstance(raw, bytes):
        raise CheckpointError("a tensor without data", where=where, fix=DAMAGED)
    storage = _legacy(raw, where)
    if not isinstance(storage, Storage):
        raise CheckpointError("a tensor without data", where=where, fix=DAMAGED)
    return storage


def _legacy(data: bytes, where: str) -> Any:
    """Torch's files before 1.6: five pickles, then the bytes of the storages, each after its length."""
    stream = io.BytesIO(data)
    storages: dict[str, Storage] = {}

    def storage(identity: Any) -> Storage:
        if not (isinstance(identity, tuple) and len(identity) >= 5 and identity[0] == "storage"):
            raise CheckpointError("a reference to something that is no tensor", where=where, fix=DAMAGED)
        kind, key, elements = identity[1], identity[2], identity[4]
        if len(identity) > 5 and identity[5] is not None:
            raise CheckpointError("tensors that share memory in a way older than torch 1.0", where=where)
        if not isinstance(key, str) or len(storages) > _MAX_STORAGES:
            raise CheckpointError("a reference to something that is no tensor", where=where, fix=DAMAGED)
        return storages.setdefault(key, storage_of(kind, elements))

    def refused(_: Any) -> Storage:
        raise CheckpointError("a file within a tensor", where=where, fix=DAMAGED)

    plain = names(refused)
    magic = Machine({}, where).run(stream)
    protocol = Machine({}, where).run(stream)
    system = Machine({}, where).run(stream)
    if not _same(magic, _MAGIC) or not _same(protocol, _PROTOCOL) or not isinstance(system, dict):
        raise CheckpointError("not a file of torch's after all", where=where, fix=DAMAGED)
    if system.get("little_endian") is not True:
        raise CheckpointError("written on a big-endian machine; that is not supported", where=where)
    content = Machine(plain, where, storage).run(stream)
    order = Machine({}, where).run(stream)
    if not (isinstance(order, list) and all(isinstance(key, str) for key in order)):
        raise CheckpointError("the list of tensors is none", where=where, fix=DAMAGED)
    view = memoryview(data)
    for key in order:
        if key not in storages:
            raise CheckpointError("data without a tensor", where=where, fix=DAMAGED)
        count = int.from_bytes(stream.read(8), "little")
        begin = stream.tell()
        end = begin + count * storages[key].width
        if count != storages[key].elements or end > len(data):
            raise CheckpointError(
                f"truncated or damaged: a tensor's {count:,} numbers should begin at byte {begin:,} of {len(data):,}",
                where=where,
                fix=DAMAGED,
            )
        storages[key].read = _Piece(view[begin:end])
        stream.seek(end)
    return content


@dataclass(frozen=True, eq=False, repr=False)
class _Piece:
    """Bytes that are in memory already."""

    view: memoryview

    def __call__(self) -> memoryview:
        return self.view


class _Archive:
    """A zip file whose members are checked against their CRC when they are read."""

    def __init__(self, data: bytes, where: str) -> None:
        self._where = where
        self._last: tuple[str, bytes] = ("", b"")
        # Before the zip module makes an object of a few hundred bytes for each entry of 46 bytes.
        if data.count(b"PK\x01\x02") > _MAX_MEMBERS:
            raise CheckpointError(f"a zip file of more than {_MAX_MEMBERS:,} members", where=where)
        try:
            self._zip = zipfile.ZipFile(io.BytesIO(data))
            self.members = self._zip.infolist()
        except _ZIP_FAULTS as error:
            raise CheckpointError("truncated or damaged: no zip file", where=where, fix=DAMAGED) from error

    def read(self, name: str) -> bytes:
        """Read a member; the last one is kept, for tensors that share one."""
        if self._last[0] != name:
            try:
                self._last = (name, self._zip.read(name))
            except _ZIP_FAULTS as error:
                raise CheckpointError(
                    f"the member {shown(name[-60:])} is damaged", where=self._where, fix=DAMAGED
                ) from error
        return self._last[1]


@dataclass(frozen=True, eq=False, repr=False)
class _Member:
    """Bytes of a member of a zip file."""

    archive: _Archive
    name: str

    def __call__(self) -> bytes:
        return self.archive.read(self.name)


def _zip_content(data: bytes, where: str) -> Any:
    """Torch's files since 1.6: a zip of data.pkl and one member for each storage, none of it compressed."""
    archive = _Archive(data, where)
    names_there: set[str] = set()
    for member in archive.members:
        # Torch never compresses, so that whatever is compressed would unpack to more than was fetched.
        if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1:
            raise CheckpointError(
                f"the member {shown(member.filename[-60:])} is compressed or encrypted; torch does neither",
                where=where,
                fix=DAMAGED,
            )
        names_there.add(member.filename)
    pickles = [name for name in names_there if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(pickles) != 1:
        raise CheckpointError("a zip file, but none of torch's", where=where, fix=DAMAGED)
    root = pickles[0].removesuffix("data.pkl")
    if f"{root}constants.pkl" in names_there:
        raise CheckpointError(
            "a TorchScript program, which is code", where=where, fix="use the checkpoint with plain weights"
        )
    if f"{root}byteorder" in names_there and archive.read(f"{root}byteorder") != b"little":
        raise CheckpointError("written on a big-endian machine; that is not supported", where=where)
    storages: dict[str, Storage] = {}

    def storage(identity: Any) -> Storage:
        if not (isinstance(identity, tuple) and len(identity) >= 5 and identity[0] == "storage"):
            raise CheckpointError("a reference to something that is no tensor", where=where, fix=DAMAGED)
        name = f"{root}data/{shown(identity[2])}"
        if name not in names_there:
            raise CheckpointError(f"the data of a tensor are missing: {shown(name[-60:])}", where=where)
        if name not in storages:
            found = storage_of(identity[1], identity[4])
            found.read = _Member(archive, name)
            storages[name] = found
        return storages[name]

    def refused(_: Any) -> Storage:
        raise CheckpointError("a file within a tensor", where=where, fix=DAMAGED)

    stream = io.BytesIO(archive.read(pickles[0]))
    return Machine(names(refused), where, storage).run(stream)


def _same(value: Any, expected: int) -> bool:
    return isinstance(value, int) and value == expected
