"""The identity subspace: few numbers of a person, chosen so that each of them tells people apart.

A joint embedding (ArcFace and SFace side by side, 640 numbers) is centred, projected onto the directions in
which people differ most relative to how much photos of one person differ (linear discriminant analysis,
Fisher 1936, with a ridge on the within-person scatter) and scaled to length 1. All other dimensions of the
embedding end here: what leaves this module is a many-to-one function of the photo, and no key opens it again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from anonymix_plugin.errors import BadArrayError, DamagedModelError
from anonymix_plugin.values import Floats

Matrix = npt.NDArray[np.float64]

_FOLDS = "lfw_view2_folds"


def joint_embedding(arcface: Floats, sface: Floats) -> Floats:
    """Put the embeddings of both recognisers side by side.

    Args:
        arcface: (N, 512) float32, rows of length 1.
        sface: (N, 128) float32, rows of length 1.

    Returns:
        (N, 640) float32.
    """
    return np.concatenate([arcface, sface], axis=1, dtype=np.float32)


@dataclass(frozen=True, eq=False)
class IdentitySubspace:
    """Where people differ.

    Attributes:
        mean: (640,) float32, the mean joint embedding.
        directions: (640, d) float32, one discriminant direction a column, the strongest first.
        lfw_folds: Folds of LFW's view 2, from 1, whose people it was learned from: no figure on them counts.
    """

    mean: Floats
    directions: Floats
    lfw_folds: tuple[int, ...] = ()

    def save(self, path: Path, about: dict[str, str]) -> None:
        """Write a safetensors file with `about` (what it was learned from) as its metadata."""
        tensors = {"subspace.mean": self.mean, "subspace.directions": self.directions}
        ready = {name: np.ascontiguousarray(value) for name, value in tensors.items()}
        save_file(ready, path, {"about": json.dumps(about, sort_keys=True), **self.metadata()})

    def metadata(self) -> dict[str, str]:
        """Return what a file of it, or with it, says in its metadata."""
        return {_FOLDS: ",".join(map(str, self.lfw_folds))} if self.lfw_folds else {}

    @classmethod
    def of_file(cls, tensors: Mapping[str, Floats], metadata: Mapping[str, str]) -> IdentitySubspace:
        """Put it together from the tensors and the metadata of a file.

        Raises:
            KeyError: A tensor is missing.
            ValueError: The metadata name no folds.
        """
        folds = tuple(int(word) for word in metadata.get(_FOLDS, "").split(",") if word)
        return cls(tensors["subspace.mean"], tensors["subspace.directions"], folds)

    @classmethod
    def read(cls, path: Path) -> IdentitySubspace:
        """Read what `save` wrote, or the subspace of a file of mixer weights.

        Raises:
            DamagedModelError: The file is missing, no safetensors file, or holds no subspace.
        """
        try:
            with safe_open(path, framework="np") as file:
                names = ("subspace.mean", "subspace.directions")
                return cls.of_file({name: file.get_tensor(name) for name in names}, file.metadata() or {})
        except (OSError, SafetensorError, ValueError) as error:
            raise DamagedModelError(
                f"no identity subspace can be read ({error})",
                where=str(path),
                fix="make one: anonymix train subspace",
            ) from error

    def sha256(self) -> str:
        """Hash of the numbers, hex: what a code in this subspace is bound to."""
        digest = hashlib.sha256()
        for array in (self.mean, self.directions):
            digest.update(f"{array.shape}".encode())
            digest.update(np.ascontiguousarray(array, "<f4").tobytes())
        return digest.hexdigest()

    @property
    def dims(self) -> int:
        """How many numbers of a person pass."""
        return int(self.directions.shape[1])

    def project(self, embeddings: Floats) -> Matrix:
        """Project joint embeddings.

        Args:
            embeddings: (N, 640) float32.

        Returns:
            (N, d) float64, rows of length 1.

        Raises:
            BadArrayError: On another shape, or on numbers that are not finite.
        """
        if embeddings.ndim != 2 or embeddings.shape[1] != len(self.mean):
            raise BadArrayError(
                f"joint embeddings have shape (N, {len(self.mean)}), not {embeddings.shape}",
                where="embeddings",
            )
        if not np.isfinite(embeddings).all():
            raise BadArrayError("an embedding holds numbers that are not finite", where="embeddings")
        codes = (embeddings - self.mean).astype(np.float64) @ self.directions.astype(np.float64)
        return np.asarray(codes / np.maximum(np.linalg.norm(codes, axis=1, keepdims=True), 1e-12))


def fit_subspace(
    embeddings: Floats,
    people: npt.NDArray[np.int64],
    *,
    dims: int,
    ridge: float = 2.0,
    doubt: float = 0.3,
    population: Floats | None = None,
) -> IdentitySubspace:
    """Learn a subspace from photos of people of whom there are several photos each.

    How photos of one person differ can be learned from few people, because all of them differ alike. How
    people differ from each other can not: n people span n - 1 directions. `population` helps there, with
    people of whom there is one photo each, or who do not exist.

    Args:
        embeddings: (N, 640) float32 joint embeddings.
        people: (N,) int64, who is on each.
        dims: How many directions to keep, less than the number of people and of the population together.
        ridge: Added to the within-person scatter, in multiples of its mean eigenvalue.
        doubt: Photos whose cosine with the median of their person is below this are left out: label noise.
        population: (M, 640) float32 joint embeddings of M other people, one each. Its scatter counts as much
            as that between the people of the photos.

    Returns:
        The subspace.

    Raises:
        BadArrayError: If there are too few people for that many directions.
    """
    names = np.unique(people)
    most = len(names) - 1 + (0 if population is None else len(population))
    if not 0 < dims <= min(most, embeddings.shape[1]):
        others = "" if population is None else f" and {len(population)} others"
        raise BadArrayError(
            f"{len(names)} people{others} allow 1 to {min(most, embeddings.shape[1])} directions, not {dims}",
            where="dims",
            fix="give photos of more people, or ask for fewer directions (--dims)",
        )
    trusted = np.ones(len(embeddings), dtype=bool)
    for name in names:
        own = np.flatnonzero(people == name)
        median = np.median(embeddings[own], axis=0)
        cosines = embeddings[own] @ median / (np.linalg.norm(embeddings[own], axis=1) * np.linalg.norm(median))
        trusted[own[cosines < doubt]] = False
    kept, who = embeddings[trusted].astype(np.float64), people[trusted]
    centres = np.stack([kept[who == name].mean(axis=0) for name in names])
    residuals = kept - centres[np.searchsorted(names, who)]
    within = residuals.T @ residuals / len(kept)
    within += np.eye(len(within)) * ridge * np.trace(within) / len(within)
    mean = centres.mean(axis=0)
    between = (centres - mean).T @ (centres - mean) / len(names)
    if population is not None:
        others = population.astype(np.float64) - population.mean(axis=0, dtype=np.float64)
        scatter = others.T @ others / len(others)
        between = between / np.trace(between) + scatter / np.trace(scatter)
    values, vectors = np.linalg.eigh(within)
    whitening = vectors / np.sqrt(values) @ vectors.T
    _, discriminants = np.linalg.eigh(whitening @ between @ whitening)
    directions = whitening @ discriminants[:, ::-1][:, :dims]
    # A sign is arbitrary to the solver; fixing it makes two machines learn the same file.
    directions *= np.sign(directions[np.abs(directions).argmax(axis=0), np.arange(dims)])
    return IdentitySubspace(mean.astype(np.float32), directions.astype(np.float32))
