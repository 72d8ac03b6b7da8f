"""Photos to joint embeddings, many at a time and with a cache."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from anonymix_lab.training.pairs import pair_path
from anonymix_plugin.errors import PhotoError, UsageError
from anonymix_plugin.faces import Detector, FacePolicy, recogniser_crop, select_faces
from anonymix_plugin.files import whole_file
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
    embedder: Embedder,
    paths: Sequence[Path],
    cache: Path,
    progress: Callable[[int, int], None],
    *,
    names: Sequence[str] | None = None,
) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Embed many files, going on from a cache that an interrupted run left.

    Args:
        embedder: What embeds; each has a cache of its own.
        paths: The photos.
        cache: An .npz file. Each row is kept under its photo's name, so that other photos get no row of these.
        progress: Called with done and total.
        names: What the photos are called in the cache; by default by their path, size and time.

    Returns:
        Embeddings (N, 640) float32 and which of them show a face, (N,) bool.
    """
    names = [_name(path) for path in paths] if names is None else names
    rows = np.full((len(paths), 640), np.nan, np.float32)
    if cache.exists():
        with np.load(cache, allow_pickle=False) as kept:
            known = dict(zip(kept["names"].tolist(), kept["rows"], strict=True))
        for i, name in enumerate(names):
            rows[i] = known.get(name, np.nan)

    def keep() -> None:
        done = ~np.isnan(rows[:, 0])
        with whole_file(cache) as draft, draft.open("wb") as file:
            np.savez(file, allow_pickle=False, names=np.array(names, dtype=np.str_)[done], rows=rows[done])

    for i, path in enumerate(paths):
        if np.isnan(rows[i, 0]):
            found = embedder.embed(path)
            rows[i] = np.inf if found is None else found  # infinity: it shows no face
            if i % 500 == 499:
                keep()
        progress(i + 1, len(paths))
    keep()
    return rows, np.asarray(np.isfinite(rows[:, 0]))


def _name(path: Path) -> str:
    """What a photo is called in a cache: another one in its place has another name."""
    try:
        about = path.stat()
    except OSError:
        return str(path.resolve())
    return f"{path.resolve()}|{about.st_size}|{about.st_mtime_ns}"


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
        folder / "embeddings.npz",
        lambda done, total: progress("pairs", done, total),
        names=[str(number) for number in range(count)],  # the pictures may be elsewhere
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
