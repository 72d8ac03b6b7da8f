"""Tuning through whole faces: they are seen as the mixer's own are, disturbed evenly, and learned from."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from toys import TEMPLATE, BandGenerator, BandRecogniser, toy_weights
from typer.testing import CliRunner

from anonymix_lab.cli._common import bars
from anonymix_lab.cli.train._student import Teaching, whole_reader
from anonymix_lab.training.examples import PICTURE, SEEN_LAYERS, Landmarks, spread
from anonymix_lab.training.student import StudentRecipe, crop_grid
from anonymix_lab.training.teachers import TEACHERS
from anonymix_lab.training.tuning import TunableMap, TuningRecipe, TuningStep, tune, whole_recipe
from anonymix_lab.training.whole import CROP, Disturbance, WholeReader, crop_grids, cut_finely
from anonymix_plugin.cli import app
from anonymix_plugin.errors import DamagedModelError, UsageError
from anonymix_plugin.faces import YuNet, recogniser_crop
from anonymix_plugin.generator import load_generator, load_reference_generator
from anonymix_plugin.mixer.fast import FastMixer
from anonymix_plugin.mixer.policy import MixingPolicy
from anonymix_plugin.mixer.weights import SHIPPED, load_mixer_weights
from anonymix_plugin.models import locate
from anonymix_plugin.recognisers import load_recogniser, torch_recogniser
from anonymix_plugin.values import Photo

QUIET = Disturbance(0, 0, 0, 0, 0, 0, 0, 0)


class Weighed(BandRecogniser):
    """A toy recogniser with a layer that can be shaken."""

    def __init__(self) -> None:
        super().__init__()
        self.layer: torch.Tensor
        self.register_buffer("layer", torch.eye(16))

    def forward(self, crops: torch.Tensor) -> torch.Tensor:
        return super().forward(crops) @ self.layer


def toy_reader(disturbance: Disturbance = QUIET, together: int = 4) -> WholeReader:
    landmarks = Landmarks(np.zeros((4, 2, 512), np.float32), np.repeat(TEMPLATE[None], 4, axis=0))
    return WholeReader(
        BandGenerator(),  # type: ignore[arg-type] - as much of one as is needed
        toy_weights(),
        landmarks,
        {"bands": Weighed()},
        "cpu",
        together=together,
        disturbance=disturbance,
    )


def some_toy_codes(count: int = 10) -> torch.Tensor:
    torch.manual_seed(0)
    return torch.randn(count, 2, 512)


def test_a_drawn_face_is_seen_as_the_recogniser_sees_it() -> None:
    generator, detector = load_reference_generator(), YuNet(locate("yunet"))
    recogniser = load_recogniser("sface")
    from anonymix_plugin.mixer.weights import load_mixer_weights

    weights = load_mixer_weights()
    random = np.random.Generator(np.random.Philox(4))
    codes = random.standard_normal((3, 1, weights.keyed_dims)).astype(np.float32)
    codes /= np.linalg.norm(codes, axis=-1, keepdims=True)
    moved = TunableMap(weights, TuningRecipe())(torch.from_numpy(codes[:, 0])).detach()
    styles = torch.cat([moved, torch.zeros_like(moved[:, :1])], dim=1) @ torch.from_numpy(weights.basis).T
    with torch.inference_mode():
        pictures = generator.synthesise(spread(generator, torch.from_numpy(weights.centre) + styles), 512)
    expected, landmarks = [], []
    for picture in pictures.permute(0, 2, 3, 1).numpy():
        photo = Photo(np.clip(np.rint((picture + 1) * 127.5), 0, 255).astype(np.uint8), "drawn")
        face = detector.detect(photo)[0]
        landmarks.append(face.landmarks / 512)
        expected.append(recogniser.embed(recogniser_crop(face)[None])[0])
    guess = Landmarks(np.repeat(moved.numpy(), 40, axis=0), np.repeat(np.stack(landmarks), 40, axis=0))
    reader = WholeReader(generator, weights, guess, {"sface": torch_recogniser("sface")}, "cpu", together=2)
    with torch.inference_mode():
        seen = reader(moved)["sface"].numpy()
    assert ((seen * np.stack(expected)).sum(axis=1) > 0.95).all()


def test_crops_lie_where_the_student_cuts_them() -> None:
    random = np.random.Generator(np.random.Philox(1))
    places = TEMPLATE + random.normal(0, 0.02, (3, *TEMPLATE.shape))
    fine = crop_grids(torch.from_numpy(places.astype(np.float32)))
    coarse = torch.cat([crop_grid(five) for five in places])
    assert fine.shape == (3, 2 * CROP, 2 * CROP, 2)
    # The mean of four finer places is the place of the coarse one.
    np.testing.assert_allclose(
        nn.functional.avg_pool2d(fine.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1), coarse, atol=2e-5
    )
    flat = torch.full((3, 3, PICTURE, PICTURE), 0.25)
    np.testing.assert_allclose(cut_finely(flat, fine), 0.25, atol=1e-6)


def test_parts_of_a_batch_give_what_the_whole_gives_and_its_gradient() -> None:
    results = []
    for together in (3, 10):
        codes = some_toy_codes().requires_grad_()
        seen = toy_reader(together=together)(codes)["bands"]
        (seen @ seen.T).square().sum().backward()
        results.append((seen.detach(), codes.grad))
    (one, gradient), (two, other) = results
    assert gradient is not None
    assert gradient.abs().sum() > 0
    np.testing.assert_allclose(one, two, atol=1e-6)
    np.testing.assert_allclose(gradient, other, atol=1e-6)


def test_disturbed_faces_differ_and_the_next_quiet_look_is_undisturbed() -> None:
    codes = some_toy_codes()
    reader = toy_reader(Disturbance(shaken=0.2))
    before = reader(codes)["bands"].detach()
    disturbed = reader(codes, np.random.Generator(np.random.Philox(1)))["bands"].detach()
    again = reader(codes, np.random.Generator(np.random.Philox(1)))["bands"].detach()
    similarity = (nn.functional.normalize(before, dim=1) * disturbed).sum(dim=1)
    assert (similarity < 0.9999).all()
    np.testing.assert_allclose(disturbed, again, atol=1e-6)
    np.testing.assert_allclose(reader(codes)["bands"].detach(), before, atol=1e-6)


def test_tuning_through_whole_faces_under_two_keys_brings_people_apart(tmp_path: Path) -> None:
    recipe = replace(whole_recipe(steps=24, people=4, dims=8, seed=5), hidden=16, axes=12, linear_rate=0.04, photos=2)
    steps: list[TuningStep] = []
    generator = BandGenerator()
    tuned = tune(toy_reader(), generator, toy_weights(), recipe, tmp_path, steps.append)
    first, last = (np.mean([one.loss for one in some]) for some in (steps[:5], steps[-5:]))
    assert last < 0.9 * first
    assert tuned.bend is not None
    assert tuned.bend.first[0].shape == (16, 8)


def test_a_wider_network_starts_as_the_one_that_it_widens() -> None:
    torch.manual_seed(1)
    narrow = TunableMap(toy_weights(), TuningRecipe(hidden=16, axes=12))
    nn.init.normal_(narrow.last.weight, std=0.3)
    weights = narrow.tuned(toy_weights(), torch.eye(512, 8))
    wide = TunableMap(weights, TuningRecipe(hidden=40, axes=20))
    assert wide.last.weight.shape == (2 * 20, 40)
    codes = nn.functional.normalize(torch.randn(6, 8), dim=1)
    with torch.no_grad():
        np.testing.assert_allclose(wide(codes), narrow(codes), atol=1e-5)
        nn.init.normal_(wide.last.weight)
        assert not torch.allclose(wide(codes), narrow(codes), atol=0.1)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_gpu_that_is_not_there_is_refused(tmp_path: Path) -> None:
    result = CliRunner().invoke(
        app, ["train", "mapper", "-o", str(tmp_path / "m"), "--subspace", "x", "--device", "cuda"]
    )
    assert isinstance(result.exception, UsageError)
    assert "GPU" in str(result.exception)
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--generator", "small"], "--start FILE"),
        (["--bfloat16"], "--generator small"),
        (["--layers", "16"], "--generator small"),
        (["--generator", "small", "--start", str(SHIPPED), "--street-share", "0.5"], "--street FILE"),
    ],
)
def test_ways_of_tuning_that_do_not_go_together_are_refused(tmp_path: Path, words: list[str], message: str) -> None:
    result = CliRunner().invoke(app, ["train", "mapper", "-o", str(tmp_path / "m"), "--subspace", "x", *words])
    assert isinstance(result.exception, UsageError)
    assert message in f"{result.exception.fix}"
    assert not (tmp_path / "m").exists()


@pytest.mark.long
def test_a_map_is_tuned_through_the_small_generator_and_serves_it_alone(tmp_path: Path) -> None:
    file, work = tmp_path / "mixer.safetensors", tmp_path / "work"
    words = ["train", "mapper", "-o", str(file), "--subspace", str(SHIPPED), "--start", str(SHIPPED)]
    words += ["--generator", "small", "--bfloat16", "--keyed-dims", "40", "--steps", "1", "--batch", "2"]
    result = CliRunner().invoke(app, [*words, "--examples", "60", "--work", str(work)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    small = load_generator("torch", name="small")
    tuned, shipped = load_mixer_weights(file), load_mixer_weights()
    assert tuned.generator_hash == small.weights_hash()
    assert not np.array_equal(tuned.person, shipped.person)
    step = json.loads((work / "tuning.jsonl").read_text())
    for name, (mean, _) in step["same"].items():  # the shipped map is good already, through the small generator, too
        assert mean > step["others"][name][0] + 0.3
    with pytest.raises(DamagedModelError, match="another generator"):
        FastMixer(load_reference_generator(), tuned, MixingPolicy())


@pytest.mark.long
def test_the_command_s_own_parts_take_a_step_through_the_shipped_map(tmp_path: Path) -> None:
    # What `train mapper --device cuda` does, where there is no GPU: one small step of it.
    shipped, generator = load_mixer_weights(), load_reference_generator()
    with bars() as bar:
        student = StudentRecipe(examples=60)
        reader = whole_reader(
            bar, generator, shipped, student, Disturbance(), Teaching(TEACHERS, tmp_path, 2), layers=SEEN_LAYERS
        )
    assert (tmp_path / "landmarks.npz").exists()
    assert not (tmp_path / "features.npy").exists()
    recipe = replace(whole_recipe(steps=1, people=1, dims=32, seed=5), photos=2)
    steps: list[TuningStep] = []
    tuned = tune(reader, generator, shipped, recipe, tmp_path, steps.append)
    assert set(steps[0].same) == {"arcface-mbf", "sface"}
    for name, (mean, _) in steps[0].same.items():  # the shipped map is good already
        assert mean > steps[0].others[name][0] + 0.3
    assert not np.array_equal(tuned.person, shipped.person)
    assert tuned.bend is not None
    assert len(tuned.bend.first[0]) == 512
