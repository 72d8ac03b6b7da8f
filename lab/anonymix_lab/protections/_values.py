"""What all protections have in common."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from anonymix_lab.data import Sample
from anonymix_lab.data.keys import SHARED_SCOPE
from anonymix_plugin.values import Pixels


@dataclass(frozen=True)
class KeyName:
    """Which of the evaluation's keys, and which reference. Both stay with the key source.

    Attributes:
        scope: "own", "elsewhere", "everybody 1", "guided", ...
        subject: Whose.
        version: 1, 2, ...
        enrolled: What the subject's reference was made from; None where there is none.
    """

    scope: str
    subject: str
    version: int = 1
    enrolled: Sample | None = None

    def canonical(self) -> str:
        """A text that two names share if and only if they name the same key."""
        owner = "" if self.scope.startswith(SHARED_SCOPE) else self.subject
        reference = "" if self.enrolled is None else f"\0reference {self.enrolled.sha256}"
        return f"{self.scope}\0{owner}\0{self.version}{reference}"


@runtime_checkable
class Protection(Protocol):
    """Makes another picture of a photo and a key. Called from several threads at once.

    Attributes:
        name: Short name.
        title: What it is called in a report.
        fingerprint: Everything that its pictures depend on besides photo and key.
        keyed: Whether the key has a say; without it, a photo is protected once for all keys.
    """

    @property
    def name(self) -> str: ...
    @property
    def title(self) -> str: ...
    @property
    def fingerprint(self) -> str: ...
    @property
    def keyed(self) -> bool: ...

    def protect(self, photo: Path | bytes, key: KeyName) -> Pixels:
        """Protect a photo.

        Args:
            photo: The path, or the bytes, of an image file.
            key: Under which key.

        Returns:
            (height, width, 3) uint8 RGB.

        Raises:
            AnonymixError: It could not be protected; that counts as a failure to enrol.
        """
        ...
