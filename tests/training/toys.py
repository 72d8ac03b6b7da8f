"""A generator, a recogniser and a detector so simple that a test knows what they must answer."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from anonymix_lab.training.examples import SEEN_LAYERS, Landmarks
from anonymix_lab.training.student import Head, Student
from anonymix_plugin.generator import LayerGroups
from anonymix_plugin.mixer.subspace import IdentitySubspace
from anonymix_plugin.mixer.weights import MixerWeights
from anonymix_plugin.values import Face, Photo

DIMS = 8
TEMPLATE = np.array([[0.38, 0.47], [0.62, 0.47], [0.5, 0.62], [0.39, 0.73], [0.61, 0.73]])


class BandGenerator:
    """Six bands of the picture, each with a brightness that the identity layers' style says."""

    name = "bands"
    z_dim = w_dim = 512
    layers = LayerGroups(range(4), range(4, 11), range(11, 23))
    sizes = (512,)

    def map(self, z: torch.Tensor) -> torch.Tensor:
        return z

    def features(self, w_plus: torch.Tensor, blocks: int) -> torch.Tensor:
        assert blocks == 4
        levels = torch.tanh(w_plus[:, SEEN_LAYERS - 1, :DIMS])
        rows = torch.repeat_interleave(levels, 64 // DIMS, dim=1)
        return rows[:, None, :, None].expand(-1, 4, -1, 64)

    def synthesise(self, w_plus: torch.Tensor, size: int = 512) -> torch.Tensor:
        return F.interpolate(self.features(w_plus, 4)[:, :3], size=(size, size))

    def draw(self, w_plus: np.ndarray, size: int) -> np.ndarray:
        return self.synthesise(torch.from_numpy(w_plus), size).numpy()

    def map_arrays(self, z: np.ndarray) -> np.ndarray:
        return z

    def weights_hash(self) -> str:
        return "bands"


class BandRecogniser(nn.Module):
    """The mean brightness of each row of the crop, as an embedding; on arrays and on tensors."""

    def forward(self, crops: torch.Tensor) -> torch.Tensor:
        rows = crops.mean(dim=(1, 3))
        return F.normalize(F.avg_pool1d(rows[:, None], 7)[:, 0], dim=1)

    def embed(self, crops: np.ndarray) -> np.ndarray:
        return self(torch.from_numpy(crops).permute(0, 3, 1, 2).float() / 127.5 - 1).numpy()


class Everywhere:
    """A detector that finds a face in the middle of each picture but every fifth."""

    def __init__(self) -> None:
        self.asked = 0

    def detect(self, photo: Photo) -> list[Face]:
        self.asked += 1
        if self.asked % 5 == 0:
            return []
        side = photo.pixels.shape[0]
        return [Face(photo, (100, 100, 400, 450), (TEMPLATE * side).astype(np.float32), 0.9)]


def toy_weights() -> MixerWeights:
    random = np.random.Generator(np.random.Philox(2))
    person = np.zeros((3, 512, DIMS), np.float32)
    person[:, :DIMS] = random.standard_normal((DIMS, DIMS)) @ np.diag(np.linspace(1.5, 0.1, DIMS))
    return MixerWeights(
        subspace=IdentitySubspace(np.zeros(640, np.float32), np.eye(640, DIMS, dtype=np.float32)),
        centre=np.zeros(512, np.float32),
        basis=np.eye(512, dtype=np.float32),
        person=person,
        generator_hash="bands",
    )


def toy_student(weights: MixerWeights) -> Student:
    """A student whose head paints the features' first channels as they are."""
    head = Head(4, 4)
    landmarks = Landmarks(np.zeros((4, 2, 512), np.float32), np.repeat(TEMPLATE[None], 4, axis=0))
    with torch.no_grad():
        for part in head.parameters():
            part.zero_()
        head.enter.weight[:, :, 0, 0] = torch.eye(4)
        head.leave.weight[:, 0, 1, 1] = 1.0
    return Student(BandGenerator(), weights, head, landmarks, {"bands": BandRecogniser()})
