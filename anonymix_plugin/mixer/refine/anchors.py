"""Where the refine method pulls a face to: a direction in a recogniser's space, given by person and key.

A keyed rotation of the person's code into the whole space (`losses.keyed_anchor`) points, for the greater
part, where no drawn face can be. The directions here were learned from drawn faces: a ridge regression says
which embeddings the mixer's faces reach, direction by direction of the keyed code, and its polar factor (the
nearest matrix with orthonormal rows; Higham 1986) makes an isometry of it,

    anchor_r(u) = V_r' R_k u,   V_r V_r' = 1,

so that under one key two people's anchors are exactly as alike as their codes, and in reach of faces.
R_k is the rotation of the fast method: another key, another anchor.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import save_file

from anonymix_plugin.errors import DamagedModelError, UsageError
from anonymix_plugin.files import content_of, safetensors_of
from anonymix_plugin.mixer.key_schedule import KeySchedule
from anonymix_plugin.values import Floats

Matrix = npt.NDArray[np.float64]
SHIPPED: Final = Path(__file__).parents[2] / "weights" / "anchors.safetensors"
_ORTHONORMAL = 1e-4  # how far float32 rows may be from it


@dataclass(frozen=True, eq=False)
class AnchorDirections:
    """What was learned for one mixer.

    Attributes:
        directions: Recogniser -> (D, dim) float32 with orthonormal rows.
        mixer: SHA-256 of the mixer's weights whose faces these were learned from.
        sha256: Hash of the file, for the fingerprint.
    """

    directions: Mapping[str, Floats]
    mixer: str
    sha256: str = ""

    def anchor(self, schedule: KeySchedule, recogniser: str, code: Matrix) -> Matrix:
        """The anchor of a person under a key.

        Args:
            schedule: The key.
            recogniser: One of those learned for.
            code: (d,) float64, the person's code, d <= D, not zero.

        Returns:
            (dim,) float64 of length 1.

        Raises:
            UsageError: Nothing was learned for the recogniser, or the code is no such vector.
        """
        if recogniser not in self.directions:
            raise UsageError(
                f"no anchors were learned for {recogniser}",
                where="recogniser",
                fix="use one of " + ", ".join(self.directions),
            )
        reached = self.directions[recogniser].astype(np.float64)
        length = float(np.linalg.norm(code)) if code.ndim == 1 else float("nan")
        if not (np.isfinite(length) and length > 0 and len(code) <= len(reached)):
            raise UsageError(
                f"a person's code of shape {code.shape} can't be an anchor in {len(reached)} directions",
                where="code",
                fix=f"pass 1 to {len(reached)} finite numbers that are not all zero",
            )
        turned = schedule.rotation("person", len(reached), len(code)) @ code
        anchor: Matrix = reached.T @ turned
        return np.asarray(anchor / np.linalg.norm(anchor))

    def save(self, path: Path) -> None:
        """Write a safetensors file."""
        tensors = {name: np.ascontiguousarray(value, np.float32) for name, value in self.directions.items()}
        save_file(tensors, path, {"mixer": self.mixer})


@lru_cache(maxsize=4)
def load_anchor_directions(path: Path = SHIPPED) -> AnchorDirections:
    """Read learned directions.

    Raises:
        DamagedModelError: The file is missing, no safetensors file, or its rows are not orthonormal.
    """
    try:
        content = content_of(path)
        digest = hashlib.sha256(content).hexdigest()
        directions, metadata = safetensors_of(content)
        mixer = metadata["mixer"]
        for name, rows in directions.items():
            if rows.ndim != 2 or not _orthonormal(rows):
                raise ValueError(f"the rows of {name} are not orthonormal")
        return AnchorDirections(directions, mixer, digest)
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise DamagedModelError(
            f"the anchors of the refine method can't be read ({error})",
            where=str(path),
            fix="reinstall anonymix-plugin, or learn them again: anonymix train anchors",
        ) from error


def reachable(codes: Matrix, embeddings: Matrix, ridge: float) -> Floats:
    """Learn the directions of one recogniser.

    Args:
        codes: (N, D) float64, keyed codes of length 1.
        embeddings: (N, dim) float64 of the faces drawn from them, of length 1, dim >= D.
        ridge: Penalty of the regression.

    Returns:
        (D, dim) float32 with orthonormal rows: the polar factor of the regression of embeddings on codes.

    Raises:
        UsageError: The embedding has fewer numbers than the code, or there are fewer faces than those.
    """
    count, dims = codes.shape
    if embeddings.shape[1] < dims or count < dims:
        raise UsageError(
            f"{count} faces with embeddings of {embeddings.shape[1]} numbers can't tell {dims} directions",
            where="embeddings",
            fix="draw more faces",
        )
    centred = embeddings - embeddings.mean(axis=0)
    effect = np.linalg.solve(codes.T @ codes + ridge * np.eye(dims), codes.T @ centred)
    left, _, right = np.linalg.svd(effect, full_matrices=False)
    return np.asarray(left @ right, np.float32)


def _orthonormal(rows: Floats) -> bool:
    wide = rows.astype(np.float64)
    return bool(np.abs(wide @ wide.T - np.eye(len(wide))).max() < _ORTHONORMAL)
