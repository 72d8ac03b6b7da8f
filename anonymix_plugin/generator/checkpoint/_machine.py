"""A pickle machine with a closed list of instructions, all of which build plain values.

Python's own unpickler imports what a pickle names and calls it; restricting only the names leaves ways round
(state set on allowed functions, a memo of billions of entries, keys whose hash takes for ever). This machine
takes the stream apart with `pickletools`, which runs nothing, and carries out each instruction itself.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import IO, Any, Final, Protocol, runtime_checkable

from anonymix_plugin.errors import CheckpointError

MAX_STEPS: Final = 2_000_000
"""Instructions that a pickle may have. A snapshot of a 1024 px network with its discriminator has 30,000."""

MAX_TEXT: Final = 1 << 24
"""Characters of one line or decimal number of a pickle."""

MAX_MADE: Final = 1 << 27
"""Bytes of lists, tuples, dictionaries, copies that a pickle may make, and four more for each that it has."""

_EACH: Final = 64  # bytes of a small object
_PLACE: Final = 8  # bytes of a place in a list
_MOST_BITS: Final = 64  # of a number that is a key: longer ones can be made to have all the same hash


@dataclass(frozen=True)
class Name:
    """Something that a pickle calls by its name, and what the machine makes of a call to it.

    Attributes:
        text: Module and name, "torch._utils._rebuild_tensor_v2".
        make: Builds a plain value from plain values; None where the name is never called.
    """

    text: str
    make: Callable[..., Any] | None = None


@runtime_checkable
class Stateful(Protocol):
    """A value that takes its content in a second step."""

    def set_state(self, state: Any) -> None:
        """Take the content; raise CheckpointError if it is not what belongs there."""
        ...


class Machine:
    """Carries out one pickle.

    Args:
        names: What the pickle may name.
        where: The file, for messages.
        persistent: What stands for a persistent id (torch's storages); None where there must be none.
    """

    def __init__(
        self,
        names: Mapping[str, Name],
        where: str,
        persistent: Callable[[Any], Any] | None = None,
    ) -> None:
        self._names, self._where, self._persistent = names, where, persistent
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}
        self._at = 0
        self._made = 0

    def run(self, stream: IO[bytes]) -> Any:
        """Read one pickle from a stream and return the value that it describes.

        Raises:
            CheckpointError: The pickle is truncated or malformed, names something that is not on the list,
                or uses an instruction that weights do not need.
        """
        begin = stream.tell()
        steps = 0
        try:
            for opcode, argument, position in pickletools.genops(stream):
                self._at = begin + (position or 0)
                steps += 1
                if steps > MAX_STEPS:
                    raise self._fault(f"more than {MAX_STEPS:,} instructions")
                if isinstance(argument, str) and len(argument) > MAX_TEXT:
                    raise self._fault("a text of more than 16 million characters")
                if opcode.name == "STOP":
                    return self._end()
                self._spend(_EACH)
                self._step(opcode.name, argument)
        except CheckpointError:
            raise
        except (IndexError, KeyError) as error:
            raise self._fault("an instruction asks for a value that is not there") from error
        except (ValueError, TypeError, OverflowError, Warning) as error:
            # A text with an escape that does not exist is a warning, and an error where that is asked for.
            # genops says what it missed; its words hold no more than a few bytes of the file.
            raise self._fault(f"damaged or truncated ({str(error)[:120]})") from error
        except RecursionError as error:
            raise self._fault("values nested too deep") from error
        raise self._fault("no end")

    def _fault(self, what: str) -> CheckpointError:
        return CheckpointError(
            f"the pickle can't be read at byte {self._at}: {what}; nothing of it was run",
            where=self._where,
            fix="check its SHA-256 with whoever published it, and fetch it again",
        )

    def _spend(self, count: int) -> None:
        """Count bytes that an instruction makes beyond those that it reads."""
        self._made += count
        if self._made > MAX_MADE + 4 * self._at:
            raise self._fault(f"it makes more than {MAX_MADE >> 20} MB of values")

    def _end(self) -> Any:
        if len(self._stack) != 1 or self._marks:
            raise self._fault("it ends with values left over")
        return self._stack.pop()

    def _step(self, name: str, argument: Any) -> None:
        if name in _IGNORED:
            return
        if name in _CONSTANTS:
            self._stack.append(_CONSTANTS[name])
        elif name in _LITERALS:
            self._stack.append(argument)
        elif name in _EMPTY:
            self._stack.append(_EMPTY[name]())
        elif name in _STEPS:
            _STEPS[name](self, argument)
        else:
            raise self._fault(f"it uses the instruction {name}, which no weights need")

    # The rest are the instructions that do something to the stack.

    def _popped(self) -> list[Any]:
        """Take everything above the last mark."""
        mark = self._marks.pop()
        if mark > len(self._stack):
            raise IndexError(mark)
        taken = self._stack[mark:]
        del self._stack[mark:]
        self._spend(_PLACE * len(taken))
        return taken

    def _mark(self, _: Any) -> None:
        self._marks.append(len(self._stack))

    def _pop(self, _: Any) -> None:
        if self._marks and self._marks[-1] == len(self._stack):
            self._marks.pop()
        else:
            self._stack.pop()

    def _pop_mark(self, _: Any) -> None:
        self._popped()

    def _dup(self, _: Any) -> None:
        self._stack.append(self._stack[-1])

    def _put(self, index: Any) -> None:
        self._memo[self._key(int(index))] = self._stack[-1]

    def _memoise(self, _: Any) -> None:
        self._memo[len(self._memo)] = self._stack[-1]

    def _get(self, index: Any) -> None:
        self._stack.append(self._memo[int(index)])

    def _list(self, _: Any) -> None:
        self._stack.append(self._popped())

    def _tuple(self, _: Any) -> None:
        self._stack.append(tuple(self._popped()))

    def _short_tuple(self, length: int) -> None:
        taken = tuple(self._stack[-length:])
        if len(taken) != length:
            raise IndexError(length)
        del self._stack[-length:]
        self._stack.append(taken)

    def _dict(self, _: Any) -> None:
        flat = self._popped()
        filled: dict[Any, Any] = {}
        self._fill(filled, flat)
        self._stack.append(filled)

    def _frozen_set(self, _: Any) -> None:
        self._stack.append([self._key(value) for value in self._popped()])

    def _append(self, _: Any) -> None:
        value = self._stack.pop()
        self._as_list(self._stack[-1]).append(value)

    def _appends(self, _: Any) -> None:
        values = self._popped()
        self._as_list(self._stack[-1]).extend(values)

    def _add_items(self, _: Any) -> None:
        values = self._popped()
        self._as_list(self._stack[-1]).extend(self._key(value) for value in values)

    def _set_item(self, _: Any) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        self._fill(self._stack[-1], [key, value])

    def _set_items(self, _: Any) -> None:
        flat = self._popped()
        self._fill(self._stack[-1], flat)

    def _as_list(self, target: Any) -> list[Any]:
        if not isinstance(target, list):
            raise self._fault("values are added to something that is no list")
        return target

    def _key(self, key: Any) -> Any:
        # The hash of nested tuples can take for ever, and weights have plain names.
        if not isinstance(key, str | int | bytes | float | None):
            raise self._fault("a key that is neither text nor number")
        if isinstance(key, int) and key.bit_length() > _MOST_BITS:
            raise self._fault(f"a number of more than {_MOST_BITS} bits as a key")
        self._spend(_EACH)
        return key

    def _fill(self, target: Any, flat: list[Any]) -> None:
        if not isinstance(target, dict) or len(flat) % 2:
            raise self._fault("items are set on something that is no dictionary")
        for key, value in zip(flat[::2], flat[1::2], strict=True):
            target[self._key(key)] = value

    def _global(self, argument: Any) -> None:
        module, _, name = str(argument).partition(" ")
        self._stack.append(self._named(module, name))

    def _stack_global(self, _: Any) -> None:
        name, module = self._stack.pop(), self._stack.pop()
        if not (isinstance(name, str) and isinstance(module, str)):
            raise self._fault("a name that is no text")
        self._stack.append(self._named(module, name))

    def _named(self, module: str, name: str) -> Name:
        text = f"{module}.{name}"
        if text not in self._names:
            raise self._fault(f"it asks for {shown(text)}, which is no part of any weights")
        return self._names[text]

    def _reduce(self, _: Any) -> None:
        arguments, called = self._stack.pop(), self._stack.pop()
        if not isinstance(called, Name) or called.make is None or not isinstance(arguments, tuple):
            raise self._fault("a call of something that can't be called")
        # What is called copies its arguments at most once, each into an entry of a dictionary.
        self._spend(_EACH * sum(len(each) for each in arguments if isinstance(each, list | tuple)))
        self._spend(sum(len(each) for each in arguments if isinstance(each, str | bytes | bytearray)))
        self._stack.append(called.make(*arguments))

    def _build(self, _: Any) -> None:
        state = self._stack.pop()
        target = self._stack[-1]
        if isinstance(state, list | tuple):
            self._spend(sum(len(each) for each in state if isinstance(each, bytearray)))
        if isinstance(target, Stateful):
            target.set_state(state)
        elif not isinstance(target, dict):
            # A dictionary's attributes (the version numbers of torch's state dicts) are of no use here.
            raise self._fault("state is set on something that has none")

    def _persistent_id(self, _: Any) -> None:
        if self._persistent is None:
            raise self._fault("a reference to data outside the pickle")
        self._stack.append(self._persistent(self._stack.pop()))


def shown(value: Any) -> str:
    """What a file holds as it may stand in a message: short, printable, and never spelled out if nested.

    Lists that hold one list twice, nested two hundred deep, are a kilobyte in a file and without end as text.
    """
    if not isinstance(value, str | int | float | None):
        return f"a {type(value).__name__}"
    printable = "".join(letter if letter.isprintable() else "?" for letter in str(value)[:200])
    return printable if len(printable) <= 80 else printable[:77] + "..."


_IGNORED: Final = frozenset({"PROTO", "FRAME"})
_CONSTANTS: Final[dict[str, Any]] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_LITERALS: Final = frozenset(
    {
        *("INT", "LONG", "LONG1", "LONG4", "BININT", "BININT1", "BININT2", "FLOAT", "BINFLOAT"),
        *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINSTRING", "SHORT_BINSTRING"),
        *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
    }
)
# Sets become lists: nothing here needs to look anything up in them.
_EMPTY: Final[dict[str, Callable[[], Any]]] = {
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_DICT": dict,
    "EMPTY_SET": list,
}
_STEPS: Final[dict[str, Callable[[Machine, Any], None]]] = {
    "MARK": Machine._mark,
    "POP": Machine._pop,
    "POP_MARK": Machine._pop_mark,
    "DUP": Machine._dup,
    "PUT": Machine._put,
    "BINPUT": Machine._put,
    "LONG_BINPUT": Machine._put,
    "MEMOIZE": Machine._memoise,
    "GET": Machine._get,
    "BINGET": Machine._get,
    "LONG_BINGET": Machine._get,
    "LIST": Machine._list,
    "TUPLE": Machine._tuple,
    "TUPLE1": lambda machine, _: machine._short_tuple(1),
    "TUPLE2": lambda machine, _: machine._short_tuple(2),
    "TUPLE3": lambda machine, _: machine._short_tuple(3),
    "DICT": Machine._dict,
    "FROZENSET": Machine._frozen_set,
    "APPEND": Machine._append,
    "APPENDS": Machine._appends,
    "ADDITEMS": Machine._add_items,
    "SETITEM": Machine._set_item,
    "SETITEMS": Machine._set_items,
    "GLOBAL": Machine._global,
    "STACK_GLOBAL": Machine._stack_global,
    "REDUCE": Machine._reduce,
    # A class with arguments for its constructor: the same call, as far as plain values go.
    "NEWOBJ": Machine._reduce,
    "BUILD": Machine._build,
    "BINPERSID": Machine._persistent_id,
}
