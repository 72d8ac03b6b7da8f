"""An encoder is adapted to photos: what is painted from its codes comes to look like them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from toys import DIMS, TEMPLATE, Everywhere, toy_student, toy_weights

from anonymix_lab.training.adaptation import (
    AdaptationRecipe,
    FramedPhotos,
    _mirror,
    adapt_encoder,
    frame_photos,
)
from anonymix_plugin.encoder import EncoderNetwork, as_input
from anonymix_plugin.errors import UsageError


def banded(count: int) -> FramedPhotos:
    """Pictures of horizontal bands, as the toy generator paints them."""
    levels = np.random.Generator(np.random.Philox(5)).uniform(60, 200, (count, DIMS))
    rows = np.repeat(levels, 128 // DIMS, axis=1).astype(np.uint8)
    pictures = np.broadcast_to(rows[:, :, None, None], (count, 128, 128, 3)).copy()
    return FramedPhotos(pictures, np.repeat(TEMPLATE[None].astype(np.float32), count, axis=0))


def adapted(recipe: AdaptationRecipe) -> tuple[EncoderNetwork, EncoderNetwork, list[dict[str, float]]]:
    torch.manual_seed(2)
    network = EncoderNetwork(16, 8)
    student = toy_student(toy_weights())
    steps: list[dict[str, float]] = []
    found = adapt_encoder(
        network, np.zeros(512, np.float32), student, banded(40), recipe, lambda _, parts: steps.append(parts)
    )
    return network, found, steps


def test_what_is_painted_comes_to_look_like_the_photos_and_the_fine_layers_stay() -> None:
    before, after, steps = adapted(AdaptationRecipe(steps=80, batch=4, learning_rate=3e-3, stay=0.0))
    assert np.mean([step["picture"] for step in steps[-10:]]) < 0.6 * steps[0]["picture"]
    seen = as_input(banded(8).pictures)
    with torch.no_grad():
        moved = (after(seen) - before(seen)).square().mean(dim=(0, 2))
    assert moved[1] > 10 * moved[2]
    assert not any(parameter.requires_grad for parameter in after.parameters())


def test_an_interrupted_adaptation_ends_as_one_that_was_not(tmp_path: Path) -> None:
    recipe = AdaptationRecipe(steps=12, batch=4, learning_rate=1e-3)
    _, whole, _ = adapted(recipe)
    torch.manual_seed(2)
    network, student = EncoderNetwork(16, 8), toy_student(toy_weights())

    def stop(step: int, _: object) -> None:
        if step == 7:
            raise KeyboardInterrupt

    def again(progress: Callable[[int, dict[str, float]], None], name: str = "x") -> EncoderNetwork:
        return adapt_encoder(
            network,
            np.zeros(512, np.float32),
            student,
            banded(40),
            recipe,
            progress,
            state=tmp_path / "state.safetensors",
            about={"encoder": name},
            save_every=5,
        )

    with pytest.raises(KeyboardInterrupt):
        again(stop)
    steps: list[int] = []
    halves = again(lambda step, _: steps.append(step))
    assert steps == list(range(5, 12))
    one, other = whole.state_dict(), halves.state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)
    with pytest.raises(UsageError, match="other settings"):
        again(stop, "another")


def test_an_encoder_that_must_stay_stays() -> None:
    recipe = AdaptationRecipe(steps=40, batch=4, learning_rate=1e-3)
    free, held = (adapted(AdaptationRecipe(**{**recipe.__dict__, "stay": stay})) for stay in (0.0, 50.0))
    seen = as_input(banded(8).pictures)
    with torch.no_grad():
        far, near = ((after(seen) - before(seen))[:, 1].square().mean() for before, after, _ in (free, held))
    assert near < far / 3


def test_mirrored_pictures_have_mirrored_landmarks() -> None:
    pictures = np.zeros((2, 128, 128, 3), np.uint8)
    places = np.repeat(np.array([[0.3, 0.4], [0.6, 0.4], [0.5, 0.6], [0.4, 0.8], [0.6, 0.8]])[None], 2, axis=0)
    pictures[:, 51, 38] = 255  # the left eye
    _mirror(pictures, places)
    assert pictures[0, 51, 89].max() == 255
    assert pictures[1, 51, 38].max() == 255
    np.testing.assert_allclose(places[0, :2], [[0.4, 0.4], [0.7, 0.4]])
    np.testing.assert_allclose(places[1, :2], [[0.3, 0.4], [0.6, 0.4]])


def test_faces_are_framed_and_photos_without_one_are_left_out(tmp_path: Path) -> None:
    paths = []
    for number in range(5):
        paths.append(tmp_path / f"{number}.png")
        cv2.imwrite(str(paths[-1]), np.full((512, 512, 3), 50 * number, np.uint8))
    framed = frame_photos(paths, Everywhere(), lambda *_: None)
    assert framed.pictures.shape == (4, 128, 128, 3)
    # FFHQ framing puts the middle of the eyes above the middle of the picture, and the mouth below.
    assert (framed.landmarks[:, :2, 1] < 0.5).all()
    assert (framed.landmarks[:, 3:, 1] > 0.5).all()
    with pytest.raises(UsageError, match="no photo"):
        frame_photos([], Everywhere(), lambda *_: None)
