"""What a key, a person and what is kept of the photo do to the code, and what they cannot do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from anonymix_plugin.errors import BadArrayError, DamagedModelError, UsageError
from anonymix_plugin.generator import LayerGroups
from anonymix_plugin.mixer.fast import FastMixer
from anonymix_plugin.mixer.fingerprint import fingerprint
from anonymix_plugin.mixer.identity_map import Bend
from anonymix_plugin.mixer.key_schedule import KeySchedule
from anonymix_plugin.mixer.policy import AttributePolicy, MixingPolicy
from anonymix_plugin.mixer.subspace import IdentitySubspace, fit_subspace
from anonymix_plugin.mixer.weights import MixerWeights, load_mixer_weights

W, DIMS, KEYED = 32, 6, 9
RANDOM = np.random.Generator(np.random.Philox(5))


class LinearGenerator:
    """A generator whose style vectors are its Gaussian codes."""

    name = "linear"
    z_dim = w_dim = W
    layers = LayerGroups(range(2), range(2, 5), range(5, 9))
    sizes = (8,)

    def map(self, z: torch.Tensor) -> torch.Tensor:
        return z

    def synthesise(self, w_plus: torch.Tensor, size: int) -> torch.Tensor:
        return w_plus.mean() * torch.ones(len(w_plus), 3, size, size)

    def weights_hash(self) -> str:
        return "linear"


def toy_weights(*, generator: str = "linear") -> MixerWeights:
    axes = np.linalg.qr(RANDOM.standard_normal((W, W)))[0] * np.linspace(3, 0.1, W)
    return MixerWeights(
        subspace=IdentitySubspace(np.zeros(640, np.float32), np.eye(640, DIMS, dtype=np.float32)),
        centre=RANDOM.standard_normal(W).astype(np.float32),
        basis=axes.astype(np.float32),
        person=RANDOM.standard_normal((3, W, KEYED)).astype(np.float32),
        generator_hash=generator,
    )


WEIGHTS = toy_weights()


def mixer(**changes: object) -> FastMixer:
    return FastMixer(LinearGenerator(), WEIGHTS, replace(MixingPolicy(), **changes))  # type: ignore[arg-type]


def person(seed: int = 0) -> np.ndarray:
    code = np.random.Generator(np.random.Philox(seed)).standard_normal(DIMS)
    return code / np.linalg.norm(code)


def mix(method: FastMixer, who: np.ndarray, key: bytes, kept: np.ndarray | None = None) -> np.ndarray:
    return method.mix(who, KeySchedule(key), key, kept)


KEPT = RANDOM.standard_normal((3, W)).astype(np.float32)
keys = st.binary(min_size=32, max_size=32)
none = {"attributes": AttributePolicy.NONE}


@given(key=keys, seed=st.integers(0, 99))
def test_same_person_and_key_give_the_same_code_cached_or_not(key: bytes, seed: int) -> None:
    method = mixer(**none)
    first = mix(method, person(seed), key)
    assert first.shape == (9, W)
    assert np.array_equal(first, mix(method, person(seed), key))
    method.forget()
    assert np.array_equal(first, mix(method, person(seed), key))
    assert np.array_equal(first, mix(mixer(**none), person(seed), key))


@given(a=keys, b=keys, seed=st.integers(0, 99))
def test_another_key_gives_another_code(a: bytes, b: bytes, seed: int) -> None:
    same = np.allclose(mix(mixer(**none), person(seed), a), mix(mixer(**none), person(seed), b), atol=1e-3)
    assert same == (a == b)


@given(key=keys, a=st.integers(0, 99), b=st.integers(100, 199))
@settings(max_examples=30)
def test_people_stay_as_far_apart_as_their_codes_say(key: bytes, a: int, b: int) -> None:
    # Two keyed codes differ by M R (u - v); R keeps lengths, so no key can merge two people.
    method = mixer(**none)
    difference = mix(method, person(a), key)[2] - mix(method, person(b), key)[2]
    matrix = WEIGHTS.basis.astype(float) @ WEIGHTS.person[1].astype(float)
    least = np.linalg.svd(matrix, compute_uv=False)[-1]
    assert np.linalg.norm(difference) >= 0.999 * least * np.linalg.norm(person(a) - person(b)) - 1e-4


def test_policies_take_layers_from_the_photo_as_they_say() -> None:
    key = bytes(32)
    codes = {
        policy: mix(mixer(attributes=policy), person(), key, KEPT) - mix(mixer(attributes=policy), person(), key, -KEPT)
        for policy in AttributePolicy
    }
    moved = {policy: np.abs(code).max(axis=1) > 1e-6 for policy, code in codes.items()}
    coarse, fine = np.arange(9) < 2, np.arange(9) >= 5
    assert not moved[AttributePolicy.NONE].any()
    assert np.array_equal(moved[AttributePolicy.POSE], coarse)
    assert np.array_equal(moved[AttributePolicy.FULL], coarse | fine)


def test_what_is_kept_never_reaches_the_directions_of_identity() -> None:
    key = bytes(32)
    method = mixer(attributes=AttributePolicy.FULL, kept=1.0)
    inverse = np.linalg.inv(WEIGHTS.basis.astype(float))
    for group, layer in ((0, 0), (2, 8)):
        difference = inverse @ (mix(method, person(), key, KEPT) - mix(method, person(), key, -KEPT))[layer]
        assert np.linalg.norm(difference) > 0.1
        assert np.abs(WEIGHTS.person[group].T @ difference).max() < 1e-4


def bent_weights() -> MixerWeights:
    """Weights as tuning makes them: two groups, a network, a direction that is left out, a shared span."""
    hidden = 7

    def layer(rows: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
        return (
            RANDOM.standard_normal((rows, columns)).astype(np.float32),
            RANDOM.standard_normal(rows).astype(np.float32),
        )

    return replace(
        WEIGHTS,
        person=WEIGHTS.person[:2],
        bend=Bend(8.0, layer(hidden, KEYED), layer(hidden, hidden), layer(2 * 5, hidden)[0]),
        removed=np.eye(W, dtype=np.float32)[4],
        span=np.linalg.qr(WEIGHTS.person[1])[0].astype(np.float32),
        identity_end=7,
    )


def test_layers_behind_the_end_of_identity_have_nothing_of_the_person() -> None:
    method = FastMixer(LinearGenerator(), bent_weights(), MixingPolicy())
    moved = np.abs(mix(method, person(1), bytes(32)) - mix(method, person(2), bytes(32))).max(axis=1) > 1e-4
    assert np.array_equal(moved, np.arange(9) < 7)


def test_the_network_bends_the_widest_axes_and_nobody_moves_along_what_is_left_out() -> None:
    bent, key = bent_weights(), bytes(32)
    straight = replace(bent, bend=None)
    with_it, without = (
        mix(FastMixer(LinearGenerator(), weights, MixingPolicy()), person(), key) for weights in (bent, straight)
    )
    inverse = np.linalg.inv(bent.basis.astype(float))
    added = (with_it - without)[[0, 2]] @ inverse.T
    assert (np.abs(added[:, [0, 1, 2, 3]]) > 1e-3).all()
    assert np.abs(added[:, 4:]).max() < 1e-3  # the fifth axis is the one that is left out
    other = mix(FastMixer(LinearGenerator(), bent, MixingPolicy()), person(3), key)
    assert np.abs((inverse @ (with_it - other)[0])[4]) < 1e-4


def test_tuned_weights_come_back_from_their_file(tmp_path: Path) -> None:
    bent = bent_weights()
    bent.save(tmp_path / "w.safetensors", {"made": "in a test"})
    read = load_mixer_weights(tmp_path / "w.safetensors")
    methods = [FastMixer(LinearGenerator(), weights, MixingPolicy()) for weights in (bent, read)]
    codes = [mix(method, person(), bytes(32)) for method in methods]
    assert np.array_equal(codes[0], codes[1])


@pytest.mark.parametrize("end", [2, 10])
def test_an_end_of_identity_that_the_generator_does_not_have_is_refused(end: int) -> None:
    with pytest.raises(DamagedModelError, match="end identity at layer"):
        FastMixer(LinearGenerator(), replace(bent_weights(), identity_end=end), MixingPolicy())


def test_a_photo_without_its_own_code_is_refused_where_one_is_needed() -> None:
    with pytest.raises(UsageError, match="needs the photo's own code"):
        mix(mixer(attributes=AttributePolicy.POSE), person(), bytes(32))


def test_a_persons_code_of_another_length_is_refused() -> None:
    with pytest.raises(UsageError, match="shape"):
        mix(mixer(**none), np.ones(DIMS + 1), bytes(32))


def test_weights_of_another_generator_are_refused() -> None:
    with pytest.raises(DamagedModelError, match="another generator"):
        FastMixer(LinearGenerator(), toy_weights(generator="other"), MixingPolicy())


def test_shipped_weights_are_sound() -> None:
    weights = load_mixer_weights()
    assert weights.subspace.dims <= weights.keyed_dims <= 64
    assert weights.subspace.dims < 64  # few numbers of a person pass: nothing to invert
    assert weights.basis.shape == (512, 512)
    stds = np.linalg.norm(weights.basis, axis=0)
    assert (np.diff(stds) <= 1e-4).all()
    assert np.isfinite(weights.person).all()


def test_damaged_weights_say_what_to_do(tmp_path: object) -> None:
    path = tmp_path / "mixer.safetensors"  # type: ignore[operator]
    path.write_bytes(b"\0" * 100)
    with pytest.raises(DamagedModelError, match="anonymix train mapper"):
        load_mixer_weights(path)
    with pytest.raises(DamagedModelError, match="anonymix train mapper"):
        load_mixer_weights(path.with_name("missing.safetensors"))


def test_the_subspace_is_many_to_one() -> None:
    subspace = load_mixer_weights().subspace
    start = RANDOM.standard_normal((1, 640)).astype(np.float32)
    span = np.linalg.qr(subspace.directions.astype(float))[0]
    noise = RANDOM.standard_normal(640)
    outside = (noise - span @ (span.T @ noise)).astype(np.float32)
    assert np.allclose(subspace.project(start), subspace.project(start + 3 * outside), atol=1e-3)


def test_the_subspace_tells_people_apart_and_ignores_what_varies_within_one() -> None:
    people = np.repeat(np.arange(20), 8)
    between = np.zeros((20, 640))
    between[:, :10] = RANDOM.standard_normal((20, 10))
    within = np.zeros((160, 640))
    within[:, 10:30] = 3 * RANDOM.standard_normal((160, 20))
    within += 0.05 * RANDOM.standard_normal((160, 640))
    photos = (between[people] + 0.5 + within).astype(np.float32)
    found = fit_subspace(photos, people, dims=8, doubt=-1.0)
    codes = found.project(photos)
    alike = codes @ codes.T
    same = people[:, None] == people[None]
    assert alike[same].mean() > 0.9
    assert abs(alike[~same].mean()) < 0.2


@pytest.mark.parametrize("dims", [0, 20, 50])
def test_more_directions_than_people_are_refused(dims: int) -> None:
    with pytest.raises(BadArrayError, match="people allow"):
        fit_subspace(np.ones((40, 640), np.float32), np.repeat(np.arange(20), 2), dims=dims)


@pytest.mark.parametrize("bad", [np.full((1, 640), np.nan, np.float32), np.zeros((1, 512), np.float32)])
def test_embeddings_that_are_none_are_refused(bad: np.ndarray) -> None:
    with pytest.raises(BadArrayError):
        load_mixer_weights().subspace.project(bad)


def test_a_fingerprint_names_weights_policy_and_method() -> None:
    base = fingerprint({"a": "1"}, {"p": 1.0}, {"name": "fast"})
    assert base == fingerprint({"a": "1"}, {"p": 1.0}, {"name": "fast"})
    assert len(base) == 32
    others = [
        fingerprint({"a": "2"}, {"p": 1.0}, {"name": "fast"}),
        fingerprint({"a": "1"}, {"p": 1.5}, {"name": "fast"}),
        fingerprint({"a": "1"}, {"p": 1.0}, {"name": "refine"}),
        fingerprint({"b": "1"}, {"p": 1.0}, {"name": "fast"}),
    ]
    assert len({base, *others}) == 5


def test_shipped_weights_that_are_damaged_are_reinstalled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = tmp_path / "shipped.safetensors"
    shipped.write_bytes(b"\0" * 100)
    monkeypatch.setattr("anonymix_plugin.mixer.weights.SHIPPED", shipped)
    with pytest.raises(DamagedModelError, match="reinstall anonymix-plugin"):
        load_mixer_weights(shipped)
