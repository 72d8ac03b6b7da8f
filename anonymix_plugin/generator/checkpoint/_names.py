"""Everything that a checkpoint's pickle may ask for by name, and what it gets instead of the real thing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from anonymix_plugin.errors import CheckpointError
from anonymix_plugin.generator.checkpoint._machine import Name, shown
from anonymix_plugin.generator.checkpoint._values import (
    DAMAGED,
    NUMBER_TYPES,
    STORAGES,
    Array,
    Module,
    NumberType,
    Opaque,
    Storage,
    Tensor,
    is_count,
    sizes_of,
)


def names(nested: Callable[[bytes], Storage]) -> dict[str, Name]:
    """Everything that a checkpoint's pickle may name.

    Args:
        nested: Reads a storage that lies in the pickle as a file of its own (plain pickles of tensors).
    """
    calls: dict[str, Callable[..., Any]] = {
        "collections.OrderedDict": _mapping,
        "dnnlib.util.EasyDict": _mapping,
        "argparse.Namespace": lambda: Opaque("argparse.Namespace"),
        "_codecs.encode": _encoded,
        "torch._utils._rebuild_tensor": _tensor,
        "torch._utils._rebuild_tensor_v2": _tensor,
        "torch._utils._rebuild_parameter": _first,
        "torch._utils._rebuild_parameter_with_state": _first,
        "torch._tensor._rebuild_from_type_v2": _typed,
        "torch.storage._load_from_bytes": nested,
        "torch.Size": _listed,
        "torch.device": lambda *parts: ":".join(map(shown, parts)),
        "torch_utils.persistence._reconstruct_persistent_obj": _module,
        "numpy.dtype": _number_type,
        "dnnlib.tflib.network.Network": _tensorflow,
    }
    for package in ("numpy.core", "numpy._core"):
        calls[f"{package}.multiarray._reconstruct"] = lambda *_: Array()
        calls[f"{package}.multiarray.scalar"] = _scalar
        calls[f"{package}.numeric._frombuffer"] = _from_buffer
    for module in ("builtins", "__builtin__"):
        calls[f"{module}.set"] = calls[f"{module}.frozenset"] = _listed
    found = {text: Name(text, make) for text, make in calls.items()}
    only_named = [f"torch.{storage}" for storage in STORAGES]
    only_named += ["torch.storage.UntypedStorage", "torch.Tensor", "torch.nn.parameter.Parameter"]
    only_named += ["numpy.ndarray"]
    only_named += [f"torch.{kind}" for kind in ("float32", "float16", "bfloat16", "float64", "int64", "uint8")]
    return found | {text: Name(text) for text in only_named}


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> Tensor:
    if not isinstance(storage, Storage) or not is_count(offset):
        raise CheckpointError("a tensor without data", fix=DAMAGED)
    sizes, steps = sizes_of(shape, "a tensor's shape"), sizes_of(strides, "a tensor's strides")
    if len(sizes) != len(steps):
        raise CheckpointError("a tensor whose shape and strides do not fit", fix=DAMAGED)
    return Tensor(storage, int(offset), sizes, steps)


def _first(value: Any, *_: Any) -> Any:
    return value


def _typed(function: Any, _: Any, arguments: Any, __: Any) -> Any:
    if not isinstance(function, Name) or function.make is not _tensor or not isinstance(arguments, tuple):
        raise CheckpointError("a tensor of a kind that is not known", fix=DAMAGED)
    return _tensor(*arguments)


def _mapping(pairs: Any = ()) -> dict[Any, Any]:
    if not isinstance(pairs, list | tuple):
        raise CheckpointError("a dictionary that is none", fix=DAMAGED)
    filled: dict[Any, Any] = {}
    for pair in pairs:
        if not (isinstance(pair, list | tuple) and len(pair) == 2 and isinstance(pair[0], str | int)):
            raise CheckpointError("a dictionary that is none", fix=DAMAGED)
        if isinstance(pair[0], int) and pair[0].bit_length() > 64:
            raise CheckpointError("a number of more than 64 bits as a key", fix=DAMAGED)
        filled[pair[0]] = pair[1]
    return filled


def _listed(values: Any = ()) -> list[Any]:
    return list(values) if isinstance(values, list | tuple) else []


def _encoded(text: Any, encoding: Any) -> bytes:
    # How old protocols write bytes.
    if not isinstance(text, str) or encoding != "latin1":
        raise CheckpointError("a text that can't be decoded", fix=DAMAGED)
    return text.encode("latin1")


def _module(meta: Any) -> Module:
    if not (isinstance(meta, dict) and isinstance(meta.get("state"), dict)):
        raise CheckpointError("a network without content", fix=DAMAGED)
    return Module(shown(meta.get("class_name")), meta["state"])


def _tensorflow(*_: Any) -> Any:
    raise CheckpointError(
        "a TensorFlow snapshot of NVIDIA's, which holds its network as source code",
        fix="convert it with legacy.py of stylegan2-ada-pytorch, where you trust the file",
    )


def _number_type(code: Any, *_: Any) -> NumberType:
    if code not in NUMBER_TYPES:
        raise CheckpointError("an array that holds something other than numbers", fix=DAMAGED)
    return NumberType(code)


def _scalar(kind: Any, raw: Any) -> float:
    if not isinstance(kind, NumberType) or not isinstance(raw, bytes) or len(raw) != kind.numpy().itemsize:
        raise CheckpointError("a number that is none", fix=DAMAGED)
    return float(np.frombuffer(raw, kind.numpy())[0])


def _from_buffer(raw: Any, kind: Any, shape: Any, order: Any) -> Array:
    array = Array()
    array.set_state((1, _sequence(shape), kind, order == "F", raw))
    return array


def _sequence(value: Any) -> Sequence[Any]:
    return value if isinstance(value, tuple | list) else (value,)
