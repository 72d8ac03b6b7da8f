"""The refine method's settings that have a name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

from anonymix_plugin.mixer.refine.inversion import InversionSettings
from anonymix_plugin.mixer.refine.refiner import RefineSettings
from anonymix_plugin.mixer.refine.swap import SwapScheme

PresetName = Literal["anchored", "quick", "paper", "paper-code"]


@dataclass(frozen=True)
class RefinePreset:
    """Where the optimisation starts, and how it goes on.

    Attributes:
        settings: Losses and schedule.
        swap: The paper's layer scheme to start from; None starts from the fast method's code.
        inversion: How the photo's own code is found for a layer scheme.
        whole: Whether every layer moves that the mixer gives to a person, and not the identity group alone.
    """

    settings: RefineSettings
    swap: SwapScheme | None = None
    inversion: InversionSettings | None = None
    whole: bool = False


PRESETS: Final[Mapping[str, RefinePreset]] = MappingProxyType(
    {
        # The paper's losses and schedule from the fast method's code, towards an anchor in reach of faces.
        "anchored": RefinePreset(RefineSettings()),
        # Few, larger steps. The fast method's face is nobody's already, so that L_anon has little to say: at
        # the paper's weight it pushes two photos of a person apart, each away from its own photo.
        "quick": RefinePreset(
            RefineSettings(
                steps=8,
                learning_rate=0.03,
                anonymity=1.0,
                decay_at=(0.5, 0.75),
                augmentations=1,
                realign_every=4,
                patience=0,
            ),
            whole=True,
        ),
        # FaceAnonyMixer as the paper has it, and as the authors' code has it; one photo at a time.
        "paper": RefinePreset(RefineSettings(anchored=False, patience=0), "key-identity", InversionSettings()),
        "paper-code": RefinePreset(RefineSettings(anchored=False, patience=0), "key-coarse", InversionSettings()),
    }
)
