"""Photos to joint embeddings, many at a time and with a cache."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from anonymix_lab.training.pairs import pair_path
from anonymix_plugin.errors import PhotoError, UsageError
from anonymix_plugin.faces import Detector, FacePolicy, recogniser_crop, select_faces
from anonymix_plugin.images import PHOTO_SUFFIXES, decode_photo
from anonymix_plugin.mixer.subspace import joint_embedding
from anonymix_plugin.recognisers import Recogniser
from anonymix_plugin.values import Floats


class Embedder:
    """Photo to joint embedding, by the detector and the recognisers of the mixer.

    Args:
        detector: Finds faces.
        arcface: The first recogniser.
        sface: The second one.
        faces: Which of several faces.
        mirrored: Whether the embedding is the mean of the face's and its mirror image's. The mixer reads photos
            without.
    """

    def __init__(
        self,
        detector: Detector,
        arcface: Recogniser,
        sface: Recogniser,
        faces: FacePolicy = "largest",
        *,
        mirrored: bool = False,
    ) -> None:
        self._detector, self._arcface, self._sface = detector, arcface, sface
        self._faces: FacePolicy = faces
        self._mirrored = mirrored

    def embed(self, path: Path) -> Floats | None:
        """Return the joint embedding, (640,) float32, of one face; None where there is no face."""
        photo = decode_photo(path)
        try:
            face = select_faces(self._detector.detect(photo), self._faces, photo)[0]
        except PhotoError:
            return None
        crop = recogniser_crop(face)
        looks = np.stack([crop, crop[:, ::-1]] if self._mirrored else [crop])
        joint: Floats = joint_embedding(self._arcface.embed(looks), self._sface.embed(looks)).mean(axis=0)
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
            if photo.suffix.lower() in PHOTO_SUFFIXES:
                paths.append(photo)
                who.append(number)
    if not paths:
        raise UsageError("no photos in sub-folders, one per person", where=str(folder))
    return paths, np.array(who, np.int64)


def embed_pairs(
    embedder: Embedder, folder: Path, count: int, progress: Callable[[str, int, int], None]
) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Embed the drawn pairs of a folder as `embed_files` does, with the cache beside them."""
    return embed_files(
        embedder,
        [pair_path(folder, number) for number in range(count)],
        folder / "embeddings.npy",
        lambda done, total: progress("pairs", done, total),
    )


def embed_people(
    embedder: Embedder, people: Path, cache: Path, progress: Callable[[str, int, int], None]
) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Embed a folder with one sub-folder of photos per person.

    Returns:
        Embeddings (N, 640) float32 of the photos with a face, and who is on each, (N,) int64.
    """
    paths, who = people_of(people)
    photos, shown = embed_files(embedder, paths, cache, lambda done, total: progress("people", done, total))
    return photos[shown], who[shown]
