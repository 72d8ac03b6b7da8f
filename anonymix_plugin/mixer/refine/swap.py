"""The mix of FaceAnonyMixer (arXiv 2508.05636): whole groups of layers from the photo or from the key.

The paper and the authors' code say different things, and both are kept here:

    "key-identity" (the paper)   z_p = [coarse of the photo, identity of the key, fine of the photo]
    "key-coarse"   (their code)  z_p = [coarse of the key, identity of the photo, fine of the photo]

The second one starts at the real person and leaves it to the optimisation to move away. In both, the fine
layers are a verbatim copy of the photo's code: `FastMixer` projects out of them what tells people apart.
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias, get_args

import numpy as np

from anonymix_plugin.errors import BadArrayError, UsageError
from anonymix_plugin.generator import Generator, styles_of
from anonymix_plugin.mixer.key_schedule import KeySchedule
from anonymix_plugin.values import Floats

SwapScheme: TypeAlias = Literal["key-identity", "key-coarse"]
"""Which group of layers comes from the key."""

PAPER_TRUNCATION: Final = 0.7

_FROM_KEY: Final = {"key-identity": "identity", "key-coarse": "coarse"}


class LayerSwap:
    """Mixes by swapping one group of layers.

    Args:
        generator: What will draw the code.
        centre: (512,) float32, mean style vector of the generator.
        scheme: Which group comes from the key.
        truncation: Of the key's code towards the centre, 0..1.

    Raises:
        UsageError: There is no such scheme, or the truncation is out of range.
    """

    def __init__(
        self,
        generator: Generator,
        centre: Floats,
        scheme: SwapScheme = "key-identity",
        truncation: float = PAPER_TRUNCATION,
    ) -> None:
        if scheme not in get_args(SwapScheme):
            raise UsageError(f"there is no scheme {scheme!r}", fix=f"use one of {get_args(SwapScheme)}")
        if not 0 <= truncation <= 1:
            raise UsageError(f"{truncation} is out of range", where="truncation", fix="use 0 to 1")
        self._generator, self._centre = generator, centre
        self.scheme, self.truncation = scheme, truncation

    def describe(self) -> dict[str, str | float]:
        """Return the settings in a form that JSON and the fingerprint take."""
        return {"start": "swap", "scheme": self.scheme, "truncation": self.truncation}

    def mix(self, own: Floats, schedule: KeySchedule) -> Floats:
        """Make the W+ code of one face.

        Args:
            own: (layers.total, 512) float32, the photo's own code.
            schedule: Streams of the key.

        Returns:
            (layers.total, 512) float32.

        Raises:
            BadArrayError: The code has another shape or dtype.
        """
        layers = self._generator.layers
        shape = (layers.total, self._generator.w_dim)
        if own.shape != shape or own.dtype != np.float32:
            raise BadArrayError(f"a W+ code is {shape} float32, not {own.shape} {own.dtype}", where="own")
        noise = schedule.gaussian("synthetic code", self._generator.z_dim).astype(np.float32)
        style = styles_of(self._generator, noise[None])[0]
        swapped = getattr(layers, _FROM_KEY[self.scheme])
        code = own.copy()
        code[swapped.start : swapped.stop] = self._centre + self.truncation * (style - self._centre)
        return code
