"""The small generator's learned weights as arrays, and what shape its head has; see `small`."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError

from anonymix_plugin.errors import DamagedModelError
from anonymix_plugin.files import content_of, safetensors_of
from anonymix_plugin.generator.published_weights import W_DIM, Affine
from anonymix_plugin.values import Floats

NAME = "small"
SIZES = (128, 256)
SHIPPED = Path(__file__).parents[1] / "weights" / "small.safetensors"

FEATURES = 512  # channels of MobileStyleGAN at 64 px
FIRST_STYLE = 13  # of the head: the first style input that MobileStyleGAN uses at 128 px
WIDE, NARROW = 128, 64  # channels of the head at 64 and at 128 px
COLOURS = 12  # four pixels of three colours
STYLES = (WIDE, WIDE, NARROW, NARROW, NARROW, COLOURS)  # how many channels each style input speaks to

_CONVOLUTIONS = {
    "enter": (WIDE, FEATURES, 1, 1),
    "deep": (WIDE, WIDE, 3, 3),
    "up": (4 * NARROW, WIDE, 1, 1),
    "first": (NARROW, NARROW, 3, 3),
    "second": (NARROW, NARROW, 3, 3),
    "leave": (COLOURS, NARROW, 3, 3),
}
_SHAPES: Mapping[str, tuple[int, ...]] = {
    **{f"{name}.weight": shape for name, shape in _CONVOLUTIONS.items()},
    **{f"{name}.bias": shape[:1] for name, shape in _CONVOLUTIONS.items()},
    **{f"styles.{number}.weight": (count, W_DIM) for number, count in enumerate(STYLES)},
    **{f"styles.{number}.bias": (count,) for number, count in enumerate(STYLES)},
}


@dataclass(frozen=True, eq=False)
class SmallWeights:
    """What the small generator has learned.

    Attributes:
        tensors: Name -> array, as `small.SmallHead` names them.
        teacher: `weights_hash()` of the large generator, whose first layers it keeps.
        sha256: Of the file.
    """

    tensors: Mapping[str, Floats]
    teacher: str
    sha256: str

    def style(self, number: int) -> Affine:
        """The affine map of style input `FIRST_STYLE + number`."""
        return Affine(self.tensors[f"styles.{number}.weight"], self.tensors[f"styles.{number}.bias"])

    def weights_hash(self) -> str:
        """SHA-256 (hex) over both: the kept layers and what was learned."""
        return hashlib.sha256(f"{self.teacher} {self.sha256}".encode()).hexdigest()


def read_small(teacher: str, path: Path = SHIPPED) -> SmallWeights:
    """Read a file of `anonymix train small-generator`.

    Args:
        teacher: `weights_hash()` of the large generator on this machine.
        path: The safetensors file.

    Raises:
        DamagedModelError: The file is missing, no safetensors file, of other shapes, or of another teacher.
    """
    fix = "reinstall anonymix-plugin" if path == SHIPPED else "make it: anonymix train small-generator"
    try:
        content = content_of(path)
        tensors, metadata = safetensors_of(content)
    except (OSError, SafetensorError, ValueError) as error:
        raise DamagedModelError(
            f"the small generator's weights can't be read ({error})", where=str(path), fix=fix
        ) from error
    if {name: value.shape for name, value in tensors.items()} != _SHAPES:
        raise DamagedModelError("these are no weights of the small generator", where=str(path), fix=fix)
    if metadata.get("generator") != teacher:
        raise DamagedModelError("the small generator was distilled from another generator", where=str(path), fix=fix)
    return SmallWeights(tensors, teacher, hashlib.sha256(content).hexdigest())
