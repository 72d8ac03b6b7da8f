"""Reading a protected face with the project's own encoder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from anonymix_lab.evaluation.attacks._values import Attempt, Material, against_person
from anonymix_lab.matchers import Request
from anonymix_lab.protections import KeyName, Protection
from anonymix_lab.training.pairs import to_pixels, to_w_plus
from anonymix_plugin.encoder import Encoder
from anonymix_plugin.errors import NoFaceError
from anonymix_plugin.faces import Detector, ffhq_crop
from anonymix_plugin.generator import Generator
from anonymix_plugin.values import Photo, Pixels
from anonymix_plugin.words import shown


class ReEncoding:
    """The protected face goes through the encoder and is drawn again; the real one may shine through.

    Args:
        encoder: The project's own.
        generator: Draws.
        detector: Finds the protected face.
        attempts: How many victims; each costs two passes of the generator.
    """

    name = "reencode"

    def __init__(self, encoder: Encoder, generator: Generator, detector: Detector, *, attempts: int = 40) -> None:
        self._encoder, self._generator, self._detector = encoder, generator, detector
        self._attempts = attempts

    def run(self, material: Material) -> Iterator[Attempt]:
        """See `Attack.run`."""
        rows = np.flatnonzero(~material.theirs)[: self._attempts]
        redrawn = _ReDrawn(material.protection, self._encoder, self._generator, self._detector)
        samples = [material.protocol.samples[int(i)] for i in rows]
        table = material.extractor.table(
            [Request(sample, KeyName("own", sample.person)) for sample in samples],
            redrawn,
            f"{material.protection.title}: re-encoding",
        )
        for matcher in material.matchers:
            there = table.found(matcher)
            if there.sum() < 2:
                continue
            guesses = table.vectors[matcher][there].astype(np.float64)
            scores, people, controls = against_person(material, guesses, rows[there], matcher)
            yield Attempt(self.name, "hidden", matcher, "identity", scores, people, controls, {"passes": 1.0})


class _ReDrawn:
    """A protection whose picture is read and drawn again: so the cache knows it, too."""

    def __init__(self, inner: Protection, encoder: Encoder, generator: Generator, detector: Detector) -> None:
        self._inner, self._encoder, self._generator, self._detector = inner, encoder, generator, detector
        self.name, self.title = f"{inner.name} re-encoded", inner.title
        self.keyed = inner.keyed
        self.fingerprint = f"re-encoded {encoder.sha256} {generator.weights_hash()} of {inner.fingerprint}"

    def protect(self, photo: Path | bytes, key: KeyName) -> Pixels:
        """See `Protection.protect`."""
        picture = Photo(self._inner.protect(photo, key), "protected")
        faces = self._detector.detect(picture)
        if not faces:
            raise NoFaceError("no face was found", where=shown(photo))
        styles = self._encoder.encode(ffhq_crop(faces[0], 256)[None])
        with torch.inference_mode():
            drawn = self._generator.synthesise(to_w_plus(self._generator, torch.from_numpy(styles)), 512)
        return to_pixels(drawn[0], 512)
