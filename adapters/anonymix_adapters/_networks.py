"""Torch modules and ONNX Runtime sessions that take crops: their classes swapped, and no second way in."""

from __future__ import annotations

import copy
import inspect
import sys
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final, NoReturn, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from anonymix_adapters.errors import BypassError, CopiedClientError, DoubleProtectionError
from anonymix_adapters.interceptor import Interceptor
from anonymix_adapters.swapping import INSIDE, plainly, swap, swapped
from anonymix_plugin.errors import UsageError
from anonymix_plugin.values import Floats

Mixed: TypeAlias = Callable[[npt.NDArray[Any], str | None], Floats]
"""From crops, and the subject if the call named one, to the crops of cancelable faces."""

_NUMBERS = (bool, int, float, type(None))


def swap_module(net: Any, interceptor: Interceptor, mixed: Mixed, through: Collection[str] = ()) -> None:
    """Protect a `torch.nn.Module`: `forward`, and the methods of `through`, by the mixer; the rest is shut.

    Raises:
        UsageError: The module has no method that `through` names.
        DoubleProtectionError: A part of it, or what it is a part of, is protected already.
    """
    import torch

    missing = [name for name in through if not callable(getattr(net, name, None))]
    if missing:
        raise UsageError(f"a {type(net).__name__} has no {missing[0]}", where="through")
    parts = [it for it in net.modules() if it is not net]
    if any(swapped(it) for it in parts) or any(_interceptors(it) - {interceptor} for it in (net, *parts)):
        raise DoubleProtectionError(
            "a part of this network, or one that it is a part of, is protected; a face is not mixed twice",
            where=type(net).__name__,
            fix="unprotect that one first",
        )

    def mixing(name: str) -> Callable[..., Any]:
        def call(it: Any, *args: Any, subject: str | None = None, **kwargs: Any) -> Any:
            if _tracing():
                raise _no_tracing(type(it).__name__)
            run = plainly(it, name)
            if interceptor in INSIDE:
                return run(*args, **kwargs)
            values: dict[Any, Any] = {**dict(enumerate(args)), **kwargs}
            given = [place for place, value in values.items() if isinstance(value, torch.Tensor)]
            others = [it for place, it in values.items() if place not in given]
            if len(given) != 1 or not all(isinstance(it, _NUMBERS) for it in others):
                raise BypassError(
                    "a protected network takes one tensor of crops, and besides it numbers alone",
                    where=type(it).__name__,
                )
            values[given[0]] = _mixed_tensor(values[given[0]], lambda crops: mixed(crops, subject))
            with INSIDE.of(interceptor):
                return run(*(values[place] for place in range(len(args))), **{name: values[name] for name in kwargs})

        return call

    def no_script(it: Any) -> NoReturn:
        raise _no_tracing(type(it).__name__)

    def no_twin(it: Any) -> NoReturn:
        raise CopiedClientError(
            "a shallow copy of a protected network would share its parts",
            where=type(it).__name__,
            fix="use copy.deepcopy",
        )

    hooks = {name: shut(name, interceptor) for name in _public(type(net), torch.nn.Module)}
    hooks |= {name: mixing(name) for name in ("forward", *through)}
    if type(net).__call__ is not torch.nn.Module.__call__:
        hooks["__call__"] = mixing("__call__")
    if isinstance(net, torch.jit.ScriptModule):  # its methods are not its class's, and it saves itself whole
        hooks |= {name: shut(name, interceptor) for name in net._c._method_names() if name not in hooks}
        hooks |= {name: refused("what is loaded again is unprotected") for name in hooks if "save" in name}

    def filled(it: Any, state: Any) -> None:
        plainly(it, "__setstate__")(state)
        _seal_parts(it, interceptor)  # of a deep copy; scripted parts copy themselves without what was put there

    hooks |= {"__prepare_scriptable__": no_script, "__copy__": no_twin, "__setstate__": filled}
    swap(
        net,
        interceptor,
        hooks,
        again=lambda it: swap_module(it, interceptor, mixed, through),
        undo=lambda it: _release(it, interceptor),
    )
    _seal_parts(net, interceptor)


def shut(name: str, interceptor: Interceptor) -> Callable[..., Any]:
    """A method that runs inside what the interceptor protects, and outside it takes no tensor, array or picture."""

    def call(it: Any, *args: Any, subject: str | None = None, **kwargs: Any) -> Any:  # noqa: ARG001
        if interceptor not in INSIDE and any(map(_shows, (*args, *kwargs.values()))):
            raise BypassError(
                f"{name}() passes the mixer by",
                where=type(it).__name__,
                fix="use the call that is protected; for a method of a network that takes crops as forward() "
                "does, name it in protect(..., through=[...])",
            )
        return plainly(it, name)(*args, **kwargs)

    return call


def swap_session(session: Any, interceptor: Interceptor, mixed: Mixed | None, _: Collection[str] = ()) -> None:
    """Protect an `onnxruntime.InferenceSession`: `run` by the mixer, the other ways to run not at all.

    Without `mixed`, `run` is for what the interceptor protects alone: it refuses wherever that is not at work.
    """

    def run(it: Any, output_names: Any, input_feed: Any, run_options: Any = None, *, subject: str | None = None) -> Any:
        inner = plainly(it, "run")
        if mixed is None or interceptor in INSIDE:
            if interceptor not in INSIDE:
                raise BypassError(
                    "a crop given straight to the recognition model's session passes the mixer by",
                    where=type(it).__name__,
                    fix="use get()",
                )
            return inner(output_names, input_feed, run_options)
        if not isinstance(input_feed, Mapping) or len(input_feed) != 1:
            raise BypassError("a protected session takes one array of crops and nothing else", where=type(it).__name__)
        ((name, crops),) = input_feed.items()
        if not isinstance(crops, np.ndarray):
            raise BypassError("a protected session takes a numpy array", where=type(it).__name__, fix="use run()")
        mixed_crops = mixed(crops, subject).astype(crops.dtype)
        with INSIDE.of(interceptor):
            return inner(output_names, {name: mixed_crops}, run_options)

    ways = [name for name in dir(type(session)) if name.startswith("run") or name == "io_binding"]
    hooks = {name: refused("this way into the network passes the mixer by") for name in ways} | {"run": run}
    if not hasattr(type(session), "__setstate__"):  # what it holds of the runtime can't be copied

        def no_copy(it: Any, _: Any) -> NoReturn:
            raise CopiedClientError(
                "a session can't be copied", where=type(it).__name__, fix="make a new one and protect it"
            )

        hooks["__deepcopy__"] = no_copy
    swap(session, interceptor, hooks, again=lambda it: swap_session(it, interceptor, mixed))
    setattr(type(session), _RUNTIME, _Runtime(interceptor))


_RUNTIME: Final = "_sess"  # where onnxruntime keeps what runs, in all versions that are supported


class _Runtime:
    """What runs behind a session runs while the interceptor is at work, and not else.

    So a subclass's own methods and `InferenceSession.run(session, ...)` have no way past the hooks.
    """

    def __init__(self, interceptor: Interceptor) -> None:
        self._interceptor = interceptor

    def __get__(self, session: Any, owner: type | None = None) -> Any:
        found = vars(session)[_RUNTIME]
        return found if found is None or self._interceptor in INSIDE else _Idle(found)

    def __set__(self, session: Any, value: Any) -> None:  # `set_providers` makes it again
        vars(session)[_RUNTIME] = value


class _Idle:
    def __init__(self, runtime: Any) -> None:
        self._runtime = runtime

    def __getattr__(self, name: str) -> Any:
        if name.startswith("run"):
            raise BypassError(
                "this way into the network passes the mixer by",
                where="InferenceSession",
                fix="use run() of the protected session itself",
            )
        return getattr(self._runtime, name)


def refused(words: str) -> Callable[..., Any]:
    """A method that refuses."""

    def call(it: Any, *_: Any, **__: Any) -> NoReturn:
        raise BypassError(words, where=type(it).__name__, fix="use the call that is protected")

    return call


def _public(kind: type, base: type) -> list[str]:
    """The public methods that a class has more than its base, or has in another way."""
    return [
        name
        for name in dir(kind)
        if not name.startswith("_")
        and inspect.isfunction(inspect.getattr_static(kind, name))
        and inspect.getattr_static(kind, name) is not inspect.getattr_static(base, name, None)
    ]


def public_methods(kind: type) -> list[str]:
    """The public methods of a class."""
    return _public(kind, object)


def _shows(value: Any) -> bool:
    """Whether a value may hold a picture, crops or what was computed from them."""
    if isinstance(value, Mapping):
        return any(map(_shows, value.values()))
    if isinstance(value, list | tuple):
        return any(map(_shows, value))
    torch = sys.modules.get("torch")
    return isinstance(value, np.ndarray | Image.Image) or (torch is not None and isinstance(value, torch.Tensor))


def _mixed_tensor(given: Any, mixed: Callable[[npt.NDArray[Any]], Floats]) -> Any:
    import torch

    try:
        crops = given.detach().cpu().float().numpy()
    except TypeError as error:
        raise BypassError("crops are a dense tensor", where="network", fix="use to_dense()") from error
    except RuntimeError as error:  # a fake tensor, one of a transform, or one on "meta"
        raise _no_tracing("network") from error
    return torch.from_numpy(mixed(crops)).to(device=given.device, dtype=given.dtype)


def _tracing() -> bool:
    """Whether torch writes down what runs, instead of running it, or besides."""
    import torch

    symbolic = sys.modules.get("torch.fx._symbolic_trace")
    proxies = sys.modules.get("torch.fx.experimental.proxy_tensor")
    return (
        torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
        or torch.compiler.is_compiling()
        or torch.onnx.is_in_onnx_export()
        or getattr(symbolic, "_is_fx_tracing_flag", False)
        or (proxies is not None and proxies.get_proxy_mode() is not None)
    )


def _no_tracing(where: str) -> BypassError:
    return BypassError(
        "a protected network can't be traced, exported or transformed: the mixer would be left out, or one "
        "person's face would be frozen into what comes out",
        where=where,
        fix="trace or export the network before you protect it, and protect what comes out (an ONNX Runtime "
        "session, say)",
    )


class _Part:
    """Lies on each part of a protected network; the part runs while the whole does, and not by itself."""

    def __init__(self, interceptor: Interceptor) -> None:
        self.interceptor = interceptor

    def __call__(self, part: Any, _: Any) -> None:
        if self.interceptor not in INSIDE:
            raise BypassError(
                f"{type(part).__name__}, a part of a protected network, passes the mixer by if it runs alone",
                where="network",
                fix="run the whole network; for its parts alone, use unprotect(copy.deepcopy(network))",
            )

    def __deepcopy__(self, memo: dict[int, Any]) -> _Part:
        return self

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise CopiedClientError(
            "a part of a protected network can't be pickled: what is loaded again would be unprotected",
            where="network",
            fix="save its state_dict(), or unprotect the network first",
        )


class _PartMethod:
    """In place of a method of a part that has no parts of its own, which nothing else would stop."""

    def __init__(self, interceptor: Interceptor, part: Any, name: str, own: Any) -> None:
        self.interceptor, self.part, self.name, self.own = interceptor, part, name, own

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if any(map(_shows, (*args, *kwargs.values()))):
            _Part(self.interceptor)(self.part, None)
        run = self.own
        if run is None and hasattr(self.part, "_c"):  # scripted
            run = self.part._c._get_method(self.name)
        elif run is None:
            run = getattr(type(self.part), self.name).__get__(self.part)
        made = run(*args, **kwargs)
        if self.name == _REPLICATE:  # it has been given this part's attributes
            _take_methods(made, self.interceptor)
        return made

    def __deepcopy__(self, memo: dict[int, Any]) -> _PartMethod:
        part = memo.get(id(self.part), self.part)
        return _PartMethod(self.interceptor, part, self.name, copy.deepcopy(self.own, memo))


_REPLICATE: Final = "_replicate_for_data_parallel"


def _seal_parts(net: Any, interceptor: Interceptor) -> None:
    import torch

    for part in (it for it in net.modules() if it is not net):
        if not any(isinstance(it, _Part) and it.interceptor is interceptor for it in part._forward_pre_hooks.values()):
            part._forward_pre_hooks[id(interceptor)] = _Part(interceptor)
        scripted = isinstance(part, torch.jit.ScriptModule)
        if not scripted and (type(part).__module__.startswith("torch.nn.") or any(part.children())):
            continue  # one step of arithmetic, or made of parts that are sealed themselves
        ways = part._c._method_names() if scripted else _public(type(part), torch.nn.Module)
        for name in {"forward", *ways, *(() if scripted else (_REPLICATE,))}:
            own = vars(part).get(name)
            if not isinstance(own, _PartMethod):
                vars(part)[name] = _PartMethod(interceptor, part, name, own)


def _take_methods(part: Any, interceptor: Interceptor) -> None:
    for name, it in list(vars(part).items()):
        if isinstance(it, _PartMethod) and it.interceptor is interceptor:
            del vars(part)[name]
            if it.own is not None:
                vars(part)[name] = it.own


def _interceptors(module: Any) -> set[Interceptor]:
    """What protects the networks that a module is a part of."""
    return {it.interceptor for it in module._forward_pre_hooks.values() if isinstance(it, _Part)}


def _release(net: Any, interceptor: Interceptor) -> None:
    for part in net.modules():
        hooks = part._forward_pre_hooks
        for name in [name for name, it in hooks.items() if isinstance(it, _Part) and it.interceptor is interceptor]:
            del hooks[name]
        _take_methods(part, interceptor)
