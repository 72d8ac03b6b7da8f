"""Refinement: what moves, what stays, when it stops, and that nothing comes out of an accident."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mixer_toys import ToyGenerator, ToyRecogniser
from torch import nn

from anonymix_plugin.errors import AnonymixError, BadArrayError, UsageError
from anonymix_plugin.faces import RECOGNISER_TEMPLATE, YuNet, ffhq_crop, recogniser_crop, umeyama
from anonymix_plugin.generator import MobileStyleGan, read_published
from anonymix_plugin.images import decode_photo
from anonymix_plugin.mixer.key_schedule import KeySchedule
from anonymix_plugin.mixer.refine._augment import Augmentation
from anonymix_plugin.mixer.refine.anchors import AnchorDirections
from anonymix_plugin.mixer.refine.attributes import load_attribute_distance
from anonymix_plugin.mixer.refine.refiner import (
    MEAN_POINTS,
    RefinementError,
    Refiner,
    RefineResult,
    RefineSettings,
    RefineStep,
)
from anonymix_plugin.mixer.refine.resample import area_resize, area_weights, sample_crops
from anonymix_plugin.recognisers import torch_recogniser
from anonymix_plugin.values import Face, Photo, Pixels

KEY = KeySchedule(bytes(range(32)))
CODE = np.random.default_rng(4).standard_normal(6)
NOISE = np.random.default_rng(9)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """The tensors here are small: threads that wait for each other on a busy machine slow them down."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


START = torch.from_numpy(np.random.default_rng(3).standard_normal((5, 8))).float()
PHOTO: Pixels = NOISE.integers(0, 256, (112, 112, 3), np.uint8)
FRAMED: Pixels = NOISE.integers(0, 256, (48, 48, 3), np.uint8)
RECOGNISERS: Mapping[str, nn.Module] = {"one": ToyRecogniser(1), "two": ToyRecogniser(2, dim=20)}


def toy(**settings: Any) -> Refiner:
    generator = settings.pop("generator", None) or ToyGenerator()
    return Refiner(generator, RECOGNISERS, RefineSettings(**{"size": 48, **settings}))


def run(refiner: Refiner, start: torch.Tensor = START, key: KeySchedule = KEY, **more: Any) -> RefineResult:
    return refiner.refine(start, PHOTO, FRAMED, key, refiner.anchors(key, CODE), **more)


def test_defaults_are_the_papers() -> None:
    settings = RefineSettings()
    assert (settings.steps, settings.learning_rate, settings.augmentations) == (50, 0.01, 5)
    assert (settings.anonymity, settings.identity, settings.attributes) == (10, 10, 0.15)
    assert settings.margin == 0
    rates = [settings.rate(step) for step in range(50)]
    assert rates[:38] == [0.01] * 38
    assert rates[38:45] == [pytest.approx(0.008)] * 7
    assert rates[45:] == [pytest.approx(0.0064)] * 5


def test_fifty_steps_bring_every_weighted_loss_down() -> None:
    result = run(toy(patience=0))
    first, last = result.losses[0], result.losses[-1]
    assert result.steps == 50
    assert not result.stopped_early
    assert [entry.step for entry in result.losses] == list(range(50))
    assert last.total < first.total - 1
    assert last.identity < first.identity
    for entry in result.losses:
        parts = 10 * entry.anonymity + 10 * entry.identity + 0.15 * entry.attributes
        assert entry.total == pytest.approx(parts, rel=1e-5)


@pytest.mark.parametrize("name", ["anonymity", "identity", "attributes"])
def test_each_loss_alone_falls(name: str) -> None:
    weights = dict.fromkeys(("anonymity", "identity", "attributes"), 0.0) | {name: 10.0}
    result = run(toy(patience=0, augmentations=0, learning_rate=0.03, **weights))
    assert getattr(result.losses[-1], name) < getattr(result.losses[0], name)


def test_the_margin_is_what_anonymity_aims_at() -> None:
    result = run(toy(margin=0.4, identity=0, attributes=0, augmentations=0, steps=80, learning_rate=0.03, patience=0))
    assert result.losses[-1].anonymity < 0.05


def test_only_the_identity_layers_move() -> None:
    result = run(toy(steps=3))
    assert torch.equal(result.w_plus[:1], START[:1])
    assert torch.equal(result.w_plus[4:], START[4:])
    assert (result.w_plus[1:4] != START[1:4]).all()
    # Adam's first steps are about as long as the learning rate, in each number.
    assert (result.w_plus - START).abs().max() <= 0.031


def test_other_layers_move_where_they_are_asked_for() -> None:
    result = run(toy(steps=1, layers=range(2, 5)))
    assert torch.equal(result.w_plus[:2], START[:2])
    assert (result.w_plus[2:] != START[2:]).all()


def test_no_gradient_is_left_in_the_start_or_in_a_network() -> None:
    start = START.clone().requires_grad_()
    before = start.detach().clone()
    result = run(toy(steps=2), start)
    assert start.grad is None
    assert torch.equal(start.detach(), before)
    assert not result.w_plus.requires_grad


def test_shape_in_is_shape_out() -> None:
    flat, batch = run(toy(steps=1)), run(toy(steps=1), START[None])
    assert batch.w_plus.shape == (1, 5, 8)
    assert torch.equal(batch.w_plus[0], flat.w_plus)


def test_two_runs_give_the_same_bits_under_any_mode_and_order() -> None:
    refiner = toy(steps=4)
    first = run(refiner)
    with torch.inference_mode():
        second = run(refiner, START.clone())
    reversed_order = Refiner(ToyGenerator(), dict(reversed(RECOGNISERS.items())), RefineSettings(size=48, steps=4))
    assert first.losses == second.losses
    assert torch.equal(first.w_plus, second.w_plus)
    assert torch.equal(first.w_plus, run(reversed_order).w_plus)
    assert not torch.equal(first.w_plus, run(toy(steps=4), key=KeySchedule(bytes(32))).w_plus)


def test_it_leaves_the_default_random_generator_alone() -> None:
    before = torch.get_rng_state()
    run(toy(steps=2))
    assert torch.equal(torch.get_rng_state(), before)


def test_patience_ends_before_the_steps_do() -> None:
    flat = toy(patience=4, tolerance=1e6)
    result = run(flat)
    assert result.stopped_early
    assert result.steps == 5  # the first step is progress against nothing
    assert not run(toy(steps=5, patience=4, tolerance=1e6)).stopped_early


def test_progress_hears_of_each_step_and_may_end_it() -> None:
    heard: list[RefineStep] = []
    result = run(toy(steps=3), progress=heard.append)
    assert tuple(heard) == result.losses

    def interrupted(step: RefineStep) -> None:
        if step.step == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(toy(steps=3), progress=interrupted)


class Breaking(ToyGenerator):
    """Draws well at first, then `broken` of the picture."""

    def __init__(self, broken: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.broken, self.drawn = broken, 0

    def synthesise(self, w_plus: torch.Tensor, size: int) -> torch.Tensor:
        self.drawn += 1
        picture = super().synthesise(w_plus, size)
        return self.broken(picture) if self.drawn > 2 else picture


class _NanGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *gradient: torch.Tensor) -> torch.Tensor:
        return gradient[0] * float("nan")


@pytest.mark.parametrize(
    ("broken", "what"),
    [
        (lambda picture: picture * float("nan"), "picture"),
        (lambda picture: picture + float("inf"), "picture"),
        (_NanGradient.apply, "gradient"),
    ],
)
def test_what_is_not_finite_gives_an_error_and_no_face(
    broken: Callable[[torch.Tensor], torch.Tensor], what: str
) -> None:
    with pytest.raises(RefinementError, match=rf"{what} is not finite at step 2"):
        run(toy(generator=Breaking(broken)))
    assert issubclass(RefinementError, AnonymixError)


def test_a_recogniser_without_an_answer_gives_an_error_and_no_face() -> None:
    class Nan(ToyRecogniser):
        def forward(self, crops: torch.Tensor) -> torch.Tensor:
            return super().forward(crops) * (float("nan") if len(crops) > 1 else 1)

    refiner = Refiner(ToyGenerator(), {"one": Nan(1)}, RefineSettings(size=48))
    with pytest.raises(RefinementError, match=r"the loss of identity|the loss of anonymity"):
        run(refiner)


def test_a_generator_without_gradients_is_named() -> None:
    class Frozen(ToyGenerator):
        def synthesise(self, w_plus: torch.Tensor, size: int) -> torch.Tensor:
            return super().synthesise(w_plus, size).detach()

    with pytest.raises(UsageError, match="no gradients"):
        run(toy(generator=Frozen()))


@pytest.mark.parametrize(
    "settings",
    [
        {"steps": 0},
        {"learning_rate": 0.0},
        {"learning_rate": float("nan")},
        {"identity": -1.0},
        {"anonymity": float("inf")},
        {"decay": 1.1},
        {"decay_at": (0.5, 2.0)},
        {"margin": 2.0},
        {"augmentations": -1},
        {"layers": range(0)},
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(settings))):
        RefineSettings(**settings)


@pytest.mark.parametrize(
    ("start", "photo", "framed", "where"),
    [
        (START[:4], PHOTO, FRAMED, "w_plus"),
        (START.double(), PHOTO, FRAMED, "w_plus"),
        (START * float("nan"), PHOTO, FRAMED, "w_plus"),
        (START, PHOTO[:100], FRAMED, "photo_crop"),
        (START, PHOTO.astype(np.float32), FRAMED, "photo_crop"),
        (START, PHOTO, FRAMED[:, :40], "photo_attributes"),
        (START, PHOTO, FRAMED[..., 0], "photo_attributes"),
    ],
)
def test_arrays_of_another_kind_are_refused(start: Any, photo: Any, framed: Any, where: str) -> None:
    refiner = toy(steps=1)
    with pytest.raises(BadArrayError) as raised:
        refiner.refine(start, photo, framed, KEY, refiner.anchors(KEY, CODE))
    assert raised.value.where == where


def test_an_anchor_that_is_missing_or_of_another_size_is_refused() -> None:
    refiner = toy(steps=1)
    anchors = refiner.anchors(KEY, CODE)
    assert {name: anchor.shape for name, anchor in anchors.items()} == {"one": (12,), "two": (20,)}
    for wrong in ({"one": anchors["one"]}, {"one": anchors["one"], "two": anchors["one"]}):
        with pytest.raises(UsageError, match="anchor"):
            refiner.refine(START, PHOTO, FRAMED, KEY, wrong)


def test_what_does_not_fit_together_is_refused_at_once() -> None:
    with pytest.raises(UsageError, match="recogniser"):
        Refiner(ToyGenerator(), {}, RefineSettings(size=48))
    with pytest.raises(UsageError, match="layers"):
        toy(layers=range(3, 9))
    with pytest.raises(UsageError, match="48"):
        toy(size=512)
    boxed = ToyRecogniser(1)
    boxed.alignment = "box-160"
    with pytest.raises(UsageError, match="five points"):
        Refiner(ToyGenerator(), {"boxed": boxed}, RefineSettings(size=48))


def test_all_settings_are_described_in_what_json_takes() -> None:
    described = toy().describe()
    assert json.loads(json.dumps(described)) == described
    assert all(isinstance(value, str | int | float) for value in described.values())
    assert described["recognisers"] == "one two"
    assert described["layers"] == "identity"
    for other in (toy(steps=49), toy(decay_at=(0.5,)), toy(layers=range(1, 3))):
        assert other.describe() != described


# --- the crop that gradients go through ---


def test_averages_are_exact_where_pixels_are_divided() -> None:
    assert np.allclose(area_weights(6, 3), np.kron(np.eye(3), [[0.5, 0.5]]))
    assert np.allclose(area_weights(3, 2), [[2 / 3, 1 / 3, 0], [0, 1 / 3, 2 / 3]])
    picture = torch.from_numpy(NOISE.random((2, 3, 48, 48)))
    assert torch.allclose(area_resize(picture, 16), nn.functional.avg_pool2d(picture, 3))
    assert area_resize(picture, 48) is picture


def drawn_pixels(size: int = 300) -> Pixels:
    """A smooth picture in colours."""
    waves = torch.from_numpy(np.random.default_rng(6).random((1, 3, 20, 20)))
    smooth = nn.functional.interpolate(waves, size=size, mode="bicubic").clamp(0, 1)
    return (smooth[0].permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()


@pytest.mark.parametrize("turn", [0.0, 0.2, -0.4])
@pytest.mark.parametrize("stretch", [0.6, 1.0, 1.4])
@pytest.mark.parametrize("shift", [(0.0, 0.0), (-70.0, 55.0)])
def test_the_crop_equals_the_one_that_photos_get(turn: float, stretch: float, shift: tuple[float, float]) -> None:
    """Enlarged and shrunk, turned, and reaching over the edge of the picture."""
    pixels = drawn_pixels()
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) * stretch
    points = (MEAN_POINTS - 0.5) * 300 @ rotation.T + 150 + shift
    face = Face(Photo(pixels, "drawn"), (0, 0, 1, 1), points.astype(np.float32), 1.0)
    picture = torch.from_numpy(pixels.transpose(2, 0, 1).copy())[None].float() / 127.5 - 1
    crop = sample_crops(picture, umeyama(face.landmarks, RECOGNISER_TEMPLATE), np.eye(2, 3)[None])
    levels = (crop[0].permute(1, 2, 0).numpy() + 1) * 127.5
    difference = np.abs(levels - recogniser_crop(face))
    assert difference.mean() < 0.6
    assert np.quantile(difference, 0.99) < 3  # but for single pixels at the edge of the picture


def test_a_flipped_look_is_the_mirror_image_of_the_crop() -> None:
    picture = torch.from_numpy(NOISE.random((1, 3, 60, 60))) * 2 - 1
    to_crop = np.array([[1.5, 0.1, 3.0], [-0.1, 1.5, 5.0]])
    moves = np.stack([Augmentation().move(112), Augmentation(flip=True).move(112)])
    plain, mirrored = sample_crops(picture, to_crop, moves)
    assert torch.allclose(mirrored, plain.flip(2), atol=1e-9)


def test_the_gradient_of_the_crop_is_its_slope() -> None:
    picture = torch.from_numpy(NOISE.random((1, 1, 9, 9))).requires_grad_()
    to_crop, moves = np.array([[0.7, 0.1, 0.2], [-0.1, 0.7, 0.3]]), Augmentation(angle=8).move(5)[None]
    assert torch.autograd.gradcheck(lambda x: sample_crops(x, to_crop, moves, 5), picture)


class FoundAt:
    """A detector that finds what it is told to."""

    def __init__(self, *landmarks: np.ndarray) -> None:
        self.landmarks, self.seen = landmarks, 0

    def detect(self, photo: Photo) -> list[Face]:
        self.seen += 1
        return [Face(photo, (0, 0, 1, 1), points.astype(np.float32), 1.0) for points in self.landmarks]


def with_detector(detector: FoundAt, **settings: Any) -> Refiner:
    return Refiner(ToyGenerator(), RECOGNISERS, RefineSettings(size=48, patience=0, **settings), detector=detector)


def test_landmarks_are_the_detectors_and_the_mean_where_it_finds_nothing() -> None:
    mean = MEAN_POINTS * 48 - 0.5
    plain = run(toy(steps=1)).losses[0]
    assert run(with_detector(FoundAt(), steps=1)).losses[0] == plain
    moved = run(with_detector(FoundAt(mean + 4), steps=1)).losses[0]
    assert moved != plain
    # A second face, small and far away, is not the one that is drawn.
    assert run(with_detector(FoundAt(mean / 5, mean + 4), steps=1)).losses[0] == moved


@pytest.mark.parametrize(("every", "looks"), [(0, 1), (3, 3), (10, 1)])
def test_landmarks_are_looked_for_again_as_often_as_asked(every: int, looks: int) -> None:
    detector = FoundAt()
    run(with_detector(detector, steps=7, realign_every=every))
    assert detector.seen == looks


def learned(*names: str) -> AnchorDirections:
    return AnchorDirections(
        {name: np.eye(6, {"one": 12, "two": 20}[name], dtype=np.float32) for name in names}, "", "ab"
    )


def with_directions(directions: AnchorDirections, **settings: Any) -> Refiner:
    return Refiner(ToyGenerator(), RECOGNISERS, RefineSettings(size=48, steps=2, **settings), directions=directions)


def test_learned_directions_are_where_anchors_lie_and_change_the_face() -> None:
    refiner, code = with_directions(learned("one", "two")), np.arange(1.0, 5.0)
    anchors = refiner.anchors(KEY, code)
    assert all(np.count_nonzero(anchor) == 6 for anchor in anchors.values())
    assert not np.allclose(anchors["two"], toy().anchors(KEY, code)["two"])
    result = refiner.refine(START, PHOTO, FRAMED, KEY, anchors)
    plain = toy(steps=2)
    assert not torch.equal(result.w_plus, plain.refine(START, PHOTO, FRAMED, KEY, plain.anchors(KEY, code)).w_plus)


def test_learned_directions_are_part_of_the_description_where_there_is_an_anchor() -> None:
    both = learned("one", "two")
    assert with_directions(both).describe() == {**toy(steps=2).describe(), "anchors": "ab"}
    assert with_directions(both, anchored=False).describe() == toy(steps=2, anchored=False).describe()


def test_directions_without_one_of_the_recognisers_are_refused() -> None:
    with pytest.raises(UsageError, match="two"):
        with_directions(learned("one"))


# --- real weights, a real photo ---


class Real:
    """A generator, recognisers, a person, and a face to start from."""

    def __init__(self, need: Callable[[str], Path], photos: Path, names: tuple[str, ...]) -> None:
        folder = need("mobilestylegan").parent
        self.generator = MobileStyleGan(read_published(folder / "MappingNetwork.xml", folder / "SynthesisNetwork.xml"))
        self.detector = YuNet(need("yunet"))
        for name in names:
            need(name)
        need("sface")
        self.recognisers = {name: torch_recogniser(name) for name in names}
        face = self.detector.detect(decode_photo(photos / "001_neutral.jpg"))[0]
        self.crop, self.framed = recogniser_crop(face), ffhq_crop(face)
        z = torch.from_numpy(np.random.Generator(np.random.Philox(5)).standard_normal((400, 512), np.float32))
        w = self.generator.map(z)
        mean = w.mean(dim=0)
        self.start = (mean + 0.7 * (w[0] - mean)).repeat(23, 1)

    def refine(self, settings: RefineSettings) -> RefineResult:
        refiner = Refiner(
            self.generator,
            self.recognisers,
            settings,
            attributes=load_attribute_distance(),
            detector=self.detector,
        )
        anchors = refiner.anchors(KEY, np.random.default_rng(8).standard_normal(24))
        return refiner.refine(self.start, self.crop, self.framed, KEY, anchors)


@pytest.fixture(scope="module")
def real(model: Callable[[str], Path], portraits: Path) -> Real:
    return Real(model, portraits, ("arcface-mbf",))


def test_the_crop_of_a_drawn_face_has_the_embedding_that_photos_get(real: Real) -> None:
    with torch.no_grad():
        picture = real.generator.synthesise(real.start[None], 512).clamp(-1, 1)
        pixels = ((picture[0].permute(1, 2, 0) + 1) * 127.5).round().to(torch.uint8).contiguous().numpy()
        face = real.detector.detect(Photo(pixels, "drawn"))[0]
        expected = torch.from_numpy(recogniser_crop(face).transpose(2, 0, 1).copy())[None].float() / 127.5 - 1
        crop = sample_crops(picture, umeyama(face.landmarks, RECOGNISER_TEMPLATE), np.eye(2, 3)[None])
        for recogniser in real.recognisers.values():
            assert float(torch.cosine_similarity(recogniser(crop), recogniser(expected))) >= 0.999
    assert np.abs((face.landmarks + 0.5) / 512 - MEAN_POINTS).max() < 0.06


def test_two_steps_on_a_real_photo_bring_the_loss_down_and_repeat_bit_by_bit(real: Real) -> None:
    settings = RefineSettings(steps=2, augmentations=2)
    result = real.refine(settings)
    layers = real.generator.layers
    assert result.losses[-1].total < result.losses[0].total
    assert torch.equal(result.w_plus[: layers.identity.start], real.start[: layers.identity.start])
    assert torch.equal(result.w_plus[layers.fine.start :], real.start[layers.fine.start :])
    moved = (result.w_plus - real.start)[layers.identity.start : layers.identity.stop].abs().amax(dim=1)
    assert (moved > 0).all()
    again = real.refine(settings)
    assert again.losses == result.losses
    assert torch.equal(again.w_plus, result.w_plus)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_the_papers_refinement_takes_a_real_face_near_its_anchor(model: Callable[[str], Path], portraits: Path) -> None:
    result = Real(model, portraits, ("arcface-mbf", "sface")).refine(RefineSettings())
    first, last = result.losses[0], result.losses[-1]
    assert last.total < 0.8 * first.total
    assert last.anonymity < 0.1
