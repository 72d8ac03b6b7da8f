"""Searching for a photo that gives a stolen template."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import torch

from anonymix_lab.data import Sample
from anonymix_lab.data.keys import SHARED_SCOPE
from anonymix_lab.evaluation.attacks._values import Attempt, Key, Material
from anonymix_lab.matchers import Request, Table
from anonymix_lab.protections import KeyName
from anonymix_lab.training.pairs import to_pixels, to_w_plus
from anonymix_plugin.files import write_bytes
from anonymix_plugin.generator import Generator
from anonymix_plugin.values import Floats

_SIDE = 512


class PreImageSearch:
    """Draws people who do not exist, protects them under the stolen key, and keeps whoever comes closest.

    The pool is the same for all victims. Three things are tried with the best candidate: to match the stolen
    template (a pre-image; to be expected with the key in hand, given candidates enough), to match the real
    person, and to match the template that was issued again after the theft (PRAR).

    Args:
        generator: Draws candidates.
        centre: (512,) float32, mean style vector.
        folder: Where candidates are kept.
        candidates: How many.
        truncation: Of candidates.
        seed: Names the series.
    """

    name = "preimage"

    def __init__(
        self,
        generator: Generator,
        centre: Floats,
        folder: Path,
        *,
        candidates: int = 40,
        truncation: float = 0.9,
        seed: int = 1,
    ) -> None:
        self._generator, self._centre, self._folder = generator, centre, folder
        self._candidates, self._truncation, self._seed = candidates, truncation, seed

    def run(self, material: Material) -> Iterator[Attempt]:
        """See `Attack.run`."""
        pool = self._pool()
        drawn, title = material.drawn, material.protection.title
        key = KeyName(f"{SHARED_SCOPE} 1", "nobody")
        plain = material.extractor.table([Request(sample) for sample in pool], None, "pre-image candidates")
        mixed = material.extractor.table(
            [Request(sample, key) for sample in pool], material.protection, f"{title}: pre-image candidates"
        )
        usable = np.flatnonzero(
            ~np.isnan(material.features(plain)).any(axis=1) & ~np.isnan(material.features(mixed)).any(axis=1)
        )
        victims = np.flatnonzero((drawn.shared_key == 0) & ~np.isnan(material.features(drawn.shared)).any(axis=1))
        if len(usable) < 2 or not len(victims):
            return
        plain, mixed = plain.picked(usable), mixed.picked(usable)
        # The attacker believes all recognisers alike.
        closeness = np.mean([_cosines(drawn.shared, victims, mixed, matcher) for matcher in material.matchers], axis=0)
        best = closeness.argmax(axis=1)
        random = np.random.Generator(np.random.Philox(self._seed))
        chance = random.integers(0, len(usable), len(victims))
        place = {int(sample): i for i, sample in enumerate(drawn.again)}
        renewed = np.array([i for i, victim in enumerate(victims) if int(victim) in place], np.int64)
        again = np.array([place[int(victims[i])] for i in renewed], np.int64)
        budget = {"candidates": float(len(usable))}
        for matcher in material.matchers:
            template = _cosines(drawn.shared, victims, mixed, matcher)
            person = _cosines(drawn.original, victims, plain, matcher)
            everybody = np.arange(len(victims))
            kinds: list[
                tuple[
                    str,
                    Key,
                    np.ndarray[tuple[int, ...], np.dtype[np.float64]],
                    np.ndarray[tuple[int, ...], np.dtype[np.int64]],
                ]
            ] = [
                ("template", "disclosed", template, everybody),
                ("identity", "disclosed", person, everybody),
            ]
            if len(renewed):
                kinds.append(("renewed", "disclosed", _cosines(drawn.renewed, again, mixed, matcher), renewed))
            for goal, kind, scores, of in kinds:
                rows = np.arange(len(of))
                yield Attempt(
                    self.name,
                    kind,
                    matcher,
                    "identity" if goal == "identity" else "template",
                    scores[rows, best[of]],
                    material.people[victims[of]],
                    scores[rows, chance[of]],
                    budget,
                    "against the re-issued template"
                    if goal == "renewed"
                    else f"against the {'person' if goal == 'identity' else 'stolen template'}",
                )

    def _pool(self) -> list[Sample]:
        samples = []
        for number in range(self._candidates):
            path = self._folder / f"candidate-{self._seed}-{self._truncation}-{number:05d}.png"
            if not path.exists():
                self._draw(number, path)
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            samples.append(Sample(path, f"nobody {number}", sha256=digest))
        return samples

    def _draw(self, number: int, path: Path) -> None:
        random = np.random.Generator(np.random.Philox(key=self._seed, counter=number << 64))
        noise = torch.from_numpy(random.standard_normal((1, self._generator.z_dim), np.float32))
        style = self._generator.map(noise).numpy()
        styles = np.repeat((self._centre + self._truncation * (style - self._centre))[:, None], 3, axis=1)
        with torch.inference_mode():
            code = to_w_plus(self._generator, torch.from_numpy(styles.astype(np.float32)))
            pixels = to_pixels(self._generator.synthesise(code, _SIDE)[0], _SIDE)
        done, data = cv2.imencode(".png", pixels[:, :, ::-1])
        write_bytes(path, data.tobytes() if done else b"")


def _cosines(
    a: Table, rows: np.ndarray[tuple[int, ...], np.dtype[np.int64]], b: Table, matcher: str
) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    return np.asarray(a.vectors[matcher][rows].astype(np.float64) @ b.vectors[matcher].astype(np.float64).T)
