"""The paper's own way: inversion, both layer schemes, losses without an anchor, photos together."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from mixer_toys import ToyGenerator, ToyRecogniser

from anonymix_lab.studies.joint import JointRefiner, PersonPhoto
from anonymix_plugin.errors import BadArrayError, UsageError
from anonymix_plugin.mixer.key_schedule import KeySchedule
from anonymix_plugin.mixer.refine.attributes import LightAndColour
from anonymix_plugin.mixer.refine.inversion import InversionSettings, invert
from anonymix_plugin.mixer.refine.losses import identity_loss, pairwise_distance
from anonymix_plugin.mixer.refine.methods import SwapMethod
from anonymix_plugin.mixer.refine.presets import PRESETS
from anonymix_plugin.mixer.refine.refiner import Refiner, RefineSettings, RefineStep
from anonymix_plugin.mixer.refine.swap import LayerSwap
from anonymix_plugin.values import Face, Photo, ReadFace

KEY, OTHER = KeySchedule(bytes(range(32))), KeySchedule(bytes(32))
DICE = np.random.default_rng(5)
OWN = DICE.standard_normal((5, 8)).astype(np.float32)
CENTRE = np.full(8, 0.5, np.float32)
CROP = DICE.integers(0, 256, (112, 112, 3), dtype=np.uint8)
FRAMED = DICE.integers(0, 256, (64, 64, 3), dtype=np.uint8)
RECOGNISERS = {"one": ToyRecogniser(1), "two": ToyRecogniser(2, dim=20)}


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


# --- layer schemes ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("scheme", "swapped"), [("key-identity", range(1, 4)), ("key-coarse", range(1))])
def test_a_scheme_takes_its_group_from_the_key_and_the_rest_from_the_photo(scheme, swapped) -> None:
    mixed = LayerSwap(ToyGenerator(), CENTRE, scheme).mix(OWN, KEY)
    other = LayerSwap(ToyGenerator(), CENTRE, scheme).mix(OWN, OTHER)
    for layer in range(5):
        if layer in swapped:
            assert not np.allclose(mixed[layer], OWN[layer])
            assert not np.allclose(mixed[layer], other[layer])
        else:
            assert np.array_equal(mixed[layer], OWN[layer])


def test_truncation_draws_the_keys_code_towards_the_centre() -> None:
    whole = LayerSwap(ToyGenerator(), CENTRE, truncation=1.0).mix(OWN, KEY)[1] - CENTRE
    part = LayerSwap(ToyGenerator(), CENTRE).mix(OWN, KEY)[1] - CENTRE
    assert np.allclose(part, 0.7 * whole, atol=1e-6)
    assert np.allclose(LayerSwap(ToyGenerator(), CENTRE, truncation=0.0).mix(OWN, KEY)[1], CENTRE)


def test_schemes_and_codes_that_do_not_exist_are_refused() -> None:
    with pytest.raises(UsageError, match="key-identity"):
        LayerSwap(ToyGenerator(), CENTRE, "fine")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="truncation"):
        LayerSwap(ToyGenerator(), CENTRE, truncation=1.1)
    with pytest.raises(BadArrayError, match="own"):
        LayerSwap(ToyGenerator(), CENTRE).mix(OWN[:4], KEY)


# --- inversion --------------------------------------------------------------------------------------


def picture_of(code: np.ndarray) -> np.ndarray:
    drawn = ToyGenerator().synthesise(torch.from_numpy(code)[None], 48)[0]
    return ((drawn.permute(1, 2, 0) + 1) * 127.5).round().to(torch.uint8).numpy()


def distance(code: torch.Tensor, photo: np.ndarray) -> float:
    return float(np.abs(picture_of(code.numpy()).astype(float) - photo).mean())


def test_an_inversion_betters_the_guess() -> None:
    photo = picture_of(OWN)
    guess = torch.from_numpy(OWN + 0.3 * DICE.standard_normal(OWN.shape).astype(np.float32))
    seen: list[float] = []
    found = invert(
        ToyGenerator(),
        LightAndColour(),
        guess,
        photo,
        InversionSettings(steps=60, learning_rate=0.01, size=48),
        progress=lambda _, loss: seen.append(loss),
    )
    assert len(seen) == 60
    assert distance(found, photo) < 0.5 * distance(guess, photo)
    assert not found.requires_grad


def test_no_steps_leave_the_guess_as_it_is() -> None:
    guess = torch.from_numpy(OWN)
    found = invert(ToyGenerator(), LightAndColour(), guess, FRAMED, InversionSettings(steps=0))
    assert torch.equal(found, guess)


def test_inversions_that_can_not_be_are_refused() -> None:
    for settings in ({"steps": -1}, {"learning_rate": 0.0}, {"pixels": -0.1}):
        with pytest.raises(UsageError, match="out of range"):
            InversionSettings(**settings)  # type: ignore[arg-type]
    with pytest.raises(BadArrayError, match="photo"):
        invert(ToyGenerator(), LightAndColour(), torch.from_numpy(OWN), FRAMED[:32], InversionSettings())


# --- losses and presets -----------------------------------------------------------------------------


def test_without_an_anchor_the_identity_loss_is_the_distance_of_the_looks() -> None:
    looks, anchor = torch.randn(4, 12), torch.randn(12)
    assert torch.equal(identity_loss(looks, None), pairwise_distance(looks))
    assert identity_loss(looks, anchor) > identity_loss(looks, None)


def test_the_papers_presets_have_its_weights_schedule_and_schemes() -> None:
    for name, scheme in (("paper", "key-identity"), ("paper-code", "key-coarse")):
        preset = PRESETS[name]
        settings = preset.settings
        assert preset.swap == scheme
        assert (settings.anonymity, settings.identity, settings.attributes) == (10, 10, 0.15)
        assert [settings.rate(step) for step in (0, 36, 38, 44, 45, 49)] == pytest.approx(
            [0.01, 0.01, 0.008, 0.008, 0.0064, 0.0064]
        )
        assert not settings.anchored
        assert (settings.steps, settings.augmentations) == (50, 5)
        assert preset.inversion == InversionSettings(steps=150, learning_rate=5e-4, pixels=0.1)
    assert PRESETS["quick"].swap is None
    assert PRESETS["quick"].settings.steps < PRESETS["anchored"].settings.steps


def read_face(kept: np.ndarray | None = OWN[:3]) -> ReadFace:
    photo = Photo(np.zeros((64, 64, 3), np.uint8), "drawn")
    face = Face(photo, (0, 0, 64, 64), np.zeros((5, 2), np.float32), 1.0)
    return ReadFace(face, np.ones(4) / 2, CROP, kept, FRAMED)


def swap_method(settings: RefineSettings | None = None) -> SwapMethod:
    generator = ToyGenerator()
    refiner = Refiner(generator, RECOGNISERS, settings or RefineSettings(size=48, steps=2, anchored=False))
    inversion = InversionSettings(steps=2, learning_rate=0.01, size=48)
    return SwapMethod(generator, LayerSwap(generator, CENTRE), refiner, inversion, LightAndColour())


def test_the_papers_method_inverts_swaps_and_refines() -> None:
    method = swap_method()
    start = method.start(read_face(), KEY)
    code = method.code(read_face(), KEY, b"key")
    assert code.shape == (5, 8)
    assert np.array_equal(code[[0, 4]], start[[0, 4]])
    assert not np.array_equal(code[1:4], start[1:4])
    assert np.array_equal(code, swap_method().code(read_face(), KEY, b"key"))
    assert not np.allclose(code, method.code(read_face(), OTHER, b"other"))


def test_the_papers_method_needs_what_it_mixes() -> None:
    with pytest.raises(UsageError, match="own code"):
        swap_method().code(read_face(None), KEY, b"key")


def test_both_schemes_and_both_losses_have_descriptions_of_their_own() -> None:
    settings = RefineSettings(size=48, steps=2)
    described = [swap_method(settings).describe(), swap_method().describe()]
    assert described[0] != described[1]
    assert described[0]["scheme"] == "key-identity"
    assert described[0]["inversion/steps"] == 2


# --- photos together --------------------------------------------------------------------------------


def together(steps: int = 12, **more: float) -> tuple[tuple[torch.Tensor, ...], list[RefineStep]]:
    settings = RefineSettings(size=48, steps=steps, learning_rate=0.05, anchored=False, patience=0, **more)
    refiner = JointRefiner(ToyGenerator(), RECOGNISERS, settings)
    dice = np.random.default_rng(6)
    photos = [
        PersonPhoto(torch.from_numpy(dice.standard_normal((5, 8)).astype(np.float32)), CROP, FRAMED) for _ in range(3)
    ]
    seen: list[RefineStep] = []
    return refiner.refine_together(photos, progress=seen.append), seen


def test_photos_that_are_refined_together_come_closer() -> None:
    codes, seen = together()
    assert len(codes) == 3
    assert seen[-1].total < seen[0].total
    assert seen[-1].identity < 0.8 * seen[0].identity


def test_together_only_the_chosen_layers_move() -> None:
    dice = np.random.default_rng(6)
    for code in together(2)[0]:
        start = dice.standard_normal((5, 8)).astype(np.float32)
        assert np.array_equal(code.numpy()[[0, 4]], start[[0, 4]])
        assert not np.array_equal(code.numpy()[1:4], start[1:4])


def test_one_photo_is_not_together() -> None:
    refiner = JointRefiner(ToyGenerator(), RECOGNISERS, RefineSettings(size=48))
    with pytest.raises(UsageError, match="two or more"):
        refiner.refine_together([PersonPhoto(torch.from_numpy(OWN), CROP, FRAMED)])
