"""What training learns from toy data is right, and its commands go on where they stopped."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from anonymix_lab.training.embedding import embed_files, people_of
from anonymix_lab.training.encoder import EncoderRecipe, train_encoder
from anonymix_lab.training.latent import LatentAxes, latent_axes
from anonymix_lab.training.mapper import MapperRecipe, child_direction, fit_mapper
from anonymix_lab.training.pairs import draw_pairs, mean_style, pair_codes, pair_path, to_w_plus
from anonymix_plugin.encoder import load_encoder
from anonymix_plugin.errors import UsageError
from anonymix_plugin.generator import LayerGroups
from anonymix_plugin.mixer.subspace import IdentitySubspace
from anonymix_plugin.mixer.weights import load_mixer_weights

RANDOM = np.random.Generator(np.random.Philox(9))


class ColourGenerator:
    """Draws one colour: the first three numbers of the fine layers' style."""

    name = "colour"
    z_dim = w_dim = 512
    layers = LayerGroups(range(4), range(4, 11), range(11, 23))
    sizes = (512,)

    def __init__(self) -> None:
        self.drawn = 0

    def map(self, z: torch.Tensor) -> torch.Tensor:
        scale = torch.linspace(1.0, 0.1, 512)
        return z * scale

    def synthesise(self, w_plus: torch.Tensor, size: int) -> torch.Tensor:
        self.drawn += len(w_plus)
        colour = torch.tanh(w_plus[:, -1, :3])[:, :, None, None]
        return colour.expand(-1, -1, size, size)

    def weights_hash(self) -> str:
        return "colour"


def test_pairs_follow_seed_and_number_and_are_not_drawn_twice(tmp_path: Path) -> None:
    generator = ColourGenerator()
    assert list(draw_pairs(generator, tmp_path, range(6), seed=3)) == list(range(6))
    first = pair_path(tmp_path, 4).read_bytes()
    pair_path(tmp_path, 4).unlink()
    list(draw_pairs(generator, tmp_path, range(6), seed=3))
    assert generator.drawn == 7
    assert pair_path(tmp_path, 4).read_bytes() == first


def test_half_of_the_pairs_have_one_style_for_all_layers() -> None:
    generator = ColourGenerator()
    centre = mean_style(generator)
    codes = [pair_codes(generator, centre, 1, number) for number in range(200)]
    whole = [bool((code.styles[0] == code.styles[2]).all()) for code in codes]
    assert 70 < sum(whole) < 130
    assert all(0.55 <= code.psi <= 1 for code in codes)


def test_styles_spread_over_their_layers() -> None:
    styles = torch.arange(3.0).reshape(1, 3, 1).expand(1, 3, 512)
    assert to_w_plus(ColourGenerator(), styles)[0, :, 0].tolist() == [0.0] * 4 + [1.0] * 7 + [2.0] * 12


def test_axes_whiten_the_latent_space() -> None:
    generator = ColourGenerator()
    axes = latent_axes(generator)
    styles = generator.map(torch.from_numpy(RANDOM.standard_normal((4000, 512)).astype(np.float32))).numpy()
    whitened = axes.whiten(styles)
    assert np.abs(whitened.std(axis=0) - 1).max() < 0.1
    assert np.allclose(axes.centre + whitened @ axes.basis.T, styles, atol=1e-3)


def test_the_encoder_learns_what_shows_and_its_file_loads(tmp_path: Path) -> None:
    generator = ColourGenerator()
    list(draw_pairs(generator, tmp_path, range(120), seed=1))
    losses: list[float] = []
    recipe = EncoderRecipe(pairs=120, epochs=4, batch=12, latent=8)
    output = tmp_path / "encoder.safetensors"
    train_encoder(generator, tmp_path, recipe, output, lambda _, loss, __: losses.append(loss))
    assert losses[-1] < losses[0]
    assert load_encoder(output).generator_hash == "colour"


def test_an_interrupted_encoder_ends_as_one_that_was_not(tmp_path: Path) -> None:
    """Order, disturbances, dropout, statistics, moments and schedule go on where they were."""
    generator = ColourGenerator()
    list(draw_pairs(generator, tmp_path, range(60), seed=1))
    recipe = EncoderRecipe(pairs=60, epochs=4, batch=12, latent=8)
    whole, halves = tmp_path / "whole.safetensors", tmp_path / "halves.safetensors"
    train_encoder(generator, tmp_path, recipe, whole, lambda *_: None)

    def stop(epoch: int, *_: object) -> None:
        if epoch == 2:
            raise KeyboardInterrupt

    state = tmp_path / "state.safetensors"
    with pytest.raises(KeyboardInterrupt):
        train_encoder(generator, tmp_path, recipe, halves, stop, state=state)
    epochs: list[int] = []
    train_encoder(generator, tmp_path, recipe, halves, lambda epoch, *_: epochs.append(epoch), state=state)
    assert epochs == [3, 4]
    one, other = (load_file(path) for path in (whole, halves))
    assert one.keys() == other.keys()
    assert all(np.array_equal(one[name], other[name]) for name in one)
    with pytest.raises(UsageError, match="other settings"):
        train_encoder(generator, tmp_path, replace(recipe, learning_rate=1e-4), halves, stop, state=state)


def test_missing_pairs_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="pair 0 of 100"):
        train_encoder(
            ColourGenerator(), tmp_path, EncoderRecipe(pairs=100), tmp_path / "x.safetensors", lambda *_: None
        )


def test_the_map_finds_the_directions_that_recognisers_see_and_leaves_children_out(tmp_path: Path) -> None:
    count, seen = 3000, 6
    axes = LatentAxes(np.zeros(512, np.float32), np.diag(np.linspace(2, 0.1, 512)).astype(np.float32))
    whitened = RANDOM.standard_normal((count, 512))
    children = np.zeros(count, bool)
    children[:1500] = whitened[:1500, 9] > 1
    # The recogniser sees axes 3 to 8 and, a little, the axis of age.
    embeddings = np.zeros((count, 640))
    embeddings[:, :seen] = whitened[:, 3 : 3 + seen]
    embeddings[:, 0] += 0.3 * whitened[:, 9]
    embeddings += 0.01 * RANDOM.standard_normal(embeddings.shape)
    subspace = IdentitySubspace(np.zeros(640, np.float32), np.eye(640, 4, dtype=np.float32))
    recipe = MapperRecipe(pairs=count, keyed_dims=seen, reach=5.0)
    styles = (whitened @ axes.basis.T).astype(np.float32)
    weights = fit_mapper(
        axes, subspace, styles, embeddings.astype(np.float32), np.ones(count, bool), children, recipe, "toy"
    )
    energy = np.square(weights.person[0]).sum(axis=1)
    # The rest is noise of the regression, spread over 506 axes.
    assert energy[3 : 3 + seen].sum() > 0.8 * energy.sum()
    assert energy[9] < 0.01 * energy.sum()
    young = child_direction(whitened, np.ones(count, bool), children)
    assert young[9] > 0.9
    assert weights.centre[9] < 0
    lengths = np.linalg.norm(weights.basis @ weights.person[0], axis=0)
    assert np.isclose(np.square(lengths).sum() / seen, 25, rtol=1e-3)
    path = tmp_path / "mixer.safetensors"
    weights.save(path, {"made": "in a test"})
    assert np.array_equal(load_mixer_weights(path).person, weights.person)


def test_too_few_drawn_faces_for_a_map_are_told() -> None:
    axes = LatentAxes(np.zeros(512, np.float32), np.eye(512, dtype=np.float32))
    subspace = IdentitySubspace(np.zeros(640, np.float32), np.eye(640, 4, dtype=np.float32))
    faces = np.arange(9) < 6
    with pytest.raises(UsageError, match="6 of 9 drawn pairs show a face"):
        fit_mapper(
            axes,
            subspace,
            np.ones((9, 512), np.float32),
            np.ones((9, 640), np.float32),
            faces,
            ~faces,
            MapperRecipe(pairs=9, keyed_dims=6),
            "toy",
        )


def test_embedding_goes_on_from_the_cache(tmp_path: Path) -> None:
    class Counting:
        seen = 0

        def embed(self, path: Path) -> np.ndarray | None:
            self.seen += 1
            return None if path.name == "2" else np.full(640, float(path.name), np.float32)

    embedder, cache = Counting(), tmp_path / "cache.npz"
    paths = [Path(str(i)) for i in range(4)]
    rows, found = embed_files(embedder, paths[:3], cache, lambda *_: None)  # type: ignore[arg-type]
    assert found.tolist() == [True, True, False]
    rows, found = embed_files(embedder, paths, cache, lambda *_: None)  # type: ignore[arg-type]
    assert embedder.seen == 4
    assert rows[3, 0] == 3
    assert found.tolist() == [True, True, False, True]
    rows, found = embed_files(embedder, paths[::-1], cache, lambda *_: None)  # type: ignore[arg-type]
    assert embedder.seen == 4
    assert found.tolist() == [True, False, True, True]


def test_another_photo_in_the_place_of_one_is_embedded_anew(tmp_path: Path) -> None:
    class Measuring:
        def embed(self, path: Path) -> np.ndarray:
            return np.full(640, len(path.read_bytes()), np.float32)

    photo, cache = tmp_path / "a.jpg", tmp_path / "cache.npz"
    for content in (b"1", b"22"):
        photo.write_bytes(content)
        rows, _ = embed_files(Measuring(), [photo], cache, lambda *_: None)  # type: ignore[arg-type]
        assert rows[0, 0] == len(content)


def test_people_are_listed_by_folder(tmp_path: Path) -> None:
    for name in ("b/2.jpg", "a/1.png", "b/1.JPG", "b/notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    paths, who = people_of(tmp_path)
    assert [f"{path.parent.name}/{path.name}" for path in paths] == ["a/1.png", "b/1.JPG", "b/2.jpg"]
    assert who.tolist() == [0, 1, 1]
    with pytest.raises(UsageError, match="one per person"):
        people_of(tmp_path / "a")
