"""Hooks lie on one object: copies, overwriting and other adapters leave them, and the original, alone."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest

from anonymix_adapters import (
    AdapterError,
    BypassError,
    CopiedClientError,
    DoubleProtectionError,
    Hooks,
    Interceptor,
    NotProtectedError,
    StandIn,
    hook,
    interceptor_of,
    need_interceptor,
    stand_in,
    unwrap,
    wrap,
)
from anonymix_lab.data.keys import SeededKeys


class NoFaces:
    fingerprint = "0" * 32
    keystore = SeededKeys(1)

    def protect(self, image: Any, **_: Any) -> Any:
        raise AssertionError("no face was to be made")


class Client:
    """A back end's client, with another object inside."""

    def __init__(self) -> None:
        self.model = Model()
        self.weight = 1

    def send(self) -> str:
        return f"original {self.weight}"

    def stop(self) -> str:
        return "stopped"


class Model:
    def run(self) -> str:
        return "run"


def install(client: Client) -> Hooks:
    plainly = client.send
    return Hooks.together(
        (
            hook(client, {"send": lambda: f"protected {plainly()}"}),
            hook(client.model, {"run": lambda: "protected run"}),
        )
    )


def by_hand(client: Any) -> Any:
    twin = object.__new__(type(client))
    vars(twin).update(vars(client))
    return twin


@pytest.fixture
def interceptor() -> Interceptor:
    return Interceptor(NoFaces(), "test")


@pytest.fixture
def client(interceptor: Interceptor) -> Client:
    return wrap(Client(), interceptor, install)


def holds(client: Client, interceptor: Interceptor) -> bool:
    return interceptor_of(client) is interceptor and client.send() == "protected original 1"


def test_hooks_lie_on_one_object_and_go_as_they_came(client: Client, interceptor: Interceptor) -> None:
    assert holds(client, interceptor)
    assert client.model.run() == "protected run"
    assert Client().send() == "original 1"
    assert isinstance(client, Client)
    assert (type(client).__name__, type(client).__module__) == ("Client", __name__)
    before = unwrap(client)
    assert before is client
    assert type(client) is Client
    assert (client.send(), client.model.run()) == ("original 1", "run")


@pytest.mark.parametrize("make", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_copy_is_refused_with_a_sentence(
    client: Client, interceptor: Interceptor, make: Callable[[Any], Any]
) -> None:
    with pytest.raises(CopiedClientError):
        make(client)
    with pytest.raises(CopiedClientError):
        make(client.model)
    assert holds(client, interceptor)


def test_a_copy_made_by_hand_is_no_way_in_and_none_to_the_original(client: Client, interceptor: Interceptor) -> None:
    twin = by_hand(client)
    assert interceptor_of(twin) is None
    with pytest.raises(BypassError, match="copy"):
        twin.send()
    with pytest.raises(NotProtectedError):
        unwrap(twin)
    with pytest.raises(CopiedClientError):
        wrap(twin, interceptor, install)
    with pytest.raises(CopiedClientError):
        copy.copy(twin)
    assert holds(client, interceptor)


def test_a_hook_can_not_be_overwritten_unnoticed(client: Client, interceptor: Interceptor) -> None:
    with pytest.raises(BypassError, match="unprotect"):
        client.send = lambda: "past the mixer"  # type: ignore[method-assign]
    with pytest.raises(BypassError):
        del client.send
    vars(client)["send"] = lambda: "past the mixer"
    client.weight = 1  # what is no hook can be set
    assert holds(client, interceptor)
    setattr(type(client), "send", lambda _: "past the mixer")  # noqa: B010
    assert interceptor_of(client) is None
    with pytest.raises(NotProtectedError):
        need_interceptor(client)


def test_what_somebody_took_out_is_put_in_again(client: Client, interceptor: Interceptor) -> None:
    client.model.__class__ = Model
    assert interceptor_of(client) is None
    assert holds(wrap(client, interceptor, install), interceptor)
    assert client.model.run() == "protected run"
    client.__class__ = Client
    assert interceptor_of(client) is None
    with pytest.raises(NotProtectedError):
        unwrap(client)


def test_hooks_that_only_the_adapter_knows_are_asked_for(interceptor: Interceptor) -> None:
    client, handlers = Client(), ["mixer"]
    hooks = Hooks(handlers.clear, lambda: handlers == ["mixer"])
    wrap(client, interceptor, lambda _: hooks)
    assert interceptor_of(client) is interceptor
    handlers.insert(0, "the host's")
    assert interceptor_of(client) is None
    unwrap(client)
    assert handlers == []


def test_one_failure_does_not_keep_the_other_hooks_in(client: Client, interceptor: Interceptor) -> None:
    def failing(client: Client) -> Hooks:
        def fail() -> None:
            raise OSError("the handler is gone")

        return Hooks.together((install(client), Hooks(fail)))

    other = wrap(Client(), interceptor, failing)
    with pytest.raises(OSError, match="gone"):
        unwrap(other)
    assert (other.send(), other.model.run(), interceptor_of(other)) == ("original 1", "run", None)


def test_a_part_of_a_protected_client_is_not_protected_a_second_time(client: Client, interceptor: Interceptor) -> None:
    with pytest.raises(DoubleProtectionError):
        wrap(client.model, interceptor, lambda it: hook(it, {"run": lambda: "mixed twice"}))
    other = Client()
    other.model = client.model
    with pytest.raises(DoubleProtectionError):
        wrap(other, interceptor, install)
    assert (other.send(), interceptor_of(other)) == ("original 1", None)
    assert client.model.run() == "protected run"


def test_what_is_built_in_is_refused_and_left_as_it_was(interceptor: Interceptor) -> None:
    for target in (object(), Exception(), print):
        with pytest.raises(AdapterError, match="in place"):
            wrap(target, interceptor, lambda _: Hooks(lambda: None))
        assert interceptor_of(target) is None


def test_a_stand_in_is_not_copied(interceptor: Interceptor) -> None:
    client = Client()
    standing = stand_in(client, interceptor, StandIn)
    for make in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(CopiedClientError):
            make(standing)
    assert unwrap(standing) is client
