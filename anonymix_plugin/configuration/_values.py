"""What a configuration says, once it is checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from anonymix_plugin.limits import ImageLimits


@dataclass(frozen=True)
class OwnFile:
    """A file of the user's in the place of a file of the registry.

    Attributes:
        path: Where it lies.
        sha256: Its SHA-256, 64 lower-case hex digits. It is not optional: a file that changes unnoticed would
            change every cancelable face with it.
    """

    path: Path
    sha256: str


@dataclass(frozen=True)
class Configuration:
    """The whole configuration; an absent file is the same as an empty one.

    Attributes:
        models: The user's own weights, by name of the model in the registry and of the file that each replaces.
        limits: How big and how small photos may be.
        busy_timeout: Seconds to wait for other writers of a keystore.
        keep_networks: Whether compiled networks are kept on disk for the next start.
    """

    models: Mapping[str, Mapping[str, OwnFile]] = field(default_factory=dict)
    limits: ImageLimits = field(default_factory=ImageLimits)
    busy_timeout: float = 10.0
    keep_networks: bool = True

    def replacements(self, name: str) -> Mapping[str, OwnFile]:
        """The user's files for a model, by name of the file that each one replaces."""
        return self.models.get(name, {})
