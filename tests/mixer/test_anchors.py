"""Learned anchors: as alike as codes under one key, strangers under another, and in reach of drawn faces."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from anonymix_plugin.cli import main
from anonymix_plugin.errors import DamagedModelError, UsageError
from anonymix_plugin.faces import YuNet, recogniser_crop
from anonymix_plugin.files import safetensors_of
from anonymix_plugin.generator import load_generator, pictures_of
from anonymix_plugin.mixer.fast import FastMixer
from anonymix_plugin.mixer.key_schedule import KeySchedule
from anonymix_plugin.mixer.policy import MixingPolicy
from anonymix_plugin.mixer.refine.anchors import (
    SHIPPED,
    AnchorDirections,
    load_anchor_directions,
    reachable,
)
from anonymix_plugin.mixer.subspace import IdentitySubspace
from anonymix_plugin.mixer.weights import load_mixer_weights
from anonymix_plugin.recognisers import load_recogniser
from anonymix_plugin.values import Photo

KEY, OTHER = KeySchedule(bytes(range(32))), KeySchedule(bytes(32))


def code_of(seed: int, size: int = 32) -> np.ndarray:
    code = np.random.default_rng(seed).standard_normal(size)
    return np.asarray(code / np.linalg.norm(code))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.floats(0, 1), st.sampled_from(["arcface-mbf", "sface"]))
def test_two_people_are_as_alike_as_their_codes(seed: int, share: float, name: str) -> None:
    shipped = load_anchor_directions()
    one = code_of(seed)
    two = share * one + (1 - share) * code_of(seed + 1)
    first, second = (shipped.anchor(KEY, name, code) for code in (one, two))
    assert np.linalg.norm(first) == pytest.approx(1)
    assert first @ second == pytest.approx(one @ two / np.linalg.norm(two), abs=1e-4)


def test_another_key_means_a_stranger() -> None:
    shipped = load_anchor_directions()
    similarity = []
    for number in range(20):
        key = KeySchedule(hashlib.sha256(bytes([number])).digest())
        similarity.append(shipped.anchor(KEY, "sface", code_of(1)) @ shipped.anchor(key, "sface", code_of(1)))
    assert abs(np.mean(similarity)) < 0.15
    assert np.max(np.abs(similarity)) < 0.7


def test_the_shipped_anchors_belong_to_the_shipped_mixer() -> None:
    shipped = load_anchor_directions()
    weights = load_mixer_weights()
    assert shipped.mixer == weights.sha256
    assert shipped.sha256 == hashlib.sha256(SHIPPED.read_bytes()).hexdigest()
    assert {name: rows.shape for name, rows in shipped.directions.items()} == {
        "arcface-mbf": (weights.keyed_dims, 512),
        "sface": (weights.keyed_dims, 128),
    }


def test_directions_are_found_again_under_noise() -> None:
    random = np.random.default_rng(3)
    true = np.linalg.qr(random.standard_normal((30, 6)))[0].T
    codes = np.stack([code_of(seed, 6) for seed in range(400)])
    answers = codes @ true + 0.4 + 0.05 * random.standard_normal((400, 30))
    found = reachable(codes, answers, 0.1)
    assert np.allclose(found @ found.T, np.eye(6), atol=1e-5)
    assert (found * true).sum(axis=1).min() > 0.98


@pytest.mark.parametrize(("faces", "numbers"), [(5, 30), (40, 5)])
def test_too_few_faces_or_numbers_are_refused(faces: int, numbers: int) -> None:
    with pytest.raises(UsageError, match="6 directions"):
        reachable(np.ones((faces, 6)), np.ones((faces, numbers)), 0.1)


@pytest.mark.parametrize("code", [np.zeros(4), np.full(4, np.nan), np.ones(41), np.ones((2, 2)), np.array([])])
def test_a_code_that_gives_no_direction_is_refused(code: np.ndarray) -> None:
    with pytest.raises(UsageError, match="anchor"):
        load_anchor_directions().anchor(KEY, "sface", code)


def test_a_recogniser_that_nothing_was_learned_for_is_refused() -> None:
    with pytest.raises(UsageError, match="facenet"):
        load_anchor_directions().anchor(KEY, "facenet", code_of(1))


def test_arrays_in_any_order_of_memory_are_saved_as_they_are(tmp_path: Path) -> None:
    """safetensors 0.8.0 writes the memory of Fortran-ordered arrays, and so other numbers."""
    rows = np.random.default_rng(1).standard_normal((32, 128)).astype(np.float32)
    turned = np.asfortranarray(rows)
    AnchorDirections({"some": turned}, "of this mixer").save(tmp_path / "a.safetensors")
    assert np.array_equal(safetensors_of((tmp_path / "a.safetensors").read_bytes())[0]["some"], rows)
    IdentitySubspace(rows[0], turned).save(tmp_path / "s.safetensors", {})
    saved = safetensors_of((tmp_path / "s.safetensors").read_bytes())[0]
    assert np.array_equal(saved["subspace.directions"], rows)
    whole = load_mixer_weights()
    replace(whole, basis=np.asfortranarray(whole.basis)).save(tmp_path / "w.safetensors", {})
    saved = safetensors_of((tmp_path / "w.safetensors").read_bytes())[0]
    assert np.array_equal(saved["latent.basis"], whole.basis)


def test_what_was_saved_is_read_again(tmp_path: Path) -> None:
    rows = np.eye(4, 9, dtype=np.float32)
    AnchorDirections({"some": rows}, "of this mixer").save(tmp_path / "a.safetensors")
    read = load_anchor_directions(tmp_path / "a.safetensors")
    assert (read.mixer, list(read.directions)) == ("of this mixer", ["some"])
    assert np.array_equal(read.directions["some"], rows)


def test_a_damaged_file_is_refused_with_its_name(tmp_path: Path) -> None:
    path = tmp_path / "bad.safetensors"
    with pytest.raises(DamagedModelError, match=r"bad\.safetensors"):
        load_anchor_directions(path)
    path.write_bytes(b"nothing")
    with pytest.raises(DamagedModelError, match=r"bad\.safetensors"):
        load_anchor_directions(path)
    save_file({"some": np.ones((4, 9), np.float32)}, path, {"mixer": "m"})
    with pytest.raises(DamagedModelError, match="not orthonormal"):
        load_anchor_directions(path)
    save_file({"some": np.eye(4, 9, dtype=np.float32)}, path)
    with pytest.raises(DamagedModelError, match="mixer"):
        load_anchor_directions(path)


def test_drawn_faces_are_nearer_to_their_own_anchors(model: Callable[[str], Path]) -> None:
    for name in ("mobilestylegan", "yunet", "arcface-mbf", "sface"):
        model(name)
    generator, detector = load_generator(threads=2), YuNet(model("yunet"))
    mixer, shipped = FastMixer(generator, load_mixer_weights(), MixingPolicy()), load_anchor_directions()
    recognisers = {name: load_recogniser(name) for name in shipped.directions}
    people = [code_of(seed) for seed in range(50, 58)]
    for name, recogniser in recognisers.items():
        seen, anchors = [], []
        for code in people:
            drawn = pictures_of(generator, mixer.mix(code, OTHER, b"other")[None], 512)[0]
            pixels = ((drawn.transpose(1, 2, 0).clip(-1, 1) + 1) * 127.5).round().astype(np.uint8)
            embedding = recogniser.embed(recogniser_crop(detector.detect(Photo(pixels, "drawn"))[0])[None])[0]
            seen.append(embedding / np.linalg.norm(embedding))
            anchors.append(shipped.anchor(OTHER, name, code))
        cosines = np.array(seen) @ np.array(anchors).T
        own, others = np.diag(cosines), cosines[~np.eye(len(people), dtype=bool)]
        assert own.mean() > others.mean() + 0.3, name
        assert (cosines.argmax(axis=1) == np.arange(len(people))).mean() >= 0.75


@pytest.mark.long  # 10 s; quicker ones hold what is learned of answers, and that shipped anchors fit drawn faces
def test_they_are_learned_by_a_command_that_writes_a_card(model: Callable[[str], Path], tmp_path: Path) -> None:
    for name in ("mobilestylegan", "yunet", "arcface-mbf", "sface"):
        model(name)
    output = tmp_path / "anchors.safetensors"
    assert main(["train", "anchors", "--faces", "60", "-o", str(output)]) == 0
    learned = load_anchor_directions(output)
    assert learned.mixer == load_mixer_weights().sha256
    shipped = load_anchor_directions()
    # Sixty faces say less than a thousand, and the same: the two lie in one subspace for a good part.
    shared = np.linalg.svd(learned.directions["sface"] @ shipped.directions["sface"].T)[1]
    assert shared[:10].mean() > 0.8
    card = (tmp_path / "anchors.safetensors.md").read_text()
    assert hashlib.sha256(output.read_bytes()).hexdigest() in card
    assert "faces=60" in card
    assert "sface: held-out faces' cosine" in card
