"""Pairs, encoder and mixer weights are learned for a generator of one's own."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from stylegan2_checkpoints import Plan, random_weights, rosinality, write

from anonymix_lab.cli.train._pairs import begin_pairs
from anonymix_lab.training.latent import latent_axes
from anonymix_lab.training.mapper import SHIPPED_MARKS, MapperRecipe, fit_mapper, marked_children
from anonymix_lab.training.pairs import mean_style, pair_codes, pair_path, to_pixels, to_w_plus
from anonymix_plugin.cli import main
from anonymix_plugin.encoder import load_encoder
from anonymix_plugin.errors import UsageError
from anonymix_plugin.files import write_bytes
from anonymix_plugin.generator.stylegan2 import StyleGan2, load_stylegan2
from anonymix_plugin.mixer.subspace import IdentitySubspace
from anonymix_plugin.mixer.weights import load_mixer_weights

RANDOM = np.random.Generator(np.random.Philox(21))
SHIPPED = Path(__file__).parents[2] / "anonymix_plugin" / "weights" / "mixer.safetensors"


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    plan = Plan(width=512, layers=1, channels=(4, 4, 4, 3, 3))
    return write(tmp_path_factory.mktemp("own") / "own.pt", rosinality(random_weights(plan)))


@pytest.fixture(scope="module")
def generator(file: Path) -> StyleGan2:
    return load_stylegan2(file)


def test_pairs_and_encoder_are_made_for_it_by_command(file: Path, generator: StyleGan2, tmp_path: Path) -> None:
    pairs, output = tmp_path / "pairs", tmp_path / "encoder.safetensors"
    common = ["--generator", str(file), "--pairs", str(pairs), "--count", "100", "--threads", "1"]
    assert main(["train", "pairs", *common]) == 0
    code = pair_codes(generator, mean_style(generator), 1, 42)
    w_plus = to_w_plus(generator, torch.from_numpy(code.styles)[None])
    expected = to_pixels(generator.synthesise(w_plus, 64)[0], 256).astype(float)
    found = cv2.imread(str(pair_path(pairs, 42)))[:, :, ::-1].astype(float)
    assert found.shape == (256, 256, 3)
    assert np.abs(found - expected).mean() < 6  # JPEG
    assert np.abs(found - expected[::-1]).mean() > 20
    assert main(["train", "encoder", *common, "--epochs", "1", "-o", str(output)]) == 0
    assert load_encoder(output).generator_hash == generator.weights_hash()


def test_pairs_of_another_generator_or_too_few_are_refused(
    file: Path, generator: StyleGan2, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = Plan(width=512, layers=1, channels=(4, 4, 4, 3, 3))
    other = write(tmp_path / "other.pt", rosinality(random_weights(plan, seed=2)))
    pairs, output = ["--pairs", str(tmp_path / "pairs")], ["-o", str(tmp_path / "out.safetensors")]
    begin_pairs(tmp_path / "pairs", generator, seed=1)
    for number in range(101):
        write_bytes(pair_path(tmp_path / "pairs", number), b"drawn")
    begin_pairs(tmp_path / "pairs", generator, seed=1)  # goes on
    mapper = ["train", "mapper", "--subspace", str(SHIPPED), "--keyed-dims", "32", "--steps", "0", *pairs, *output]
    for words, told in (
        (["train", "pairs", "--generator", str(other), "--count", "101", *pairs], "by another generator"),
        (["train", "pairs", "--generator", str(file), "--seed", "2", "--count", "101", *pairs], "by another seed"),
        (["train", "encoder", "--generator", str(other), "--count", "100", *pairs, *output], "by another generator"),
        (["train", "encoder", "--generator", str(file), *pairs, *output], "pair 101 of 3500 is missing"),
        ([*mapper, "--generator", str(other)], "by another generator"),
        ([*mapper, "--generator", str(file)], "pair 101 of 3500 is missing"),
        (["train", "subspace", "--people", str(tmp_path), *pairs, *output], "pair 101 of 3500 is missing"),
    ):
        capsys.readouterr()
        assert main(words) == 2
        assert told in " ".join(capsys.readouterr().err.split())


def test_mixer_weights_are_fitted_to_it(generator: StyleGan2, tmp_path: Path) -> None:
    axes = latent_axes(generator, samples=4000)
    whitened = RANDOM.standard_normal((800, 512)).astype(np.float32)
    styles = (axes.centre + whitened @ axes.basis.T).astype(np.float32)
    embeddings = np.zeros((800, 640), np.float32)
    embeddings[:, :6] = whitened[:, 2:8]
    subspace = IdentitySubspace(np.zeros(640, np.float32), np.eye(640, 4, dtype=np.float32))
    recipe = MapperRecipe(pairs=800, keyed_dims=6)
    children = marked_children(SHIPPED_MARKS, generator.weights_hash(), 800)
    weights = fit_mapper(
        axes,
        subspace,
        styles,
        embeddings,
        np.ones(800, bool),
        children,
        recipe,
        generator.weights_hash(),
    )
    assert np.array_equal(weights.centre, axes.centre)  # nobody marked a child among its pictures
    energy = np.square(weights.person[0]).sum(axis=1)
    assert energy[2:8].sum() > 0.5 * energy.sum()
    weights.save(tmp_path / "mixer.safetensors", {})
    assert load_mixer_weights(tmp_path / "mixer.safetensors").generator_hash == generator.weights_hash()


def test_marks_of_children_belong_to_one_generators_pairs(generator: StyleGan2, tmp_path: Path) -> None:
    shipped = load_mixer_weights().generator_hash
    assert marked_children(SHIPPED_MARKS, shipped, 320).sum() > 10
    assert not marked_children(SHIPPED_MARKS, generator.weights_hash(), 320).any()
    own = tmp_path / "children.json"
    own.write_text(json.dumps({"children": [3, 5]}))
    assert np.flatnonzero(marked_children(own, generator.weights_hash(), 10)).tolist() == [3, 5]
    for wrong in ("[]", "{", '{"children": "many"}', '{"children": [[1, 2], [3]]}'):
        own.write_text(wrong)
        with pytest.raises(UsageError, match="marks of children"):
            marked_children(own, "x", 10)
    with pytest.raises(UsageError, match="marks of children"):
        marked_children(tmp_path / "missing.json", "x", 10)
