"""The naive layer swap that FaceAnonyMixer starts from (arXiv 2508.05636, section 3, before refinement)."""

from __future__ import annotations

from pathlib import Path

import torch

from anonymix_lab.data.keys import SeededKeys
from anonymix_lab.protections._values import KeyName
from anonymix_lab.training.pairs import to_pixels, to_w_plus
from anonymix_plugin.encoder import Encoder
from anonymix_plugin.faces import Detector, FacePolicy, ffhq_crop, select_faces
from anonymix_plugin.generator import Generator
from anonymix_plugin.images import decode_photo
from anonymix_plugin.mixer.key_schedule import KeySchedule
from anonymix_plugin.mixer.refine import swap
from anonymix_plugin.values import Floats, Pixels

_SIDE = 512


class LayerSwap:
    """Coarse and fine layers of the photo, identity layers of the key: z_p = [z_r, z_f, z_r].

    The photo's code comes from the project's own encoder, not from e4e with 150 steps of optimisation, so
    that it keeps less of the photo than the paper's.

    Args:
        detector: Finds the face.
        encoder: Photo to style vectors.
        generator: Draws.
        centre: (512,) float32, mean style vector.
        keys: Evaluation keys.
        seed: Their seed.
        truncation: Of the key's code; .7 in the paper.
        faces: Which of several faces.
    """

    keyed = True
    name = "swap"
    title = "Naive layer swap"

    def __init__(
        self,
        detector: Detector,
        encoder: Encoder,
        generator: Generator,
        centre: Floats,
        keys: SeededKeys,
        seed: int,
        truncation: float = 0.7,
        *,
        faces: FacePolicy = "largest",
    ) -> None:
        self._faces = faces
        self._detector, self._encoder, self._generator = detector, encoder, generator
        self._swap = swap.LayerSwap(generator, centre, truncation=truncation)
        self._keys = keys
        weights = f"{encoder.sha256} {generator.weights_hash()}"
        self.fingerprint = f"layer swap {truncation} {weights} {faces} keys {seed}"

    def protect(self, photo: Path | bytes, key: KeyName) -> Pixels:
        """See `Protection.protect`."""
        picture = decode_photo(photo)
        face = select_faces(self._detector.detect(picture), self._faces, picture)[0]
        styles = self._encoder.encode(ffhq_crop(face, 256)[None])[0]
        material = self._keys.at(key.subject, key.version, key.scope).material
        own = to_w_plus(self._generator, torch.from_numpy(styles)[None])[0].numpy()
        code = torch.from_numpy(self._swap.mix(own, KeySchedule(material)))[None]
        with torch.inference_mode():
            return to_pixels(self._generator.synthesise(code, _SIDE)[0], _SIDE)
