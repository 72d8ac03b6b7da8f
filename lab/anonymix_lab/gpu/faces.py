"""Faces drawn from codes in batches, and what recognisers see of them, without a detector.

The generator puts faces where its framing has them, so that landmarks can be guessed from the code
(`examples.Landmarks`). A figure taken this way is near that of the whole pipeline and costs milliseconds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - the name that torch users expect

from anonymix_lab.data.keys import SeededKeys
from anonymix_lab.training.examples import Landmarks
from anonymix_lab.training.whole import crop_grids, cut_finely
from anonymix_plugin.generator import ArrayGenerator, Generator
from anonymix_plugin.mixer.fast import FastMixer
from anonymix_plugin.mixer.key_schedule import KeySchedule
from anonymix_plugin.mixer.policy import MixingPolicy
from anonymix_plugin.mixer.weights import MixerWeights
from anonymix_plugin.values import Floats

SIZE = 512
_TOGETHER = 64
_BOX_FRAME = (121, 160)  # width and height of YuNet's box, which FaceNet gets stretched to a square
_BOX_POINTS = np.array([[33, 58], [88, 58], [60, 91], [35, 114], [86, 114]], np.float32)
"""Landmarks in that frame: their means over the 24 drawn photos of tests/people."""


@dataclass(frozen=True, eq=False)
class Watcher:
    """Recognisers that look at drawn faces.

    Attributes:
        weights: Centre and basis of the latent space.
        landmarks: Where landmarks lie.
        recognisers: Name -> frozen module on the device, as of `torch_recogniser`.
        device: Where they are.
        identity: The first style input of the identity layers.
    """

    weights: MixerWeights
    landmarks: Landmarks
    recognisers: Mapping[str, nn.Module]
    device: str
    identity: int

    def see(self, w_plus: Floats, pictures: torch.Tensor) -> dict[str, Floats]:
        """What recognisers see, name -> (N, dim) float32 with rows of length 1.

        Args:
            w_plus: (N, layers, 512) float32, what was drawn.
            pictures: (N, 3, S, S) float32 in -1..1, on any device.
        """
        styles = w_plus[:, [0, self.identity]].astype(np.float64) - self.weights.centre
        codes = np.einsum("ij,ngj->ngi", self.weights.inverse, styles).astype(np.float32)
        places = torch.from_numpy(self.landmarks.guess(codes).astype(np.float32)).to(self.device)
        pictures = pictures.to(self.device)
        with torch.inference_mode():
            aligned = cut_finely(pictures, crop_grids(places))
            boxed = cut_finely(pictures, crop_grids(places, _BOX_POINTS, _BOX_FRAME, 160))
            return {
                name: F.normalize(module(boxed if getattr(module, "input_size", 112) == 160 else aligned), dim=1)
                .float()
                .cpu()
                .numpy()
                for name, module in self.recognisers.items()
            }


def mixed_codes(generator: Generator, weights: MixerWeights, codes: Floats, keys: list[int]) -> Floats:
    """Mix codes under numbered keys, (N, dims) and N numbers -> (N, layers, 512) float32."""
    mixer, source = FastMixer(generator, weights, MixingPolicy()), SeededKeys(1)
    made = []
    for code, number in zip(codes, keys, strict=True):
        material = source.current(str(number)).material
        unit = code.astype(np.float64)
        made.append(mixer.mix(unit / np.linalg.norm(unit), KeySchedule(material), material))
    return np.stack(made)


def in_parts(count: int, size: int = _TOGETHER) -> Iterator[slice]:
    """Slices of at most `size`."""
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))


def drawn_and_seen(generator: ArrayGenerator, watcher: Watcher, w_plus: Floats, size: int = SIZE) -> dict[str, Floats]:
    """Draw codes at `size` px and look at the faces: name -> (N, dim) float32."""
    parts = [
        watcher.see(w_plus[part], torch.from_numpy(generator.draw(w_plus[part], size)))
        for part in in_parts(len(w_plus))
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in watcher.recognisers}
