"""Torch networks and ONNX Runtime sessions: copies use their own weights, nothing leaves the mixer out."""

from __future__ import annotations

import copy
import io
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from remembering import RememberingMixer

from anonymix_adapters import BypassError, CopiedClientError, DoubleProtectionError, SubjectNeededError
from anonymix_adapters.crops import CropLayout, interceptor_of, protect, unprotect
from anonymix_adapters.testing.conformance import Person
from anonymix_keystore import Keystore
from anonymix_plugin import Anonymixer, UsageError
from anonymix_plugin.faces import YuNet, recogniser_crops
from anonymix_plugin.images import decode_photo
from anonymix_plugin.models import locate
from anonymix_plugin.recognisers import torch_recogniser

subject = Anonymixer.subject.__get__(object())


class Net(torch.nn.Module):
    """Small, with a method that many networks have."""

    def __init__(self) -> None:
        super().__init__()
        self.pool, self.fc = torch.nn.AdaptiveAvgPool2d(8), torch.nn.Linear(192, 16)

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        return self.pool(x).flatten(1)

    def freeze(self) -> int:
        return sum(1 for _ in self.parameters())

    def forward(self, x: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
        return scale * self.fc(self.forward_features(x))


class Alone(torch.nn.Module):
    """Without parts: all of its weights are its own."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(3))

    def embed(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean(dim=(2, 3)) * self.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.embed(x)


@pytest.fixture(scope="module")
def crops(londoners: list[Person]) -> list[torch.Tensor]:
    photos = [decode_photo(it.enrolled) for it in londoners[:2]]
    faces = [YuNet(locate("yunet")).detect(photo)[0] for photo in photos]
    return [torch.from_numpy(CropLayout().from_pixels(crop[None])) for crop in recogniser_crops(faces)]


@pytest.fixture
def names(adapter_store: Keystore, londoners: list[Person]) -> list[str]:
    for person in londoners[:2]:
        adapter_store.current_or_issue(person.name)
    return [person.name for person in londoners[:2]]


def cosine(a: Any, b: Any) -> float:
    a, b = (np.asarray(it, np.float64).ravel() for it in (a, b))
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


@torch.inference_mode()
def test_copies_of_a_real_recogniser_are_protected_and_give_its_own_answers(
    adapter_mixer: RememberingMixer, crops: list[torch.Tensor], names: list[str]
) -> None:
    original = torch_recogniser("sface")
    net, plain = protect(copy.deepcopy(original), adapter_mixer), original(crops[0])
    with subject(names[0]):
        protected = net(crops[0])
        assert cosine(protected, plain) < 0.5
        twin = copy.deepcopy(net)
        for other in (twin, torch.nn.Sequential(net), torch.nn.DataParallel(net)):
            assert torch.equal(other(crops[0]), protected)
        assert cosine(copy.deepcopy(net).double()(crops[0].double()), protected) > 0.999
    with pytest.raises(SubjectNeededError):
        twin(crops[0])
    assert interceptor_of(twin) is interceptor_of(net)
    unprotect(twin)  # the copy alone
    assert torch.equal(twin(crops[0]), plain)
    assert interceptor_of(twin) is None
    with pytest.raises(SubjectNeededError):
        net(crops[0])
    assert torch.equal(net(crops[0], subject=names[0]), protected)


@pytest.mark.filterwarnings("ignore")
@torch.inference_mode()
def test_a_copy_uses_its_own_weights(
    adapter_mixer: RememberingMixer, crops: list[torch.Tensor], names: list[str]
) -> None:
    net = protect(Net().eval(), adapter_mixer)
    average = torch.optim.swa_utils.AveragedModel(net)
    small = torch.ao.quantization.quantize_dynamic(net, {torch.nn.Linear}, dtype=torch.qint8)
    twin = copy.deepcopy(net)
    for values in twin.parameters():
        values.zero_()
    with subject(names[0]):
        before = net(crops[0])
        assert not twin(crops[0]).any()
        assert not torch.func.functional_call(net, dict(twin.named_parameters()), (crops[0],)).any()
        assert not torch.equal(small(crops[0]), before)
        assert cosine(small(crops[0]), before) > 0.99
        assert torch.equal(average(crops[0]), before)
        net.load_state_dict(twin.state_dict())
        average.update_parameters(net)
        assert not net(crops[0]).any()
        assert not torch.equal(average(crops[0]), before)
    for other in (twin, small, average):
        with pytest.raises(SubjectNeededError):
            other(crops[0])


def _script(it: Any, x: torch.Tensor) -> Any:
    return torch.jit.script(it)


def _make_fx(it: Any, x: torch.Tensor) -> Any:
    from torch.fx.experimental.proxy_tensor import make_fx

    return make_fx(it)(x)


def _onnx(it: Any, x: torch.Tensor) -> Any:
    return torch.onnx.export(it, (x,), io.BytesIO(), dynamo=False)


TRANSFORMED: dict[str, Callable[[Any, torch.Tensor], Any]] = {
    "jit.trace": torch.jit.trace,
    "jit.trace_module": lambda it, x: torch.jit.trace_module(it, {"forward_features": x}),
    "jit.script": _script,
    "jit.script of a network around it": lambda it, x: torch.jit.script(torch.nn.Sequential(it)),
    "jit.trace of a network around it": lambda it, x: torch.jit.trace(torch.nn.Sequential(it), x),
    "onnx.export": _onnx,
    "export": lambda it, x: torch.export.export(it, (x,)),
    "fx.symbolic_trace": lambda it, x: torch.fx.symbolic_trace(it),
    "make_fx": _make_fx,
    "compile": lambda it, x: torch.compile(it, backend="eager")(x),
    "vmap": lambda it, x: torch.vmap(it)(x[None]),
    "grad": lambda it, x: torch.func.grad(lambda y: it(y).sum())(x),
    "meta": lambda it, x: it(x.to("meta")),
    "save": lambda it, x: torch.save(it, io.BytesIO()),
    "save of a part": lambda it, x: torch.save(it.fc, io.BytesIO()),
    "copy.copy": lambda it, x: copy.copy(it),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("way", TRANSFORMED)
def test_a_network_is_neither_traced_nor_exported_nor_saved(
    way: str, adapter_mixer: RememberingMixer, crops: list[torch.Tensor], names: list[str]
) -> None:
    """One person's face would be frozen into it, or the mixer left out."""
    net = protect(Net().eval(), adapter_mixer)
    with subject(names[0]), pytest.raises((BypassError, CopiedClientError)):
        TRANSFORMED[way](net, crops[0])
    with subject(names[0]):  # and goes on working afterwards
        assert net(crops[0]).shape == (1, 16)


PAST: dict[str, Callable[[Any, torch.Tensor], Any]] = {
    "another method": lambda it, x: it.forward_features(x),
    "another method, by name": lambda it, x: it.forward_features(x=x),
    "another method, in a list": lambda it, x: it.forward_features([x]),
    "a part": lambda it, x: it.pool(x),
    "its parts in another network": lambda it, x: torch.nn.Sequential(*it.children())(x),
    "a copy of a part": lambda it, x: copy.deepcopy(it.pool)(x),
    "its class's own method": Net.forward,
    "a part, traced": lambda it, x: torch.jit.trace(it.pool, x),
    "another forward": lambda it, x: setattr(it, "forward", Net().forward),
    "another class": lambda it, x: setattr(it, "__class__", Net),
    "another forward in its class": lambda it, x: setattr(type(it), "forward", Net.forward),
    "without forward": lambda it, x: delattr(it, "forward"),
    "two tensors": lambda it, x: it(x, x),
    "a tensor in a list": lambda it, x: it([x]),
    "a path": lambda it, x: it(x, "photo.jpg"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("way", PAST)
def test_a_network_has_no_second_way_in(
    way: str, adapter_mixer: RememberingMixer, crops: list[torch.Tensor], names: list[str]
) -> None:
    net = protect(Net().eval(), adapter_mixer)
    with subject(names[0]), pytest.raises(BypassError):
        PAST[way](net, crops[0])
    with pytest.raises(SubjectNeededError):
        net(crops[0])
    assert net.freeze() == 2  # a method that takes no picture is nobody's business


def test_a_network_without_parts_is_shut_as_well(
    adapter_mixer: RememberingMixer, crops: list[torch.Tensor], names: list[str]
) -> None:
    net = protect(Alone(), adapter_mixer)
    with pytest.raises(BypassError, match="embed"):
        net.embed(crops[0])
    with subject(names[0]):
        assert cosine(net(crops[0]).detach(), Alone()(crops[0]).detach()) < 1


class Around(torch.nn.Module):
    def __init__(self, inner: torch.nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["plain", "traced"])
@torch.inference_mode()
def test_a_part_without_parts_is_shut_with_all_its_methods(
    kind: str, adapter_mixer: RememberingMixer, crops: list[torch.Tensor], names: list[str]
) -> None:
    inner: Any = Alone() if kind == "plain" else torch.jit.trace(Alone(), crops[0])
    plain = inner(crops[0])
    net = protect(Around(inner), adapter_mixer)
    for other in (net, copy.deepcopy(net)):
        for name in ("forward", "__call__", *(["embed"] if kind == "plain" else [])):
            with pytest.raises(BypassError):
                getattr(other.inner, name)(crops[0])
        assert not torch.allclose(other(crops[0], subject=names[0]), plain)
        unprotect(other)
        assert torch.equal(other.inner.forward(crops[0]), plain)
        assert torch.equal(copy.deepcopy(other)(crops[0]), plain)
        protect(other, adapter_mixer)
    if kind == "plain":
        twin = copy.deepcopy(net)
        twin.inner.weight.zero_()
        assert not twin(crops[0], subject=names[0]).any()  # by its own weights
        assert net(crops[0], subject=names[0]).any()
        replica = net.inner._replicate_for_data_parallel()
        assert "forward" not in vars(replica)


def test_methods_that_the_user_names_go_through_the_mixer(
    adapter_mixer: RememberingMixer, crops: list[torch.Tensor], names: list[str]
) -> None:
    plain = Net().eval()
    net = protect(copy.deepcopy(plain), adapter_mixer, through=["forward_features"])
    with pytest.raises(SubjectNeededError):
        net.forward_features(crops[0])
    with subject(names[0]), torch.inference_mode():
        features = net.forward_features(crops[0])
        assert not torch.allclose(features, plain.forward_features(crops[0]), atol=0.1)
        assert torch.equal(net(x=crops[0], scale=2.0), 2 * plain.fc(features))  # mixed once, not twice
    with pytest.raises(UsageError):
        protect(Net(), adapter_mixer, through=["no_such_method"])


def test_a_part_and_a_whole_are_not_both_protected(adapter_mixer: RememberingMixer) -> None:
    net = protect(Net(), adapter_mixer)
    for other in (torch.nn.Sequential(net), net.fc):
        with pytest.raises(DoubleProtectionError):
            protect(other, adapter_mixer)


@pytest.mark.filterwarnings("ignore")
def test_what_is_traced_or_scripted_or_compiled_first_can_be_protected(
    adapter_mixer: RememberingMixer, crops: list[torch.Tensor], names: list[str]
) -> None:
    plain = Net().eval()
    with subject(names[0]), torch.inference_mode():
        wanted = protect(copy.deepcopy(plain), adapter_mixer)(crops[0])
        for build in (torch.fx.symbolic_trace, lambda it: torch.export.export(it, (crops[0],)).module()):
            net = protect(build(copy.deepcopy(plain)), adapter_mixer)
            for other in (net, copy.deepcopy(net)):
                assert torch.allclose(other(crops[0]), wanted, atol=1e-5)
    with pytest.raises(SubjectNeededError):
        copy.deepcopy(net)(crops[0])


def test_nothing_started_inside_a_network_inherits_that_it_is_inside(
    adapter_mixer: RememberingMixer, crops: list[torch.Tensor], names: list[str]
) -> None:
    """A thread, or a generator that is read later, can't run the parts."""
    refused: list[BaseException] = []

    class Starts(Net):
        def later(self) -> Any:
            yield self.pool(crops[0])

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            def run() -> None:
                try:
                    self.pool(crops[0])
                except BypassError as error:
                    refused.append(error)

            thread = threading.Thread(target=run)
            thread.start()
            thread.join()
            self.lazy = self.later()
            return super().forward(x)

    net = protect(Starts().eval(), adapter_mixer)
    with subject(names[0]):
        net(crops[0])
    assert len(refused) == 1
    with pytest.raises(BypassError):
        next(net.lazy)


# --- ONNX Runtime -----------------------------------------------------------------------------------


@pytest.fixture
def session(adapter_mixer: RememberingMixer) -> Any:
    return protect(onnxruntime.InferenceSession(str(locate("arcface-mbf"))), adapter_mixer)


def test_a_session_takes_its_arguments_by_their_names(
    session: Any, crops: list[torch.Tensor], names: list[str]
) -> None:
    feed = {session.get_inputs()[0].name: crops[0].numpy()}
    options = onnxruntime.RunOptions()
    with subject(names[0]):
        wanted = session.run(None, feed)[0]
        assert np.array_equal(session.run(None, input_feed=feed)[0], wanted)
        assert np.array_equal(session.run(output_names=None, input_feed=feed)[0], wanted)
        assert np.array_equal(session.run(None, feed, run_options=options)[0], wanted)
    assert np.array_equal(session.run(None, feed, subject=names[0])[0], wanted)
    with pytest.raises(SubjectNeededError):
        session.run(output_names=None, input_feed=feed)
    unprotect(session)
    plain = session.run(None, feed)[0]
    assert cosine(wanted, plain) < 0.5


def test_every_other_way_to_run_a_session_is_refused(session: Any) -> None:
    ways = [name for name in dir(session) if name.startswith("run") and name != "run"]
    assert {"run_async", "run_with_iobinding", "run_with_ort_values"} <= set(ways)
    for name in (*ways, "io_binding"):
        with pytest.raises(BypassError):
            getattr(session, name)()
    for name in ("run", "run_async", "__class__"):
        with pytest.raises(BypassError):
            setattr(session, name, None)
    assert session.get_modelmeta() is not None
    session.set_providers(["CPUExecutionProvider"])  # makes the session behind it again
    with pytest.raises(SubjectNeededError):
        session.run(None, {session.get_inputs()[0].name: np.zeros((1, 3, 112, 112), np.float32)})


class Embeds(onnxruntime.InferenceSession):
    def embed(self, crops: Any) -> Any:
        return self.run(None, {self.get_inputs()[0].name: crops})[0]

    def fast(self, crops: Any) -> Any:
        return super().run(None, {self.get_inputs()[0].name: crops})[0]


def test_methods_of_a_session_s_own_go_through_the_mixer_or_nowhere(
    adapter_mixer: RememberingMixer, crops: list[torch.Tensor], names: list[str]
) -> None:
    session = Embeds(str(locate("arcface-mbf")))
    before, plain = session.run, session.embed(crops[0].numpy())
    protect(session, adapter_mixer)
    feed = {session.get_inputs()[0].name: crops[0].numpy()}
    with pytest.raises(SubjectNeededError):
        session.embed(crops[0].numpy())
    with subject(names[0]):
        assert cosine(session.embed(crops[0].numpy()), plain) < 0.5
        session.set_providers(["CPUExecutionProvider"])  # makes what runs again
        for past in (
            lambda: session.fast(crops[0].numpy()),
            lambda: onnxruntime.InferenceSession.run(session, None, feed),
            lambda: before(None, feed),
        ):
            with pytest.raises(BypassError):
                past()
    unprotect(session)
    assert np.array_equal(session.fast(crops[0].numpy()), plain)


class Pickable(onnxruntime.InferenceSession):
    """As InsightFace has it: a copy loads the file again."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self.path = path

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path}

    def __setstate__(self, values: dict[str, Any]) -> None:
        self.__init__(values["path"])  # type: ignore[misc]


def test_a_session_that_can_be_copied_is_protected_when_it_is(
    adapter_mixer: RememberingMixer, crops: list[torch.Tensor], names: list[str]
) -> None:
    import pickle

    session = protect(Pickable(locate("arcface-mbf")), adapter_mixer)
    feed = {session.get_inputs()[0].name: crops[0].numpy()}
    for other in (copy.deepcopy(session), copy.copy(session)):
        with pytest.raises(SubjectNeededError):
            other.run(None, feed)
        assert np.allclose(other.run(None, feed, subject=names[0])[0], session.run(None, feed, subject=names[0])[0])
    with pytest.raises(CopiedClientError, match="pickled"):
        pickle.dumps(session)
    unprotect(copy.deepcopy(session))
    with pytest.raises(SubjectNeededError):
        session.run(None, feed)
