"""Training of the mixer's own weights: the identity subspace and the map from keyed code to latent code.

The map is learned on people who do not exist. Drawn faces are embedded by ArcFace and SFace; the D strongest
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
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from anonymix_plugin.errors import PhotoError, UsageError
from anonymix_plugin.faces import Detector, FacePolicy, recogniser_crop, select_faces
from anonymix_plugin.generator import Generator
from anonymix_plugin.images import decode_photo
from anonymix_plugin.mixer.subspace import IdentitySubspace, fit_subspace, joint_embedding
from anonymix_plugin.mixer.weights import MixerWeights
from anonymix_plugin.recognisers import Recogniser
from anonymix_plugin.training.latent import LatentAxes, latent_axes
from anonymix_plugin.training.pairs import pair_codes, pair_path
from anonymix_plugin.values import Floats

Matrix = npt.NDArray[np.float64]
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp"})
SHIPPED_MARKS = Path(__file__).parent / "children.json"


@dataclass(frozen=True)
class MapperRecipe:
    """How the mixer's weights are made.

    Attributes:
        pairs: How many pairs of series 1 are used (those with one style vector for all layers).
        dims: Numbers of a person that pass the subspace.
        keyed_dims: Dimensions into which keys turn them, at least `dims`.
        ridge: Penalty of the regression.
        reach: Mean length of a person's part of a style vector; the generator's own variation has about 10.
        adult_shift: How far the centre moves away from children, in standard deviations.
        population: Whether drawn faces tell the subspace how people differ, beside the people of the photos.
    """

    pairs: int
    dims: int = 24
    keyed_dims: int = 48
    ridge: float = 5.0
    reach: float = 7.0
    adult_shift: float = 0.6
    population: bool = False


class Embedder:
    """Photo to joint embedding, by the detector and the recognisers of the mixer."""

    def __init__(
        self, detector: Detector, arcface: Recogniser, sface: Recogniser, faces: FacePolicy = "largest"
    ) -> None:
        self._detector, self._arcface, self._sface = detector, arcface, sface
        self._faces: FacePolicy = faces

    def embed(self, path: Path) -> Floats | None:
        """Return the joint embedding, (640,) float32, of one face; None where there is no face."""
        photo = decode_photo(path)
        try:
            face = select_faces(self._detector.detect(photo), self._faces, photo)[0]
        except PhotoError:
            return None
        crop = recogniser_crop(face)[None]
        joint: Floats = joint_embedding(self._arcface.embed(crop), self._sface.embed(crop))[0]
        return joint


def embed_files(
    embedder: Embedder, paths: Sequence[Path], cache: Path, progress: Callable[[int, int], None]
) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Embed many files, going on from a cache that an interrupted run left.

    Args:
        embedder: What embeds.
        paths: The photos.
        cache: A .npy file, (N, 640) float32; rows not done yet hold NaN, rows without a face infinity.
        progress: Called with done and total.

    Returns:
        Embeddings (N, 640) float32 and which of them show a face, (N,) bool.
    """
    rows = np.full((len(paths), 640), np.nan, np.float32)
    if cache.exists():
        old = np.load(cache, allow_pickle=False)
        rows[: len(old)] = old[: len(rows)]
    for i, path in enumerate(paths):
        if np.isnan(rows[i, 0]):
            found = embedder.embed(path)
            rows[i] = np.inf if found is None else found
            if i % 500 == 499:
                np.save(cache, rows)
        progress(i + 1, len(paths))
    np.save(cache, rows)
    return rows, np.asarray(np.isfinite(rows[:, 0]))


def people_of(folder: Path) -> tuple[list[Path], npt.NDArray[np.int64]]:
    """List the photos of a folder with one sub-folder per person, and who is on each."""
    people = sorted(entry for entry in folder.iterdir() if entry.is_dir())
    paths, who = [], []
    for number, person in enumerate(people):
        for photo in sorted(person.iterdir()):
            if photo.suffix.lower() in IMAGE_SUFFIXES:
                paths.append(photo)
                who.append(number)
    if not paths:
        raise UsageError("no photos in sub-folders, one per person", where=str(folder))
    return paths, np.array(who, np.int64)


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


def train_mapper(
    generator: Generator,
    embedder: Embedder,
    pairs: Path,
    people: Path,
    recipe: MapperRecipe,
    output: Path,
    progress: Callable[[str, int, int], None],
    marks: Path = SHIPPED_MARKS,
) -> MixerWeights:
    """Make the mixer's weights and write them.

    Args:
        generator: Whose latent space.
        embedder: The recognisers of the mixer.
        pairs: Folder with the drawn pairs.
        people: Folder with one sub-folder of photos per person, for the subspace.
        recipe: How.
        output: The safetensors file.
        progress: Called with stage, done and total.
        marks: Which pairs show a child; see `marked_children`.
    """
    children = marked_children(marks, generator.weights_hash(), recipe.pairs)
    numbers = np.arange(recipe.pairs)
    drawn, found = embed_files(
        embedder,
        [pair_path(pairs, int(number)) for number in numbers],
        pairs / "embeddings.npy",
        lambda done, total: progress("pairs", done, total),
    )
    paths, who = people_of(people)
    photos, shown = embed_files(
        embedder, paths, pairs / "people.npy", lambda done, total: progress("people", done, total)
    )
    population = drawn[found] if recipe.population else None
    subspace = fit_subspace(photos[shown], who[shown], dims=recipe.dims, population=population)
    axes = latent_axes(generator)
    centre = torch.from_numpy(axes.centre)
    styles = np.stack([pair_codes(generator, centre, 1, int(number)).styles for number in numbers])
    whole = found & (styles[:, 0] == styles[:, 2]).all(axis=1)
    weights = fit_mapper(
        axes, subspace, styles[:, 0], drawn, whole, children, recipe, generator.weights_hash()
    )
    weights.save(
        output,
        {
            "recipe": repr(recipe),
            "drawn faces used": str(int(whole.sum())),
            "people of the subspace": str(len(np.unique(who[shown]))),
            "photos of the subspace": str(int(shown.sum())),
        },
    )
    return weights


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
    """
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
