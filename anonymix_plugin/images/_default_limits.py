"""The limits of whoever gives none: the program's, or else those of the configuration file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from anonymix_plugin.configuration import load_configuration
from anonymix_plugin.limits import ImageLimits

_chosen: ImageLimits | None = None


def default_limits() -> ImageLimits:
    """The limits of whoever gives none: those of `limits_for_all`, or else of the configuration file.

    Raises:
        ConfigurationError: The configuration file is not valid.
    """
    if _chosen is not None:
        return _chosen
    return load_configuration().limits


@contextmanager
def limits_for_all(limits: ImageLimits) -> Iterator[None]:
    """Inside, `limits` are the default of the whole process, in every thread: for a program's own start."""
    global _chosen  # noqa: PLW0603 - that is what it is for
    before, _chosen = _chosen, limits
    try:
        yield
    finally:
        _chosen = before
