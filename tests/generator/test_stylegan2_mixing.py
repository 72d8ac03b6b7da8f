"""The mixer works on a generator of one's own as it does on the shipped one, from photo to picture."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from stylegan2_checkpoints import Plan, random_weights, rosinality, write

from anonymix_keystore import Argon2Cost, Keystore, PassphraseUnlock
from anonymix_lab.data.keys import SeededKeys
from anonymix_lab.training.latent import latent_axes
from anonymix_plugin import Anonymixer, AttributePolicy, DamagedModelError, MixingPolicy, UsageError
from anonymix_plugin.cli import main
from anonymix_plugin.encoder import EncoderNetwork, save_encoder
from anonymix_plugin.generator.protocol import pictures_of
from anonymix_plugin.generator.stylegan2 import StyleGan2, load_stylegan2
from anonymix_plugin.generator.stylegan2_openvino import OpenVinoStyleGan2
from anonymix_plugin.mixer.fast import FastMixer
from anonymix_plugin.mixer.key_schedule import KeySchedule
from anonymix_plugin.mixer.refine.refiner import RefineSettings
from anonymix_plugin.mixer.weights import MixerWeights, load_mixer_weights

RANDOM = np.random.Generator(np.random.Philox(31))
PLAN = Plan(width=64, layers=2, channels=(6, 6, 5, 4, 4))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mixing")


@pytest.fixture(scope="module")
def file(folder: Path) -> Path:
    return write(folder / "own.pt", rosinality(random_weights(PLAN)))


@pytest.fixture(scope="module")
def generator(file: Path) -> StyleGan2:
    return load_stylegan2(file)


@pytest.fixture(scope="module")
def mixer_weights(generator: StyleGan2, folder: Path) -> Path:
    """The shipped subspace with a random map into the generator's latent space."""
    axes = latent_axes(generator, samples=2000)
    subspace = load_mixer_weights().subspace
    person = RANDOM.standard_normal((1, 64, 48)) / 8
    weights = MixerWeights(
        subspace,
        axes.centre,
        axes.basis,
        np.repeat(person, 3, axis=0).astype(np.float32),
        generator.weights_hash(),
    )
    weights.save(folder / "mixer.safetensors", {"made": "in a test"})
    return folder / "mixer.safetensors"


def person() -> np.ndarray:
    code = RANDOM.standard_normal(load_mixer_weights().subspace.dims)
    return code / np.linalg.norm(code)


def test_a_code_has_one_style_for_each_group_and_keeps_angles(generator: StyleGan2, mixer_weights: Path) -> None:
    mixer = FastMixer(generator, load_mixer_weights(mixer_weights), MixingPolicy())
    key = KeySchedule(b"k" * 32)
    alice, bob = person(), person()
    one = np.asarray(mixer.mix(alice, key, b"k"))
    assert one.shape == (10, 64)
    assert np.array_equal(one, np.asarray(mixer.mix(alice, key, b"k")))
    layers = generator.layers
    for group in (layers.coarse, layers.identity, layers.fine):
        assert (one[group.start : group.stop] == one[group.start]).all()
    other = np.asarray(mixer.mix(bob, key, b"k"))
    rekeyed = np.asarray(mixer.mix(alice, KeySchedule(b"l" * 32), b"l"))
    assert np.abs(one - other).max() > 0.01
    assert np.abs(one - rekeyed).max() > 0.01
    pictures = pictures_of(generator, np.stack([one, other]), 64)
    assert np.abs(pictures[0] - pictures[1]).max() > 0.01


def test_shipped_mixer_weights_are_refused(generator: StyleGan2) -> None:
    with pytest.raises(DamagedModelError, match=r"another generator than stylegan2.*anonymix train mapper"):
        FastMixer(generator, load_mixer_weights(), MixingPolicy())


@pytest.fixture(scope="module")
def needed(model: Callable[[str], Path]) -> None:
    for name in ("yunet", "arcface-mbf", "sface"):
        model(name)


@pytest.fixture(scope="module")
def photo(portraits: Path) -> Path:
    return portraits / "001_neutral.jpg"


@pytest.fixture(scope="module")
def mixer(needed: None, file: Path, mixer_weights: Path) -> Iterator[Anonymixer]:
    with Anonymixer(SeededKeys(3), generator=file, mixer_weights=mixer_weights, threads=1) as opened:
        yield opened


def test_a_photo_becomes_a_picture_of_ones_own_generator(
    mixer: Anonymixer, generator: StyleGan2, file: Path, mixer_weights: Path, photo: Path
) -> None:
    assert isinstance(mixer.generator, OpenVinoStyleGan2)
    face = mixer.protect(photo, subject="alice")
    assert face.pixels.shape == (64, 64, 3)  # as large as this generator draws
    assert face.pixels.std() > 5
    assert face.fingerprint == mixer.fingerprint
    again = mixer.protect(photo, subject="alice")
    assert np.array_equal(face.pixels, again.pixels)
    assert not np.array_equal(face.pixels, mixer.protect(photo, subject="bob").pixels)
    with Anonymixer(SeededKeys(3), generator=file, mixer_weights=mixer_weights, engine="torch", size=64) as reference:
        assert reference.fingerprint == mixer.fingerprint
        drawn = reference.protect(photo, subject="alice").pixels.astype(int)
    assert np.abs(drawn - face.pixels).max() <= 1


def test_the_fingerprint_names_the_generator(
    mixer: Anonymixer, folder: Path, generator: StyleGan2, mixer_weights: Path
) -> None:
    other_file = write(folder / "other.pt", rosinality(random_weights(PLAN, seed=2)))
    with pytest.raises(DamagedModelError, match="another generator"):
        Anonymixer(SeededKeys(3), generator=other_file, mixer_weights=mixer_weights)
    known = load_mixer_weights(mixer_weights)
    other = MixerWeights(
        known.subspace, known.centre, known.basis, known.person, load_stylegan2(other_file).weights_hash()
    )
    other.save(folder / "other.safetensors", {"made": "in a test"})
    with Anonymixer(
        SeededKeys(3), generator=other_file, mixer_weights=folder / "other.safetensors", engine="torch"
    ) as opened:
        assert opened.fingerprint != mixer.fingerprint


def test_sizes_that_it_does_not_draw_are_refused(needed: None, file: Path, mixer_weights: Path) -> None:
    with pytest.raises(UsageError, match=r"\(64,\) px, not 512"):
        Anonymixer(SeededKeys(3), generator=file, mixer_weights=mixer_weights, engine="torch", size=512)


def test_an_encoder_of_ones_own_keeps_pose(
    needed: None, generator: StyleGan2, file: Path, mixer_weights: Path, folder: Path, photo: Path
) -> None:
    encoder = folder / "encoder.safetensors"
    known = load_mixer_weights(mixer_weights)
    save_encoder(
        EncoderNetwork(latent=32, width=4).eval(),
        encoder,
        centre=known.centre,
        basis=known.basis,
        generator_hash=generator.weights_hash(),
        about={"made": "in a test"},
    )
    options = {"generator": file, "mixer_weights": mixer_weights, "engine": "torch"}
    policy = MixingPolicy(attributes=AttributePolicy.POSE)
    with Anonymixer(SeededKeys(3), policy=policy, encoder_weights=encoder, **options) as opened:  # type: ignore[arg-type]
        face = opened.protect(photo, subject="alice")
        assert face.pixels.shape == (64, 64, 3)
    with pytest.raises(DamagedModelError, match="encoder's weights were learned for another generator"):
        Anonymixer(SeededKeys(3), policy=policy, **options)  # type: ignore[arg-type]


def test_the_refine_method_runs_on_it(needed: None, file: Path, mixer_weights: Path, photo: Path) -> None:
    steps: list[float] = []
    settings = RefineSettings(steps=8, size=64, augmentations=0)
    with Anonymixer(
        SeededKeys(3),
        method="refine",
        generator=file,
        mixer_weights=mixer_weights,
        engine="torch",
        refinement=settings,
        progress=lambda step: steps.append(step.total),
    ) as opened:
        face = opened.protect(photo, subject="alice")
    assert len(steps) == 8
    assert steps[-1] < steps[0]
    assert face.pixels.shape == (64, 64, 3)


def test_the_command_line_takes_it(
    needed: None,
    file: Path,
    mixer_weights: Path,
    photo: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ANONYMIX_PASSPHRASE", "swordfish and chips")
    monkeypatch.setenv("ANONYMIX_KEYSTORE", str(tmp_path / "keys.db"))
    cheap = Argon2Cost(memory_kib=8_192, passes=1, lanes=1)
    Keystore.create(tmp_path / "keys.db", PassphraseUnlock("swordfish and chips", cost=cheap)).close()
    own = ["--generator", str(file), "--mixer-weights", str(mixer_weights), "--engine", "torch"]
    out = tmp_path / "out"
    command = ["protect", str(photo), "--subject", "alice", "--enrol", "-o", str(out), "--json"]
    assert main([*command, *own]) == 0
    capsys.readouterr()
    (made,) = out.glob("*.png")
    assert cv2.imread(str(made)).shape == (64, 64, 3)
    assert main([*command, *own[:2], "--force"]) == 5
    assert "another generator" in json.loads(capsys.readouterr().out)["error"]["what"]
