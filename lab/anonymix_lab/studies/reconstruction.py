"""How well the encoder reads a photo: the face drawn from its code alone, beside the photo."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from anonymix_lab.training.pairs import to_pixels, to_w_plus
from anonymix_plugin.encoder import Encoder
from anonymix_plugin.errors import UsageError
from anonymix_plugin.faces import Detector, ffhq_crop, recogniser_crop
from anonymix_plugin.generator import Generator, as_pictures
from anonymix_plugin.images import decode_photo
from anonymix_plugin.mixer.refine.attributes import AttributeDistance
from anonymix_plugin.recognisers import Recogniser
from anonymix_plugin.values import Face, Floats, Photo, Pixels

_SIDE = 256


@dataclass(frozen=True)
class Reconstruction:
    """Means over photos; in parentheses what the generator's mean face reaches, which knows nothing.

    Attributes:
        photos: How many photos were compared.
        pixel: Mean absolute difference of RGB values at 256 px, 0..255.
        pixel_mean_face: The same for the mean face.
        perceptual: Mean absolute difference of deep attribute features (light, colour, early maps of SFace).
        perceptual_mean_face: The same for the mean face.
        identity: Matcher -> mean cosine of photo and reconstruction: how much of the person comes along.
        yaw: Correlation over photos of the nose's sideways place between the eyes.
        pitch: Correlation of the nose's height between eyes and mouth.
        smile: Correlation of the mouth's width relative to the distance of the eyes.
        brightness: Correlation of the mean luminance of the face.
        side_light: Correlation of the luminance difference between the two halves of the face.
    """

    photos: int
    pixel: float
    pixel_mean_face: float
    perceptual: float
    perceptual_mean_face: float
    identity: dict[str, float]
    yaw: float
    pitch: float
    smile: float
    brightness: float
    side_light: float


def measure_reconstruction(
    paths: Sequence[Path],
    encoder: Encoder,
    generator: Generator,
    detector: Detector,
    attributes: AttributeDistance,
    matchers: Sequence[Recogniser],
    centre: Floats,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> Reconstruction:
    """Encode photos, draw the codes, and compare.

    Args:
        paths: Photos; those without a face are left out.
        encoder: Reads the photos.
        generator: Draws.
        detector: Finds the faces, in photos and drawings.
        attributes: The perceptual distance.
        matchers: Recognisers.
        centre: (512,) float32, style vector of the mean face.
        progress: Called with done and total.

    Raises:
        UsageError: Fewer than ten photos show a face.
    """
    mean_face = _draw(generator, np.repeat(centre[None], 3, axis=0))
    rows: list[list[float]] = []
    traits: list[tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]] = []
    for done, path in enumerate(paths):
        found = detector.detect(decode_photo(path))
        if found:
            crop = ffhq_crop(found[0], _SIDE)
            drawn = _draw(generator, encoder.encode(crop[None])[0])
            pair = [detector.detect(Photo(picture, "crop")) for picture in (crop, drawn)]
            if all(pair):
                rows.append(
                    [
                        _pixel(crop, drawn),
                        _pixel(crop, mean_face),
                        _perceptual(attributes, crop, drawn),
                        _perceptual(attributes, crop, mean_face),
                        *(_cosine(matcher, found[0], pair[1][0]) for matcher in matchers),
                    ]
                )
                traits.append((_traits(pair[0][0]), _traits(pair[1][0])))
        progress(done + 1, len(paths))
    if len(rows) < 10:
        raise UsageError(f"only {len(rows)} photos show a face", where="paths")
    means = np.mean(rows, axis=0)
    real, drawn_traits = (np.stack(side) for side in zip(*traits, strict=True))
    correlations = [float(np.corrcoef(real[:, i], drawn_traits[:, i])[0, 1]) for i in range(real.shape[1])]
    yaw, pitch, smile, brightness, side_light = correlations
    return Reconstruction(
        photos=len(rows),
        pixel=float(means[0]),
        pixel_mean_face=float(means[1]),
        perceptual=float(means[2]),
        perceptual_mean_face=float(means[3]),
        identity={matcher.name: float(value) for matcher, value in zip(matchers, means[4:], strict=True)},
        yaw=yaw,
        pitch=pitch,
        smile=smile,
        brightness=brightness,
        side_light=side_light,
    )


def _draw(generator: Generator, styles: Floats) -> Pixels:
    code = to_w_plus(generator, torch.from_numpy(styles)[None])
    with torch.inference_mode():
        return to_pixels(generator.synthesise(code, 512)[0], _SIDE)


def _pixel(a: Pixels, b: Pixels) -> float:
    return float(np.abs(a.astype(np.float32) - b).mean())


def _perceptual(attributes: AttributeDistance, a: Pixels, b: Pixels) -> float:
    pictures = as_pictures(np.stack([a, b]))
    with torch.inference_mode():
        features = attributes.features(pictures)
    return float((features[0] - features[1]).abs().mean())


def _cosine(matcher: Recogniser, a: Face, b: Face) -> float:
    first, second = matcher.embed(np.stack([matcher.crop(face) for face in (a, b)]))
    return float(first @ second)


def _traits(face: Face) -> npt.NDArray[np.float64]:
    """Yaw, pitch, smile, brightness and side light of a face, as plain numbers."""
    left, right, nose, mouth_left, mouth_right = face.landmarks.astype(np.float64)
    eyes, mouth = (left + right) / 2, (mouth_left + mouth_right) / 2
    across = right - left
    between = np.linalg.norm(across)
    luminance = recogniser_crop(face).astype(np.float64) @ (0.299, 0.587, 0.114)
    return np.array(
        [
            (nose - eyes) @ across / between**2,
            (nose[1] - eyes[1]) / (mouth[1] - eyes[1]),
            np.linalg.norm(mouth_right - mouth_left) / between,
            luminance.mean(),
            luminance[:, :56].mean() - luminance[:, 56:].mean(),
        ]
    )
