"""Pairs of latent code and picture, drawn from the generator: what encoder and mapper learn from.

Everybody in these pictures does not exist. A pair is named by the seed and its number alone, so a run
that was interrupted goes on where it stopped, and two machines can share the work by ranges.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch

from anonymix_plugin.files import write_bytes
from anonymix_plugin.generator import Generator

PICTURE_SIZE = 256
DRAWN_SIZE = 512
SHARE_OF_MIXED = 0.5


@dataclass(frozen=True)
class PairCodes:
    """Codes of one pair.

    Attributes:
        styles: (3, 512) float32 style vectors for the coarse, identity and fine layers.
        psi: Truncation that was applied, .55 to 1.
    """

    styles: npt.NDArray[np.float32]
    psi: float


def mean_style(generator: Generator, *, samples: int = 20_000, seed: int = 0) -> torch.Tensor:
    """Return the mean of w over Gaussian z, (w_dim,) float32: the centre of truncation.

    `samples` is a multiple of 1,000.
    """
    noise = np.random.Generator(np.random.Philox(seed)).standard_normal((samples, generator.z_dim), np.float32)
    total = torch.zeros(generator.w_dim, dtype=torch.float64)
    for batch in torch.from_numpy(noise.reshape(-1, 1000, generator.z_dim)):
        total += generator.map(batch).double().sum(0)
    return (total / samples).float()


def pair_codes(generator: Generator, centre: torch.Tensor, seed: int, number: int) -> PairCodes:
    """Return the codes of pair `number` of the series `seed`.

    Half of the pairs have one style vector for all layers, half an independent one for each of the three
    groups of layers, so that what each group does can be told apart.
    """
    random = np.random.Generator(np.random.Philox(key=seed, counter=number << 64))
    z = torch.from_numpy(random.standard_normal((3, generator.z_dim), np.float32))
    psi = float(random.uniform(0.55, 1.0))
    if random.uniform() >= SHARE_OF_MIXED:
        z = z[:1].expand(3, -1)
    styles = centre + psi * (generator.map(z) - centre)
    return PairCodes(styles.numpy(), psi)


def to_w_plus(generator: Generator, styles: torch.Tensor) -> torch.Tensor:
    """Spread one style vector per group, (N, 3, w_dim), over the layers: (N, layers.total, w_dim)."""
    return torch.repeat_interleave(styles, torch.tensor(generator.layers.counts), dim=1)


def to_pixels(image: torch.Tensor, size: int) -> npt.NDArray[np.uint8]:
    """Turn (3, S, S) float in [-1, 1] into (size, size, 3) uint8 by area averaging."""
    pixels = ((image.clamp(-1, 1) + 1) * 127.5).permute(1, 2, 0).contiguous().numpy()
    if pixels.shape[0] != size:
        pixels = cv2.resize(pixels, (size, size), interpolation=cv2.INTER_AREA)
    rounded: npt.NDArray[np.uint8] = np.clip(np.rint(pixels), 0, 255).astype(np.uint8)
    return rounded


def pair_path(folder: Path, number: int) -> Path:
    """Return where the picture of a pair lies."""
    return folder / f"{number // 1000:03d}" / f"{number:06d}.jpg"


def draw_pairs(generator: Generator, folder: Path, numbers: range, *, seed: int) -> Iterator[int]:
    """Draw the pictures of `numbers` that are not there yet, yielding each number when it is done.

    Args:
        generator: What draws.
        folder: Where pictures go, as JPEG of quality 95 and 256 px.
        numbers: Which pairs.
        seed: Names the series.
    """
    centre = mean_style(generator)
    for number in numbers:
        path = pair_path(folder, number)
        if not path.exists():
            codes = pair_codes(generator, centre, seed, number)
            w_plus = to_w_plus(generator, torch.from_numpy(codes.styles)[None])
            size = min(DRAWN_SIZE, max(generator.sizes))
            pixels = to_pixels(generator.synthesise(w_plus, size)[0], PICTURE_SIZE)
            done, data = cv2.imencode(".jpg", pixels[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])
            if not done:
                raise OSError(f"could not encode pair {number}")
            write_bytes(path, data.tobytes())
        yield number
