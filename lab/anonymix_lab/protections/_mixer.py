"""The mixer, as users call it."""

from __future__ import annotations

from pathlib import Path

from anonymix_lab.protections._values import KeyName
from anonymix_plugin.anonymixer import Anonymixer
from anonymix_plugin.values import Pixels


class MixerProtection:
    """Anonymix: `Anonymixer.protect` from file to cancelable face, on either method.

    Args:
        mixer: Opened over `SeededKeys`.
        seed: Seed of those keys.
        title: What it is called in a report.
    """

    keyed = True

    def __init__(self, mixer: Anonymixer, seed: int, *, name: str = "anonymix", title: str = "Anonymix") -> None:
        self._mixer = mixer
        self.name, self.title = name, title
        chosen = "" if mixer.face_policy == "largest" else f" {mixer.face_policy}"
        self.fingerprint = f"{mixer.fingerprint}{chosen} keys {seed}"

    def protect(self, photo: Path | bytes, key: KeyName) -> Pixels:
        """See `Protection.protect`."""
        face = self._mixer.protect(photo, subject=key.subject, scope=key.scope, version=key.version)
        return face.pixels
