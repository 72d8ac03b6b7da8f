"""The shipped encoder keeps pose and light; bad input and damaged files are refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from anonymix_lab.studies.reconstruction import measure_reconstruction
from anonymix_lab.training.encoder import disturb
from anonymix_plugin.encoder import EncoderNetwork, as_input, load_encoder, save_encoder
from anonymix_plugin.errors import BadArrayError, DamagedModelError
from anonymix_plugin.faces import YuNet
from anonymix_plugin.generator import load_generator
from anonymix_plugin.mixer.refine.attributes import LightAndColour
from anonymix_plugin.mixer.weights import load_mixer_weights
from anonymix_plugin.models import locate
from anonymix_plugin.recognisers import load_recogniser

RANDOM = np.random.Generator(np.random.Philox(2))


@pytest.mark.long  # 8 s; tests of policies hold that what is kept shows in the face
def test_pose_expression_and_light_of_real_photos_are_kept(shared_data: Path, model: Callable[[str], Path]) -> None:
    for name in ("mobilestylegan", "yunet", "arcface-mbf"):
        model(name)
    # Unconstrained photos, because studio photos hardly vary in pose and light; figures only.
    photos = sorted((shared_data / "lfw" / "images").glob("*/*_0001.jpg"))[7::140]
    kept = measure_reconstruction(
        photos,
        load_encoder(),
        load_generator(),
        YuNet(locate("yunet")),
        LightAndColour(),
        [load_recogniser("arcface-mbf")],
        load_mixer_weights().centre,
    )
    assert kept.photos >= 30
    assert kept.yaw > 0.6
    assert kept.smile > 0.3
    assert kept.brightness > 0.5
    assert kept.side_light > 0.3
    assert kept.pixel < 0.8 * kept.pixel_mean_face
    # It must not be good enough at the person: what is kept may not identify.
    assert kept.identity["arcface-mbf"] < 0.243


def test_codes_do_not_depend_on_size_or_neighbours() -> None:
    encoder = load_encoder()
    crops = cv2.GaussianBlur(RANDOM.integers(0, 256, (256, 256, 3), np.uint8), (0, 0), 9)[None]
    small = cv2.resize(crops[0], (128, 128), interpolation=cv2.INTER_AREA)[None]
    alone = encoder.encode(crops)
    assert alone.shape == (1, 3, 512)
    assert alone.dtype == np.float32
    assert np.allclose(alone, encoder.encode(small), atol=1e-4)
    together = encoder.encode(np.concatenate([crops, crops[:, ::-1]]))
    assert np.allclose(together[0], alone[0], atol=1e-4)


@pytest.mark.parametrize(
    "crops",
    [
        np.zeros((256, 256, 3), np.uint8),
        np.zeros((1, 256, 256, 3), np.float32),
        np.zeros((1, 64, 64, 4), np.uint8),
    ],
)
def test_crops_of_another_kind_are_refused(crops: np.ndarray) -> None:
    with pytest.raises(BadArrayError, match="uint8"):
        load_encoder().encode(crops)


def test_saving_and_loading_keeps_the_code(tmp_path: Path) -> None:
    network = EncoderNetwork(latent=16, width=4).eval()
    centre, basis = np.zeros(512, np.float32), np.eye(512, dtype=np.float32)
    path = tmp_path / "encoder.safetensors"
    save_encoder(network, path, centre=centre, basis=basis, generator_hash="g", about={"made": "in a test"})
    crops = RANDOM.integers(0, 256, (2, 128, 128, 3), np.uint8)
    loaded = load_encoder(path)
    expected = network(as_input(crops)).detach().numpy()
    assert loaded.generator_hash == "g"
    assert len(loaded.sha256) == 64
    assert np.allclose(loaded.encode(crops)[:, :, :16], expected, atol=2e-2)
    assert not loaded.encode(crops)[:, :, 16:].any()


@pytest.mark.parametrize("damage", [b"", b"\xff" * 64])
def test_a_damaged_file_says_what_to_do(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "encoder.safetensors"
    path.write_bytes(damage)
    with pytest.raises(DamagedModelError, match="anonymix train encoder"):
        load_encoder(path)


def test_disturbed_pictures_stay_pictures_and_follow_the_seed() -> None:
    picture = RANDOM.integers(0, 256, (144, 144, 3), np.uint8)
    for seed in range(40):
        one, two = (disturb(picture, np.random.Generator(np.random.Philox(seed))) for _ in range(2))
        assert one.shape == (128, 128, 3)
        assert one.dtype == np.uint8
        assert np.array_equal(one, two)
