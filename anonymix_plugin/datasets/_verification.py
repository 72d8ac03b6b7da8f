"""InsightFace's verification sets, such as `lfw.bin`: a pickle of (photos, same), read without running it.

The file is `pickle.dump((photos, same), ...)`: `photos` are encoded pictures, two for each pair, and `same`
says of each pair whether both show one person. A pickle is a program that may call anything. Here a small
machine of its own knows the two dozen instructions that such a file consists of, and refuses all others; it
calls nothing and imports nothing. Photos stay in the file, and their places are kept.

Instructions and their arguments are those of Python's documentation of `pickletools`, protocols 0 to 5.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from io import BufferedReader, BufferedWriter
from pathlib import Path
from typing import Any, Final

from anonymix_plugin.datasets._packed import PackedPhoto
from anonymix_plugin.errors import OutputError, UsageError
from anonymix_plugin.files import require_regular, whole_file

_MOST_STEPS: Final = 10_000_000
_MOST_PHOTOS: Final = 1_000_000
_LONGEST_LINE: Final = 256
_CURE: Final = (
    "a verification set is pickle.dump((photos, same), file): a list of the bytes of JPEG or PNG files, two "
    "a pair, and a list of as many bools as there are pairs"
)


@dataclass(frozen=True, eq=False)
class VerificationSet:
    """Pairs of photos.

    Attributes:
        path: The file.
        photos: Those of pair i are numbers 2 i and 2 i + 1.
        same: Whether each pair shows one person.
    """

    path: Path
    photos: tuple[PackedPhoto, ...]
    same: tuple[bool, ...]


def is_verification_set(path: Path) -> bool:
    """Whether a file looks like one: its suffix is `.bin` and it begins as a pickle does."""
    if path.suffix.lower() != ".bin":
        return False
    with suppress(OSError):
        require_regular(path)
        with path.open("rb") as stream:
            return stream.read(1) in {b"\x80", b"("}
    return False


def read_verification_set(path: Path) -> VerificationSet:
    """Read the places of the photos, and which pairs are genuine.

    Raises:
        UsageError: The file can't be read, or is something else: damaged, with instructions that such a set
            does not need, with other values, or with numbers of photos and pairs that don't fit.
    """
    try:
        require_regular(path)
        with path.open("rb") as stream:
            value = _Machine(stream, path).run()
    except OSError as error:
        raise UsageError(
            f"the data set can't be read: {error.strerror or type(error).__name__}",
            where=str(path),
            fix="check the path and its permissions",
        ) from None
    return _checked(path, value)


def _checked(path: Path, value: object) -> VerificationSet:
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise _refused(path, "it holds no pair of photos and answers")
    photos, same = value
    if not isinstance(photos, list | tuple) or not all(isinstance(one, _Bytes) for one in photos):
        raise _refused(path, "its first part is no list of encoded photos")
    if not isinstance(same, list | tuple) or not all(
        isinstance(one, bool) or (isinstance(one, int) and one in {0, 1}) for one in same
    ):
        raise _refused(path, "its second part is no list of bools")
    if len(photos) > _MOST_PHOTOS:
        raise _refused(path, f"it has more than {_MOST_PHOTOS:,} photos")
    if not same or len(photos) != 2 * len(same):
        raise _refused(path, f"it holds {len(photos):,} photos for {len(same):,} pairs")
    packed = (PackedPhoto(path, n, ((b.offset, b.length),), latin1=b.latin1) for n, b in enumerate(photos))
    return VerificationSet(path, tuple(packed), tuple(map(bool, same)))


def people_of(found: VerificationSet) -> tuple[list[int], list[str]]:
    """Who is on which photo, as far as the pairs tell: genuine pairs, and equal files, join photos.

    Returns:
        Number of the person on each photo, by order of appearance; SHA-256 of each photo, 64 hex digits.

    Raises:
        UnreadableImageError: A photo can't be read any more.
    """
    known: dict[PackedPhoto, str] = {}
    digests = []
    for photo in found.photos:
        # A few bytes may name one large place in the file any number of times: it is read once.
        place = replace(photo, number=0)
        if place not in known:
            known[place] = hashlib.sha256(photo.read(photo.size)).hexdigest()
        digests.append(known[place])
    parent: dict[str, str] = {digest: digest for digest in digests}

    def find(digest: str) -> str:
        while parent[digest] != digest:
            parent[digest] = digest = parent[parent[digest]]
        return digest

    for pair, same in enumerate(found.same):
        first, second = find(digests[2 * pair]), find(digests[2 * pair + 1])
        if same and first != second:
            parent[second] = first
    numbers: dict[str, int] = {}
    return [numbers.setdefault(find(digest), len(numbers)) for digest in digests], digests


class VerificationWriter:
    """Writes a set photo by photo, so that none is kept in memory; made by `VerificationWriter.into`."""

    def __init__(self, stream: BufferedWriter) -> None:
        self._stream = stream
        stream.write(b"\x80\x03](")  # protocol 3, which every Python 3 reads: a list, and a mark

    @classmethod
    @contextmanager
    def into(cls, path: Path, same: Callable[[], Sequence[bool]]) -> Iterator[VerificationWriter]:
        """Write a file whole or not at all.

        Args:
            path: The file.
            same: Called at the end for the answers, one for each two photos.

        Raises:
            OutputError: It can't be written.
        """
        with whole_file(path) as draft, draft.open("wb") as stream:
            writer = cls(stream)
            yield writer
            answers = b"".join(b"\x88" if one else b"\x89" for one in same())
            stream.write(b"e](" + answers + b"e\x86.")

    def add(self, photo: bytes) -> None:
        """Add an encoded photo."""
        if len(photo) >= 1 << 32:
            raise OutputError("a photo of more than 4 GiB has no place in a verification set")
        self._stream.write(b"B" + len(photo).to_bytes(4, "little") + photo)


@dataclass(frozen=True)
class _Bytes:
    """Bytes that stay in the file."""

    offset: int
    length: int
    latin1: bool = False


@dataclass(frozen=True)
class _Text:
    """A text that stays in the file."""

    offset: int
    length: int


class _Mark:
    """What MARK puts on the stack."""


class _Encode:
    """`_codecs.encode` by name; nothing is imported. Python 3 pickles bytes as its call under protocol 2."""


def _refused(path: Path, what: str) -> UsageError:
    return UsageError(f"this is no verification set: {what}", where=str(path), fix=_CURE)


class _Machine:
    """Runs the instructions of a pickle that build lists of bytes and bools, and no others."""

    def __init__(self, stream: BufferedReader, path: Path) -> None:
        self._stream, self._path = stream, path
        self._size = os.fstat(stream.fileno()).st_size
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def run(self) -> object:
        for _ in range(_MOST_STEPS):
            code = self._stream.read(1)
            if code == b".":
                if len(self._stack) != 1 or self._stream.tell() != self._size:
                    raise self._wrong("something is left over at its end")
                return self._stack[0]
            step = _STEPS.get(code)
            if step is None:
                what = f"its pickle has the instruction 0x{code.hex()}" if code else "it ends too early"
                raise self._wrong(f"{what}, at byte {self._stream.tell():,}")
            step(self)
        raise self._wrong(f"it has more than {_MOST_STEPS:,} instructions")

    def _wrong(self, what: str) -> UsageError:
        return _refused(self._path, what)

    # --- reading

    def _take(self, count: int) -> bytes:
        data = self._stream.read(count)
        if len(data) != count:
            raise self._wrong("it ends too early")
        return data

    def _number(self, count: int) -> int:
        return int.from_bytes(self._take(count), "little")

    def _line(self) -> bytes:
        line = self._stream.readline(_LONGEST_LINE)
        if not line.endswith(b"\n"):
            raise self._wrong("a line in it does not end")
        return line[:-1]

    def line_number(self) -> int:
        line = self._line()
        if not line.isdigit() or len(line) > 9:
            raise self._wrong("a number in it is none")
        return int(line)

    def _span(self, width: int) -> tuple[int, int]:
        length, offset = self._number(width), self._stream.tell()
        if length > self._size - offset:
            raise self._wrong(f"it ends within the photo that begins at byte {offset:,}")
        self._stream.seek(offset + length)
        return offset, length

    # --- the stack

    def _push(self, value: object) -> None:
        self._stack.append(value)

    def _pop(self) -> Any:
        if not self._stack:
            raise self._wrong("an instruction finds nothing to work on")
        return self._stack.pop()

    def _down_to_mark(self) -> list[Any]:
        items: list[Any] = []
        while not isinstance(one := self._pop(), _Mark):
            items.append(one)
        return items[::-1]

    def _remember(self, key: int) -> None:
        if not self._stack or isinstance(self._stack[-1], _Mark):
            raise self._wrong("an instruction finds nothing to work on")
        self._memo[key] = self._stack[-1]

    def _recall(self, key: int) -> None:
        if key not in self._memo:
            raise self._wrong("it speaks of something that it never made")
        self._push(self._memo[key])

    # --- instructions

    def protocol(self) -> None:
        if self._number(1) > 5:
            raise self._wrong("its protocol is newer than 5")

    def frame(self) -> None:
        self._take(8)

    def decimal(self) -> None:
        line = self._line()
        if line not in {b"00", b"01", b"0", b"1"}:
            raise self._wrong("it holds numbers")
        self._push(line.endswith(b"1"))

    def small(self) -> None:
        self._push(self._number(1))

    def octets(self, width: int) -> None:
        self._push(_Bytes(*self._span(width)))

    def text(self, width: int) -> None:
        self._push(_Text(*self._span(width)))

    def append(self) -> None:
        one = self._pop()
        self._extend([one])

    def appends(self) -> None:
        self._extend(self._down_to_mark())

    def _extend(self, items: list[Any]) -> None:
        if not self._stack or not isinstance(self._stack[-1], list):
            raise self._wrong("something is added to what is no list")
        self._stack[-1].extend(items)

    def tuple_of(self, count: int) -> None:
        self._push(tuple([self._pop() for _ in range(count)][::-1]))

    def named(self) -> None:
        module, name = self._line(), self._line()
        if (module, name) != (b"_codecs", b"encode"):
            raise self._wrong("it asks for something to be imported, which is not done")
        self._push(_Encode())

    def call(self) -> None:
        arguments, function = self._pop(), self._pop()
        known = isinstance(function, _Encode) and isinstance(arguments, tuple) and len(arguments) == 2
        if not known or not all(isinstance(one, _Text) for one in arguments):
            raise self._wrong("it asks for something to be called, which is not done")
        text, codec = arguments
        here = self._stream.tell()
        self._stream.seek(codec.offset)
        if codec.length != 6 or self._take(6) != b"latin1":
            raise self._wrong("it holds bytes in a code that is not known")
        self._stream.seek(here)
        self._push(_Bytes(text.offset, text.length, latin1=True))


_STEPS: Final[dict[bytes, Callable[[_Machine], None]]] = {
    b"\x80": _Machine.protocol,
    b"\x95": _Machine.frame,
    b"(": lambda m: m._push(_Mark()),
    b"]": lambda m: m._push([]),
    b"l": lambda m: m._push(m._down_to_mark()),
    b")": lambda m: m._push(()),
    b"t": lambda m: m._push(tuple(m._down_to_mark())),
    b"\x86": lambda m: m.tuple_of(2),
    b"a": _Machine.append,
    b"e": _Machine.appends,
    b"\x88": lambda m: m._push(True),
    b"\x89": lambda m: m._push(False),
    b"I": _Machine.decimal,
    b"K": _Machine.small,
    b"C": lambda m: m.octets(1),
    b"B": lambda m: m.octets(4),
    b"\x8e": lambda m: m.octets(8),
    b"U": lambda m: m.octets(1),  # texts of Python 2, which are bytes
    b"T": lambda m: m.octets(4),
    b"X": lambda m: m.text(4),
    b"p": lambda m: m._remember(m.line_number()),
    b"q": lambda m: m._remember(m._number(1)),
    b"r": lambda m: m._remember(m._number(4)),
    b"\x94": lambda m: m._remember(len(m._memo)),
    b"g": lambda m: m._recall(m.line_number()),
    b"h": lambda m: m._recall(m._number(1)),
    b"j": lambda m: m._recall(m._number(4)),
    b"c": _Machine.named,
    b"R": _Machine.call,
}
