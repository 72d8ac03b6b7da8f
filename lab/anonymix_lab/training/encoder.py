"""Training of the encoder on pairs of code and picture that the generator drew.

The loss is the squared error of whitened latent coordinates, each weighted by the standard deviation of its axis, so
that what moves the picture most counts most. Photos are not drawings: each picture is shifted, blurred,
darkened, tinted, compressed or partly covered before the network sees it, while its code stays, except
where light itself is what the code holds; those changes stay small.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from anonymix_lab.training.checkpoint import chance, load_state, save_state, set_chance
from anonymix_lab.training.latent import LatentAxes, latent_axes
from anonymix_lab.training.pairs import pair_codes, pair_path
from anonymix_plugin.encoder import INPUT_SIZE, EncoderNetwork, as_input, channels_last, save_encoder
from anonymix_plugin.errors import UsageError
from anonymix_plugin.generator import Generator
from anonymix_plugin.values import Floats, Pixels


@dataclass(frozen=True)
class EncoderRecipe:
    """How an encoder is trained.

    Attributes:
        pairs: How many pairs of the series are used; one in ten is held out.
        series: Seed of the series of pairs.
        epochs: Passes over the pairs.
        batch: Pairs a step.
        learning_rate: Peak of the one-cycle schedule of AdamW.
        seed: Seed of the initial weights, the order and the changes to the pictures.
        latent: Whitened coordinates that are predicted.
    """

    pairs: int
    series: int = 1
    epochs: int = 30
    batch: int = 32
    learning_rate: float = 2e-3
    seed: int = 7
    latent: int = 256


@dataclass(frozen=True)
class EncoderReport:
    """How training went: explained variance of w on held-out pairs, by group, and seconds."""

    explained: tuple[float, float, float]
    seconds: float
    pairs: int


@dataclass(frozen=True, eq=False)
class _Examples:
    pictures: Pixels  # (N, 144, 144, 3)
    codes: Floats  # (N, 3, latent), whitened


_MARGIN = 16  # room for shifts: pictures are kept with a rim, at 144 px, and cut to 128


def train_encoder(
    generator: Generator,
    folder: Path,
    recipe: EncoderRecipe,
    output: Path,
    progress: Callable[[int, float, tuple[float, float, float]], None],
    *,
    state: Path | None = None,
) -> EncoderReport:
    """Train an encoder and write it.

    Args:
        generator: Whose pairs they are.
        folder: Where `draw_pairs` put the pictures.
        recipe: How to train.
        output: Where the safetensors file goes.
        progress: Called after each epoch with its number, the mean loss and the explained variances.
        state: Where unfinished work is kept, an epoch at a time; a run goes on from there and ends as one
            that was not interrupted does.

    Raises:
        UsageError: If pictures of the series are missing, or the state is of another run.
    """
    started = time.monotonic()
    torch.manual_seed(recipe.seed)
    random = np.random.Generator(np.random.Philox(recipe.seed))
    axes = latent_axes(generator)
    examples = _load(generator, folder, recipe, axes)
    held = np.arange(recipe.pairs) % 10 == 9
    weight = torch.from_numpy(np.square(axes.basis).sum(axis=0)[: recipe.latent])
    weight = weight / weight.mean()
    network = channels_last(EncoderNetwork(recipe.latent))
    optimiser = torch.optim.AdamW(network.parameters(), lr=recipe.learning_rate, weight_decay=0.05)
    learn = np.flatnonzero(~held)
    steps = recipe.epochs * (len(learn) // recipe.batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, recipe.learning_rate, total_steps=steps, pct_start=0.2)
    explained = (0.0, 0.0, 0.0)
    run = {"recipe": repr(recipe), "generator": generator.weights_hash()}
    saved: dict[str, torch.Tensor] = {}
    done = load_state(state, network, optimiser, run, saved) if state else 0
    if done:
        set_chance(random, saved)
        with warnings.catch_warnings():  # about steps of the schedule without steps of the optimiser
            warnings.simplefilter("ignore")
            for _ in range(done * (len(learn) // recipe.batch)):
                schedule.step()
        explained = _explained(network, examples, np.flatnonzero(held), weight.numpy())
    for epoch in range(done, recipe.epochs):
        network.train()
        losses = []
        order = random.permutation(learn)
        for batch in order[: len(order) // recipe.batch * recipe.batch].reshape(-1, recipe.batch):
            pictures = as_input(np.stack([disturb(examples.pictures[i], random) for i in batch]))
            target = torch.from_numpy(examples.codes[batch])
            loss = (weight * (network(pictures) - target).square()).mean()
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimiser.step()
            schedule.step()
            losses.append(loss.item())
        explained = _explained(network, examples, np.flatnonzero(held), weight.numpy())
        if state:
            save_state(state, network, optimiser, epoch + 1, run, chance(random))
        progress(epoch + 1, float(np.mean(losses)), explained)
    seconds = time.monotonic() - started
    about = {
        "pairs": str(recipe.pairs),
        "recipe": repr(recipe),
        "explained variance of w, held-out pairs (coarse, identity, fine)": ", ".join(f"{v:.3f}" for v in explained),
        "seconds": f"{seconds:.0f}",
    }
    save_encoder(
        network,
        output,
        centre=axes.centre,
        basis=axes.basis,
        generator_hash=generator.weights_hash(),
        about=about,
    )
    return EncoderReport(explained, seconds, recipe.pairs)


def disturb(picture: Pixels, random: np.random.Generator) -> Pixels:
    """Change a picture as cameras, crops and networks do.

    Args:
        picture: (144, 144, 3) uint8.
        random: Where the changes come from.

    Returns:
        (128, 128, 3) uint8.
    """
    x, y = random.integers(_MARGIN // 2 - 3, _MARGIN // 2 + 4, 2)
    crop: npt.NDArray[Any] = picture[y : y + INPUT_SIZE, x : x + INPUT_SIZE]
    if random.uniform() < 0.3:
        crop = cv2.GaussianBlur(crop, (0, 0), random.uniform(0.4, 1.6))
    if random.uniform() < 0.3:
        quality = int(random.integers(25, 90))
        coded = cv2.imencode(".jpg", crop, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        crop = np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR))
    changed = crop.astype(np.float32)
    if random.uniform() < 0.5:
        changed = (changed - 127.5) * random.uniform(0.85, 1.15) + 127.5 + random.uniform(-15, 15)
        changed *= random.uniform(0.94, 1.06, 3).astype(np.float32)
    if random.uniform() < 0.3:
        changed += random.normal(0, random.uniform(1, 8), changed.shape)
    if random.uniform() < 0.15:
        side = random.integers(12, 40, 2)
        top, left = random.integers(0, INPUT_SIZE - side[0]), random.integers(0, INPUT_SIZE - side[1])
        changed[top : top + side[0], left : left + side[1]] = random.uniform(0, 255, 3)
    return np.asarray(np.clip(changed, 0, 255).astype(np.uint8))


def _load(generator: Generator, folder: Path, recipe: EncoderRecipe, axes: LatentAxes) -> _Examples:
    pictures, styles = [], []
    centre = torch.from_numpy(axes.centre)
    side = INPUT_SIZE + _MARGIN
    for number in range(recipe.pairs):
        picture = cv2.imread(str(pair_path(folder, number)))
        if picture is None:
            raise UsageError(
                f"pair {number} of {recipe.pairs} is missing",
                where=str(folder),
                fix="run: anonymix train pairs",
            )
        pictures.append(cv2.resize(picture[:, :, ::-1], (INPUT_SIZE, INPUT_SIZE), interpolation=cv2.INTER_AREA))
        styles.append(pair_codes(generator, centre, recipe.series, number).styles)
    # A mirrored rim, so that a shifted cut has something to show; photos get the same at their edges.
    rim = _MARGIN // 2
    padded = np.pad(np.stack(pictures), ((0, 0), (rim, rim), (rim, rim), (0, 0)), mode="reflect")
    if padded.shape[1] != side:
        raise UsageError(f"pictures of {padded.shape[1]} px, expected {side}")
    return _Examples(padded.astype(np.uint8), axes.whiten(np.stack(styles))[:, :, : recipe.latent])


def _explained(
    network: EncoderNetwork, examples: _Examples, held: npt.NDArray[np.int64], weight: Floats
) -> tuple[float, float, float]:
    """Share of the variance of w that is predicted on held-out pairs, for each group."""
    network.eval()
    inner = slice(_MARGIN // 2, _MARGIN // 2 + INPUT_SIZE)
    with torch.inference_mode():
        predicted = np.concatenate(
            [network(as_input(examples.pictures[part][:, inner, inner])).numpy() for part in np.array_split(held, 8)]
        )
    target = examples.codes[held]
    missed = (weight * np.square(predicted - target)).sum(axis=(0, 2))
    total = (weight * np.square(target)).sum(axis=(0, 2))
    coarse, identity, fine = (float(share) for share in 1 - missed / total)
    return coarse, identity, fine
