"""What the parts of the keystore's public class share."""

from __future__ import annotations

from anonymix_keystore import _lifecycle
from anonymix_keystore._core import Core
from anonymix_keystore._lifecycle import Who


class Base:
    """Holds the unlocked store.

    Args:
        core: The unlocked store.
    """

    def __init__(self, core: Core) -> None:
        self._core = core

    def _who(self, subject: str, scope: str) -> Who:
        return _lifecycle.subject_in(self._core.keys, subject, scope)
