"""FID and KID with feature weights of the user's own: none can be had from a package registry."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np

from anonymix_lab.data import Protocol
from anonymix_lab.evaluation.schema import FeaturePart
from anonymix_lab.evaluation.traits import frechet_distance, kernel_distance
from anonymix_lab.matchers import EmbeddingStore, Extractor, Panel, Request
from anonymix_lab.protections import KeyName, Protection
from anonymix_plugin.errors import ModelError, UsageError
from anonymix_plugin.faces import Detector, ffhq_crop
from anonymix_plugin.values import Face, Floats, Photo

_MOST: Final = 2_000


class FeatureMatcher:
    """An ONNX network from (N, 3, S, S) float32 RGB in -1..1, FFHQ framing, to (N, D) features.

    Args:
        path: The file; S and D are read from it.

    Raises:
        ModelError: It can't be read, or its input or output has another shape.
    """

    seen_by_mixer = False
    name = "features"

    def __init__(self, path: Path) -> None:
        import onnxruntime

        try:
            data = path.read_bytes()
            self._session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
        except OSError as error:
            raise ModelError(f"the weights can't be read: {error.strerror}", where=str(path)) from error
        except Exception as error:
            raise ModelError("this is no ONNX network that runs here", where=str(path)) from error
        given, made = self._session.get_inputs()[0], self._session.get_outputs()[0]
        side, dim = given.shape[-1], made.shape[-1]
        if len(given.shape) != 4 or len(made.shape) != 2 or not isinstance(side, int) or not isinstance(dim, int):
            raise ModelError(
                f"input {given.shape} and output {made.shape} do not serve",
                where=str(path),
                fix="export it with input (N, 3, S, S) and output (N, D), S and D fixed",
            )
        self._input, self._side, self.dim = given.name, side, dim
        self.identity = f"features {hashlib.sha256(data).hexdigest()}"

    def embed_photo(self, photo: Photo, face: Face | None) -> Floats | None:  # noqa: ARG002 - the face knows it
        """See `scores.Matcher.embed_photo`; features are not brought to length 1."""
        if face is None:
            return None
        crop = ffhq_crop(face, self._side).astype(np.float32).transpose(2, 0, 1) / 127.5 - 1.0
        (features,) = self._session.run(None, {self._input: crop[None]})
        return np.asarray(features[0], np.float32)


def feature_part(
    matcher: FeatureMatcher,
    protocol: Protocol,
    protection: Protection,
    store: EmbeddingStore,
    detector_identity: str,
    detector: Detector,
    progress: Callable[[str, int, int], None],
) -> FeaturePart:
    """Compare photos with their protected faces, own keys, at most 2,000.

    Raises:
        UsageError: Fewer than two have features.
    """
    panel = Panel([matcher], detector, detector_identity)
    extractor = Extractor(panel, store, progress=progress)
    samples = protocol.samples[:_MOST]
    plain = extractor.table([Request(sample) for sample in samples], None, "features of photos")
    mixed = extractor.table(
        [Request(sample, KeyName("own", sample.person)) for sample in samples],
        protection,
        "features of protected faces",
    )
    rows = [table.vectors["features"][table.found("features")].astype(np.float64) for table in (plain, mixed)]
    if min(map(len, rows)) < 2:
        raise UsageError("too few pictures have features", where="--features")
    return FeaturePart(
        name=matcher.identity,
        dim=matcher.dim,
        originals=len(rows[0]),
        protected=len(rows[1]),
        fid=frechet_distance(*rows),
        kid=kernel_distance(*rows),
    )
