"""Learn where the mixer's faces can be in a recogniser's space: the anchors of the refine method."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from anonymix_lab.training.pairs import DRAWN_SIZE, to_pixels
from anonymix_plugin.errors import PhotoError, UsageError
from anonymix_plugin.faces import Detector, recogniser_crop, select_faces
from anonymix_plugin.generator import Generator, pictures_of
from anonymix_plugin.mixer.fast import FastMixer
from anonymix_plugin.mixer.key_schedule import KEY_BYTES, KeySchedule
from anonymix_plugin.mixer.policy import MixingPolicy
from anonymix_plugin.mixer.refine.anchors import AnchorDirections, reachable
from anonymix_plugin.mixer.weights import MixerWeights
from anonymix_plugin.recognisers import Recogniser
from anonymix_plugin.values import Floats, Photo


@dataclass(frozen=True)
class AnchorRecipe:
    """How anchors are learned.

    Attributes:
        faces: Faces drawn, each of somebody who does not exist under a key of its own.
        ridge: Penalty of the regression.
        held_out: Share of the faces that the figures are of.
        seed: Of people and keys.
    """

    faces: int = 1000
    ridge: float = 0.4
    held_out: float = 0.2
    seed: int = 29


def learn_anchors(
    generator: Generator,
    weights: MixerWeights,
    detector: Detector,
    recognisers: Mapping[str, Recogniser],
    recipe: AnchorRecipe,
    progress: Callable[[int, int], None],
) -> tuple[AnchorDirections, dict[str, float]]:
    """Draw faces by the fast method, look at them, and learn the directions that they reach.

    Args:
        generator: Draws.
        weights: The mixer's.
        detector: Finds the faces.
        recognisers: Name -> what looks at them, aligned by five points.
        recipe: How.
        progress: Called with faces drawn and their number.

    Returns:
        The directions, and for each recogniser the mean cosine of held-out faces with their anchors.

    Raises:
        UsageError: Faces were found on fewer drawn pictures than there are directions.
    """
    mixer = FastMixer(generator, weights, MixingPolicy())
    random = np.random.Generator(np.random.Philox(recipe.seed))
    keyed: list[npt.NDArray[np.float64]] = []
    seen: dict[str, list[Floats]] = {name: [] for name in recognisers}
    for number in range(recipe.faces):
        key = random.bytes(KEY_BYTES)
        code = random.standard_normal(weights.subspace.dims)
        code /= np.linalg.norm(code)
        schedule = KeySchedule(key)
        drawn = pictures_of(generator, mixer.mix(code, schedule, key)[None], DRAWN_SIZE)[0]
        photo = Photo(to_pixels(torch.from_numpy(drawn), DRAWN_SIZE), f"drawn face {number}")
        progress(number + 1, recipe.faces)
        try:
            face = select_faces(detector.detect(photo), "largest", photo)[0]
        except PhotoError:
            continue
        crop = recogniser_crop(face)[None]
        for name, recogniser in recognisers.items():
            seen[name].append(recogniser.embed(crop)[0])
        keyed.append(schedule.rotation("person", weights.keyed_dims, weights.subspace.dims) @ code)
    codes = np.array(keyed, np.float64)
    learned = len(codes) - int(recipe.held_out * len(codes))
    if learned < weights.keyed_dims:
        raise UsageError(
            f"a face was found on {len(codes)} drawn pictures, too few for {weights.keyed_dims} directions",
            where="faces",
            fix="draw more",
        )
    directions, figures = {}, {}
    for name, found in seen.items():
        embeddings = np.array(found, np.float64)
        embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
        directions[name] = reachable(codes[:learned], embeddings[:learned], recipe.ridge)
        anchors = codes[learned:] @ directions[name].astype(np.float64)
        figures[name] = float((anchors * embeddings[learned:]).sum(axis=1).mean())
    return AnchorDirections(directions, weights.sha256), figures
