"""Where things lie unless the user says so; a user without a home (a container's) has no such places."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import platformdirs

from anonymix_plugin.errors import ConfigurationError


def named_by(variable: str) -> Path | None:
    """The place that an environment variable names, or None; its line end counts for nothing.

    Raises:
        ConfigurationError: It begins with ~, and this user has no home.
    """
    named = os.environ.get(variable, "").rstrip("\r\n")
    return expanded(Path(named), variable).absolute() if named else None


def expanded(path: Path, where: str) -> Path:
    """A path with ~ replaced by the user's home.

    Raises:
        ConfigurationError: There is none.
    """
    try:
        return path.expanduser()
    except RuntimeError:
        raise ConfigurationError(
            "~ stands for a home folder, and this user has none", where=where, fix="write the whole path"
        ) from None


def by_default(find: Callable[[], Path]) -> Path | None:
    """The platform's own place, or None where the user has no home.

    Args:
        find: A function of platformdirs.
    """
    try:
        place = find()
    except (RuntimeError, KeyError, OSError):
        return None
    return place if place.is_absolute() else None


def needed(place: Path | None, variable: str, what: str) -> Path:
    """A place that is there.

    Raises:
        ConfigurationError: There is none; the error names the variable that says where it is.
    """
    if place is None:
        raise ConfigurationError(
            f"this user has no home folder, and nothing says where {what}", fix=f"set {variable} to a path"
        )
    return place


def home() -> Path:
    """Folder of everything that Anonymix keeps for itself: `ANONYMIX_HOME`, or the platform's cache.

    Raises:
        ConfigurationError: The variable is not set, and the user has no home.
    """
    own = named_by("ANONYMIX_HOME") or by_default(lambda: platformdirs.user_cache_path("anonymix", False))
    return needed(own, "ANONYMIX_HOME", "weights lie")
