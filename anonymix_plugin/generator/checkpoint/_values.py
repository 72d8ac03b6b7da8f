"""The plain values that a checkpoint may hold."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from anonymix_plugin.errors import CheckpointError
from anonymix_plugin.generator.checkpoint._machine import Name

DAMAGED = "check its SHA-256 with whoever published it, and fetch it again"
_MAX_DIMENSIONS: Final = 8
_MAX_DEPTH: Final = 8
_MAX_MODULES: Final = 10_000

STORAGES: Final[Mapping[str, str]] = {
    "FloatStorage": "<f4",
    "DoubleStorage": "<f8",
    "HalfStorage": "<f2",
    "BFloat16Storage": "bf16",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "|i1",
    "ByteStorage": "|u1",
    "BoolStorage": "|b1",
}
NUMBER_TYPES: Final = frozenset({"f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1"})


@dataclass(eq=False, repr=False)
class Storage:
    """A run of numbers in the file.

    Attributes:
        kind: Their type in numpy's notation, or "bf16".
        elements: How many the pickle says there are.
        read: Returns their bytes; None as long as it is not known where they are.
    """

    kind: str
    elements: int
    read: Callable[[], bytes | memoryview] | None = None

    @property
    def width(self) -> int:
        """Bytes of one number."""
        return 2 if self.kind == "bf16" else np.dtype(self.kind).itemsize

    def numbers(self, where: str) -> npt.NDArray[Any]:
        """All of them, (elements,), in the type of the file; bfloat16 widened to float32.

        Raises:
            CheckpointError: The bytes are not there, or not as many as the pickle says.
        """
        raw = b"" if self.read is None else self.read()
        if self.read is None or len(raw) != self.elements * self.width:
            raise CheckpointError(
                f"a tensor should have {self.elements * self.width:,} bytes, and {len(raw):,} are there",
                where=where,
                fix=DAMAGED,
            )
        if self.kind == "bf16":
            return (np.frombuffer(raw, "<u2").astype("<u4") << 16).view("<f4")
        return np.frombuffer(raw, self.kind)


@dataclass(frozen=True, eq=False, repr=False)
class Tensor:
    """A tensor that was not read yet: a view of a storage.

    Attributes:
        storage: Where its numbers are.
        offset: Index of the first.
        shape: As in torch.
        strides: In numbers, as in torch.
    """

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def read(self, where: str) -> npt.NDArray[np.float32]:
        """Read it.

        Args:
            where: File and name of the tensor, for messages.

        Returns:
            A float32 array of its shape that owns its memory.

        Raises:
            CheckpointError: It reaches beyond its data, is larger than its data, or has NaN or infinity.
        """
        numbers = self.storage.numbers(where)
        reach = self.offset + sum((n - 1) * step for n, step in zip(self.shape, self.strides, strict=True))
        # A stride of 0 would make a small file a large tensor.
        count = math.prod(self.shape)
        if count > numbers.size or (count and reach >= numbers.size):
            raise CheckpointError("a tensor reaches beyond its data", where=where, fix=DAMAGED)
        steps = tuple(step * numbers.itemsize for step in self.strides)
        view = np.lib.stride_tricks.as_strided(numbers[self.offset :], self.shape, steps)
        return _finite(view, where)


@dataclass(eq=False, repr=False)
class NumberType:
    """A number type of numpy's."""

    code: str
    order: str = "="

    def set_state(self, state: Any) -> None:
        """Take the byte order; the rest of the state is about types that are refused."""
        if isinstance(state, tuple) and len(state) > 1 and state[1] in {"<", ">", "|", "="}:
            self.order = state[1]
        else:
            raise CheckpointError("a number type of numpy's that is not known", fix=DAMAGED)

    def numpy(self) -> np.dtype[Any]:
        """The type itself."""
        return np.dtype(f"{'' if self.order in '|=' else self.order}{self.code}")


@dataclass(eq=False, repr=False)
class Array:
    """An array of numpy's; read like a tensor."""

    shape: tuple[int, ...] = ()
    kind: NumberType = field(default_factory=lambda: NumberType("f4"))
    fortran: bool = False
    raw: bytes = b""

    def set_state(self, state: Any) -> None:
        """Take shape, type, order and bytes."""
        if not (isinstance(state, tuple) and len(state) == 5):
            raise CheckpointError("an array of numpy's that is not known", fix=DAMAGED)
        _, shape, kind, fortran, raw = state
        self.shape = sizes_of(shape, "an array's shape")
        if not (isinstance(kind, NumberType) and isinstance(raw, bytes | bytearray)):
            raise CheckpointError("an array that holds something other than numbers", fix=DAMAGED)
        self.kind, self.fortran, self.raw = kind, bool(fortran), bytes(raw)

    def read(self, where: str) -> npt.NDArray[np.float32]:
        """Read it as `Tensor.read` does."""
        kind = self.kind.numpy()
        if math.prod(self.shape) * kind.itemsize != len(self.raw):
            raise CheckpointError("an array does not fit its data", where=where, fix=DAMAGED)
        flat = np.frombuffer(self.raw, kind)
        return _finite(flat.reshape(self.shape[::-1]).T if self.fortran else flat.reshape(self.shape), where)


@dataclass(frozen=True, eq=False, repr=False)
class Module:
    """A network of NVIDIA's, as its pickle describes it; the source code that comes with it is dropped.

    Attributes:
        kind: Name of its class.
        state: Its attributes.
    """

    kind: str
    state: Mapping[Any, Any]

    def number(self, name: str) -> float | None:
        """A plain number among its attributes; None where it is missing or none."""
        value = self.state.get(name)
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None

    def walk(self, where: str) -> Iterator[tuple[str, Module]]:
        """Itself and all modules in it, with their dotted names, itself first under "".

        Raises:
            CheckpointError: There is no end to them.
        """
        waiting: list[tuple[str, Module, int]] = [("", self, 0)]
        seen = 0
        while waiting:
            prefix, module, depth = waiting.pop()
            seen += 1
            if depth > _MAX_DEPTH or seen > _MAX_MODULES:
                raise CheckpointError("modules without end", where=where, fix=DAMAGED)
            yield prefix, module
            children = module.state.get("_modules")
            for name, child in children.items() if isinstance(children, Mapping) else ():
                if isinstance(child, Module):
                    waiting.append((f"{prefix}.{name}".lstrip("."), child, depth + 1))

    def tensors(self, where: str) -> dict[str, Tensor | Array]:
        """All parameters and buffers by their dotted names."""
        found: dict[str, Tensor | Array] = {}
        for prefix, module in self.walk(where):
            for group in ("_parameters", "_buffers"):
                members = module.state.get(group)
                for name, value in members.items() if isinstance(members, Mapping) else ():
                    if isinstance(value, Tensor | Array):
                        found[f"{prefix}.{name}".lstrip(".")] = value
        return found


@dataclass(eq=False, repr=False)
class Opaque:
    """Something that is of no interest but may be there, as the arguments of a training run."""

    kind: str

    def set_state(self, state: Any) -> None:
        """Drop the content."""


def storage_of(kind: Any, elements: Any) -> Storage:
    """A storage that a persistent id announces; its bytes come later.

    Raises:
        CheckpointError: The type is not known or the number is none.
    """
    text = kind.text.rpartition(".")[2] if isinstance(kind, Name) else ""
    code = "|u1" if text == "UntypedStorage" else STORAGES.get(text)
    if code is None or not is_count(elements):
        raise CheckpointError("tensors of a kind that is not known", fix=DAMAGED)
    return Storage(code, int(elements))


def _finite(numbers: npt.NDArray[Any], where: str) -> npt.NDArray[np.float32]:
    """A float32 copy that owns its memory; refuses NaN, infinity and what float32 can't hold."""
    with np.errstate(over="ignore"):
        values = np.array(numbers, dtype=np.float32, order="C")
    if not np.isfinite(values).all():
        raise CheckpointError("weights that are no numbers (NaN or infinity)", where=where, fix=DAMAGED)
    return values


def is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 48


def sizes_of(value: Any, what: str) -> tuple[int, ...]:
    if not isinstance(value, tuple | list) or len(value) > _MAX_DIMENSIONS or not all(map(is_count, value)):
        raise CheckpointError(f"{what} that is none", fix=DAMAGED)
    return tuple(int(size) for size in value)
