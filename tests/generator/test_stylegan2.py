"""StyleGAN2 draws what its definition says, for all sizes, with gradients, on both engines."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import signal
from stylegan2_checkpoints import Plan, Weights, random_weights, rosinality, write
from stylegan2_reference import TAPS, convolved, drawn, mapped, modulated, upsampled

from anonymix_plugin.errors import UsageError
from anonymix_plugin.generator import ArrayGenerator, Generator, TorchGenerator
from anonymix_plugin.generator.checkpoint import open_checkpoint
from anonymix_plugin.generator.stylegan2 import (
    ModulatedConv,
    StyleGan2,
    filter_kernel,
    load_stylegan2,
    smooth,
    stylegan2_layers,
    upsample,
)
from anonymix_plugin.generator.stylegan2_engines import load_own_generator
from anonymix_plugin.generator.stylegan2_formats import stylegan2_weights
from anonymix_plugin.generator.stylegan2_openvino import OpenVinoStyleGan2

RANDOM = np.random.Generator(np.random.Philox(5))


@pytest.fixture(scope="module")
def weights() -> Weights:
    return random_weights(Plan())


@pytest.fixture(scope="module")
def file(weights: Weights, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("stylegan2") / "small.pt", rosinality(weights))


@pytest.fixture(scope="module")
def generator(file: Path) -> StyleGan2:
    return load_stylegan2(file)


def code(generator: StyleGan2, count: int = 2) -> torch.Tensor:
    shape = (count, generator.layers.total, generator.w_dim)
    return torch.from_numpy(RANDOM.standard_normal(shape).astype(np.float32))


def test_the_picture_is_that_of_the_definition(weights: Weights, generator: StyleGan2) -> None:
    w_plus = code(generator)
    pictures = generator.synthesise(w_plus, 64).numpy()
    for picture, one in zip(pictures, w_plus.double().numpy(), strict=True):
        expected = drawn(weights, one)
        assert expected.std() > 0.3
        assert np.abs(picture - expected).max() < 1e-4


def test_bounded_activations_are_those_of_the_definition(weights: Weights, file: Path) -> None:
    bounded = StyleGan2(replace(stylegan2_weights(open_checkpoint(file)), clamp=0.7))
    w_plus = code(bounded, 1)
    expected = drawn(weights, w_plus[0].double().numpy(), clamp=0.7)
    assert np.abs(expected - drawn(weights, w_plus[0].double().numpy())).max() > 0.1
    assert np.abs(bounded.synthesise(w_plus, 64)[0].numpy() - expected).max() < 1e-4


def test_the_mapping_is_that_of_the_definition(weights: Weights, generator: StyleGan2) -> None:
    z = RANDOM.standard_normal((3, generator.z_dim))
    expected = np.stack([mapped(weights, one) for one in z])
    found = generator.map(torch.from_numpy(z.astype(np.float32))).numpy()
    assert np.abs(expected).max() > 0.1
    assert np.abs(found - expected).max() < 1e-5


@pytest.mark.parametrize("k", [2, 3])
def test_a_modulated_convolution_is_modulate_demodulate_convolve(weights: Weights, file: Path, k: int) -> None:
    found = stylegan2_weights(open_checkpoint(file))
    silent = {f"conv.{k}.strength": np.zeros((), np.float32)}
    layer = ModulatedConv(replace(found, tensors={**found.tensors, **silent}), k)
    kernel = weights[f"conv.{k}.weight"].double().numpy()
    x, w = RANDOM.standard_normal((2, kernel.shape[1], 8, 8)), RANDOM.standard_normal((2, 32))
    drawn_by_us = layer(torch.from_numpy(x).float(), torch.from_numpy(w).float()).numpy()
    affine, offset = (weights[f"conv.{k}.style.{part}"].double().numpy() for part in ("weight", "bias"))
    for i in range(2):
        style = affine @ w[i] / np.sqrt(32) + offset
        weight = modulated(kernel / np.sqrt(kernel[0].size), style, demodulate=True)
        y = convolved(x[i], weight, up=k == 3) + weights[f"conv.{k}.bias"].double().numpy()[:, None, None]
        assert np.abs(drawn_by_us[i] - np.where(y > 0, y, 0.2 * y) * np.sqrt(2)).max() < 1e-5


def test_the_filters_are_scipys(file: Path) -> None:
    x = RANDOM.standard_normal((1, 3, 6, 6))
    assert np.abs(upsample(torch.from_numpy(x), filter_kernel(3).double()).numpy() - upsampled(x)).max() < 1e-12
    odd = RANDOM.standard_normal((1, 2, 9, 9))
    padded = np.pad(odd[0], ((0, 0), (1, 1), (1, 1)))
    expected = [signal.convolve2d(plane, np.outer(TAPS, TAPS) / 16, mode="valid") for plane in padded]
    assert (
        np.abs(smooth(torch.from_numpy(odd), filter_kernel(2).double())[0].numpy() - np.stack(expected)).max() < 1e-12
    )


def test_an_even_picture_stays_even_away_from_the_edges() -> None:
    flat = upsample(torch.ones(1, 3, 8, 8), filter_kernel(3))
    assert torch.allclose(flat[:, :, 2:-2, 2:-2], torch.ones(1, 3, 12, 12))


@pytest.mark.parametrize(
    ("inputs", "coarse", "identity", "fine"),
    [
        (10, range(3), range(3, 8), range(8, 10)),
        (14, range(3), range(3, 8), range(8, 14)),
        (18, range(3), range(3, 8), range(8, 18)),
    ],
)
def test_layers_are_grouped_by_resolution(inputs: int, coarse: range, identity: range, fine: range) -> None:
    layers = stylegan2_layers(inputs)
    assert (layers.coarse, layers.identity, layers.fine) == (coarse, identity, fine)
    assert layers.total == inputs


@pytest.mark.parametrize("resolution", [64, 128, 256])
def test_every_resolution_has_its_style_inputs_and_sizes(tmp_path: Path, resolution: int) -> None:
    plan = Plan(resolution, width=8, layers=2, channels=(6, 6, 6, 5, 4, 3, 2))
    generator = load_stylegan2(write(tmp_path / "g.pt", rosinality(random_weights(plan))))
    assert isinstance(generator, Generator)
    assert generator.layers.total == {64: 10, 128: 12, 256: 14}[resolution]
    assert generator.sizes == (resolution,)
    assert generator.synthesise(code(generator, 1), resolution).shape == (1, 3, resolution, resolution)


@pytest.mark.parametrize(("resolution", "inputs"), [(512, 16), (1024, 18)])
def test_large_generators_draw_smaller_sizes_as_averages(tmp_path: Path, resolution: int, inputs: int) -> None:
    plan = Plan(resolution, width=4, layers=1, channels=(2,) * 9)
    generator = load_stylegan2(write(tmp_path / "g.pt", rosinality(random_weights(plan))))
    assert generator.layers.total == inputs
    assert generator.sizes == tuple(size for size in (256, 512, 1024) if size <= resolution)
    assert generator.drawn_size == 512
    w_plus = code(generator, 1)
    large = generator.synthesise(w_plus, resolution)
    assert large.shape[-1] == resolution
    size = resolution // 2
    averages = large.reshape(1, 3, size, 2, size, 2).mean(dim=(3, 5))
    assert torch.allclose(generator.synthesise(w_plus, size), averages, atol=1e-5)


@pytest.mark.parametrize("clamp", [None, 0.7])
def test_openvino_draws_the_same(file: Path, clamp: float | None) -> None:
    weights = replace(stylegan2_weights(open_checkpoint(file)), clamp=clamp)
    engine, reference = OpenVinoStyleGan2(weights, threads=1), StyleGan2(weights)
    assert isinstance(engine, Generator)
    assert isinstance(engine, ArrayGenerator)
    w_plus = code(reference, 2)
    drawn_by_engine = engine.synthesise(w_plus, 64)
    assert torch.allclose(drawn_by_engine, reference.synthesise(w_plus, 64), atol=1e-4)
    assert torch.equal(drawn_by_engine[1:], engine.synthesise(w_plus[1:], 64))
    assert engine.weights_hash() == reference.weights_hash()
    assert torch.equal(engine.map(w_plus[0]), reference.map(w_plus[0]))
    assert np.array_equal(engine.map_arrays(w_plus[0].numpy()), reference.map_arrays(w_plus[0].numpy()))
    with pytest.raises(UsageError, match="10, 32"):
        engine.synthesise(w_plus[:, 1:], 64)
    with pytest.raises(UsageError, match="64"):
        engine.synthesise(w_plus, 32)


def test_openvino_averages_like_the_reference(tmp_path: Path) -> None:
    plan = Plan(512, width=4, layers=1, channels=(2,) * 9)
    file = write(tmp_path / "g.pt", rosinality(random_weights(plan)))
    weights = stylegan2_weights(open_checkpoint(file))
    engine, reference = OpenVinoStyleGan2(weights, threads=1), StyleGan2(weights)
    w_plus = code(reference, 1)
    assert torch.allclose(engine.synthesise(w_plus, 256), reference.synthesise(w_plus, 256), atol=1e-4)


def test_engines_are_chosen_by_name(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(load_own_generator(file, "torch"), StyleGan2)
    assert isinstance(load_own_generator(file, "auto"), OpenVinoStyleGan2)
    with pytest.raises(UsageError, match="no engine 'tpu'"):
        load_own_generator(file, "tpu")

    def broken(self: OpenVinoStyleGan2) -> None:
        raise RuntimeError("no such processor")

    monkeypatch.setattr(OpenVinoStyleGan2, "prepare", broken)
    assert isinstance(load_own_generator(file, "auto"), StyleGan2)
    with pytest.raises(UsageError, match="no such processor"):
        load_own_generator(file, "openvino")


def test_it_draws_in_batches_on_a_device(file: Path, generator: StyleGan2) -> None:
    batched = TorchGenerator(load_stylegan2(file), "cpu", batch=2, precision="float32")  # type: ignore[arg-type]
    w_plus = code(generator, 3).numpy()
    assert np.abs(batched.draw(w_plus, 64) - generator.draw(w_plus, 64)).max() < 1e-5
    assert batched.weights_hash() == generator.weights_hash()
    assert np.array_equal(batched.map_arrays(w_plus[0]), generator.map_arrays(w_plus[0]))


def test_arrays_are_drawn_one_by_one(generator: StyleGan2) -> None:
    w_plus = code(generator, 3)
    pictures = generator.draw(w_plus.numpy(), 64)
    assert np.array_equal(pictures[1:2], generator.draw(w_plus.numpy()[1:2], 64))
    assert np.abs(pictures - generator.synthesise(w_plus, 64).numpy()).max() < 1e-5
    assert generator.draw(w_plus.numpy()[:0], 64).shape == (0, 3, 64, 64)
    z = RANDOM.standard_normal((3, 32)).astype(np.float32)
    assert np.array_equal(generator.map_arrays(z)[1:2], generator.map_arrays(z[1:2]))
    assert np.allclose(generator.map_arrays(z), generator.map(torch.from_numpy(z)).numpy(), atol=1e-6)


def test_each_style_input_steers_the_picture_and_gets_a_gradient(generator: StyleGan2) -> None:
    leaf = code(generator, 1).requires_grad_()
    generator.synthesise(leaf, 64).square().mean().backward()
    assert leaf.grad is not None
    assert torch.isfinite(leaf.grad).all()
    assert (leaf.grad.abs().amax(dim=(0, 2)) > 0).all()
    assert not any(parameter.requires_grad for parameter in generator.parameters())


def test_drawing_twice_gives_the_same_bits(generator: StyleGan2, file: Path) -> None:
    w_plus = code(generator, 1)
    once = generator.synthesise(w_plus, 64)
    assert torch.equal(once, generator.synthesise(w_plus, 64))
    assert torch.equal(once, load_stylegan2(file).synthesise(w_plus, 64))


def test_noise_maps_are_part_of_the_picture(weights: Weights, tmp_path: Path, generator: StyleGan2) -> None:
    state = rosinality(weights)
    state["g_ema"] = {name: value for name, value in state["g_ema"].items() if "noises" not in name}
    bare = load_stylegan2(write(tmp_path / "bare.pt", state))
    w_plus = code(generator, 1)
    silent = weights | {name: value * 0 for name, value in weights.items() if name.endswith(".strength")}
    expected = drawn(silent, w_plus[0].double().numpy())
    assert np.abs(bare.synthesise(w_plus, 64)[0].numpy() - expected).max() < 1e-4
    assert (bare.synthesise(w_plus, 64) - generator.synthesise(w_plus, 64)).abs().max() > 0.05
    assert bare.weights_hash() != generator.weights_hash()


def test_the_centre_is_the_files_or_else_measured(weights: Weights, generator: StyleGan2, tmp_path: Path) -> None:
    assert np.array_equal(generator.centre, weights["centre"].numpy())
    without = load_stylegan2(write(tmp_path / "g.pt", {"g_ema": rosinality(weights)["g_ema"]}))
    z = torch.from_numpy(RANDOM.standard_normal((20_000, 32)).astype(np.float32))
    measured = without.map(z)
    assert np.abs(without.centre - measured.mean(dim=0).numpy()).max() < 6 * float(measured.std()) / 100
    assert without.weights_hash() == generator.weights_hash()


def test_the_hash_changes_with_any_weight(weights: Weights, generator: StyleGan2, tmp_path: Path) -> None:
    changed = {name: value.clone() for name, value in weights.items()}
    changed["conv.4.noise"][3, 3] += 1e-3
    other = load_stylegan2(write(tmp_path / "g.pt", rosinality(changed)))
    assert len(other.weights_hash()) == 64
    assert other.weights_hash() != generator.weights_hash()


@pytest.mark.parametrize("shape", [(1, 9, 32), (1, 10, 31), (10, 32)])
def test_a_code_of_another_shape_is_refused(generator: StyleGan2, shape: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match="10, 32"):
        generator.synthesise(torch.zeros(shape), 64)


def test_a_size_that_is_not_drawn_is_refused(generator: StyleGan2) -> None:
    with pytest.raises(UsageError, match="64"):
        generator.synthesise(code(generator, 1), 512)
