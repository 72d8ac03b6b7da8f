"""A student of the generator: a cheap, differentiable way from latent code to a recogniser's crop.

Tuning the identity map needs gradients of embeddings with respect to codes, thousands of times; the whole
generator and a detector in the loop would take days on a CPU. Layers from 128 px on carry little of what
recognisers see (exchanged for another code's, the embedding keeps a cosine of .94 to .96), so the student
stops at the generator's own features of 64 px. A small head paints a picture of 128 px from them, first
after the true picture and then after the embeddings of the true picture, and the crop is cut where a linear
regression on the code expects the landmarks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F  # noqa: N812 - the name that torch users expect

from anonymix_lab.training.checkpoint import load_state, one_cycle, save_state
from anonymix_lab.training.examples import (
    BLOCKS,
    PICTURE,
    Examples,
    FeatureGenerator,
    Landmarks,
    draw_examples,
    spread,
)
from anonymix_plugin.errors import UsageError
from anonymix_plugin.faces import RECOGNISER_TEMPLATE, Detector, umeyama
from anonymix_plugin.generator import ArrayGenerator, as_pictures
from anonymix_plugin.mixer.weights import MixerWeights
from anonymix_plugin.recognisers import Recogniser

CROP = 112
_LANDMARK_JITTER = 0.012  # in sides of the picture: about as far as a detector's landmarks scatter
_LIGHT_JITTER = 0.12
_PAINTED_TOGETHER = 3

Matrix = npt.NDArray[np.float64]


@dataclass(frozen=True)
class StudentRecipe:
    """How the student's head is trained.

    Attributes:
        examples: Faces that are drawn for it; one in ten is held out.
        pixel_epochs: Passes with the loss of pixels alone.
        epochs: Passes with the loss of embeddings added.
        batch: Examples a step.
        learning_rate: Peak of the one-cycle schedule of AdamW.
        channels: Width of the head.
        seed: Seed of the codes, the weights and the order.
    """

    examples: int = 1000
    pixel_epochs: int = 2
    epochs: int = 4
    batch: int = 8
    learning_rate: float = 2e-3
    channels: int = 96
    seed: int = 11


class Head(nn.Module):
    """Features of 64 px -> picture of 128 px."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, features: int, channels: int) -> None:
        super().__init__()
        self.enter = nn.Conv2d(features, channels, 1)
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        self.leave = nn.Conv2d(channels, 12, 3, padding=1)
        self.register_buffer("mean", torch.zeros(1, features, 1, 1))
        self.register_buffer("std", torch.ones(1, features, 1, 1))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(N, C, 64, 64) float32 -> (N, 3, 128, 128) float32 RGB, nominally in -1..1."""
        x = F.leaky_relu(self.enter((features - self.mean) / self.std), 0.2)
        y = F.leaky_relu(self.first(x), 0.2)
        x = x + F.leaky_relu(self.second(y), 0.2)
        return F.pixel_shuffle(self.leave(x), 2)


def crop_grid(landmarks: Matrix) -> torch.Tensor:
    """Where a recogniser's crop takes its pixels from.

    Args:
        landmarks: (5, 2) in sides of the picture.

    Returns:
        (1, 112, 112, 2) float32 for `grid_sample`.
    """
    to_crop = umeyama(landmarks * PICTURE - 0.5, RECOGNISER_TEMPLATE)
    back = np.linalg.inv(np.vstack([to_crop, [0, 0, 1]]))
    y, x = np.mgrid[:CROP, :CROP]
    places = np.stack([x, y, np.ones_like(x)], axis=-1) @ back.T
    return torch.from_numpy(((places[..., :2] + 0.5) / PICTURE * 2 - 1).astype(np.float32))[None]


def cut(pictures: torch.Tensor, grids: torch.Tensor) -> torch.Tensor:
    """Cut (N, 3, 128, 128) pictures by (N or 1, 112, 112, 2) grids: (N, 3, 112, 112) in -1..1."""
    grids = grids.expand(len(pictures), -1, -1, -1)
    return F.grid_sample(pictures.clamp(-1, 1), grids, align_corners=False, padding_mode="border")


class Student(nn.Module):
    """Whitened codes of the coarse and the identity layers -> embeddings of the face, with gradients.

    Args:
        generator: Gives the features; frozen.
        weights: Centre and basis of the latent space.
        head: Trained by `train_head`; frozen here.
        landmarks: Where the crop lies.
        recognisers: Name -> frozen module that takes (N, 3, 112, 112) crops.
    """

    def __init__(
        self,
        generator: FeatureGenerator,
        weights: MixerWeights,
        head: Head,
        landmarks: Landmarks,
        recognisers: Mapping[str, nn.Module],
    ) -> None:
        super().__init__()
        self._generator, self.landmarks = generator, landmarks
        self._recognisers = dict(recognisers)
        self.head = head.requires_grad_(False).eval()
        self.register_buffer("basis", torch.from_numpy(weights.basis), persistent=False)
        self.register_buffer("centre", torch.from_numpy(weights.centre), persistent=False)
        self.basis: torch.Tensor
        self.centre: torch.Tensor

    def forward(
        self,
        codes: torch.Tensor,
        random: np.random.Generator | None = None,
        fine: torch.Tensor | None = None,  # noqa: ARG002 - the layers above are not drawn
    ) -> dict[str, torch.Tensor]:
        """(N, 2, 512) float32 -> name -> (N, dim) float32, rows of length 1.

        With `random`, each crop is shifted, turned, scaled, brightened and given more or less contrast.
        """
        picture = self.paint(self.styles(codes))
        places = self.landmarks.guess(codes.detach().numpy())
        if random is not None:
            places = places + random.normal(0, _LANDMARK_JITTER, places.shape)
        crops = cut(picture, torch.cat([crop_grid(five) for five in places]))
        if random is not None:
            shape = (len(crops), 1, 1, 1)
            contrast, light = (
                torch.from_numpy(random.normal(0, _LIGHT_JITTER, shape).astype(np.float32)) for _ in range(2)
            )
            crops = crops * (1 + contrast) + light
        return {name: F.normalize(module(crops), dim=1) for name, module in self._recognisers.items()}

    def paint(self, styles: torch.Tensor) -> torch.Tensor:
        """(N, 2, 512) style vectors -> (N, 3, 128, 128) float32 RGB, nominally in -1..1, with gradients.

        A few faces at a time: what a batch of them needs does not fit into a processor's cache.
        """
        layers = spread(self._generator, styles)
        parts = []
        for few in torch.split(layers, _PAINTED_TOGETHER):
            features = [self._generator.features(one, BLOCKS) for one in torch.split(few, 1)]
            parts.append(self.head(torch.cat(features)))
        return torch.cat(parts)

    def styles(self, codes: torch.Tensor) -> torch.Tensor:
        """(N, 2, 512) whitened coordinates -> (N, 2, 512) style vectors."""
        return self.centre + codes @ self.basis.T


def make_student(
    drawer: ArrayGenerator,
    generator: FeatureGenerator,
    weights: MixerWeights,
    detector: Detector,
    recognisers: Mapping[str, Recogniser],
    modules: Mapping[str, nn.Module],
    recipe: StudentRecipe,
    folder: Path,
    progress: Callable[[str, int, int, Mapping[str, float]], None],
) -> Student:
    """Draw examples, train the head on them and put the student together; goes on where a run stopped.

    Args:
        drawer: The fast engine of the generator.
        generator: The same generator on torch.
        weights: The map to start from.
        detector: Finds the landmarks.
        recognisers: Name -> what looks at the true pictures.
        modules: The same recognisers as frozen torch modules.
        recipe: How.
        folder: Where everything goes.
        progress: Called with a stage, done, total and the held-out figures.
    """
    examples = draw_examples(
        drawer,
        generator,
        weights,
        detector,
        recognisers,
        folder,
        lambda done, total: progress("examples", done, total, {}),
        count=recipe.examples,
        seed=recipe.seed,
    )
    epochs = recipe.pixel_epochs + recipe.epochs
    head = train_head(
        examples,
        modules,
        recipe,
        folder / "head.safetensors",
        lambda epoch, figures: progress("head", epoch, epochs, figures),
    )
    found = examples.found
    landmarks = Landmarks(examples.codes[found], examples.landmarks[found])
    return Student(generator, weights, head, landmarks, modules)


def train_head(
    examples: Examples,
    recognisers: Mapping[str, nn.Module],
    recipe: StudentRecipe,
    output: Path,
    progress: Callable[[int, dict[str, float]], None],
) -> Head:
    """Train the head and write it; a file that is there already is read.

    Args:
        examples: From `draw_examples`.
        recognisers: Name -> frozen module; the names are those of the examples' embeddings.
        recipe: How.
        output: The safetensors file; beside it, until it is done, the state of an unfinished run.
        progress: Called after each epoch with its number and the held-out figures: "pixels" (mean absolute
            difference, of 255) and for each recogniser the mean cosine with the face drawn in full.
    """
    if output.exists():
        return _read_head(Head(examples.features.shape[1], recipe.channels), output, recipe)
    found = np.flatnonzero(examples.found)
    learn, held = found[found % 10 != 0], found[found % 10 == 0]
    grid = crop_grid(np.asarray(examples.landmarks[found].mean(axis=0), np.float64))
    torch.manual_seed(recipe.seed)
    head = Head(examples.features.shape[1], recipe.channels)
    some = examples.features[learn[:60]].astype(np.float32)
    head.mean.copy_(torch.from_numpy(some.mean(axis=(0, 2, 3)))[None, :, None, None])
    head.std.copy_(torch.from_numpy(some.std(axis=(0, 2, 3)) + 1e-3)[None, :, None, None])
    optimiser = torch.optim.AdamW(head.parameters(), recipe.learning_rate, weight_decay=1e-4)
    epochs = recipe.pixel_epochs + recipe.epochs
    steps = max(1, len(learn) // recipe.batch)
    about, state = {"recipe": repr(recipe)}, output.with_name("head-unfinished.safetensors")
    done = load_state(state, head, optimiser, about) // steps
    for epoch in range(done, epochs):
        order = np.random.Generator(np.random.Philox(key=recipe.seed, counter=epoch << 64)).permutation(learn)
        for number in range(steps):
            batch = np.sort(order[number * recipe.batch : (number + 1) * recipe.batch])
            for group in optimiser.param_groups:
                group["lr"] = recipe.learning_rate * one_cycle(epoch * steps + number, epochs * steps, warm=0.3)
            picture = head(torch.from_numpy(examples.features[batch].astype(np.float32)))
            loss = (picture - as_pictures(examples.pictures[batch])).abs().mean()
            if epoch >= recipe.pixel_epochs:
                similarity = _similarity(picture, grid, recognisers, examples, batch)
                loss = loss + torch.stack([1 - cosines.mean() for cosines in similarity.values()]).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        save_state(state, head, optimiser, (epoch + 1) * steps, about)
        progress(epoch + 1, _rate_head(head, grid, recognisers, examples, held))
    save_file(head.state_dict(), output, about)
    state.unlink(missing_ok=True)
    return head


def _similarity(
    pictures: torch.Tensor,
    grid: torch.Tensor,
    recognisers: Mapping[str, nn.Module],
    examples: Examples,
    numbers: npt.NDArray[np.int64],
) -> dict[str, torch.Tensor]:
    """Cosines between painted faces and the same faces drawn in full, (N,) for each recogniser."""
    crops = cut(pictures, grid)
    return {
        name: F.cosine_similarity(module(crops), torch.from_numpy(examples.embeddings[name][numbers]))
        for name, module in recognisers.items()
    }


def _rate_head(
    head: Head,
    grid: torch.Tensor,
    recognisers: Mapping[str, nn.Module],
    examples: Examples,
    held: npt.NDArray[np.int64],
) -> dict[str, float]:
    figures: dict[str, list[float]] = {}
    with torch.inference_mode():
        for start in range(0, len(held), 10):
            batch = held[start : start + 10]
            picture = head(torch.from_numpy(examples.features[batch].astype(np.float32)))
            missed = (picture - as_pictures(examples.pictures[batch])).abs().mean(dim=(1, 2, 3)) * 127.5
            figures.setdefault("pixels", []).extend(missed.tolist())
            for name, cosines in _similarity(picture, grid, recognisers, examples, batch).items():
                figures.setdefault(name, []).extend(cosines.tolist())
    return {name: float(np.mean(values)) for name, values in figures.items()}


def _read_head(head: Head, path: Path, recipe: StudentRecipe) -> Head:
    with safe_open(path, framework="pt") as file:
        if (file.metadata() or {}).get("recipe") != repr(recipe):
            raise UsageError("the head was trained by another recipe", where=str(path), fix="name another --work")
        head.load_state_dict({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
    return head
