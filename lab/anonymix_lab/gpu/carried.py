"""What a machine without a network is given: weights, packages, and numbers instead of photos.

No photo of anybody travels. The codes of photos (32 numbers each, in the mixer's subspace) say which faces are
to be drawn; what a CPU's faces looked like to recognisers says whether a GPU's are the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import numpy.typing as npt

from anonymix_plugin.errors import UsageError
from anonymix_plugin.files import whole_file
from anonymix_plugin.models import sources
from anonymix_plugin.values import Floats

WEIGHTS = ("mobilestylegan", "arcface-mbf", "sface", "yunet", "facenet")
PACKAGES = (
    "torch", "numpy", "opencv-python-headless", "onnx", "onnxruntime", "pillow", "safetensors", "cryptography",
    "sqlite-utils", "typer", "rich", "h5py",
)  # fmt: skip


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
