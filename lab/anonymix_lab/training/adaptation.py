"""Adaptation of the encoder to real photos, of which nobody knows the codes.

The encoder was trained on drawn faces. Real ones have other cameras, skin, hair and poses, so its answers
on them are off. Here it learns from photos themselves, through the student of the generator: what is painted
from its code should look like the photo, and the face should have its landmarks where the photo has them,

    L = mean |painted - photo|  (RGB at 32 and 64 px)
      + l mean |landmarks of the code - landmarks of the photo|^2
      + s mean |code - what the encoder said before|^2,

the last so that codes stay where the generator draws well, and because the student does not see what the fine
layers paint: their head is held to its old answers alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - the name that torch users expect

from anonymix_lab.training.checkpoint import load_state, one_cycle, save_state
from anonymix_lab.training.student import Student
from anonymix_plugin.encoder import INPUT_SIZE, EncoderNetwork, as_input
from anonymix_plugin.errors import PhotoError, UsageError
from anonymix_plugin.faces import Detector, ffhq_crop, ffhq_matrix, select_faces
from anonymix_plugin.images import decode_photo
from anonymix_plugin.values import Floats, Pixels

_FINE = 2


@dataclass(frozen=True)
class AdaptationRecipe:
    """How an encoder is adapted.

    Attributes:
        steps: Steps of Adam.
        batch: Photos a step; every second one is mirrored.
        learning_rate: Peak of the one-cycle schedule.
        landmarks: l of the loss; landmarks are in sides of the picture.
        stay: s of the loss for the coarse and the identity layers.
        stay_fine: The same for the fine layers.
        seed: Seed of the order.
    """

    steps: int = 600
    batch: int = 6
    learning_rate: float = 3e-4
    landmarks: float = 200.0
    stay: float = 0.02
    stay_fine: float = 1.0
    seed: int = 23


@dataclass(frozen=True, eq=False)
class FramedPhotos:
    """Real faces in FFHQ framing.

    Attributes:
        pictures: (N, 128, 128, 3) uint8 RGB.
        landmarks: (N, 5, 2) float32 in sides of the picture, in the order of `Face`.
    """

    pictures: Pixels
    landmarks: Floats


def frame_photos(paths: Sequence[Path], detector: Detector, progress: Callable[[int, int], None]) -> FramedPhotos:
    """Cut the largest face out of each photo; photos without one are left out.

    Raises:
        UsageError: No photo shows a face.
    """
    pictures, landmarks = [], []
    for done, path in enumerate(paths):
        try:
            photo = decode_photo(path)
            face = select_faces(detector.detect(photo), "largest", photo)[0]
            pictures.append(ffhq_crop(face, INPUT_SIZE))
        except PhotoError:
            continue
        finally:
            progress(done + 1, len(paths))
        matrix = ffhq_matrix(face, INPUT_SIZE)
        places = cv2.transform(face.landmarks[None].astype(np.float64), matrix)[0]
        landmarks.append(((places + 0.5) / INPUT_SIZE).astype(np.float32))
    if not pictures:
        raise UsageError("no photo shows a face", where="photos")
    return FramedPhotos(np.stack(pictures), np.stack(landmarks))


def adapt_encoder(
    network: EncoderNetwork,
    centre: Floats,
    student: Student,
    photos: FramedPhotos,
    recipe: AdaptationRecipe,
    progress: Callable[[int, dict[str, float]], None],
    *,
    state: Path | None = None,
    about: dict[str, str] | None = None,
    save_every: int = 50,
) -> EncoderNetwork:
    """Adapt an encoder to photos.

    Args:
        network: Trained on drawn pairs; it is left as it is.
        centre: (512,) float32, the style vector that its codes are relative to.
        student: Paints from codes.
        photos: Real faces.
        recipe: How.
        progress: Called after each step with its number and the parts of the loss.
        state: Where unfinished work is kept; a run goes on from there.
        about: What the run is of, beside the recipe.
        save_every: Steps between two savings.

    Raises:
        UsageError: The state is of another run.

    Returns:
        The adapted network.
    """
    adapted = deepcopy(network).requires_grad_(requires_grad=True)
    # Statistics of normalisation stay as they are: a batch of few photos has none of its own.
    before, adapted = network.eval(), adapted.eval()
    optimiser = torch.optim.Adam(adapted.parameters(), recipe.learning_rate)
    random = np.random.Generator(np.random.Philox(recipe.seed))
    shift = _relative(student, centre)
    order = _order(random, len(photos.pictures))
    run = {**(about or {}), "adaptation": repr(recipe), "photos": str(len(photos.pictures))}
    done = load_state(state, adapted, optimiser, run) if state else 0
    for _ in range(done * recipe.batch):
        next(order)
    for step in range(done, recipe.steps):
        chosen = np.array([next(order) for _ in range(recipe.batch)])
        pictures, places = photos.pictures[chosen].copy(), photos.landmarks[chosen].copy()
        _mirror(pictures, places)
        seen = as_input(pictures)
        said = adapted(seen)
        with torch.no_grad():
            old = before(seen)
        codes = F.pad(said[:, :_FINE], (0, 512 - said.shape[2])) + shift
        painted = student.paint(student.styles(codes))
        parts = {
            "picture": _difference(painted, seen),
            "landmarks": recipe.landmarks
            * (student.landmarks.guess_with_gradients(codes) - torch.from_numpy(places)).square().mean(),
            "stay": recipe.stay * (said[:, :_FINE] - old[:, :_FINE]).square().mean()
            + recipe.stay_fine * (said[:, _FINE:] - old[:, _FINE:]).square().mean(),
        }
        loss = torch.stack(list(parts.values())).sum()
        for group in optimiser.param_groups:
            group["lr"] = recipe.learning_rate * one_cycle(step, recipe.steps, warm=0.1)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(adapted.parameters(), 1.0)
        optimiser.step()
        if state and ((step + 1) % save_every == 0 or step + 1 == recipe.steps):
            save_state(state, adapted, optimiser, step + 1, run)
        progress(step, {name: float(part.detach()) for name, part in parts.items()})
    return adapted.requires_grad_(requires_grad=False)


def _relative(student: Student, centre: Floats) -> torch.Tensor:
    """What a code relative to `centre` has to be moved by to be relative to the student's centre, (512,)."""
    basis = student.basis.double()
    offset = torch.from_numpy(centre).double() - student.centre.double()
    return (basis.T @ offset / basis.square().sum(dim=0)).float()


def _order(random: np.random.Generator, count: int) -> Iterator[int]:
    while True:
        yield from random.permutation(count).tolist()


def _mirror(pictures: Pixels, places: Floats) -> None:
    """Mirror every second picture, in place; left and right landmarks change names."""
    pictures[::2] = pictures[::2, :, ::-1]
    places[::2, :, 0] = 1 - places[::2, :, 0]
    places[::2] = places[::2][:, [1, 0, 2, 4, 3]]


def _difference(painted: torch.Tensor, photo: torch.Tensor) -> torch.Tensor:
    """Mean absolute difference at a half and a quarter of the side."""
    scales = [(F.avg_pool2d(painted, scale), F.avg_pool2d(photo, scale)) for scale in (2, 4)]
    return torch.stack([(a - b).abs().mean() for a, b in scales]).mean()
