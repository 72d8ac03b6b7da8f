"""The linear map from keyed code to latent code: what tuning starts from.

It is learned on people who do not exist. Drawn faces are embedded by ArcFace and SFace; the D strongest
principal directions of those embeddings are what recognisers can see of the generator's faces, and ridge
regression says which way in the latent space goes with each of them (an inverse regression: it answers with
the mean code of all faces that look so to the recognisers, so that pose, light and background, which they
ignore, stay at the mean). The columns are scaled so that a person's code moves the style vector as far as
the generator's own variation does.

Children are kept out. Pairs that show a child were marked by eye (`children.json`, numbers of the series 1);
the direction that tells them from adults is taken out of the map, and the centre is moved along it, away
from them.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from anonymix_lab.training.embedding import Embedder, embed_pairs
from anonymix_lab.training.latent import LatentAxes, latent_axes
from anonymix_lab.training.pairs import pair_codes
from anonymix_plugin.errors import UsageError
from anonymix_plugin.generator import Generator
from anonymix_plugin.mixer.subspace import IdentitySubspace
from anonymix_plugin.mixer.weights import MixerWeights
from anonymix_plugin.values import Floats

Matrix = npt.NDArray[np.float64]
SHIPPED_MARKS = Path(__file__).parent / "children.json"


@dataclass(frozen=True)
class MapperRecipe:
    """How the mixer's weights are made.

    Attributes:
        pairs: How many pairs of series 1 are used (those with one style vector for all layers).
        keyed_dims: Dimensions into which keys turn a person's numbers, at least as many as they are.
        ridge: Penalty of the regression.
        reach: Mean length of a person's part of a style vector; the generator's own variation has about 10.
        adult_shift: How far the centre moves away from children, in standard deviations.
    """

    pairs: int
    keyed_dims: int = 64
    ridge: float = 5.0
    reach: float = 7.0
    adult_shift: float = 0.6


def marked_children(path: Path, generator_hash: str, pairs: int) -> npt.NDArray[np.bool_]:
    """Which pairs of series 1 were marked as children.

    Args:
        path: JSON with the numbers of the pairs under "children", and under "generator" the hash of the
            generator that drew them, where the marks are not to serve another one.
        generator_hash: Hash of the generator in use. Marks of another generator's pairs count for nothing.
        pairs: How many pairs there are.

    Returns:
        (pairs,) bool.

    Raises:
        UsageError: The file can't be read.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        marked = np.array(content["children"], np.int64).reshape(-1)
        owner = content.get("generator", generator_hash)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise UsageError(
            f"the marks of children can't be read ({error})",
            where=str(path),
            fix='JSON like {"children": [26, 53]}, with numbers of pairs',
        ) from error
    return np.isin(np.arange(pairs), marked if owner == generator_hash else [])


def train_linear_map(
    generator: Generator,
    embedder: Embedder,
    pairs: Path,
    subspace: IdentitySubspace,
    recipe: MapperRecipe,
    progress: Callable[[str, int, int], None],
    marks: Path = SHIPPED_MARKS,
) -> tuple[MixerWeights, int]:
    """Fit the linear map on the drawn pairs.

    Args:
        generator: Whose latent space.
        embedder: The recognisers of the mixer.
        pairs: Folder with the drawn pairs.
        subspace: What passes of a person.
        recipe: How.
        progress: Called with stage, done and total.
        marks: Which pairs show a child; see `marked_children`.

    Returns:
        The weights, and how many drawn faces the map was fitted to.
    """
    children = marked_children(marks, generator.weights_hash(), recipe.pairs)
    drawn, found = embed_pairs(embedder, pairs, recipe.pairs, progress)
    axes = latent_axes(generator)
    centre = torch.from_numpy(axes.centre)
    styles = np.stack([pair_codes(generator, centre, 1, number).styles for number in range(recipe.pairs)])
    whole = found & (styles[:, 0] == styles[:, 2]).all(axis=1)
    weights = fit_mapper(axes, subspace, styles[:, 0], drawn, whole, children, recipe, generator.weights_hash())
    return weights, int(whole.sum())


def fit_mapper(
    axes: LatentAxes,
    subspace: IdentitySubspace,
    styles: Floats,
    embeddings: Floats,
    whole: npt.NDArray[np.bool_],
    children: npt.NDArray[np.bool_],
    recipe: MapperRecipe,
    generator_hash: str,
) -> MixerWeights:
    """Fit the map from keyed codes to whitened latent coordinates.

    Args:
        axes: Whitening of the latent space.
        subspace: Learned on photos.
        styles: (N, 512) float32, one style vector per drawn face.
        embeddings: (N, 640) float32, their joint embeddings.
        whole: (N,) bool, which drawn faces have one style vector for all layers and show a face.
        children: (N,) bool, which were marked as children; where none is, nothing leans away from them.
        recipe: Settings.
        generator_hash: Hash of the generator.

    Raises:
        UsageError: There are more numbers of a person than dimensions that keys turn them into, or too few faces.
    """
    if recipe.keyed_dims < subspace.dims:
        raise UsageError(
            f"{subspace.dims} numbers of a person don't fit into {recipe.keyed_dims} keyed dimensions",
            where="--keyed-dims",
            fix=f"use at least {subspace.dims}",
        )
    if whole.sum() <= recipe.keyed_dims:
        raise UsageError(
            f"{whole.sum()} of {len(whole)} drawn pairs show a face of one style vector, too few for "
            f"{recipe.keyed_dims} keyed dimensions",
            where="the drawn pairs",
            fix="draw more (anonymix train pairs --count), by a generator whose faces a detector finds",
        )
    whitened = axes.whiten(styles).astype(np.float64)
    codes, seen = whitened[whole], embeddings[whole].astype(np.float64)
    seen = seen - seen.mean(axis=0)
    principal = np.linalg.svd(seen, full_matrices=False)[2][: recipe.keyed_dims].T
    answers = seen @ principal
    gram = answers.T @ answers + recipe.ridge * np.eye(recipe.keyed_dims)
    person = np.linalg.solve(gram, answers.T @ codes).T  # (512, D)
    young = np.zeros(whitened.shape[1])
    if (whole & children).any():
        young = child_direction(whitened, whole, children)
    person -= np.outer(young, young @ person)
    # E|B M v|^2 over the unit sphere in D dimensions is |B M|_F^2 / D.
    length = np.linalg.norm(axes.basis @ person) / np.sqrt(recipe.keyed_dims)
    person *= recipe.reach / length
    centre = axes.centre - recipe.adult_shift * (axes.basis @ young)
    return MixerWeights(
        subspace=subspace,
        centre=centre.astype(np.float32),
        basis=axes.basis,
        person=np.repeat(person[None], 3, axis=0).astype(np.float32),
        generator_hash=generator_hash,
        removed=young.astype(np.float32) if young.any() else None,
    )


def child_direction(
    whitened: Matrix, whole: npt.NDArray[np.bool_], children: npt.NDArray[np.bool_], *, axes: int = 32
) -> Matrix:
    """Return the direction from adults to children, (512,) float64 of length 1, in whitened coordinates.

    Linear discriminant analysis over the `axes` widest axes, with half a variance of ridge. Only drawn
    faces up to the last one that was marked were looked at; all others among them are adults.
    """
    looked = whole & (np.arange(len(whole)) <= np.flatnonzero(children).max())
    young, grown = whitened[looked & children, :axes], whitened[looked & ~children, :axes]
    spread = np.cov(np.concatenate([young - young.mean(axis=0), grown - grown.mean(axis=0)]).T)
    found = np.linalg.solve(spread + 0.5 * np.eye(axes), young.mean(axis=0) - grown.mean(axis=0))
    direction = np.zeros(whitened.shape[1])
    direction[:axes] = found / np.linalg.norm(found)
    return direction
