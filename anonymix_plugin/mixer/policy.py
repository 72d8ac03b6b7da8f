"""What of the photo is kept, and how strongly person and key speak in the face that is made."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from enum import StrEnum

from anonymix_plugin.mixer.guide import GuidingCurve


class AttributePolicy(StrEnum):
    """How much of the photo's own latent code goes into the cancelable face.

    NONE keeps nothing: pose, light and background come from the key. POSE keeps the coarse layers (pose,
    outline of the head); FULL keeps the coarse and the fine layers (colour, light) as FaceAnonyMixer does.
    The more is kept, the more of the person comes along: `make figures` prints the price.
    """

    NONE = "none"
    POSE = "pose"
    FULL = "full"

    @property
    def keeps_coarse(self) -> bool:
        """Whether the coarse layers come from the photo."""
        return self is not AttributePolicy.NONE

    @property
    def keeps_fine(self) -> bool:
        """Whether the fine layers come from the photo."""
        return self is AttributePolicy.FULL


@dataclass(frozen=True)
class MixingPolicy:
    """All settings of the mixer that change the face; part of the mixer fingerprint.

    Attributes:
        attributes: What of the photo is kept.
        person: How far the person's keyed code moves the face, in multiples of what the map was fitted for.
        key: Truncation of the synthetic code that the key adds outside the person's dimensions, 0..1.
        kept: Share of the photo's own code in the layers that the attribute policy keeps, 0..1; the rest
            is the generator's mean face.
        guide: What becomes of the angle between a code and the subject's reference; without a sealed
            reference it has no say, and is no part of the fingerprint.
    """

    attributes: AttributePolicy = AttributePolicy.NONE
    person: float = 1.3
    key: float = 0.3
    kept: float = 0.8
    guide: GuidingCurve = field(default_factory=GuidingCurve)

    def describe(self, *, guided: bool = False) -> dict[str, str | float]:
        """Return the settings in a form that JSON and the fingerprint take.

        Args:
            guided: Whether a reference has a say, and with it the guiding curve.
        """
        settings = {name: value for name, value in asdict(self).items() if name != "guide"}
        if guided:
            settings |= {f"guide {name}": value for name, value in self.guide.describe().items()}
        return {name: str(value) if isinstance(value, str) else value for name, value in settings.items()}
