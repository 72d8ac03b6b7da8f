"""Faces drawn in order to learn from them, and where their landmarks lie.

The codes are those that the mixer makes, spread wider. The student's head learns from what the generator's
inner layers, its pictures and recognisers say of them; whoever draws whole faces needs their landmarks alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch

from anonymix_lab.training.pairs import DRAWN_SIZE, to_pixels
from anonymix_plugin.errors import UsageError
from anonymix_plugin.faces import Detector, recogniser_crop
from anonymix_plugin.files import whole_file
from anonymix_plugin.generator import ArrayGenerator, Generator, LayerGroups
from anonymix_plugin.mixer.identity_map import IdentityMap
from anonymix_plugin.mixer.weights import MixerWeights
from anonymix_plugin.recognisers import Recogniser
from anonymix_plugin.values import Face, Floats, Photo, Pixels

BLOCKS = 4
"""Blocks of the generator that the student runs: to 64 px."""

SEEN_LAYERS = 13
"""Style inputs that those blocks have; the others can't be learned through the student."""

PICTURE = 128
"""Side of the picture that the head paints."""

GROUPS = 2
"""Coarse and identity: the groups of layers that a person moves here."""

SHARE_OF_ONE = 0.7  # of the examples whose layers are all one person's

_LANDMARK_AXES = 64  # whitened coordinates of each group that landmarks are guessed from
_LANDMARK_RIDGE = 30.0

Matrix = npt.NDArray[np.float64]


@runtime_checkable
class FeatureGenerator(Protocol):
    """A generator whose inner features can be had, with gradients."""

    @property
    def layers(self) -> LayerGroups:  # noqa: D102 - described by `protocol.Generator`
        ...

    def features(self, w_plus: torch.Tensor, blocks: int) -> torch.Tensor:
        """Run the stem and the first `blocks` blocks: (N, layers, 512) to (N, C, S, S) float32."""
        ...

    def map(self, z: torch.Tensor) -> torch.Tensor:
        """Map Gaussian codes (N, z_dim) float32 to style vectors (N, w_dim) float32."""
        ...


@dataclass(frozen=True, eq=False)
class Examples:
    """Drawn faces that the head learns from.

    Attributes:
        features: (N, C, 64, 64) float16, a memory map.
        pictures: (N, 128, 128, 3) uint8 RGB.
        codes: (N, 2, 512) float32, whitened coordinates of the coarse and the identity layers.
        landmarks: (N, 5, 2) float32 in sides of the picture; NaN where no face was found.
        embeddings: Recogniser -> (N, dim) float32 of the face drawn in full; NaN likewise.
    """

    features: npt.NDArray[np.float16]
    pictures: Pixels
    codes: Floats
    landmarks: Floats
    embeddings: Mapping[str, Floats]

    @property
    def found(self) -> npt.NDArray[np.bool_]:
        """(N,) bool: on which of them a face was found."""
        return np.asarray(np.isfinite(self.landmarks[:, 0, 0]))


class Landmarks:
    """Where the landmarks of a drawn face lie, guessed from its code by ridge regression."""

    def __init__(self, codes: Floats, landmarks: Floats) -> None:
        places = landmarks.reshape(len(landmarks), -1).astype(np.float64)
        self.mean = places.mean(axis=0)
        inputs = self._inputs(codes)
        gram = inputs.T @ inputs + _LANDMARK_RIDGE * np.eye(inputs.shape[1])
        self._weights = np.linalg.solve(gram, inputs.T @ (places - self.mean))

    def guess(self, codes: Floats) -> Matrix:
        """(N, 2, 512) whitened codes -> (N, 5, 2) float64 in sides of the picture."""
        places = self._inputs(codes) @ self._weights + self.mean
        return np.asarray(places.reshape(len(codes), 5, 2))

    def guess_with_gradients(self, codes: torch.Tensor) -> torch.Tensor:
        """The same on tensors, (N, 2, 512) -> (N, 5, 2) float32."""
        flat = codes[:, :, :_LANDMARK_AXES].reshape(len(codes), -1)
        weights, mean = (
            torch.from_numpy(values.astype(np.float32)).to(codes.device) for values in (self._weights, self.mean)
        )
        places = flat @ weights[:-1] + weights[-1] + mean
        return places.view(len(codes), 5, 2)

    @staticmethod
    def _inputs(codes: Floats) -> Matrix:
        flat = codes[:, :, :_LANDMARK_AXES].reshape(len(codes), -1).astype(np.float64)
        return np.concatenate([flat, np.ones((len(flat), 1))], axis=1)


def spread(generator: FeatureGenerator | Generator, styles: torch.Tensor, end: int = SEEN_LAYERS) -> torch.Tensor:
    """(N, 2 or 3, 512) style vectors -> (N, layers, 512): the second reaches to style input `end`."""
    coarse = len(generator.layers.coarse)
    counts = torch.tensor([coarse, end - coarse, generator.layers.total - end], device=styles.device)
    last = styles[:, 2:] if styles.shape[1] > 2 else torch.zeros_like(styles[:, :1])
    return torch.repeat_interleave(torch.cat([styles[:, :2], last], dim=1), counts, dim=1)


def draw_examples(
    drawer: ArrayGenerator,
    generator: FeatureGenerator,
    weights: MixerWeights,
    detector: Detector,
    recognisers: Mapping[str, Recogniser],
    folder: Path,
    progress: Callable[[int, int], None],
    *,
    count: int,
    seed: int,
) -> Examples:
    """Draw what the head learns from, or go on where an earlier run stopped.

    The codes are those that the mixer makes by the map that tuning starts from, spread wider: persons of half
    to one and a half times the length, keys of truncation .1 to .5, and in three of ten the coarse layers of
    another person.

    Args:
        drawer: The fast engine; draws the true pictures.
        generator: The reference on torch; gives the features.
        weights: The map to start from.
        detector: Finds the landmarks.
        recognisers: What looks at the true pictures.
        folder: Where features.npy (4 MiB an example), drawn.npz and about.json go.
        progress: Called with done and total.
        count: How many.
        seed: Of the codes.

    Raises:
        UsageError: The folder holds examples of another count, seed, generator or map.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _claim(folder / "about.json", weights, count, seed)
    table, cache = folder / "drawn.npz", folder / "features.npy"
    done = 0
    arrays: dict[str, npt.NDArray[np.generic]] = {
        "pictures": np.zeros((count, PICTURE, PICTURE, 3), np.uint8),
        "codes": np.zeros((count, 2, 512), np.float32),
        "landmarks": np.full((count, 5, 2), np.nan, np.float32),
    }
    if table.exists() and cache.exists():
        with np.load(table, allow_pickle=False) as old:
            done = int(old["done"])
            arrays = {name: old[name] for name in old.files if name != "done"}
        features = np.lib.format.open_memmap(cache, mode="r+")
    else:
        with torch.inference_mode():
            shape = generator.features(torch.zeros(1, generator.layers.total, 512), BLOCKS).shape
        features = np.lib.format.open_memmap(cache, mode="w+", dtype=np.float16, shape=(count, *shape[1:]))
    for number in range(done, count):
        codes, w_plus = _example(generator, weights, seed, number)
        arrays["codes"][number] = codes
        with torch.inference_mode():
            features[number] = generator.features(torch.from_numpy(w_plus), BLOCKS)[0].numpy()
        image = torch.from_numpy(drawer.draw(w_plus, DRAWN_SIZE)[0])
        arrays["pictures"][number] = to_pixels(image, PICTURE)
        face = _middle_face(detector, to_pixels(image, DRAWN_SIZE), number)
        if face is not None:
            arrays["landmarks"][number] = face.landmarks / DRAWN_SIZE
            crop = recogniser_crop(face)[None]
            for name, recogniser in recognisers.items():
                seen = recogniser.embed(crop)[0]
                if name not in arrays:
                    arrays[name] = np.full((count, len(seen)), np.nan, np.float32)
                arrays[name][number] = seen
        if number % 50 == 49 or number == count - 1:
            features.flush()
            _save(table, done=np.array(number + 1), **arrays)
        progress(number + 1, count)
    return Examples(
        features,
        np.asarray(arrays["pictures"], np.uint8),
        np.asarray(arrays["codes"], np.float32),
        np.asarray(arrays["landmarks"], np.float32),
        {name: np.asarray(arrays[name], np.float32) for name in recognisers},
    )


def draw_landmarks(
    drawer: ArrayGenerator,
    generator: FeatureGenerator | Generator,
    weights: MixerWeights,
    detector: Detector,
    folder: Path,
    progress: Callable[[int, int], None],
    *,
    count: int,
    seed: int,
    together: int = 1,
) -> Landmarks:
    """Draw the faces of `draw_examples` for their landmarks alone, or read what an earlier run found.

    Args:
        drawer: The fast engine.
        generator: Maps the keys' Gaussian codes.
        weights: The map that tuning starts from.
        detector: Finds the landmarks.
        folder: Where landmarks.npz and about.json go.
        progress: Called with done and total.
        count: How many faces.
        seed: Of the codes.
        together: How many are drawn at once.

    Raises:
        UsageError: The folder holds examples of another count, seed, generator or map.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _claim(folder / "about.json", weights, count, seed)
    table = folder / "landmarks.npz"
    if table.exists():
        with np.load(table, allow_pickle=False) as old:
            return Landmarks(old["codes"], old["landmarks"])
    codes, places = [], []
    for first in range(0, count, together):
        made = [_example(generator, weights, seed, number) for number in range(first, min(first + together, count))]
        drawn = drawer.draw(np.concatenate([w_plus for _, w_plus in made]), DRAWN_SIZE)
        for number, ((code, _), image) in enumerate(zip(made, drawn, strict=True), first):
            face = _middle_face(detector, to_pixels(torch.from_numpy(image), DRAWN_SIZE), number)
            if face is not None:
                codes.append(code)
                places.append(face.landmarks / DRAWN_SIZE)
            progress(number + 1, count)
    found = {"codes": np.stack(codes), "landmarks": np.stack(places).astype(np.float32)}
    _save(table, **found)
    return Landmarks(found["codes"], found["landmarks"])


def _claim(note: Path, weights: MixerWeights, count: int, seed: int) -> None:
    """Write down whose examples a folder holds; refuse one that holds others."""
    about = {
        "examples": count,
        "seed": seed,
        "generator": weights.generator_hash,
        "map": f"{float(np.abs(weights.person).sum()):.6e}",
    }
    if note.exists() and json.loads(note.read_text(encoding="utf-8")) != about:
        raise UsageError(
            "the folder holds examples of another recipe", where=str(note.parent), fix="name another --work"
        )
    note.write_text(json.dumps(about), encoding="utf-8")


def _save(path: Path, **arrays: npt.NDArray[np.generic]) -> None:
    """Write an .npz whole or not at all."""
    with whole_file(path) as draft:
        np.savez(draft, allow_pickle=False, **arrays)


def _middle_face(detector: Detector, picture: Pixels, number: int) -> Face | None:
    """The face that was drawn, not a bystander at the edge."""
    faces = detector.detect(Photo(picture, f"example {number}"))
    return min(
        faces,
        key=lambda one: float(np.abs(one.landmarks.mean(0) - DRAWN_SIZE / 2).sum()),
        default=None,
    )


def _example(
    generator: FeatureGenerator | Generator, weights: MixerWeights, seed: int, number: int
) -> tuple[Floats, Floats]:
    """Whitened codes (2, 512) and W+ code (1, layers, 512) of one example."""
    random = np.random.Generator(np.random.Philox(key=seed, counter=number << 64))
    mapped = IdentityMap(weights.person[:GROUPS], weights.bend, weights.removed)
    noise = torch.from_numpy(random.standard_normal((1, 512), np.float32))
    with torch.inference_mode():
        synthetic = weights.inverse @ (generator.map(noise)[0].numpy().astype(np.float64) - weights.centre)

    def somebody() -> Matrix:
        code = random.standard_normal(weights.keyed_dims)
        moved = mapped(code / np.linalg.norm(code))
        return np.asarray(random.uniform(0.5, 1.6) * moved + random.uniform(0.1, 0.5) * synthetic)

    person = somebody()
    if random.uniform() >= SHARE_OF_ONE:
        person[0] = somebody()[0]
    codes = np.concatenate([person, random.uniform(0.1, 0.5) * synthetic[None]])
    styles = (weights.centre + codes @ weights.basis.T.astype(np.float64)).astype(np.float32)
    w_plus = spread(generator, torch.from_numpy(styles)[None]).numpy()
    return codes[:2].astype(np.float32), w_plus
