"""The generator draws what the published files draw, at both sizes, with gradients to every layer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import openvino
import pytest
import torch

from anonymix_plugin.errors import DamagedModelError, UsageError
from anonymix_plugin.generator import MobileStyleGan, PublishedWeights, read_published


@pytest.fixture(scope="module")
def folder(model: Callable[[str], Path]) -> Path:
    return model("mobilestylegan").parent


@pytest.fixture(scope="module")
def weights(folder: Path) -> PublishedWeights:
    return read_published(folder / "MappingNetwork.xml", folder / "SynthesisNetwork.xml")


@pytest.fixture(scope="module")
def reference(weights: PublishedWeights) -> MobileStyleGan:
    return MobileStyleGan(weights)


@pytest.fixture(scope="module")
def codes(reference: MobileStyleGan) -> torch.Tensor:
    noise = np.random.Generator(np.random.Philox(11)).standard_normal((2, 512), np.float32)
    return reference.map(torch.from_numpy(noise))[:, None].repeat(1, 23, 1)


def published(folder: Path, name: str, values: np.ndarray) -> np.ndarray:
    core = openvino.Core()
    compiled = core.compile_model(str(folder / f"{name}.xml"), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return np.array(compiled(values)[0])


def test_mapping_equals_the_published_graph(folder: Path, reference: MobileStyleGan) -> None:
    z = np.random.Generator(np.random.Philox(3)).standard_normal((1, 512), np.float32)
    assert np.abs(reference.map(torch.from_numpy(z)).numpy() - published(folder, "MappingNetwork", z)).max() < 1e-4


def test_picture_equals_the_published_graph(folder: Path, reference: MobileStyleGan, codes: torch.Tensor) -> None:
    expected = published(folder, "SynthesisNetwork", codes[:1, 0].numpy())
    drawn = reference.synthesise(codes[:1], 1024).numpy()
    assert drawn.shape == (1, 3, 1024, 1024)
    assert expected.std() > 0.1
    assert np.abs(drawn - expected).max() <= 1e-4


def test_512_px_is_the_average_of_1024_px(reference: MobileStyleGan, codes: torch.Tensor) -> None:
    large, small = reference.synthesise(codes[:1], 1024), reference.synthesise(codes[:1], 512)
    assert torch.allclose(small, torch.nn.functional.avg_pool2d(large, 2), atol=1e-5)


def test_each_style_input_steers_the_picture_and_gets_a_gradient(
    reference: MobileStyleGan, codes: torch.Tensor
) -> None:
    leaf = codes[:1].clone().requires_grad_()
    reference.synthesise(leaf, 512).square().mean().backward()
    assert leaf.grad is not None
    assert torch.isfinite(leaf.grad).all()
    assert (leaf.grad.abs().amax(dim=(0, 2)) > 0).all()


def test_layer_groups_cover_all_inputs_once(reference: MobileStyleGan) -> None:
    layers = reference.layers
    assert [*layers.coarse, *layers.identity, *layers.fine] == list(range(layers.total)) == list(range(23))


@pytest.mark.parametrize("shape", [(1, 22, 512), (1, 23, 511), (23, 512)])
def test_a_code_of_another_shape_is_refused(reference: MobileStyleGan, shape: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match="23, 512"):
        reference.synthesise(torch.zeros(shape), 512)


def test_a_size_that_is_not_drawn_is_refused(reference: MobileStyleGan) -> None:
    with pytest.raises(UsageError, match="512, 1024"):
        reference.synthesise(torch.zeros(1, 23, 512), 300)


def test_a_graph_without_the_expected_nodes_is_refused(tmp_path: Path) -> None:
    for name in ("MappingNetwork", "SynthesisNetwork"):
        (tmp_path / f"{name}.xml").write_text("<net><layers/><edges/></net>")
        (tmp_path / f"{name}.bin").write_bytes(b"\0" * 16)
    with pytest.raises(DamagedModelError, match="no node"):
        read_published(tmp_path / "MappingNetwork.xml", tmp_path / "SynthesisNetwork.xml")
    (tmp_path / "MappingNetwork.xml").write_text("<net")
    with pytest.raises(DamagedModelError, match="can't be read"):
        read_published(tmp_path / "MappingNetwork.xml", tmp_path / "SynthesisNetwork.xml")
