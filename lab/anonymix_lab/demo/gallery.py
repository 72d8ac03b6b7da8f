"""A gallery for the docs: what the mixer makes of people who do not exist, its failures included.

Everything is drawn by seed: the people (`demo.people`), the keys (`SeededKeys`), and so the pictures.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from anonymix_lab.data.keys import SeededKeys
from anonymix_lab.demo.people import sample_people
from anonymix_lab.training.pairs import to_pixels, to_w_plus
from anonymix_plugin.anonymixer import Anonymixer
from anonymix_plugin.encoder import Encoder
from anonymix_plugin.faces import Detector, ffhq_crop, select_faces
from anonymix_plugin.generator import Generator, pictures_of
from anonymix_plugin.images import decode_photo
from anonymix_plugin.values import Floats, Pixels
from anonymix_plugin.verification import Verifier

SIDE: Final = 192
KEYS: Final = ("key A", "key B", "key C")
PHOTOS: Final = 3
WORST: Final = 4
_RIM, _LINE = 6, 16


@dataclass(frozen=True, eq=False)
class _Shown:
    """A photo and what was made of it.

    Attributes:
        person: Number of the person.
        photo: (SIDE, SIDE, 3) uint8.
        drawn_again: The face that the encoder's code gives.
        faces: One cancelable face for each key.
        real: Embedding of the photo by the matcher.
        seen: Embeddings of the cancelable faces.
    """

    person: int
    photo: Pixels
    drawn_again: Pixels
    faces: tuple[Pixels, ...]
    real: Floats
    seen: tuple[Floats, ...]


@dataclass(frozen=True)
class GalleryFigures:
    """Cosines of the matcher over all pictures of the gallery.

    Attributes:
        matcher: Its name.
        threshold: From which cosine on it takes two faces for one person's.
        people: How many people.
        photos: How many photos.
        same: Two photos of a person under one key: mean, least, and how many of how many match.
        original: Photos and their cancelable faces: mean, highest, how many match.
        renewed: One photo under two keys: mean, highest, how many match.
        strangers: Two people under one key: mean, highest, how many match.
    """

    matcher: str
    threshold: float
    people: int
    photos: int
    same: tuple[float, float, str]
    original: tuple[float, float, str]
    renewed: tuple[float, float, str]
    strangers: tuple[float, float, str]


def make_gallery(
    generator: Generator,
    encoder: Encoder,
    detector: Detector,
    matcher: Verifier,
    folder: Path,
    progress: Callable[[int, int], None] = lambda *_: None,
    *,
    people: int = 8,
    photos: int = PHOTOS,
) -> GalleryFigures:
    """Make gallery.jpg, failures.jpg and what the matcher says of all pictures.

    Args:
        generator: Draws the people and the reconstructions.
        encoder: Reads photos for the reconstructions.
        detector: Finds faces.
        matcher: Embeds photos and cancelable faces; one that the mixer never saw.
        folder: Where the two pictures go.
        progress: Called with done and total.
        people: How many people, at least 2.
        photos: Photos of each, at least 2.
    """
    shown: list[_Shown] = []
    with Anonymixer(SeededKeys(1)) as mixer:
        for number, person in enumerate(sample_people(generator, people, photos=photos)):
            for sample in person.photos:
                photo = decode_photo(sample.data)
                crop = ffhq_crop(select_faces(detector.detect(photo), "largest", photo)[0], 256)
                faces = [
                    mixer.protect(sample.data, subject="everybody", version=version + 1).pixels
                    for version in range(len(KEYS))
                ]
                shown.append(
                    _Shown(
                        number,
                        _small(photo.pixels),
                        _small(_reconstruction(generator, encoder, crop)),
                        tuple(_small(face) for face in faces),
                        matcher.embed(photo.pixels),
                        tuple(matcher.embed(face) for face in faces),
                    )
                )
                progress(len(shown), people * photos)
    _sheet(shown, matcher).save(folder / "gallery.jpg", quality=88)
    _failures(shown, matcher).save(folder / "failures.jpg", quality=88)
    return _figures(shown, matcher)


def _reconstruction(generator: Generator, encoder: Encoder, crop: Pixels) -> Pixels:
    import torch

    code = to_w_plus(generator, torch.from_numpy(encoder.encode(crop[None])))
    size = min(generator.sizes)
    drawn = pictures_of(generator, np.asarray(code.numpy(), np.float32), size)[0]
    return to_pixels(torch.from_numpy(drawn), size)


def _small(pixels: Pixels) -> Pixels:
    return np.asarray(cv2.resize(pixels, (SIDE, SIDE), interpolation=cv2.INTER_AREA), np.uint8)


def _cosine(one: Floats, other: Floats) -> float:
    return float(one.astype(np.float64) @ other.astype(np.float64))


@dataclass(frozen=True)
class _Match:
    """A comparison: its cosine, and the two pictures as (photo, key), -1 for the photo itself."""

    cosine: float
    one: tuple[int, int]
    other: tuple[int, int]


def _matches(shown: Sequence[_Shown]) -> dict[str, list[_Match]]:
    """All comparisons, by kind."""
    found: dict[str, list[_Match]] = {"same": [], "original": [], "renewed": [], "strangers": []}
    keys = range(len(KEYS))
    for i, item in enumerate(shown):
        for key in keys:
            found["original"].append(_Match(_cosine(item.real, item.seen[key]), (i, -1), (i, key)))
        for a, b in combinations(keys, 2):
            found["renewed"].append(_Match(_cosine(item.seen[a], item.seen[b]), (i, a), (i, b)))
    for (i, one), (j, other) in combinations(enumerate(shown), 2):
        kind = "same" if one.person == other.person else "strangers"
        for key in keys:
            found[kind].append(_Match(_cosine(one.seen[key], other.seen[key]), (i, key), (j, key)))
    return found


def _figures(shown: Sequence[_Shown], matcher: Verifier) -> GalleryFigures:
    limit = matcher.threshold.value

    def summary(matches: Sequence[_Match], least: bool = False) -> tuple[float, float, str]:
        cosines = np.array([match.cosine for match in matches])
        extreme = cosines.min() if least else cosines.max()
        return float(cosines.mean()), float(extreme), f"{int((cosines >= limit).sum())} of {len(cosines)}"

    found = _matches(shown)
    return GalleryFigures(
        matcher=matcher.threshold.recogniser,
        threshold=limit,
        people=len({item.person for item in shown}),
        photos=len(shown),
        same=summary(found["same"], least=True),
        original=summary(found["original"]),
        renewed=summary(found["renewed"]),
        strangers=summary(found["strangers"]),
    )


def _sheet(shown: Sequence[_Shown], matcher: Verifier) -> Image.Image:
    """One row for each person: two photos, and what was made of them."""
    heads = ("photo", "read and drawn again", *KEYS, "another photo", "key A")
    rows = []
    for person in sorted({item.person for item in shown}):
        first, second = [item for item in shown if item.person == person][:2]
        same = _cosine(first.seen[0], second.seen[0])
        notes = [
            "",
            "",
            *(f"to the photo {_cosine(first.real, seen):.2f}" for seen in first.seen),
            "",
            f"to the other's key A {same:.2f}{'' if same >= matcher.threshold.value else ', no match'}",
        ]
        pictures = [first.photo, first.drawn_again, *first.faces, second.photo, second.faces[0]]
        rows.append(list(zip(pictures, notes, strict=True)))
    return _table(heads, rows)


def _failures(shown: Sequence[_Shown], matcher: Verifier) -> Image.Image:
    """The comparisons that end worst, of each kind."""
    found = _matches(shown)
    limit = matcher.threshold.value

    def worst(kind: str, sign: int) -> list[tuple[Pixels, str]]:
        row = []
        for match in sorted(found[kind], key=lambda one: sign * one.cosine)[:WORST]:
            wrong = (match.cosine >= limit) == (sign < 0)
            for place, (photo, key) in enumerate((match.one, match.other)):
                item = shown[photo]
                note = f"{match.cosine:.2f}{', wrong' if wrong else ''}" if place == 0 else ""
                row.append((item.photo if key < 0 else item.faces[key], note))
        return row

    rows = [worst("same", 1), worst("strangers", -1), worst("renewed", -1), worst("original", -1)]
    labels = (
        "one person, one key: least alike",
        "two people, one key: most alike",
        "one photo, two keys: most alike",
        "photo and cancelable face: most alike",
    )
    return _table(("",) * (2 * WORST), rows, labels)


def _table(
    heads: Sequence[str], rows: Sequence[Sequence[tuple[Pixels, str]]], labels: Sequence[str] = ()
) -> Image.Image:
    """Pictures in rows, a note under each, heads above the columns or a label above each row."""
    font = ImageFont.load_default(12)
    top = _LINE + _RIM
    high = SIDE + _LINE + _RIM + (top if labels else 0)
    width = _RIM + len(heads) * (SIDE + _RIM)
    sheet = Image.new("RGB", (width, (0 if labels else top) + len(rows) * high + _RIM), "white")
    pen = ImageDraw.Draw(sheet)
    if not labels:
        for column, head in enumerate(heads):
            pen.text((_RIM + column * (SIDE + _RIM), _RIM // 2), head, "black", font)
    for number, row in enumerate(rows):
        y = (0 if labels else top) + number * high
        if labels:
            pen.text((_RIM, y + _RIM // 2), labels[number], "black", font)
            y += top
        for column, (picture, note) in enumerate(row):
            x = _RIM + column * (SIDE + _RIM)
            sheet.paste(Image.fromarray(picture), (x, y))
            pen.text((x, y + SIDE + 1), note, "black", font)
    return sheet
