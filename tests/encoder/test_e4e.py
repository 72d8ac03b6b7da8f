"""e4e's and pSp's encoder answers what its definition says, and meets the mixer's interface."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from anonymix_plugin.encoder import E4eEncoder, load_e4e, load_own_encoder
from anonymix_plugin.errors import BadArrayError, CheckpointError, DamagedModelError
from anonymix_plugin.generator.stylegan2 import load_stylegan2

sys.path.insert(0, str(Path(__file__).parents[1] / "generator"))
from stylegan2_checkpoints import Plan, e4e, random_weights, rosinality, write

RANDOM = np.random.Generator(np.random.Philox(12))
WIDTH = 16
PLAN = Plan(width=WIDTH, layers=2, channels=(6, 5, 5, 4, 4))
HEADS = 10
STAGES = [(3, 4, 4), (4, 4, 6), (14, 6, 8), (3, 8, WIDTH)]  # units, channels in, channels out

State = dict[str, torch.Tensor]


def random_encoder() -> State:
    """A state dict of an encoder, narrower than the published ones and otherwise like them."""
    state: State = {}

    def normal(*shape: int, scale: float = 1.0) -> torch.Tensor:
        return torch.from_numpy((RANDOM.standard_normal(shape) * scale).astype(np.float32))

    def norm(name: str, channels: int) -> None:
        state[f"{name}.weight"] = 1 + normal(channels, scale=0.2)
        state[f"{name}.bias"] = normal(channels, scale=0.2)
        state[f"{name}.running_mean"] = normal(channels, scale=0.2)
        state[f"{name}.running_var"] = 1 + normal(channels, scale=0.1).abs()
        state[f"{name}.num_batches_tracked"] = torch.tensor(1000)

    state["input_layer.0.weight"] = normal(4, 3, 3, 3, scale=0.3)
    norm("input_layer.1", 4)
    state["input_layer.2.weight"] = normal(4, scale=0.2)
    unit = 0
    for count, inside, outside in STAGES:
        for i in range(count):
            before = inside if i == 0 else outside
            name = f"body.{unit}"
            if before != outside:
                state[f"{name}.shortcut_layer.0.weight"] = normal(outside, before, 1, 1, scale=0.4)
                norm(f"{name}.shortcut_layer.1", outside)
            norm(f"{name}.res_layer.0", before)
            state[f"{name}.res_layer.1.weight"] = normal(outside, before, 3, 3, scale=0.15)
            state[f"{name}.res_layer.2.weight"] = normal(outside, scale=0.2)
            state[f"{name}.res_layer.3.weight"] = normal(outside, outside, 3, 3, scale=0.15)
            norm(f"{name}.res_layer.4", outside)
            state[f"{name}.res_layer.5.fc1.weight"] = normal(2, outside, 1, 1)
            state[f"{name}.res_layer.5.fc2.weight"] = normal(outside, 2, 1, 1)
            unit += 1
    for layer, channels in (("latlayer1", 8), ("latlayer2", 6)):
        state[f"{layer}.weight"] = normal(WIDTH, channels, 1, 1, scale=0.3)
        state[f"{layer}.bias"] = normal(WIDTH, scale=0.1)
    for head in range(HEADS):
        for i in range(4 if head < 3 else 5 if head < 7 else 6):
            state[f"styles.{head}.convs.{2 * i}.weight"] = normal(WIDTH, WIDTH, 3, 3, scale=0.1)
            state[f"styles.{head}.convs.{2 * i}.bias"] = normal(WIDTH, scale=0.1)
        state[f"styles.{head}.linear.weight"] = normal(WIDTH, WIDTH)
        state[f"styles.{head}.linear.bias"] = normal(WIDTH, scale=0.1)
    return state


def by_definition(state: State, pixels: torch.Tensor, *, offsets: bool) -> torch.Tensor:
    """The encoder once more, straight from the tensors, in float64."""
    s = {name: value.double() for name, value in state.items()}

    def norm(name: str, x: torch.Tensor) -> torch.Tensor:
        mean, variance = (s[f"{name}.running_{what}"][:, None, None] for what in ("mean", "var"))
        x = (x - mean) / torch.sqrt(variance + 1e-5)
        return x * s[f"{name}.weight"][:, None, None] + s[f"{name}.bias"][:, None, None]

    def prelu(name: str, x: torch.Tensor) -> torch.Tensor:
        return torch.where(x > 0, x, x * s[f"{name}.weight"][:, None, None])

    x = pixels.double()
    x = prelu("input_layer.2", norm("input_layer.1", F.conv2d(x, s["input_layer.0.weight"], padding=1)))
    maps = {}
    first_of_stage = {0, 3, 7, 21}
    for i in range(24):
        name, stride = f"body.{i}", 2 if i in first_of_stage else 1
        y = F.conv2d(norm(f"{name}.res_layer.0", x), s[f"{name}.res_layer.1.weight"], padding=1)
        y = F.conv2d(prelu(f"{name}.res_layer.2", y), s[f"{name}.res_layer.3.weight"], padding=1, stride=stride)
        y = norm(f"{name}.res_layer.4", y)
        squeezed = torch.relu(
            torch.einsum("oi,ni->no", s[f"{name}.res_layer.5.fc1.weight"][:, :, 0, 0], y.mean((2, 3)))
        )
        excited = torch.einsum("oi,ni->no", s[f"{name}.res_layer.5.fc2.weight"][:, :, 0, 0], squeezed)
        y = y / (1 + torch.exp(-excited))[:, :, None, None]
        if f"{name}.shortcut_layer.0.weight" in s:
            x = norm(f"{name}.shortcut_layer.1", F.conv2d(x, s[f"{name}.shortcut_layer.0.weight"], stride=stride))
        else:
            x = F.max_pool2d(x, 1, stride)
        x = x + y
        maps[i] = x
    coarse = maps[23]

    def joined(top: torch.Tensor, lateral: torch.Tensor) -> torch.Tensor:
        return F.interpolate(top, lateral.shape[2:], mode="bilinear", align_corners=True) + lateral

    middle = joined(coarse, F.conv2d(maps[20], s["latlayer1.weight"], s["latlayer1.bias"]))
    fine = joined(middle, F.conv2d(maps[6], s["latlayer2.weight"], s["latlayer2.bias"]))
    assert [m.shape[-1] for m in (coarse, middle, fine)] == [16, 32, 64]
    vectors = []
    for head in range(HEADS):
        y = coarse if head < 3 else middle if head < 7 else fine
        for step in range(4 if head < 3 else 5 if head < 7 else 6):
            name = f"styles.{head}.convs.{2 * step}"
            y = F.leaky_relu(F.conv2d(y, s[f"{name}.weight"], s[f"{name}.bias"], stride=2, padding=1), 0.01)
        assert y.shape[-1] == 1
        flat = y[:, :, 0, 0] @ s[f"styles.{head}.linear.weight"].T / np.sqrt(WIDTH)
        vectors.append(flat + s[f"styles.{head}.linear.bias"])
    if offsets:
        vectors[1:] = [vectors[0] + vector for vector in vectors[1:]]
    return torch.stack(vectors, dim=1)


@pytest.fixture(scope="module")
def state() -> State:
    return random_encoder()


@pytest.fixture(scope="module")
def file(state: State, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("e4e") / "e4e.pt", e4e(random_weights(PLAN), state))


@pytest.fixture(scope="module")
def encoder(file: Path) -> E4eEncoder:
    return load_e4e(file)


@pytest.fixture(scope="module")
def crops() -> np.ndarray:
    return RANDOM.integers(0, 256, (2, 256, 256, 3), np.uint8)


@pytest.mark.parametrize("kind", ["Encoder4Editing", "GradualStyleEncoder"])
def test_codes_are_those_of_the_definition(state: State, crops: np.ndarray, tmp_path: Path, kind: str) -> None:
    weights = random_weights(PLAN)
    loaded = load_e4e(write(tmp_path / "e.pt", e4e(weights, state, kind)))
    pixels = torch.from_numpy(crops).permute(0, 3, 1, 2) / 127.5 - 1
    expected = by_definition(state, pixels, offsets=kind == "Encoder4Editing") + weights["centre"]
    found = loaded.encode_layers(crops)
    assert found.shape == (2, HEADS, WIDTH)
    assert expected.std() > 0.1
    assert (expected[0] - expected[1]).abs().max() > 1e-3
    assert np.abs(found - expected.numpy()).max() < 1e-4


def test_without_a_mean_to_start_from_codes_are_absolute(
    state: State, crops: np.ndarray, encoder: E4eEncoder, tmp_path: Path
) -> None:
    weights = random_weights(PLAN)
    content = e4e(weights, state)
    content["opts"]["start_from_latent_avg"] = False
    absolute = load_e4e(write(tmp_path / "e.pt", content)).encode_layers(crops[:1])
    assert np.allclose(absolute + weights["centre"].numpy(), encoder.encode_layers(crops[:1]), atol=1e-6)


def test_groups_are_means_of_their_layers(encoder: E4eEncoder, crops: np.ndarray) -> None:
    whole, groups = encoder.encode_layers(crops), encoder.encode(crops)
    assert groups.shape == (2, 3, WIDTH)
    assert groups.dtype == np.float32
    for i, part in enumerate((slice(0, 3), slice(3, 8), slice(8, 10))):
        assert np.allclose(groups[:, i], whole[:, part].mean(axis=1), atol=1e-6)


def test_it_belongs_to_its_generator_in_whatever_file(encoder: E4eEncoder, file: Path, tmp_path: Path) -> None:
    assert encoder.generator_hash == load_stylegan2(file).weights_hash()
    alone = load_stylegan2(write(tmp_path / "g.pt", rosinality(random_weights(PLAN))))
    assert encoder.generator_hash == alone.weights_hash()
    assert len(encoder.sha256) == 64


def test_larger_crops_are_averaged(encoder: E4eEncoder, crops: np.ndarray) -> None:
    doubled = crops[:1].repeat(2, axis=1).repeat(2, axis=2)
    assert np.array_equal(encoder.encode(doubled), encoder.encode(crops[:1]))


@pytest.mark.parametrize(
    "crops",
    [np.zeros((256, 256, 3), np.uint8), np.zeros((1, 256, 256, 3), np.float32)],
)
def test_crops_of_another_kind_are_refused(encoder: E4eEncoder, crops: np.ndarray) -> None:
    with pytest.raises(BadArrayError, match="uint8"):
        encoder.encode(crops)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda c: c.pop("opts"), "opts name no encoder"),
        (lambda c: c["opts"].update(encoder_type="ResNetEncoder"), "ResNetEncoder"),
        (lambda c: c.pop("latent_avg"), "mean style vector"),
        (
            lambda c: c["state_dict"].pop("encoder.body.5.res_layer.1.weight"),
            "body.5.res_layer.1.weight is m",
        ),
        (lambda c: c["state_dict"].pop("encoder.latlayer1.bias"), "encoder.latlayer1.bias is missing"),
        (lambda c: c["state_dict"].pop("encoder.styles.9.linear.bias"), "encoder.styles.9"),
        (lambda c: c["state_dict"].update({"encoder.more": torch.ones(2)}), "encoder.more is there"),
        (
            lambda c: c["state_dict"].update({"encoder.latlayer1.weight": torch.ones(WIDTH, 9, 1, 1)}),
            r"encoder.latlayer1.weight has shape \(16, 9, 1, 1\), expected \(16, 8, 1, 1\)",
        ),
        (
            lambda c: c["state_dict"].update({"encoder.body.5.res_layer.1.weight": torch.ones(6, 5, 3, 3)}),
            "unit 5 takes 5 channels and gets 6",
        ),
        (
            lambda c: c["state_dict"].update({"encoder.latlayer1.bias": torch.full((WIDTH,), torch.inf)}),
            "encoder.latlayer1.bias.*NaN or infinity",
        ),
        (lambda c: c["state_dict"].update({"encoder.latlayer1.bias": None}), "no tensor"),
    ],
)
def test_what_does_not_fit_is_named(
    state: State, tmp_path: Path, change: Callable[[dict[str, Any]], None], match: str
) -> None:
    content = e4e(random_weights(PLAN), state)
    change(content)
    file = write(tmp_path / "e.pt", content)
    with pytest.raises(CheckpointError, match=match) as caught:
        load_e4e(file)
    assert str(file) in caught.value.where


def test_an_encoder_is_loaded_by_what_is_in_the_file(
    file: Path, encoder: E4eEncoder, tmp_path: Path, crops: np.ndarray
) -> None:
    loaded = load_own_encoder(file)
    assert np.array_equal(loaded.encode(crops[:1]), encoder.encode(crops[:1]))
    with pytest.raises(CheckpointError, match="no encoder"):
        load_own_encoder(write(tmp_path / "g.pt", rosinality(random_weights(PLAN))))
    damaged = tmp_path / "encoder.safetensors"
    damaged.write_bytes(b"\xff" * 64)
    with pytest.raises(DamagedModelError, match="anonymix train encoder"):
        load_own_encoder(damaged)
