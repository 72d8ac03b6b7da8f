"""Policies and methods on real photos: what they change, what they never change, and many callers at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from anonymix_lab.data.keys import SeededKeys
from anonymix_plugin import Anonymixer, AttributePolicy, DamagedModelError, MixingPolicy
from anonymix_plugin.cli.options import MixerChoice
from anonymix_plugin.encoder import EncoderNetwork, save_encoder
from anonymix_plugin.errors import LowQualityError, UsageError
from anonymix_plugin.faces import YuNet, recogniser_crop
from anonymix_plugin.images import decode_photo
from anonymix_plugin.mixer.refine.refiner import RefineSettings, RefineStep
from anonymix_plugin.models import locate
from anonymix_plugin.options import GivenOptions, MixerOptions
from anonymix_plugin.recognisers import load_recogniser
from anonymix_plugin.values import Photo

pytestmark = pytest.mark.usefixtures("loaded_once")

FMR_PER_MILLE = 0.243  # ArcFace w600k_mbf on unprotected LFW photos


@pytest.fixture(scope="module")
def photos(portraits: Path, real_people: bool, model: Callable[[str], Path]) -> list[Path]:
    for name in ("mobilestylegan", "yunet", "arcface-mbf", "sface"):
        model(name)
    people = (1, 2) if real_people else (4, 2)
    return [portraits / f"{number:03d}_{mood}.jpg" for number in people for mood in ("neutral", "smiling")]


@pytest.fixture(scope="module")
def mixers(photos: list[Path]) -> dict[AttributePolicy, Anonymixer]:
    assert photos
    return {
        policy: Anonymixer(SeededKeys(3), policy=replace(MixingPolicy(), attributes=policy))
        for policy in AttributePolicy
    }


def embedding(photo: Photo) -> np.ndarray:
    face = YuNet(locate("yunet")).detect(photo)[0]
    return load_recogniser("arcface-mbf").embed(recogniser_crop(face)[None])[0]


@pytest.mark.parametrize("policy", list(AttributePolicy))
def test_under_every_policy_a_person_stays_one_and_is_another(
    policy: AttributePolicy, mixers: dict[AttributePolicy, Anonymixer], photos: list[Path]
) -> None:
    neutral, smiling = mixers[policy].protect(photos[:2], subject="one")
    other = mixers[policy].protect(photos[2], subject="one")  # the worst case: the same key
    a, b, c = (embedding(Photo(face.pixels, "protected")) for face in (neutral, smiling, other))
    real = embedding(decode_photo(photos[0]))
    assert a @ b > FMR_PER_MILLE
    assert a @ b > a @ c + 0.2
    assert a @ real < FMR_PER_MILLE
    renewed = mixers[policy].protect(photos[0], subject="one", version=2)
    assert embedding(Photo(renewed.pixels, "renewed")) @ a < a @ b


def test_policies_have_fingerprints_of_their_own(mixers: dict[AttributePolicy, Anonymixer]) -> None:
    assert len({mixer.fingerprint for mixer in mixers.values()}) == len(AttributePolicy)


def test_what_is_kept_shows_in_the_face(mixers: dict[AttributePolicy, Anonymixer], photos: list[Path]) -> None:
    # The same photo in half the light: `full` keeps the light, `none` does not.
    photo = decode_photo(photos[0]).pixels
    darkened = {}
    for policy in (AttributePolicy.NONE, AttributePolicy.FULL):
        bright, dark = mixers[policy].protect([photo, photo // 2], subject="one")
        darkened[policy] = bright.pixels.mean() - dark.pixels.mean()
    assert darkened[AttributePolicy.FULL] > darkened[AttributePolicy.NONE] + 10


def test_many_threads_get_the_same_bytes_as_one(mixers: dict[AttributePolicy, Anonymixer], photos: list[Path]) -> None:
    mixer = mixers[AttributePolicy.FULL]
    expected = [face.pixels for face in mixer.protect(photos, subject="one")]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda path: mixer.protect(path, subject="one").pixels, photos))
    assert all(np.array_equal(a, b) for a, b in zip(expected, found, strict=True))


def test_the_refine_method_starts_from_the_fast_one_and_has_its_own_fingerprint(
    mixers: dict[AttributePolicy, Anonymixer], photos: list[Path]
) -> None:
    steps: list[RefineStep] = []
    fast = mixers[AttributePolicy.NONE]
    with Anonymixer(
        SeededKeys(3),
        method="refine",
        policy=fast.policy,
        refinement=RefineSettings(steps=1),
        progress=steps.append,
    ) as refine:
        face = refine.protect(photos[0], subject="one")
        assert refine.fingerprint != fast.fingerprint
    start = fast.protect(photos[0], subject="one")
    assert face.method == "refine"
    assert len(steps) == 1
    difference = np.abs(face.pixels.astype(int) - start.pixels).mean()
    assert 0 < difference < 40


def test_an_encoder_for_another_generator_is_refused(tmp_path: Path, mixers: dict[AttributePolicy, Anonymixer]) -> None:
    assert mixers
    path = tmp_path / "encoder.safetensors"
    torch.manual_seed(0)
    zeros, eye = np.zeros(512, np.float32), np.eye(512, dtype=np.float32)
    save_encoder(EncoderNetwork(8, 4), path, centre=zeros, basis=eye, generator_hash="other", about={})
    with pytest.raises(DamagedModelError, match="another generator"):
        Anonymixer(SeededKeys(3), policy=MixingPolicy(AttributePolicy.POSE), encoder_weights=path)


def test_presets_have_fingerprints_of_their_own_and_unknown_ones_are_refused(
    mixers: dict[AttributePolicy, Anonymixer],
) -> None:
    assert mixers
    seen = set()
    for preset in ("anchored", "quick", "paper", "paper-code"):
        with Anonymixer(SeededKeys(3), method="refine", refinement=preset) as mixer:
            seen.add(mixer.fingerprint)
    assert len(seen) == 4
    with (
        Anonymixer(SeededKeys(3), method="refine") as default,
        Anonymixer(SeededKeys(3), method="refine", refinement="quick") as quick,
    ):
        assert default.fingerprint == quick.fingerprint
    with pytest.raises(UsageError, match="paper-code"):
        Anonymixer(SeededKeys(3), method="refine", refinement="papery")  # type: ignore[arg-type]


def test_poor_faces_are_refused_alike_at_enrolment_and_probe_unless_told_otherwise(
    mixers: dict[AttributePolicy, Anonymixer], photos: list[Path]
) -> None:
    mixer = mixers[AttributePolicy.NONE]
    clear = decode_photo(photos[0]).pixels
    blurred = cv2.GaussianBlur(clear, (0, 0), len(clear) / 21)
    for enrol in (True, False):
        with pytest.raises(LowQualityError, match="blurred"):
            mixer.protect(blurred, subject="one", enrol=enrol)
    assert mixer.protect(clear, subject="one").quality > 0.9
    with Anonymixer(SeededKeys(3), min_quality=0) as anything:
        assert anything.protect(blurred, subject="one").quality < 0.7
        assert anything.fingerprint == mixer.fingerprint  # the gate changes no face


def test_options_are_the_same_by_name_and_as_a_value() -> None:
    fields = {each.name: each.type for each in dataclasses.fields(MixerOptions)}
    assert GivenOptions.__annotations__.keys() == fields.keys()
    for name, kind in GivenOptions.__annotations__.items():
        assert kind.__forward_arg__ == fields[name]


def test_the_command_line_has_the_options_of_the_value() -> None:
    chosen = {each.name: each.default for each in dataclasses.fields(MixerChoice)}
    fields = {each.name: each.default for each in dataclasses.fields(MixerOptions)}
    elsewhere = {"limits", "progress", "threads"}  # --max-pixels and its like; the bar; the library alone
    assert chosen.keys() == fields.keys() - elsewhere
    for name, default in chosen.items():
        assert default is None or getattr(default, "value", default) == fields[name]
