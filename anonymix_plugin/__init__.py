"""Anonymix: cancelable faces in front of any face recogniser.

Example:
    >>> from anonymix_plugin import Anonymixer
    >>> with Anonymixer.open("keystore.db") as mixer:  # doctest: +SKIP
    ...     face = mixer.protect("alice.jpg", subject="alice")
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from anonymix_plugin.by_need import imported_by_need
from anonymix_plugin.errors import (
    AlreadyProtectedError,
    AnonymixError,
    BadArrayError,
    CheckpointError,
    ConfigurationError,
    DamagedModelError,
    DifferentPeopleError,
    DownloadError,
    ImageTooLargeError,
    ImageTooSmallError,
    KeyUnavailableError,
    LowQualityError,
    MissingModelError,
    MissingPackageError,
    ModelError,
    NoFaceError,
    OutputError,
    PhotoError,
    SeveralFacesError,
    UnreadableImageError,
    UsageError,
)
from anonymix_plugin.values import CancelableFace

if TYPE_CHECKING:
    from anonymix_plugin.anonymixer import Anonymixer
    from anonymix_plugin.images import ImageLimits, Marker, read_marker, save_cancelable
    from anonymix_plugin.mixer.guide import GuidingCurve
    from anonymix_plugin.mixer.policy import AttributePolicy, MixingPolicy
    from anonymix_plugin.options import MixerOptions
    from anonymix_plugin.production import Outcome, PhotoRequest

__all__ = [
    "AlreadyProtectedError",
    "AnonymixError",
    "Anonymixer",
    "AttributePolicy",
    "BadArrayError",
    "CancelableFace",
    "CheckpointError",
    "ConfigurationError",
    "DamagedModelError",
    "DifferentPeopleError",
    "DownloadError",
    "GuidingCurve",
    "ImageLimits",
    "ImageTooLargeError",
    "ImageTooSmallError",
    "KeyUnavailableError",
    "LowQualityError",
    "Marker",
    "MissingModelError",
    "MissingPackageError",
    "MixerOptions",
    "MixingPolicy",
    "ModelError",
    "NoFaceError",
    "Outcome",
    "OutputError",
    "PhotoError",
    "PhotoRequest",
    "SeveralFacesError",
    "UnreadableImageError",
    "UsageError",
    "read_marker",
    "save_cancelable",
]

__version__ = "0.1.0"

# Loaded when they are first asked for: torch takes seconds to import, and an error type or `anonymix --help`
# should not have to wait for it.
__getattr__ = imported_by_need(
    __name__,
    {
        "Anonymixer": "anonymix_plugin.anonymixer",
        "MixerOptions": "anonymix_plugin.options",
        "Outcome": "anonymix_plugin.production",
        "PhotoRequest": "anonymix_plugin.production",
        "ImageLimits": "anonymix_plugin.images",
        "Marker": "anonymix_plugin.images",
        "read_marker": "anonymix_plugin.images",
        "save_cancelable": "anonymix_plugin.images",
        "AttributePolicy": "anonymix_plugin.mixer.policy",
        "GuidingCurve": "anonymix_plugin.mixer.guide",
        "MixingPolicy": "anonymix_plugin.mixer.policy",
    },
)


def __dir__() -> list[str]:
    return sorted(__all__)
