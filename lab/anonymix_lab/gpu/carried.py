"""What a machine without a network is given: weights, packages, and numbers instead of photos.

No photo of anybody travels. The codes of photos (32 numbers each, in the mixer's subspace) say which faces are
to be drawn; what a CPU's faces looked like to recognisers says whether a GPU's are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from anonymix_plugin.errors import UsageError
from anonymix_plugin.faces import FacePolicy
from anonymix_plugin.files import whole_file
from anonymix_plugin.models import sources
from anonymix_plugin.values import Floats

if TYPE_CHECKING:
    from anonymix_lab.training.embedding import Embedder

WEIGHTS = ("mobilestylegan", "arcface-mbf", "sface", "yunet", "facenet")
PACKAGES = (
    "torch", "numpy", "opencv-python-headless", "onnx", "onnxruntime", "pillow", "safetensors", "cryptography",
    "sqlite-utils", "typer", "rich", "h5py",
)  # fmt: skip

Progress = Callable[[str], None]


@dataclass(frozen=True)
class WeightsFile:
    """A file of weights that has to be there: path, bytes and whether it is here."""

    path: Path
    size: int
    here: bool


@dataclass(frozen=True)
class Package:
    """A package that has to be there: its name and the version that is here, or None."""

    name: str
    version: str | None


def needed_weights() -> list[WeightsFile]:
    """List the files of weights that the steps read."""
    from anonymix_lab.training.teachers import FACERES_FILES

    listed = [(source.path, source.size or 0) for name in WEIGHTS for source in sources(name)]
    return [WeightsFile(path, size, path.is_file()) for path, size in [*listed, *FACERES_FILES.items()]]


def needed_packages() -> list[Package]:
    """List the packages that the steps import, and what is here of them."""

    def found(name: str) -> str | None:
        try:
            return version(name)
        except PackageNotFoundError:
            return None

    return [Package(name, found(name)) for name in PACKAGES]


@dataclass(frozen=True, eq=False)
class Carried:
    """Numbers that stand for photos; all codes are (N, dims) float32 of length 1.

    Attributes:
        london: Codes of the photos that engines are compared on.
        london_who: (N,) int64, who is on each.
        seen: Recogniser -> (N, dim) float32, what it sees of the faces that a CPU draws of `london`.
        pairs: Name of a set ("view1", "folds6-10") -> (2, P, dims), codes of genuine pairs of it.
        street: Codes of several photos each of people, to learn from.
        street_who: (M,) int64.
        counts: Of one face of 512 px: operations, those of convolutions, bytes of weights, and bytes moved if
            every layer reads and writes its float32 tensors once (`bench.counts`).
    """

    london: Floats
    london_who: npt.NDArray[np.int64]
    seen: Mapping[str, Floats] = field(default_factory=dict)
    pairs: Mapping[str, Floats] = field(default_factory=dict)
    street: Floats = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    street_who: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    counts: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(4, np.int64))

    def save(self, path: Path) -> None:
        """Write an .npz without objects, whole or not at all."""
        arrays: dict[str, npt.NDArray[np.generic]] = {
            "london": self.london,
            "london_who": self.london_who,
            "street": self.street,
            "street_who": self.street_who,
            "counts": self.counts,
        }
        arrays |= {f"seen/{name}": value for name, value in self.seen.items()}
        arrays |= {f"pairs/{name}": value for name, value in self.pairs.items()}
        with whole_file(path) as draft, draft.open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays)

    @classmethod
    def read(cls, path: Path) -> Carried:
        """Read what `save` wrote.

        Raises:
            UsageError: The file is not there, or is another.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}

            def part(prefix: str) -> dict[str, Floats]:
                return {name.removeprefix(prefix): arrays[name] for name in arrays if name.startswith(prefix)}

            return cls(
                arrays["london"],
                arrays["london_who"],
                part("seen/"),
                part("pairs/"),
                arrays["street"],
                arrays["street_who"],
                arrays["counts"],
            )
        except (OSError, KeyError, ValueError) as error:
            raise UsageError(
                f"the numbers that were carried can't be read ({error})",
                where=str(path),
                fix="make them where the photos are: anonymix measure gpu --prepare",
            ) from error


def genuine_pairs(lfw: Path) -> dict[str, list[tuple[Path, Path]]]:
    """Both photos of each genuine pair of "view1" and of "folds6-10" of view 2.

    Args:
        lfw: Labeled Faces in the Wild as a folder of photos, with its lists of pairs.

    Raises:
        UsageError: It is no such folder.
    """
    from anonymix_lab.data import lfw_protocol
    from anonymix_lab.studies.dimensions import read_view1_pairs

    rows = [
        (one, other)
        for listing in ("pairsDevTrain.txt", "pairsDevTest.txt")
        for one, other, same in read_view1_pairs(lfw, listing)
        if same
    ]
    protocol = lfw_protocol(lfw, folds=(6, 7, 8, 9, 10))
    listed = zip(protocol.pairs.first, protocol.pairs.second, protocol.pairs.same, strict=True)
    photos = [(protocol.samples[int(a)].photo, protocol.samples[int(b)].photo) for a, b, same in listed if same]
    genuine = [(a, b) for a, b in photos if isinstance(a, Path) and isinstance(b, Path)]
    if len(genuine) < len(photos):
        raise UsageError("its photos lie in a file", where=str(lfw), fix="give the folder of the unpacked photos")
    return {"view1": rows, "folds6-10": genuine}


def prepare(
    london: Path,
    lfw: Path,
    people: Path,
    work: Path,
    progress: Progress,
    embedder: Callable[[FacePolicy], Embedder],
) -> Carried:
    """Read photos where they are, and keep their codes.

    Args:
        london: Folder of photos named PERSON_NUMBER.
        lfw: Labeled Faces in the Wild, with its lists of pairs.
        people: One sub-folder of photos per person.
        work: Where embeddings are cached.
        progress: Told what is being done.
        embedder: Which face of a photo is meant -> what embeds it.

    Returns:
        The codes, and what a CPU's faces look like. Where landmarks lie on drawn faces is kept beside the
        cache, in `work`/../landmarks.
    """
    from anonymix_lab.bench.counts import generator_counts
    from anonymix_lab.gpu.engine import RECOGNISERS, landmarks_of, seen_on_cpu, watcher
    from anonymix_lab.training.embedding import embed_files
    from anonymix_lab.training.street import embed_street
    from anonymix_plugin.generator import OpenVinoGenerator, read_published
    from anonymix_plugin.mixer.weights import load_mixer_weights

    subspace = load_mixer_weights().subspace
    work.mkdir(parents=True, exist_ok=True)

    def told(stage: str) -> Callable[[int, int], None]:
        def tell(done: int, total: int) -> None:
            if done == total or done % 500 == 0:
                progress(f"{stage}: {done} of {total}")

        return tell

    photos = sorted(london.glob("*.jpg"))
    joint, found = embed_files(embedder("largest"), photos, work / "london.npy", told("london"))
    names = [path.stem.partition("_")[0] for path in photos]
    who = np.unique(names, return_inverse=True)[1].astype(np.int64)

    pairs = {}
    for name, listed in genuine_pairs(lfw).items():
        paths = sorted({path for pair in listed for path in pair})
        number = {path: i for i, path in enumerate(paths)}
        seen, shown = embed_files(embedder("central"), paths, work / f"{name}.npy", told(name))
        kept = [(number[a], number[b]) for a, b in listed if shown[number[a]] and shown[number[b]]]
        codes = subspace.project(np.where(shown[:, None], seen, 1)).astype(np.float32)
        pairs[name] = codes[np.array(kept).T]
    published = read_published(*(source.path for source in sources("mobilestylegan") if source.path.suffix == ".xml"))
    counted = generator_counts(published, 512)
    learned = embed_street(
        embedder("largest"), embedder("central"), people, lfw, (1, 2, 3, 4, 5), work, lambda s, d, t: told(s)(d, t)
    )
    weights, drawer = load_mixer_weights(), OpenVinoGenerator(published)
    codes, who = subspace.project(joint[found]).astype(np.float32), who[found]
    landmarks = landmarks_of(work.parent, weights, drawer, progress)
    looking = watcher("cpu", weights, landmarks, RECOGNISERS)
    return Carried(
        codes,
        who,
        seen_on_cpu(drawer, looking, weights, codes, who),
        pairs=pairs,
        street=subspace.project(learned.photos).astype(np.float32),
        street_who=learned.who,
        counts=np.array([counted.operations, counted.convolutions, counted.parameters, counted.traffic]),
    )
