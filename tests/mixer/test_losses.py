"""The losses on cases with a known answer, the augmentations, and the attribute features."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from anonymix_plugin.errors import UsageError
from anonymix_plugin.mixer.key_schedule import KeySchedule
from anonymix_plugin.mixer.refine._augment import Augmentation, jitter, keyed_augmentations
from anonymix_plugin.mixer.refine.attributes import (
    AttributeDistance,
    LightAndColour,
    LightColourAndForm,
    load_attribute_distance,
    surroundings,
)
from anonymix_plugin.mixer.refine.losses import (
    anchor_loss,
    anonymity_loss,
    attribute_loss,
    identity_loss,
    keyed_anchor,
    pairwise_distance,
)

KEY = KeySchedule(bytes(range(32)))
OTHER = KeySchedule(bytes(32))


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """The tensors here are small: threads that wait for each other on a busy machine slow them down."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def vectors(rows: int, dim: int = 6) -> st.SearchStrategy[torch.Tensor]:
    """Rows that are not near zero, where a cosine is not defined."""
    numbers = st.floats(-1, 1, allow_subnormal=False, width=32).filter(lambda x: abs(x) > 1e-3)
    return arrays(np.float64, (rows, dim), elements=numbers).map(torch.from_numpy)


def at_angle(degrees: float) -> torch.Tensor:
    return torch.tensor([math.cos(math.radians(degrees)), math.sin(math.radians(degrees))])


@pytest.mark.parametrize(
    ("degrees", "margin", "loss"), [(0, 0, 1), (90, 0, 0), (180, 0, 1), (60, 0.5, 0), (90, -0.3, 0.3)]
)
def test_anonymity_is_the_distance_of_the_cosine_from_the_margin(degrees: float, margin: float, loss: float) -> None:
    value = anonymity_loss(3 * at_angle(degrees)[None], 2 * at_angle(0), margin)
    assert float(value) == pytest.approx(loss, abs=1e-6)


@settings(max_examples=30, deadline=None)
@given(vectors(2), st.floats(-1, 1))
def test_anonymity_lies_within_its_bounds_and_sees_directions_only(pair: torch.Tensor, margin: float) -> None:
    value = float(anonymity_loss(pair[:1], pair[1], margin))
    assert 0 <= value <= 1 + abs(margin) + 1e-9
    assert float(anonymity_loss(5 * pair[:1], pair[1] / 7, margin)) == pytest.approx(value, abs=1e-9)


@settings(max_examples=30, deadline=None)
@given(vectors(4))
def test_distances_see_neither_length_nor_order_nor_a_rotation(embeddings: torch.Tensor) -> None:
    anchor = embeddings[0] - 0.5 * embeddings[1].flip(0)
    turn = torch.from_numpy(KEY.rotation("turn", 6))
    value = float(identity_loss(embeddings, anchor))
    lengths = torch.tensor([[1.0], [2.0], [3.0], [0.5]], dtype=torch.float64)
    assert -1e-9 <= value <= 4
    assert float(identity_loss((embeddings * lengths).flip(0), anchor)) == pytest.approx(value, abs=1e-6)
    assert float(identity_loss(embeddings @ turn, anchor @ turn)) == pytest.approx(value, abs=1e-6)


@settings(max_examples=30, deadline=None)
@given(vectors(5))
def test_pairwise_distance_is_the_mean_over_all_pairs(embeddings: torch.Tensor) -> None:
    pairs = [(i, j) for i in range(5) for j in range(i)]
    cosines = [torch.cosine_similarity(embeddings[i], embeddings[j], dim=0) for i, j in pairs]
    assert float(pairwise_distance(embeddings)) == pytest.approx(1 - float(torch.stack(cosines).mean()), abs=1e-9)


def test_identity_is_zero_at_the_anchor_and_most_between_opposites() -> None:
    anchor = at_angle(20)
    assert float(identity_loss(anchor.repeat(4, 1), anchor)) == pytest.approx(0, abs=1e-6)
    assert float(pairwise_distance(torch.stack([anchor, -anchor]))) == pytest.approx(2, abs=1e-6)
    assert float(anchor_loss(-anchor[None], anchor)) == pytest.approx(2, abs=1e-6)


def test_one_face_has_no_pairs_and_still_a_gradient() -> None:
    embedding = at_angle(50)[None].requires_grad_()
    loss = identity_loss(embedding, at_angle(20))
    assert float(pairwise_distance(embedding.detach())) == 0
    loss.backward()
    assert embedding.grad is not None
    assert embedding.grad.norm() > 0.1


def test_attribute_loss_is_the_mean_absolute_difference() -> None:
    assert float(attribute_loss(torch.tensor([[1.0, -1.0]]), torch.tensor([[0.0, 2.0]]))) == 2


@settings(max_examples=30, deadline=None)
@given(vectors(2))
def test_anchors_under_one_key_are_as_alike_as_the_codes(codes: torch.Tensor) -> None:
    one, two = (keyed_anchor(KEY, "some", code.numpy(), 40) for code in codes)
    assert np.linalg.norm(one) == pytest.approx(1)
    assert one @ two == pytest.approx(float(torch.cosine_similarity(codes[0], codes[1], dim=0)), abs=1e-9)


def test_anchors_of_other_keys_and_other_recognisers_are_strangers() -> None:
    code = np.random.default_rng(2).standard_normal(24)
    anchor = keyed_anchor(KEY, "one", code, 512)
    assert np.array_equal(anchor, keyed_anchor(KEY, "one", code, 512))
    assert abs(anchor @ keyed_anchor(KEY, "two", code, 512)) < 0.2
    assert abs(anchor @ keyed_anchor(OTHER, "one", code, 512)) < 0.2


@pytest.mark.parametrize(
    "code", [np.zeros(4), np.full(4, np.nan), np.ones(9), np.ones((2, 2)), np.array([]), np.array([np.inf])]
)
def test_a_code_that_gives_no_direction_is_refused(code: npt.NDArray[np.float64]) -> None:
    with pytest.raises(UsageError, match="anchor"):
        keyed_anchor(KEY, "some", code, 8)


def test_augmentations_follow_from_key_and_step_and_fill_their_ranges() -> None:
    looks = keyed_augmentations(KEY, 0, 400)
    assert looks[:5] == keyed_augmentations(KEY, 0, 5)
    assert looks[:5] != keyed_augmentations(KEY, 1, 5)
    assert looks[:5] != keyed_augmentations(OTHER, 0, 5)
    assert 0.4 < np.mean([look.flip for look in looks]) < 0.6
    for name, low, high in [
        ("angle", -10, 10),
        ("side", 0.85, 1),
        ("brightness", -0.2, 0.2),
        ("contrast", 0.8, 1.2),
    ]:
        values = [getattr(look, name) for look in looks]
        assert low <= min(values) < low + 0.05 * (high - low)
        assert high >= max(values) > high - 0.05 * (high - low)


def test_no_augmentation_changes_nothing() -> None:
    crops = torch.linspace(-1, 1, 3 * 16).reshape(1, 3, 4, 4)
    assert np.array_equal(Augmentation().move(4), np.eye(2, 3))
    assert torch.allclose(jitter(crops, [Augmentation()]), crops, atol=1e-6)


def test_moves_are_flips_turns_and_parts_of_the_crop() -> None:
    corner, centre = np.array([0, 0, 1.0]), np.array([5, 5, 1.0])
    assert np.allclose(Augmentation(flip=True).move(11) @ corner, [10, 0])
    assert np.allclose(Augmentation(angle=90).move(11) @ corner, [10, 0])
    assert np.allclose(Augmentation(angle=7, side=0.9, flip=True).move(11) @ centre, [5, 5])
    # A part pushed to the left edge begins where the crop begins: at -0.5, half a pixel before its centre.
    assert Augmentation(side=0.9, shift=(-1, 0)).move(11)[0] @ [-0.5, 0, 1] == pytest.approx(-0.5)


def test_jitter_shifts_and_stretches_about_the_mean_and_stays_in_range() -> None:
    crops = torch.tensor([-0.2, 0.2]).reshape(1, 1, 1, 2)
    values = jitter(crops, [Augmentation(brightness=0.1, contrast=0.5)])
    assert torch.allclose(values.flatten(), torch.tensor([0.0, 0.2]))
    assert jitter(crops * 4, [Augmentation(brightness=0.5)]).max() == 1


def frame(value: float = 0.0, size: int = 128) -> torch.Tensor:
    return torch.full((1, 3, size, size), value)


def test_surroundings_weigh_more_than_the_inner_face() -> None:
    weights = surroundings(16, 0.3)
    assert float(weights.mean()) == pytest.approx(1, abs=1e-6)
    assert float(weights[9, 8] / weights[0, 0]) == pytest.approx(0.3)
    light = LightAndColour()
    reference = light.features(frame())
    face, corner = frame(), frame()
    face[:, :, 70:86, 56:72] = 1
    corner[:, :, 0:16, 0:16] = 1
    assert attribute_loss(light.features(face), reference) < attribute_loss(light.features(corner), reference) / 3


def test_light_and_colour_see_light_and_colour_at_any_size() -> None:
    light = LightAndColour()
    assert isinstance(light, AttributeDistance)
    # Grey has luminance alone: a third of the features.
    assert float(attribute_loss(light.features(frame(0.3)), light.features(frame(0.0)))) == pytest.approx(0.1, abs=1e-5)
    assert torch.allclose(light.features(frame(0.4, 128)), light.features(frame(0.4, 200)), rtol=1e-4, atol=1e-5)
    red = frame(0.3)
    red[:, 1:] = -0.2
    assert attribute_loss(light.features(red), light.features(frame(0.3))) > 0.1


def test_form_sees_edges_that_averages_do_not() -> None:
    stem = torch.nn.Conv2d(3, 2, (1, 3), padding=(0, 1), bias=False).requires_grad_(False)
    stem.weight[:] = torch.tensor([[0.0, 1.0, -1.0], [0.0, 1.0, 1.0]])[:, None, None, :]
    whole = LightColourAndForm(torch.nn.Sequential(stem, torch.nn.ReLU()))
    stripes = frame()
    stripes[..., ::2], stripes[..., 1::2] = 0.5, -0.5
    light = LightAndColour()
    assert float(attribute_loss(light.features(stripes), light.features(frame()))) < 1e-6
    assert float(attribute_loss(whole.features(stripes), whole.features(frame()))) > 0.05
    assert whole.describe() != light.describe()


def test_default_attributes_keep_light_apart_and_give_gradients(model: Callable[[str], Path]) -> None:
    model("sface")
    attributes = load_attribute_distance()
    picture = (torch.arange(128.0) / 64 - 1).expand(1, 3, 128, 128).clone().requires_grad_()
    features = attributes.features(picture)
    assert features.shape == (1, 768 + 128 * 16 * 16)
    same, mirrored = features.detach(), attributes.features(picture.detach().flip(3))
    dimmed = attributes.features(picture.detach() * 0.95)
    assert attribute_loss(features, mirrored) > 3 * attribute_loss(features, dimmed) > 0
    assert torch.equal(attributes.features(picture.detach()), same)
    attribute_loss(features, mirrored).backward()
    assert picture.grad is not None
    assert torch.isfinite(picture.grad).all()
    assert picture.grad.abs().sum() > 0
