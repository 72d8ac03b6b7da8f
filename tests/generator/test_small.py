"""The small generator: one face on every engine, its own space of templates, and no other generator's weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from anonymix_lab.bench.counts import count, generator_counts
from anonymix_lab.data.keys import SeededKeys
from anonymix_plugin.anonymixer import Anonymixer
from anonymix_plugin.errors import DamagedModelError, UsageError
from anonymix_plugin.generator import (
    ArrayGenerator,
    Generator,
    MobileStyleGan,
    OpenVinoGenerator,
    PublishedWeights,
    read_published,
)
from anonymix_plugin.generator.small import SmallGenerator
from anonymix_plugin.generator.small_graph import small_graph
from anonymix_plugin.generator.small_weights import SHIPPED, SmallWeights, read_small
from anonymix_plugin.mixer.fast import FastMixer
from anonymix_plugin.mixer.policy import AttributePolicy, MixingPolicy
from anonymix_plugin.mixer.weights import load_mixer_weights
from anonymix_plugin.values import Floats


@pytest.fixture(scope="module")
def published(model: Callable[[str], Path]) -> PublishedWeights:
    folder = model("mobilestylegan").parent
    return read_published(folder / "MappingNetwork.xml", folder / "SynthesisNetwork.xml")


@pytest.fixture(scope="module")
def small(published: PublishedWeights) -> SmallWeights:
    return read_small(published.sha256)


@pytest.fixture(scope="module")
def reference(published: PublishedWeights, small: SmallWeights) -> SmallGenerator:
    return SmallGenerator(MobileStyleGan(published), small)


@pytest.fixture(scope="module")
def engine(published: PublishedWeights, small: SmallWeights) -> OpenVinoGenerator:
    return OpenVinoGenerator(published, small=small)


@pytest.fixture(scope="module")
def codes(published: PublishedWeights) -> Floats:
    """Two codes whose layers all differ, so that a mix-up of layers shows."""
    noise = np.random.Generator(np.random.Philox(11)).standard_normal((2 * 23, 512), np.float32)
    styles = published.mapping.apply(noise).reshape(2, 23, 512)
    return np.ascontiguousarray(0.75 * styles[:, :1] + 0.25 * styles)


@pytest.mark.parametrize("size", [128, 256])
def test_openvino_draws_what_torch_draws(
    engine: OpenVinoGenerator, reference: SmallGenerator, codes: Floats, size: int
) -> None:
    drawn, expected = engine.draw(codes, size), reference.draw(codes, size)
    for generator in (engine, reference):
        assert isinstance(generator, Generator)
        assert isinstance(generator, ArrayGenerator)
        assert generator.weights_hash() == reference.weights_hash()
    assert drawn.shape == (2, 3, size, size)
    assert np.abs(drawn - expected).max() < 1e-3
    assert np.abs(expected[0] - expected[1]).max() > 0.3  # so that drawing another face would be seen


def test_128_px_are_the_average_of_256(engine: OpenVinoGenerator, codes: Floats) -> None:
    large = engine.draw(codes[:1], 256).reshape(1, 3, 128, 2, 128, 2).mean(axis=(3, 5))
    assert np.abs(large - engine.draw(codes[:1], 128)).max() < 1e-5


def test_style_inputs_up_to_its_size_count_and_no_others(engine: OpenVinoGenerator, codes: Floats) -> None:
    usual = engine.draw(codes[:1], 256)
    for number in range(23):
        changed = codes[:1].copy()
        changed[0, number] = codes[1, number]
        differs = bool(np.abs(engine.draw(changed, 256) - usual).max() > 0)
        assert differs == (number < 19), number


def test_gradients_reach_the_code(reference: SmallGenerator, codes: Floats) -> None:
    code = torch.from_numpy(codes[:1]).requires_grad_()
    reference.synthesise(code, 256).square().mean().backward()
    assert code.grad is not None
    assert float(code.grad[0, :19].abs().sum(dim=1).min()) > 0


@pytest.mark.parametrize("fault", ["another teacher", "another shape", "no safetensors", "missing"])
def test_weights_that_are_not_its_own_are_refused(published: PublishedWeights, tmp_path: Path, fault: str) -> None:
    file = tmp_path / "small.safetensors"
    tensors, teacher = load_file(SHIPPED), published.sha256
    if fault == "another teacher":
        save_file(tensors, file, {"generator": "0" * 64})
    elif fault == "another shape":
        save_file(tensors | {"up.bias": tensors["up.bias"][:-1]}, file, {"generator": teacher})
    elif fault == "no safetensors":
        file.write_bytes(SHIPPED.read_bytes()[:-1])
    with pytest.raises(DamagedModelError, match="small generator"):
        read_small(teacher, file)


def test_mixer_weights_serve_it_only_when_they_are_bound_to_it(engine: OpenVinoGenerator) -> None:
    weights = load_mixer_weights()
    with pytest.raises(DamagedModelError, match="another generator than small"):
        FastMixer(engine, weights, MixingPolicy())
    FastMixer(engine, replace(weights, generator_hash=engine.weights_hash()), MixingPolicy())


def test_it_is_a_space_of_templates_of_its_own(portraits: Path) -> None:
    keys = SeededKeys(1)
    with Anonymixer(keys) as large, Anonymixer(keys, generator="small") as mixer:
        assert mixer.fingerprint != large.fingerprint
        face = mixer.protect(portraits / "001_neutral.jpg", subject="alice")
        again = mixer.protect(portraits / "001_neutral.jpg", subject="alice")
        whole = large.protect(portraits / "001_neutral.jpg", subject="alice")
    assert face.pixels.shape == (256, 256, 3)
    assert np.array_equal(face.pixels, again.pixels)
    average = whole.pixels.reshape(256, 2, 256, 2, 3).mean(axis=(1, 3))
    assert np.abs(average - face.pixels).mean() < 20  # grey levels: the same picture, more or less
    with pytest.raises(UsageError, match="not 512"):
        Anonymixer(keys, generator="small", size=512)


def test_it_keeps_of_a_photo_what_the_large_one_keeps(portraits: Path) -> None:
    policy = MixingPolicy(attributes=AttributePolicy.POSE)
    with Anonymixer(SeededKeys(1), generator="small", policy=policy, size=128) as mixer:
        assert mixer.protect(portraits / "001_neutral.jpg", subject="alice").pixels.shape == (128, 128, 3)


def test_it_computes_less_than_half_of_the_large_one(published: PublishedWeights, small: SmallWeights) -> None:
    large = generator_counts(published, 512)
    light = count(small_graph(published.synthesis, small, 256).model)
    assert light.operations < 0.45 * large.operations
    assert light.traffic < 0.15 * large.traffic
