"""Protections: whatever makes another picture of a photo and a key, Anonymix and its baselines alike."""

from anonymix_lab.protections._mixer import GuidedProtection, MixerProtection
from anonymix_lab.protections._plain import Blur, Pixelation
from anonymix_lab.protections._swap import LayerSwap
from anonymix_lab.protections._values import KeyName, Protection

__all__ = [
    "Blur",
    "GuidedProtection",
    "KeyName",
    "LayerSwap",
    "MixerProtection",
    "Pixelation",
    "Protection",
]
