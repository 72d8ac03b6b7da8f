"""The student sees what the generator draws, and tuning through it brings people apart; both can stop."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from toys import (
    DIMS,
    TEMPLATE,
    BandGenerator,
    BandRecogniser,
    Everywhere,
    toy_student,
    toy_weights,
)

from anonymix_lab.training.checkpoint import load_state, one_cycle, save_state
from anonymix_lab.training.examples import SEEN_LAYERS, Landmarks, draw_examples, draw_landmarks, spread
from anonymix_lab.training.student import StudentRecipe, crop_grid, cut, train_head
from anonymix_lab.training.tuning import (
    StreetCodes,
    TunableMap,
    TuningRecipe,
    TuningStep,
    _hard_mean,
    _keyed_codes,
    some_codes,
    tune,
    visible,
)
from anonymix_plugin.errors import UsageError
from anonymix_plugin.mixer.identity_map import IdentityMap
from anonymix_plugin.mixer.weights import MixerWeights, load_mixer_weights

RECIPE = TuningRecipe(steps=40, people=4, photos=2, hidden=16, axes=12, linear_rate=0.02, bend_rate=0.004, length=5.0)


def run(folder: Path, recipe: TuningRecipe = RECIPE, stop: int | None = None) -> list[TuningStep]:
    """Tune toy weights; raise after step `stop`, as an interruption does."""
    steps: list[TuningStep] = []

    def watch(step: TuningStep) -> None:
        steps.append(step)
        if step.step == stop:
            raise KeyboardInterrupt

    folder.mkdir(exist_ok=True)
    weights = toy_weights()
    tuned = tune(toy_student(weights), BandGenerator(), weights, recipe, folder, watch, save_every=10)
    tuned.save(folder / "tuned.safetensors", {"made": "in a test"})
    return steps


def separation(weights: MixerWeights) -> float:
    """d' between same and other people under no key, for 200 people that training did not see."""
    codes = some_codes(np.random.Generator(np.random.Philox(99)), 200, 2, DIMS, RECIPE.similarity)
    mapped = IdentityMap(weights.person[:2], weights.bend, weights.removed)
    moved = np.stack([mapped(code.astype(np.float64)) for code in codes]).astype(np.float32)
    with torch.no_grad():
        seen = toy_student(weights)(torch.from_numpy(moved))["bands"].numpy()
    same = (seen[::2] * seen[1::2]).sum(axis=1)
    others = (seen[:-2] * seen[2:]).sum(axis=1)
    return float((same.mean() - others.mean()) / np.hypot(same.std(), others.std()))


@pytest.mark.long  # 12 s; quicker ones hold that tuning goes on where it was left, and through whole faces brings apart
def test_tuning_brings_people_apart(tmp_path: Path) -> None:
    steps = run(tmp_path, replace(RECIPE, steps=150, people=16))
    assert np.mean([step.loss for step in steps[-10:]]) < 0.8 * np.mean([step.loss for step in steps[:10]])
    assert separation(load_mixer_weights(tmp_path / "tuned.safetensors")) > separation(toy_weights()) + 0.03
    lines = (tmp_path / "tuning.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == list(range(150))


def test_an_interrupted_run_ends_at_the_same_weights(tmp_path: Path) -> None:
    run(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "halves", stop=25)
    again = run(tmp_path / "halves")
    assert again[0].step == 20  # the last state was written after 20 steps
    whole, halves = (load_mixer_weights(tmp_path / name / "tuned.safetensors") for name in ("whole", "halves"))
    np.testing.assert_allclose(whole.person, halves.person, atol=1e-5)
    assert whole.bend is not None
    assert halves.bend is not None
    np.testing.assert_allclose(whole.bend.last, halves.bend.last, atol=1e-5)


def test_a_state_of_another_recipe_is_refused(tmp_path: Path) -> None:
    run(tmp_path, replace(RECIPE, steps=10))
    with pytest.raises(UsageError, match="other settings"):
        run(tmp_path, replace(RECIPE, steps=10, seed=4))


def test_the_mixer_maps_as_training_did(tmp_path: Path) -> None:
    torch.manual_seed(1)
    weights = replace(toy_weights(), removed=np.eye(512, dtype=np.float32)[3])
    network = TunableMap(weights, RECIPE)
    nn.init.normal_(network.last.weight, std=0.3)
    span = torch.linalg.qr(torch.from_numpy(weights.person[1]))[0]
    network.tuned(weights, span).save(tmp_path / "w.safetensors", {})
    read = load_mixer_weights(tmp_path / "w.safetensors")
    assert read.identity_end == SEEN_LAYERS
    assert read.person.shape == (2, 512, DIMS)
    keyed = some_codes(np.random.Generator(np.random.Philox(3)), 3, 2, DIMS, (0.7, 0.1))
    with torch.no_grad():
        expected = network(torch.from_numpy(keyed)).numpy()
    mapped = IdentityMap(read.person, read.bend, read.removed)
    for code, wanted in zip(keyed, expected, strict=True):
        np.testing.assert_allclose(mapped(code.astype(np.float64)), wanted, atol=2e-5)
        assert abs(mapped(code.astype(np.float64))[:, 3]).max() < 1e-6


def test_people_of_a_batch_are_as_alike_as_asked() -> None:
    codes = some_codes(np.random.Generator(np.random.Philox(0)), 2000, 3, 64, (0.72, 0.13))
    np.testing.assert_allclose(np.linalg.norm(codes, axis=1), 1, atol=1e-5)
    same = (codes[::3] * codes[2::3]).sum(axis=1)
    assert same.mean() == pytest.approx(0.72, abs=0.02)
    assert same.std() == pytest.approx(0.13, abs=0.02)
    others = (codes[:-3] * codes[3:]).sum(axis=1)
    assert others.std() == pytest.approx(1 / 8, abs=0.01)


def test_the_directions_that_stay_are_those_that_recognisers_see(tmp_path: Path) -> None:
    weights = toy_weights()
    person = np.zeros_like(weights.person)
    person[:, :2, 3], person[:, 2:4, 6] = 1.0, -1.0  # of eight keyed directions, two move the picture
    weights = replace(weights, person=person)
    seen: list[int] = []
    cut_down = visible(toy_student(weights), BandGenerator(), weights, 2, lambda done, total: seen.append(done))
    assert seen[-1] == 800
    assert cut_down.keyed_dims == 2
    np.testing.assert_allclose(np.linalg.norm(cut_down.person[1]), np.linalg.norm(weights.person[1]), rtol=0.05)


def test_a_tuned_map_is_tuned_on(tmp_path: Path) -> None:
    run(tmp_path / "first", replace(RECIPE, steps=20))
    first = load_mixer_weights(tmp_path / "first" / "tuned.safetensors")
    network = TunableMap(first, RECIPE)
    keyed = some_codes(np.random.Generator(np.random.Philox(3)), 3, 2, DIMS, (0.7, 0.1))
    mapped = IdentityMap(first.person, first.bend, first.removed)
    with torch.no_grad():
        np.testing.assert_allclose(
            network(torch.from_numpy(keyed)).numpy(),
            np.stack([mapped(code.astype(np.float64)) for code in keyed]),
            atol=2e-5,
        )
    few = visible(toy_student(first), BandGenerator(), first, 5, lambda *_: None)
    assert few.bend is not None
    assert few.bend.first[0].shape[1] == few.keyed_dims == 5


def test_one_key_turns_people_into_as_many_dimensions_as_the_subspace_has() -> None:
    recipe = replace(RECIPE, people=40, photos=2, dims=3)
    codes = _keyed_codes(np.random.Generator(np.random.Philox(4)), recipe, DIMS)
    assert codes.shape == (80, DIMS)
    assert np.linalg.matrix_rank(codes, tol=1e-4) == 3


RECIPE_OF_STUDENT = StudentRecipe(examples=40, pixel_epochs=2, epochs=2, channels=16, batch=4)


def examples_in(folder: Path, detector: Everywhere, recipe: StudentRecipe = RECIPE_OF_STUDENT, stop: int = 0):
    def watch(done: int, total: int) -> None:
        assert total == recipe.examples
        if done == stop:
            raise KeyboardInterrupt

    generator, seen = BandGenerator(), {"bands": BandRecogniser()}
    return draw_examples(
        generator,  # type: ignore[arg-type]
        generator,
        toy_weights(),
        detector,
        seen,  # type: ignore[arg-type]
        folder,
        watch,
        count=recipe.examples,
        seed=recipe.seed,
    )


def test_the_head_learns_to_paint_what_the_generator_draws(tmp_path: Path) -> None:
    examples = examples_in(tmp_path, Everywhere())
    assert examples.found.sum() == 32
    shown: list[dict[str, float]] = []
    modules = {"bands": BandRecogniser()}
    recipe = RECIPE_OF_STUDENT
    head = train_head(examples, modules, recipe, tmp_path / "head.safetensors", lambda _, f: shown.append(f))
    assert len(shown) == 4
    assert shown[-1]["pixels"] < shown[0]["pixels"]
    assert shown[-1]["bands"] > 0.9
    again = train_head(examples, modules, recipe, tmp_path / "head.safetensors", lambda *_: pytest.fail("again"))
    assert all(torch.equal(a, b) for a, b in zip(head.parameters(), again.parameters(), strict=True))
    with pytest.raises(UsageError, match="another recipe"):
        train_head(examples, modules, replace(recipe, seed=1), tmp_path / "head.safetensors", lambda *_: None)


def test_examples_go_on_where_they_stopped_and_belong_to_one_recipe(tmp_path: Path) -> None:
    recipe = replace(RECIPE_OF_STUDENT, examples=60)
    with pytest.raises(KeyboardInterrupt):
        examples_in(tmp_path / "a", Everywhere(), recipe, stop=55)
    detector = Everywhere()
    rest = examples_in(tmp_path / "a", detector, recipe)
    assert detector.asked == 10  # the first 50 were kept
    whole = examples_in(tmp_path / "b", Everywhere(), recipe)
    assert np.array_equal(rest.codes, whole.codes)
    assert np.array_equal(rest.features[:], whole.features[:])
    with pytest.raises(UsageError, match="another recipe"):
        examples_in(tmp_path / "a", Everywhere(), replace(recipe, seed=5))


def test_landmarks_alone_are_those_of_the_examples_and_found_once(tmp_path: Path) -> None:
    def landmarks(folder: Path, detector: Everywhere, seed: int = 11) -> Landmarks:
        generator = BandGenerator()
        return draw_landmarks(
            generator,  # type: ignore[arg-type]
            generator,
            toy_weights(),
            detector,
            folder,
            lambda *_: None,
            count=40,
            seed=seed,
        )

    examples, codes = examples_in(tmp_path / "a", Everywhere()), np.ones((1, 2, 512), np.float32)
    wanted = Landmarks(examples.codes[examples.found], examples.landmarks[examples.found]).guess(codes)
    once, again = Everywhere(), Everywhere()
    np.testing.assert_array_equal(landmarks(tmp_path / "b", once).guess(codes), wanted)
    np.testing.assert_array_equal(landmarks(tmp_path / "b", again).guess(codes), wanted)
    assert (once.asked, again.asked) == (40, 0)
    with pytest.raises(UsageError, match="another recipe"):
        landmarks(tmp_path / "b", again, seed=12)


def test_a_crop_is_cut_where_the_landmarks_are() -> None:
    picture = torch.zeros(1, 3, 128, 128)
    x, y = (TEMPLATE[2] * 128).astype(int)  # the tip of the nose
    picture[:, :, y - 2 : y + 3, x - 2 : x + 3] = 1
    crop = cut(picture, crop_grid(TEMPLATE))[0, 0]
    row, column = np.unravel_index(int(crop.argmax()), crop.shape)
    assert abs(column - 56) < 4
    assert abs(row - 72) < 5


def test_styles_of_a_tuned_map_reach_to_the_layers_that_the_student_sees() -> None:
    styles = torch.arange(3.0)[None, :, None].expand(1, 3, 512)
    layers = spread(BandGenerator(), styles)[0, :, 0].tolist()
    assert layers == [0.0] * 4 + [1.0] * 9 + [2.0] * 10


def test_states_keep_moments_and_step(tmp_path: Path) -> None:
    module = nn.Linear(3, 2)
    optimiser = torch.optim.Adam(module.parameters(), 0.1)
    module(torch.ones(1, 3)).sum().backward()
    optimiser.step()
    save_state(tmp_path / "s.safetensors", module, optimiser, 7, {"of": "a test"})
    other = nn.Linear(3, 2)
    fresh = torch.optim.Adam(other.parameters(), 0.1)
    assert load_state(tmp_path / "none", other, fresh, {}) == 0
    assert load_state(tmp_path / "s.safetensors", other, fresh, {"of": "a test"}) == 7
    assert torch.equal(module.weight, other.weight)
    states = (optimiser.state_dict()["state"], fresh.state_dict()["state"])
    assert torch.equal(states[0][0]["exp_avg_sq"], states[1][0]["exp_avg_sq"])
    with pytest.raises(UsageError, match="other settings"):
        load_state(tmp_path / "s.safetensors", other, fresh, {"of": "another"})
    (tmp_path / "s.safetensors").write_bytes(b"not a state")
    with pytest.raises(UsageError, match="can't be read"):
        load_state(tmp_path / "s.safetensors", other, fresh, {"of": "a test"})


def test_the_learning_rate_rises_to_its_peak_and_falls_to_nothing() -> None:
    rates = [one_cycle(step, 100) for step in range(100)]
    assert max(rates) == pytest.approx(1, abs=1e-3)
    assert 15 <= int(np.argmax(rates)) <= 25
    assert rates[0] < 0.1
    assert rates[-1] < 0.01


def test_people_of_a_step_come_from_codes_of_photos_where_the_recipe_wants_it(tmp_path: Path) -> None:
    rows = np.eye(DIMS, dtype=np.float32)[[0, 0, 1, 1, 2, 2, 3]]
    street = StreetCodes(rows, np.array([0, 0, 1, 1, 2, 2, 3]))
    some = street.several(np.random.Generator(np.random.Philox(1)), 3, 2)
    np.testing.assert_array_equal(some[0::2], some[1::2])  # two photos of one person each
    assert len(np.unique(some, axis=0)) == 3
    with pytest.raises(UsageError, match="3 people have 2 photos"):
        street.several(np.random.Generator(np.random.Philox(1)), 4, 2)
    with pytest.raises(UsageError, match="codes of photos"):
        run(tmp_path, replace(RECIPE, steps=1, street=0.5))


def test_the_hardest_pairs_make_half_of_the_loss() -> None:
    losses = torch.tensor([0.0, 0.0, 0.0, 4.0])
    assert float(_hard_mean(losses, 1.0)) == 1.0
    assert float(_hard_mean(losses, 0.25)) == 0.5 * (1.0 + 4.0)
