"""Every call that an adapter wraps takes what the original takes, by the same names, and a subject too."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from typing import Any

import insightface_like
import pytest
import torch
from remembering import RememberingMixer
from test_conformance import loaded

import anonymix_adapters
from anonymix_adapters import BypassError, crops, insightface
from anonymix_adapters.sdk import Sdk
from anonymix_adapters.swapping import swapped
from anonymix_adapters.wrapping import StandIn

REMOTE = {"azure", "compreface", "facepp", "luxand", "rekognition", "tencent"}
"""Adapters of services, which have tests of their own; all others are walked over here."""

Pair = tuple[str, Callable[..., Any], Callable[..., Any]]


def wrapped(client: Any) -> Iterator[Pair]:
    """Every call that is wrapped in a client and in what it is made of: its name, as it is, as it was."""
    seen: set[int] = set()
    todo = [client]
    while todo:
        it = todo.pop()
        if id(it) in seen:
            continue
        seen.add(id(it))
        if isinstance(it, StandIn):
            target = getattr(it._target, "original", it._target)  # behind a rehearsal's recorder
            for name in dir(target):
                original, now = getattr(target, name), _answer(it, name)
                if callable(original) and now is not None and now != original:
                    yield f"{type(it).__name__}.{name}", now, original
            continue
        swap = swapped(it)
        for name in swap.names if swap else ():
            if not name.startswith("_"):
                original = getattr(swap.plain, name).__get__(it)  # a recorder lies on the object
                yield f"{type(it).__name__}.{name}", getattr(it, name), original
        values = list(it.values()) if isinstance(it, dict) else list(getattr(it, "__dict__", {}).values())
        todo += [value for value in values if isinstance(value, dict) or swapped(value)]


def _answer(client: Any, name: str) -> Any:
    """What stands at a name; None where the adapter refuses it."""
    try:
        return None if name.startswith("_") else getattr(client, name)
    except (BypassError, AttributeError):
        return None


def parameters(call: Callable[..., Any]) -> dict[str, tuple[Any, Any]] | None:
    """Name to kind and default; OpenCV's calls have them in their first line of help alone."""
    help_ = re.match(r"\w+\(([^)]*)\) ->", call.__doc__ or "")
    if help_ and not inspect.isfunction(call) and not inspect.ismethod(call):
        needed, _, optional = help_[1].partition("[")
        names = [(name.strip(), inspect.Parameter.empty) for name in needed.split(",")]
        names += [(name, ...) for name in re.findall(r"\w+", optional)]
        return {name: (inspect.Parameter.POSITIONAL_OR_KEYWORD, default) for name, default in names}
    try:
        found = inspect.signature(call).parameters.values()
    except ValueError:
        return None
    return {it.name: (it.kind, it.default) for it in found}


def check(client: Any) -> list[str]:
    """Compare all of a client's wrapped calls; the names of those that were compared."""
    compared = []
    for name, now, before in wrapped(client):
        mine, theirs = parameters(now), parameters(before)
        assert mine is not None, name
        subject = mine.pop("subject", None)
        assert subject == (inspect.Parameter.KEYWORD_ONLY, None), f"{name} takes no subject="
        if theirs is None:
            continue
        assert list(mine) == list(theirs), f"{name} has other parameters"
        for parameter, (kind, default) in theirs.items():
            assert mine[parameter][0] == kind, f"{name}: {parameter}"
            there = mine[parameter][1]
            assert (there is inspect.Parameter.empty) == (default is inspect.Parameter.empty), f"{name}: {parameter}"
            if default is not ...:
                assert there == default, f"{name}: {parameter}"
        compared.append(name)
    return compared


LOCAL = sorted(set(anonymix_adapters.names()) - REMOTE)


@pytest.mark.parametrize("name", LOCAL)
def test_wrapped_calls_have_the_originals_signatures(name: str, adapter_mixer: RememberingMixer) -> None:
    adapter = loaded(name)
    with adapter.rehearse(adapter_mixer) as stage:
        assert check(stage.client)


def test_insightface_in_small_has_them_too(adapter_mixer: RememberingMixer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Sdk, "check", lambda _: "")
    names = check(insightface.protect(insightface_like.FaceAnalysis(), adapter_mixer))
    assert {"FaceAnalysis.get", "ArcFaceONNX.get", "ArcFaceONNX.get_feat", "ArcFaceONNX.forward"} <= set(names)
    assert {"PickableInferenceSession.run", "PickableInferenceSession.run_async"} <= set(names)


def test_torch_networks_have_them_too(adapter_mixer: RememberingMixer) -> None:
    class Net(torch.nn.Module):
        def features(self, x: torch.Tensor, *, flat: bool = True) -> torch.Tensor:
            return x

        def forward(self, pixel_values: torch.Tensor, scale: float = 1.0, *more: int, **options: int) -> Any:
            return pixel_values

    names = check(crops.protect(Net(), adapter_mixer))
    assert {"Net.forward", "Net.features"} <= set(names)
