"""All public formats of one generator load to one generator; nothing in a file is ever run."""

from __future__ import annotations

import pickle
import struct
import time
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stylegan2_checkpoints import (
    Network,
    Plan,
    Weights,
    e4e,
    genforce,
    genforce_state,
    random_weights,
    rosinality,
    rosinality_state,
    write,
    write_nvidia,
)

from anonymix_plugin.errors import CheckpointError, MissingModelError
from anonymix_plugin.generator.checkpoint import open_checkpoint
from anonymix_plugin.generator.stylegan2 import StyleGan2, load_stylegan2
from anonymix_plugin.generator.stylegan2_formats import stylegan2_weights

PLAN = Plan(width=16, layers=2, channels=(6, 5, 5, 4, 4))
ENCODER = {"input_layer.0.weight": torch.ones(4, 3, 3, 3)}


@pytest.fixture(scope="module")
def weights() -> Weights:
    return random_weights(PLAN, seed=7)


@pytest.fixture(scope="module")
def plain(weights: Weights, tmp_path_factory: pytest.TempPathFactory) -> StyleGan2:
    return load_stylegan2(write(tmp_path_factory.mktemp("plain") / "g.pt", rosinality(weights)))


def picture(generator: StyleGan2) -> torch.Tensor:
    z = torch.from_numpy(np.random.Generator(np.random.Philox(3)).standard_normal((1, 16), np.float32))
    return generator.synthesise(generator.map(z)[:, None].repeat(1, 10, 1), 64)


FILES: dict[str, tuple[str, Callable[[Path, Weights], Path]]] = {
    "rosinality, older torch": ("rosinality", lambda p, w: write(p / "g.pt", rosinality(w), legacy=True)),
    "rosinality, from training": (
        "rosinality",
        lambda p, w: write(
            p / "g.pt", {**rosinality(w), "g": rosinality_state(w), "g_optim": {"state": {}, "lr": 0.002}}
        ),
    ),
    "genforce": ("genforce", lambda p, w: write(p / "g.pth", genforce(w))),
    "genforce, older torch": ("genforce", lambda p, w: write(p / "g.pth", genforce(w), legacy=True)),
    "genforce, from training": (
        "genforce",
        lambda p, w: write(p / "g.pth", {"models": genforce(w), "running_metadata": {"iter": 3}}),
    ),
    "genforce, no average": (
        "genforce",
        lambda p, w: write(p / "g.pth", {"generator": genforce_state(w)}),
    ),
    "e4e": ("e4e", lambda p, w: write(p / "e.pt", e4e(w, ENCODER))),
    "e4e, older torch": ("e4e", lambda p, w: write(p / "e.pt", e4e(w, ENCODER), legacy=True)),
    "nvidia": ("nvidia", lambda p, w: write_nvidia(p / "g.pkl", w, marker=p / "ran")),
    "nvidia, protocol 4": ("nvidia", lambda p, w: write_nvidia(p / "g.pkl", w, marker=p / "ran", protocol=4)),
    "nvidia, protocol 5": ("nvidia", lambda p, w: write_nvidia(p / "g.pkl", w, marker=p / "ran", protocol=5)),
}


@pytest.mark.parametrize("name", FILES)
def test_all_formats_give_one_generator(name: str, weights: Weights, plain: StyleGan2, tmp_path: Path) -> None:
    source, make = FILES[name]
    generator = load_stylegan2(make(tmp_path, weights))
    assert generator.source == source
    assert torch.allclose(picture(generator), picture(plain), atol=2e-5)
    assert picture(plain).std() > 0.3
    assert np.allclose(generator.centre, plain.centre, atol=1e-6)
    if source != "genforce":  # whose style biases are stored with another rounding
        assert generator.weights_hash() == plain.weights_hash()
        assert torch.equal(picture(generator), picture(plain))
    assert not (tmp_path / "ran").exists()


def test_the_bound_and_the_rate_of_nvidias_networks_are_kept(
    weights: Weights, plain: StyleGan2, tmp_path: Path
) -> None:
    file = write_nvidia(tmp_path / "g.pkl", weights, marker=tmp_path / "ran", clamp=256.0, rate=0.1)
    found = stylegan2_weights(open_checkpoint(file))
    assert found.clamp == 256
    assert found.mapping_rate == pytest.approx(0.1)
    generator = StyleGan2(found)
    assert torch.allclose(picture(generator), picture(plain), atol=1e-4)
    assert generator.weights_hash() != plain.weights_hash()


def test_half_precision_and_views_are_read(weights: Weights, tmp_path: Path) -> None:
    state = rosinality(weights)
    rounded = {name: value.half() for name, value in state["g_ema"].items()}
    half = load_stylegan2(write(tmp_path / "half.pt", {**state, "g_ema": rounded}))
    widened = {name: value.float() for name, value in rounded.items()}
    assert torch.equal(picture(half), picture(load_stylegan2(write(tmp_path / "f.pt", {**state, "g_ema": widened}))))
    brain = {name: value.bfloat16() for name, value in state["g_ema"].items()}
    again = {name: value.float() for name, value in brain.items()}
    assert (
        load_stylegan2(write(tmp_path / "b.pt", {**state, "g_ema": brain})).weights_hash()
        == load_stylegan2(write(tmp_path / "c.pt", {**state, "g_ema": again})).weights_hash()
    )
    # One storage for all tensors, each of them a transposed view into it.
    flat = torch.cat([value.T.reshape(-1) if value.ndim == 2 else value.reshape(-1) for value in widened.values()])
    views, at = {}, 0
    for name, value in widened.items():
        piece = flat[at : at + value.numel()]
        views[name] = piece.view(value.T.shape).T if value.ndim == 2 else piece.view(value.shape)
        at += value.numel()
    viewed = load_stylegan2(write(tmp_path / "views.pt", {**state, "g_ema": views}))
    assert viewed.weights_hash() == half.weights_hash()


@pytest.mark.parametrize("legacy", [False, True])
def test_what_is_read_is_what_torch_reads(weights: Weights, tmp_path: Path, legacy: bool) -> None:
    file = write(tmp_path / "g.pt", rosinality(weights), legacy=legacy)
    expected = torch.load(file, map_location="cpu", weights_only=True)["g_ema"]
    found = open_checkpoint(file).content["g_ema"]
    assert list(found) == list(expected)
    for name, value in expected.items():
        assert np.array_equal(found[name].read(name), value.numpy())


# What must be refused, with words that say what is wrong and where.


class Attack:
    """Pickles as a call of anything."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self._call = (function, arguments)

    def __reduce__(self) -> Any:
        return self._call


def with_attack(path: Path, marker: Path, container: str) -> Path:
    import os

    content = {"g_ema": Attack(os.system, f"touch {marker}"), "latent_avg": torch.ones(3)}
    if container == "pickle":
        path.write_bytes(pickle.dumps(content))
        return path
    return write(path, content, legacy=container == "legacy")


@pytest.mark.parametrize("container", ["zip", "legacy", "pickle"])
def test_a_call_of_the_shell_is_refused_and_not_made(tmp_path: Path, container: str) -> None:
    file = with_attack(tmp_path / "evil.pt", tmp_path / "ran", container)
    with pytest.raises(CheckpointError, match=r"asks for (posix|os|nt)\.system.*nothing of it was run") as caught:
        load_stylegan2(file)
    assert caught.value.where == str(file)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "program",
    [
        pytest.param(b"\x80\x02cbuiltins\neval\n(X\x03\x00\x00\x001+1tR.", id="eval"),
        pytest.param(b"\x80\x04\x8c\x08builtins\x8c\x07getattr\x93.", id="getattr"),
        pytest.param(b"\x80\x02(ios\nsystem\n.", id="an instance by name"),
        pytest.param(b"\x80\x02(cos\nsystem\no.", id="an instance"),
        pytest.param(b"\x80\x02ctorch\nload\n.", id="torch.load"),
        pytest.param(b"\x80\x02ctorch.storage\nos.system\n.", id="an attribute of an allowed module"),
        pytest.param(b"\x80\x02\x82\x01.", id="an extension code"),
        pytest.param(b"\x80\x02P0\n.", id="a persistent id"),
        pytest.param(b"\x80\x02NQ.", id="a storage where there is none"),
        pytest.param(b"\x80\x02NNR.", id="a call of nothing"),
        pytest.param(b"\x80\x02cnumpy\ndtype\n}b.", id="state on a name"),
        pytest.param(b"\x80\x02cnumpy\ndtype\n(X\x01\x00\x00\x00OtR.", id="arrays of objects"),
        pytest.param(b"\x80\x02]]a0.", id="a stack that ends empty"),
        pytest.param(b"\x80\x02h\x07.", id="a memo that was never filled"),
        pytest.param(b"\x80\x02}(()NK\x01u.", id="an odd number of items"),
        pytest.param(b"\x80\x02})Ns.", id="a tuple as a key"),
        pytest.param(b"\x80\x02NN.", id="values left over"),
        pytest.param(b"\x80\x02N", id="no end"),
        pytest.param(b"\x80\x02t.", id="no mark"),
        pytest.param(b"\x80\x04B\xff\xff\xff\x7fabc.", id="bytes that are not there"),
        pytest.param(b"\x80\x04\x8e" + b"\xff" * 7 + b"\x7fabc.", id="eight exabytes that are not there"),
        pytest.param(b"\x80\x02\xff.", id="no instruction"),
        pytest.param(b"\x80\x02L" + b"9" * 5000 + b"L\n.", id="a number of 5,000 digits"),
    ],
)
def test_programs_are_refused(tmp_path: Path, program: bytes) -> None:
    file = tmp_path / "evil.pkl"
    file.write_bytes(program)
    with pytest.raises(CheckpointError) as caught:
        load_stylegan2(file)
    assert caught.value.where == str(file)
    assert "pickle" in caught.value.what or "numbers" in caught.value.what


def test_a_memo_of_billions_of_entries_costs_nothing(tmp_path: Path) -> None:
    file = tmp_path / "bomb.pkl"
    file.write_bytes(b"\x80\x02}r\xff\xff\xff\x7f.")
    with pytest.raises(CheckpointError, match="holds nothing"):
        load_stylegan2(file)


def test_lists_that_double_cost_nothing(tmp_path: Path) -> None:
    # Each list holds the one before twice: 2**200 values in 1 KB. As a key its hash would take for ever.
    doubled = b"\x80\x02)" + b"".join(b"q\x00h\x00\x86" for _ in range(200))
    file = tmp_path / "bomb.pkl"
    file.write_bytes(doubled + b".")
    with pytest.raises(CheckpointError, match="tuple"):
        load_stylegan2(file)
    file.write_bytes(b"\x80\x02}" + doubled[2:] + b"Ns.")
    with pytest.raises(CheckpointError, match="neither text nor number"):
        load_stylegan2(file)


def test_values_without_end_are_never_spelled_out(weights: Weights, tmp_path: Path) -> None:
    endless: Any = []
    for _ in range(200):
        endless = [endless, endless]
    content = rosinality(weights)
    content["g_ema"]["style.1.bias"] = endless
    with pytest.raises(CheckpointError, match=r"style\.1\.bias is no tensor"):
        load_stylegan2(write(tmp_path / "a.pt", content))

    def name_it(network: Network) -> None:
        network.synthesis.b8.architecture = endless
        network.synthesis.b16.__dict__["_kind"] = endless

    file = write_nvidia(tmp_path / "g.pkl", weights, marker=tmp_path / "ran", change=name_it)
    with pytest.raises(CheckpointError, match=r"synthesis\.b8 has architecture 'a list'"):
        load_stylegan2(file)
    doubled = b"\x80\x02]" + b"".join(b"q\x00h\x00\x86" for _ in range(200))
    (tmp_path / "d.pkl").write_bytes(doubled[:2] + b"ctorch\ndevice\n" + doubled[2:] + b"\x85R.")
    with pytest.raises(CheckpointError, match="holds str"):
        load_stylegan2(tmp_path / "d.pkl")


def test_a_zip_file_of_too_many_members_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("anonymix_plugin.generator.checkpoint._files._MAX_MEMBERS", 10)
    with zipfile.ZipFile(tmp_path / "many.pt", "w") as archive:
        for number in range(11):
            archive.writestr(f"archive/data/{number}", b"")
    with pytest.raises(CheckpointError, match="more than 10 members"):
        load_stylegan2(tmp_path / "many.pt")


def test_too_many_instructions_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("anonymix_plugin.generator.checkpoint._machine.MAX_STEPS", 1000)
    file = tmp_path / "bomb.pkl"
    file.write_bytes(b"\x80\x02" + b"N0" * 600 + b"N.")
    with pytest.raises(CheckpointError, match="more than 1,000 instructions"):
        load_stylegan2(file)


def test_a_list_that_allowed_calls_copy_over_and_over_is_refused(tmp_path: Path) -> None:
    count = 5_000
    values = b"(" + b"N" * count + b"l" + b"q\x000"  # a list, kept as number 0
    copy = b"c__builtin__\nset\n(h\x00tR"
    path = tmp_path / "copies.pkl"
    path.write_bytes(b"\x80\x02" + values + b"(" + copy * 5_000 + b"l.")
    with pytest.raises(CheckpointError, match="makes more than 128 MB"):
        open_checkpoint(path)


def test_arrays_that_share_changeable_bytes_are_refused_once_they_are_many(tmp_path: Path) -> None:
    size = 60_000
    raw = b"\x96" + size.to_bytes(8, "little") + b"\0" * size + b"\x940"
    kind = b"cnumpy\ndtype\n(X\x02\0\0\0u1tR\x940"
    array = b"cnumpy.core.multiarray\n_reconstruct\n(tR(K\x01(M" + size.to_bytes(2, "little") + b"th\x01Nh\x00tb0"
    path = tmp_path / "arrays.pkl"
    path.write_bytes(b"\x80\x05" + raw + kind + array * 5_000 + b"N.")
    with pytest.raises(CheckpointError, match="makes more than 128 MB"):
        open_checkpoint(path)


@pytest.mark.parametrize("call", [False, True])
def test_numbers_that_have_one_hash_are_no_keys(tmp_path: Path, call: bool) -> None:
    prime = (1 << 61) - 1  # numbers are hashed modulo this
    numbers = [n * prime for n in range(1, 2_000)]
    path = tmp_path / "keys.pkl"
    content = pickle.dumps(dict.fromkeys(numbers), 2)
    if call:
        content = pickle.dumps(OrderedDict.fromkeys(numbers), 2)
    path.write_bytes(content)
    started = time.thread_time()
    with pytest.raises(CheckpointError, match="64 bits"):
        open_checkpoint(path)
    assert time.thread_time() - started < 2


def test_places_in_the_memo_have_no_number_without_end(tmp_path: Path) -> None:
    path = tmp_path / "memo.pkl"
    path.write_bytes(b"\x80\x02N" + b"p%d\n" % (((1 << 61) - 1) * (1 << 40)) + b".")
    with pytest.raises(CheckpointError, match="64 bits"):
        open_checkpoint(path)


def test_modules_without_end_are_refused(weights: Weights, tmp_path: Path) -> None:
    def knot(network: Network) -> None:
        inner: Any = network
        for _ in range(12):
            inner.__dict__["_modules"] = dict(inner._modules) | {"a": Network("X"), "b": None}
            inner._modules["b"] = inner._modules["a"]
            inner = inner._modules["a"]

    file = write_nvidia(tmp_path / "g.pkl", weights, marker=tmp_path / "ran", change=knot)
    with pytest.raises(CheckpointError, match="without end"):
        load_stylegan2(file)


def test_a_compressed_member_is_refused_unread(tmp_path: Path) -> None:
    file = tmp_path / "bomb.pt"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}.")
        archive.writestr("archive/data/0", b"\0" * 50_000_000)
    assert file.stat().st_size < 100_000
    with pytest.raises(CheckpointError, match="compressed or encrypted"):
        load_stylegan2(file)


def test_a_small_storage_is_no_large_tensor(tmp_path: Path) -> None:
    content = {"g_ema": {"style.1.bias": torch.ones(1).expand(100_000, 100_000)}}
    found = open_checkpoint(write(tmp_path / "bomb.pt", content)).content["g_ema"]["style.1.bias"]
    assert found.shape == (100_000, 100_000)
    with pytest.raises(CheckpointError, match="beyond its data"):
        found.read("bomb.pt, style.1.bias")


@pytest.mark.parametrize("container", ["zip", "legacy", "pickle"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.9, 0.999])
def test_a_truncated_file_is_refused(weights: Weights, tmp_path: Path, container: str, share: float) -> None:
    if container == "pickle":
        whole = write_nvidia(tmp_path / "g.pkl", weights, marker=tmp_path / "ran").read_bytes()
    else:
        whole = write(tmp_path / "g.pt", rosinality(weights), legacy=container == "legacy").read_bytes()
    file = tmp_path / "cut"
    file.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(CheckpointError, match=r"truncated|damaged|no end|can't be read"):
        load_stylegan2(file)


def test_a_flipped_bit_in_a_zip_is_noticed(weights: Weights, tmp_path: Path) -> None:
    file = write(tmp_path / "g.pt", rosinality(weights))
    data = bytearray(file.read_bytes())
    at = data.index(weights["conv.4.weight"].numpy().tobytes()[:64])
    data[at + 7] ^= 1
    file.write_bytes(data)
    with pytest.raises(CheckpointError, match="damaged"):
        load_stylegan2(file)


def test_a_length_that_lies_is_refused(weights: Weights, tmp_path: Path) -> None:
    file = write(tmp_path / "g.pt", rosinality(weights), legacy=True)
    data = bytearray(file.read_bytes())
    at = data.index(weights["conv.4.weight"].numpy().tobytes()[:64]) - 8
    data[at : at + 8] = struct.pack("<q", 1 << 40)
    file.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"truncated or damaged.*1,099,511,627,776 numbers"):
        load_stylegan2(file)


@pytest.mark.parametrize("container", ["zip", "legacy", "pickle"])
def test_damage_anywhere_is_an_error_of_ours_or_none(tmp_path: Path, container: str) -> None:
    small = random_weights(Plan(width=4, layers=2, channels=(2,) * 5))
    marker = tmp_path / "ran"
    if container == "pickle":
        whole = write_nvidia(tmp_path / "g.pkl", small, marker=marker).read_bytes()
    else:
        whole = write(tmp_path / "g.pt", rosinality(small), legacy=container == "legacy").read_bytes()
    random = np.random.Generator(np.random.Philox(8))
    file, refused = tmp_path / "damaged", 0
    for _ in range(60):
        data = bytearray(whole)
        for at in random.integers(0, min(len(data), 6000), 3):
            way = random.integers(3)
            if way == 0:
                data[at % len(data)] ^= 1 << int(random.integers(8))
            elif way == 1:
                del data[at : at + int(random.integers(1, 20))]
            else:
                data[at:at] = data[: int(random.integers(1, 40))]
        file.write_bytes(data)
        try:
            stylegan2_weights(open_checkpoint(file))
        except CheckpointError:
            refused += 1
    assert refused > 40
    assert not marker.exists()


def changed(weights: Weights, tmp_path: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    content = rosinality(weights)
    change(content)
    return write(tmp_path / "g.pt", content)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda c: c["g_ema"].pop("convs.3.conv.weight"), "convs.3.conv.weight is missing"),
        (lambda c: c["g_ema"].pop("noises.noise_5"), "noises.noise_5 is missing"),
        (lambda c: c["g_ema"].pop("to_rgb1.bias"), "no to_rgb1.bias"),
        (lambda c: c["g_ema"].pop("to_rgbs.3.bias"), "32 px"),
        (
            lambda c: c["g_ema"].update({"convs.3.activate.bias": torch.ones(9)}),
            r"convs.3.activate.bias has shape \(9,\), expected \(5,\)",
        ),
        (lambda c: c["g_ema"].update({"style.2.weight": torch.ones(16, 15)}), "style.2.weight has shape"),
        (lambda c: c["g_ema"].update({"style.1.weight": torch.ones(16)}), "style.1.weight has shape"),
        (lambda c: c["g_ema"].update({"input.input": torch.ones(1, 6, 0, 4)}), "input.input has shape"),
        (lambda c: c["g_ema"].update({"convs.0.skip.weight": torch.ones(3)}), "it has convs.0.skip.weight"),
        (
            lambda c: c["g_ema"].update({"convs.0.conv.blur.kernel": torch.ones(4, 4)}),
            "blur.kernel is not the filter",
        ),
        (lambda c: c["g_ema"]["convs.1.activate.bias"].fill_(float("nan")), "convs.1.activate.bias.*NaN"),
        (lambda c: c["g_ema"].update({"style.1.bias": "text"}), "style.1.bias is no tensor"),
        (lambda c: c.update(latent_avg=torch.ones(5)), r"mean style vector has shape \(5,\)"),
        (lambda c: c.update(latent_avg="text"), "mean style vector is no vector"),
        (lambda c: c.update(g_ema=[1]), "no dictionary"),
        (lambda c: c.pop("g_ema"), "holds latent_avg"),
        (lambda c: c.clear(), "holds nothing"),
    ],
)
def test_what_does_not_fit_is_named(
    weights: Weights, tmp_path: Path, change: Callable[[dict[str, Any]], None], match: str
) -> None:
    own = {name: value.clone() for name, value in weights.items()}
    with pytest.raises(CheckpointError, match=match):
        load_stylegan2(changed(own, tmp_path, change))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda n: setattr(n, "c_dim", 10), "conditional"),
        (
            lambda n: setattr(n.synthesis.b8, "architecture", "resnet"),
            "synthesis.b8 has architecture 'resnet'",
        ),
        (lambda n: setattr(n.synthesis.b8.conv0, "activation", "swish"), "conv0 has activation 'swish'"),
        (lambda n: setattr(n.synthesis.b8.conv0, "conv_clamp", 64), "different bounds"),
        (lambda n: n.synthesis._modules.pop("b16"), "no StyleGAN2 of"),
        (lambda n: n.synthesis.b16._modules.pop("conv1"), "synthesis.b16.conv1.weight is missing"),
    ],
)
def test_networks_of_another_kind_are_named(
    weights: Weights, tmp_path: Path, change: Callable[[Network], None], match: str
) -> None:
    file = write_nvidia(tmp_path / "g.pkl", weights, marker=tmp_path / "ran", change=change)
    with pytest.raises(CheckpointError, match=match):
        load_stylegan2(file)


def test_other_files_are_told_apart(weights: Weights, tmp_path: Path) -> None:
    with pytest.raises(MissingModelError, match="no such file"):
        load_stylegan2(tmp_path / "missing.pt")
    file = tmp_path / "page.pt"
    file.write_text("<!doctype html><title>Quota exceeded</title>")
    with pytest.raises(CheckpointError, match="web page"):
        load_stylegan2(file)
    file.write_bytes(b"")
    with pytest.raises(CheckpointError, match="no checkpoint"):
        load_stylegan2(file)
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("photo.jpg", b"abc")
    with pytest.raises(CheckpointError, match="none of torch's"):
        load_stylegan2(file)
    with zipfile.ZipFile(file, "w") as archive:
        for member in ("data.pkl", "constants.pkl", "code/__torch__.py"):
            archive.writestr(f"archive/{member}", b"\x80\x02}.")
    with pytest.raises(CheckpointError, match="TorchScript"):
        load_stylegan2(file)
    content = e4e(weights, ENCODER)
    content["state_dict"] = {"encoder.x": torch.ones(2)}
    with pytest.raises(CheckpointError, match="no generator"):
        load_stylegan2(write(file, content))


def test_a_tensorflow_snapshot_is_refused_by_name(tmp_path: Path) -> None:
    file = tmp_path / "tf.pkl"
    file.write_bytes(b"\x80\x03cdnnlib.tflib.network\nNetwork\n)\x81.")
    with pytest.raises(CheckpointError, match="TensorFlow"):
        load_stylegan2(file)


def test_a_text_with_an_escape_that_does_not_exist_is_an_error_of_ours(tmp_path: Path) -> None:
    file = tmp_path / "g.pkl"
    file.write_bytes(b"\x80\x02cbuiltins\\q\nx\n.")
    with pytest.raises(CheckpointError):
        open_checkpoint(file)
