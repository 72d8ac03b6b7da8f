"""People who do not exist, and several photos of each.

A person is the identity layers of one code of the generator. Photos of that person share them and differ in
everything else, as photos of real people do: the coarse layers move towards those of another code (pose,
hair, expression), the fine layers towards those of a third (light, colour, background), and then there is
the camera: turned a little, closer or further, warmer or colder, darker or brighter, blurred, compressed.

The codes were chosen by looking at what they draw: adults of both sexes, of several ages and skins, whom
three recognisers tell apart and whose codes in the identity subspace are not alike. People drawn at random
are more alike there than real people, because one generator drew them all.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image

from anonymix_lab.demo.values import Person, Sample
from anonymix_lab.training.pairs import mean_style, to_pixels, to_w_plus
from anonymix_plugin.errors import UsageError
from anonymix_plugin.generator import Generator
from anonymix_plugin.values import Pixels

PHOTOS_EACH = 4
DEFAULT_SEED = 7

_SERIES = 2026
_CAST = (
    ("Alex", 61),
    ("Billie", 107),
    ("Chris", 124),
    ("Dana", 7),
    ("Eli", 60),
    ("Frankie", 30),
    ("Gale", 48),
    ("Harper", 105),
    ("Jamie", 235),
    ("Kim", 193),
    ("Lou", 199),
    ("Morgan", 191),
)
"""Name -> number of the code in the series. The names suit anybody."""

MOST_PEOPLE = len(_CAST)

_TRUNCATION = 0.75
_MOOD_TRUNCATION = 0.6
_SIZE = 512
_CENTRE_SAMPLES = 4_000

Random = np.random.Generator


@dataclass(frozen=True)
class _Occasion:
    """How far one photo is from the first one.

    Attributes:
        label: What the page says about it.
        coarse: How far the coarse layers move towards another code, 0..1.
        fine: How far the fine layers do.
        camera: How much the camera does, 0..1.
    """

    label: str
    coarse: float
    fine: float
    camera: float


_OCCASIONS = (
    _Occasion("portrait", 0.0, 0.0, 0.0),
    _Occasion("another day", 0.3, 0.25, 0.5),
    _Occasion("another light", 0.25, 0.4, 0.8),
    _Occasion("a snapshot", 0.35, 0.25, 1.0),
)


def sample_people(
    generator: Generator, count: int, *, photos: int = PHOTOS_EACH, seed: int = DEFAULT_SEED
) -> Iterator[Person]:
    """Draw sample people, one after the other.

    Args:
        generator: What draws.
        count: How many people, 2 to `MOST_PEOPLE`.
        photos: Photos of each, 2 to `PHOTOS_EACH`.
        seed: Names the occasions on which they are photographed; the people stay the same.

    Yields:
        Each person, with photos as JPEG files in memory.

    Raises:
        UsageError: If there are not that many people or occasions.
    """
    if not 2 <= count <= MOST_PEOPLE:
        raise UsageError(
            f"there are sample photos of 2 to {MOST_PEOPLE} people, not {count}",
            where="people",
            fix="use your own with --photos DIR",
        )
    if not 2 <= photos <= PHOTOS_EACH:
        raise UsageError(f"there are 2 to {PHOTOS_EACH} photos of each person, not {photos}", where="photos")
    return _drawn(generator, count, photos, seed)


def _drawn(generator: Generator, count: int, photos: int, seed: int) -> Iterator[Person]:
    centre = mean_style(generator, samples=_CENTRE_SAMPLES)
    for place, (name, number) in enumerate(_CAST[:count]):
        own = _style(generator, centre, _stream(_SERIES, number), _TRUNCATION)
        samples = []
        for turn, occasion in enumerate(_OCCASIONS[:photos]):
            random = _stream(seed, place * PHOTOS_EACH + turn)
            pose, light = (_style(generator, centre, random, _MOOD_TRUNCATION) for _ in range(2))
            styles = torch.stack((own + occasion.coarse * (pose - own), own, own + occasion.fine * (light - own)))
            drawn = generator.synthesise(to_w_plus(generator, styles[None]), _SIZE)[0]
            data = _photographed(to_pixels(drawn, _SIZE), random, occasion.camera)
            samples.append(Sample(f"{name}, {occasion.label}", data))
        yield Person(name, tuple(samples))


def _stream(series: int, number: int) -> Random:
    return np.random.Generator(np.random.Philox(key=series, counter=number << 64))


def _style(generator: Generator, centre: torch.Tensor, random: Random, truncation: float) -> torch.Tensor:
    z = torch.from_numpy(random.standard_normal((1, generator.z_dim), np.float32))
    return centre + truncation * (generator.map(z)[0] - centre)


def _photographed(pixels: Pixels, random: Random, strength: float) -> bytes:
    """Take a photo of a drawn face: what a camera and a file format do to a picture."""
    angle, zoom, shift_x, shift_y, brightness, warmth, blur = random.uniform(-1, 1, 7) * strength
    # Closer by so much that turning and shifting never show what lies beyond the edge of the picture.
    scale = 1.0 + strength * 0.17 + 0.04 * zoom
    matrix = cv2.getRotationMatrix2D((_SIZE / 2, _SIZE / 2), 5 * angle, scale)
    matrix[:, 2] += 12 * shift_x, 12 * shift_y
    turned = cv2.warpAffine(pixels, matrix, (_SIZE, _SIZE), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    if (sigma := 0.6 * (blur + strength)) > 0.1:
        turned = cv2.GaussianBlur(turned, (0, 0), sigma)
    colour = np.array([1 + 0.08 * warmth, 1, 1 - 0.08 * warmth])
    gains = (1 + 0.18 * brightness) * colour
    shown = np.clip(np.rint(turned * gains), 0, 255).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(shown).save(stream, "JPEG", quality=round(93 - 18 * strength))
    return stream.getvalue()


def write_people(folder: Path) -> None:
    """Write the first two photos of everybody as NAME_1.jpg and NAME_2.jpg, 400 px: the tests' own people."""
    from anonymix_plugin.files import make_folder
    from anonymix_plugin.generator import load_generator

    make_folder(folder)
    for person in sample_people(load_generator(), MOST_PEOPLE, photos=2):
        for number, sample in enumerate(person.photos, 1):
            photo = Image.open(io.BytesIO(sample.data))
            photo.resize((400, 400), Image.Resampling.LANCZOS).save(
                folder / f"{person.name.lower()}_{number}.jpg", quality=90
            )


if __name__ == "__main__":
    write_people(Path(sys.argv[1]))
