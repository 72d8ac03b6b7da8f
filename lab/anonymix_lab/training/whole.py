"""The generator itself in the student's place: whole faces, on a GPU, or drawn by the small generator.

Where there is a GPU, tuning needs no student: the generator draws each face at 512 px, hundreds a step, and
gradients go back through all of it. The small generator is cheap enough for a CPU: a face of 256 px and its
gradients take a tenth of a second of two cores that compute in bfloat16. A part of the batch is drawn at a
time, and once more on the way back, so that memory holds one part and not the batch.

The map must learn what recognisers in general see, and not what two of them do, so more is disturbed than on
the student's way: crops are mirrored, tinted, blurred and partly covered, and the recognisers themselves are
shaken, every channel of every layer by some per cent, which makes each step's a relative of the original
(ghost networks, Li et al. 2020, arXiv 1812.03413).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - the name that torch users expect
from torch.utils.checkpoint import checkpoint

from anonymix_lab.training.examples import SEEN_LAYERS, Landmarks, spread
from anonymix_lab.training.student import CROP
from anonymix_plugin.faces import RECOGNISER_TEMPLATE
from anonymix_plugin.generator import Generator
from anonymix_plugin.mixer.weights import MixerWeights

_SIZE = 512  # or what a smaller generator draws
_FINER = 2  # the crop is cut at a multiple of its side and averaged down, as good resampling does


@dataclass(frozen=True)
class Disturbance:
    """How a step's crops and recognisers are disturbed; standard deviations, unless it says otherwise.

    Attributes:
        landmarks: Of the landmarks, in sides of the picture.
        light: Of brightness (crops are in -1..1) and contrast.
        tint: Of each colour's contrast.
        noise: Greatest standard deviation of pixel noise.
        mirrored: Share of the crops.
        covered: Share of the crops of which a rectangle is grey.
        blurred: Share of the parts of a batch whose crops lose resolution.
        wider: Greatest share by which a crop is wider than its recogniser's, as crops of boxes are.
        shaken: Of the factor on each channel of each of a recogniser's layers.
    """

    landmarks: float = 0.012
    light: float = 0.12
    tint: float = 0.06
    noise: float = 0.04
    mirrored: float = 0.5
    covered: float = 0.15
    blurred: float = 0.3
    wider: float = 0.0
    shaken: float = 0.05


class WholeReader(nn.Module):
    """Whitened codes -> embeddings of the face drawn in full, with gradients; meets `tuning.CodeReader`.

    Args:
        generator: On the device already.
        weights: Centre and basis of the latent space.
        landmarks: Where the crop lies.
        recognisers: Name -> frozen module on the device that takes (N, 3, 112, 112) crops.
        device: Where all of it runs.
        together: Faces drawn at once.
        disturbance: What `random` means.
        layers: How many of the generator's style inputs a person moves.
        half: Whether faces are drawn in bfloat16, laid out channels last.
        again: Whether a part of a batch is drawn again on the way back. Without, memory holds what a whole
            batch needs for its gradients, half a gigabyte a face (a quarter where `half`).
    """

    def __init__(
        self,
        generator: Generator,
        weights: MixerWeights,
        landmarks: Landmarks,
        recognisers: Mapping[str, nn.Module],
        device: str,
        *,
        together: int = 32,
        disturbance: Disturbance | None = None,
        layers: int = SEEN_LAYERS,
        half: bool = False,
        again: bool = True,
    ) -> None:
        super().__init__()
        self._moved, self._half, self._again = layers, half, again
        if half and isinstance(generator, nn.Module):
            for parameter in generator.parameters():
                if parameter.ndim == 4:
                    parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
        self._generator, self.landmarks = generator, landmarks
        self._size = min(_SIZE, max(generator.sizes))
        self._recognisers = dict(recognisers)
        self._together, self._disturbance = together, disturbance or Disturbance()
        self._device = torch.device(device)
        self.register_buffer("basis", torch.from_numpy(weights.basis).to(device), persistent=False)
        self.register_buffer("centre", torch.from_numpy(weights.centre).to(device), persistent=False)
        self.basis: torch.Tensor
        self.centre: torch.Tensor
        self._layers = [
            (buffer, buffer.clone())
            for module in self._recognisers.values()
            for buffer in module.buffers()
            if buffer.ndim > 1 and buffer.is_floating_point()
        ]

    def forward(
        self, codes: torch.Tensor, random: np.random.Generator | None = None, fine: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        """(N, 2, 512) float32 -> name -> (N, dim) float32, rows of length 1.

        `fine`, (N or 1, 512), are whitened coordinates of the layers above; nothing without.
        """
        above = torch.zeros_like(codes[:, :1]) if fine is None else fine[:, None].expand(len(codes), 1, -1)
        places = self.landmarks.guess(codes.detach().cpu().numpy())
        if random is not None:
            places = places + random.normal(0, self._disturbance.landmarks, places.shape)
        grids = crop_grids(torch.from_numpy(places.astype(np.float32)).to(self._device))
        if random is not None and self._disturbance.wider:
            # The grid of a wider crop is the same grid, spread from its middle.
            middle = grids.mean(dim=(1, 2), keepdim=True)
            wider = 1 + random.uniform(0, self._disturbance.wider, (len(codes), 1, 1, 1))
            grids = middle + (grids - middle) * torch.from_numpy(wider.astype(np.float32)).to(self._device)
        self._shake(random)
        parts = [
            self._part(some, grid, self._changes(len(some), random))
            for some, grid in zip(
                torch.split(torch.cat([codes, above], dim=1), self._together),
                torch.split(grids, self._together),
                strict=True,
            )
        ]
        return {name: torch.cat([part[name] for part in parts]) for name in self._recognisers}

    def _part(self, codes: torch.Tensor, grids: torch.Tensor, changes: _Changes | None) -> dict[str, torch.Tensor]:
        if not (self._again and torch.is_grad_enabled()):
            return self._read(codes, grids, changes)
        # Drawn again on the way back: what one face keeps for its gradient is half a gigabyte.
        read: dict[str, torch.Tensor] = checkpoint(self._read, codes, grids, changes, use_reentrant=False)
        return read

    def _read(self, codes: torch.Tensor, grids: torch.Tensor, changes: _Changes | None) -> dict[str, torch.Tensor]:
        layers = spread(self._generator, self.centre + codes @ self.basis.T, self._moved)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._half):
            pictures = self._generator.synthesise(layers, self._size)
        pictures = pictures.float()
        crops = cut_finely(pictures, grids)
        if changes is not None:
            crops = changes(crops)
        return {name: F.normalize(module(crops), dim=1) for name, module in self._recognisers.items()}

    def _changes(self, count: int, random: np.random.Generator | None) -> _Changes | None:
        return None if random is None else _Changes.draw(count, self._disturbance, random, self._device)

    def _shake(self, random: np.random.Generator | None) -> None:
        """Put a random factor on each channel of each layer, or take all of them away.

        They stay until the next call, because parts are drawn again on the way back.
        """
        for buffer, original in self._layers:
            if random is None or not self._disturbance.shaken:
                buffer.copy_(original)
            else:
                shape = (len(original), *[1] * (original.ndim - 1))
                factor = 1 + self._disturbance.shaken * random.standard_normal(shape, np.float32)
                buffer.copy_(original * torch.from_numpy(factor).to(self._device))


@dataclass(frozen=True, eq=False)
class _Changes:
    """What is done to the crops of one part of a batch."""

    gain: torch.Tensor  # (N, 3, 1, 1)
    light: torch.Tensor  # (N, 1, 1, 1)
    noise: torch.Tensor  # (N, 3, 112, 112)
    mirrored: torch.Tensor  # (N, 1, 1, 1) bool
    seen: torch.Tensor  # (N, 1, 112, 112), 0 where covered
    side: int  # to which crops are shrunk and enlarged again

    @classmethod
    def draw(cls, count: int, how: Disturbance, random: np.random.Generator, device: torch.device) -> _Changes:
        def tensor(values: object) -> torch.Tensor:
            return torch.from_numpy(np.asarray(values, np.float32)).to(device)

        one = (count, 1, 1, 1)
        gain = 1 + random.normal(0, how.light, one) + random.normal(0, how.tint, (count, 3, 1, 1))
        corner, extent = random.uniform(0, CROP - 20, (count, 2)), random.uniform(12, 48, (count, 2))
        at = np.arange(CROP)
        inside = (at >= corner[..., None]) & (at < (corner + extent)[..., None])  # (N, 2, 112)
        covered = inside[:, 0, :, None] & inside[:, 1, None, :]
        covered &= (random.uniform(size=count) < how.covered)[:, None, None]
        std = tensor(random.uniform(0, how.noise, one))
        noise = torch.Generator(device).manual_seed(int(random.integers(2**62)))
        return cls(
            tensor(gain),
            tensor(random.normal(0, how.light, one)),
            std * torch.randn((count, 3, CROP, CROP), generator=noise, device=device),
            torch.from_numpy(random.uniform(size=one) < how.mirrored).to(device),
            tensor(~covered)[:, None],
            int(random.integers(40, 96)) if random.uniform() < how.blurred else CROP,
        )

    def __call__(self, crops: torch.Tensor) -> torch.Tensor:
        if self.side != CROP:
            small = F.interpolate(crops, size=self.side, mode="bilinear", antialias=True)
            crops = F.interpolate(small, size=CROP, mode="bilinear")
        crops = torch.where(self.mirrored, crops.flip(3), crops)
        return (crops * self.gain + self.light + self.noise) * self.seen


def crop_grids(
    landmarks: torch.Tensor,
    template: npt.NDArray[np.float32] | None = None,
    frame: tuple[int, int] = (CROP, CROP),
    size: int = CROP,
) -> torch.Tensor:
    """Where recognisers' crops take their pixels from.

    The least-squares similarity between two sets of points in the plane, in complex numbers: with both
    centred, its factor (scale and turn) is sum(conj(from) to) / sum(|from|^2).

    Args:
        landmarks: (N, 5, 2) float32 in sides of the picture.
        template: (5, 2), where they lie in the frame; the recognisers' own by default.
        frame: Width and height of the part of the picture that is cut, in the template's pixels.
        size: Side of the crop that it is stretched to.

    Returns:
        (N, 2 * size, 2 * size, 2) float32 for `grid_sample`: twice as fine as the crop.
    """
    points = np.asarray(RECOGNISER_TEMPLATE if template is None else template, np.float32)
    there = torch.view_as_complex(torch.from_numpy(points.copy()).to(landmarks.device))
    here = torch.view_as_complex(landmarks.contiguous())
    middle, centre = there.mean(), here.mean(dim=1, keepdim=True)
    # From picture to crop; what is wanted is the way back.
    factor = ((here - centre).conj() * (there - middle)).sum(1) / (here - centre).abs().square().sum(1)
    side = torch.arange(size * _FINER, device=landmarks.device, dtype=torch.float32)
    across, down = ((side + 0.5) * length / (size * _FINER) - 0.5 for length in frame)
    places = torch.complex(across[None, :].expand(len(side), -1), down[:, None].expand(-1, len(side)))
    found = (places - middle)[None] / factor[:, None, None] + centre[:, :, None]
    return torch.view_as_real(found) * 2 - 1


def cut_finely(pictures: torch.Tensor, grids: torch.Tensor) -> torch.Tensor:
    """Cut (N, 3, S, S) pictures by the grids of `crop_grids`: (N, 3, size, size) in -1..1."""
    fine = F.grid_sample(pictures.clamp(-1, 1), grids, align_corners=False, padding_mode="border")
    return F.avg_pool2d(fine, _FINER)
