"""The mixer, as users call it."""

from __future__ import annotations

from pathlib import Path

from anonymix_lab.protections._values import KeyName
from anonymix_plugin.anonymixer import Anonymixer
from anonymix_plugin.errors import UsageError
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


class GuidedProtection:
    """Anonymix where the keystore keeps references: the subject is enrolled first, and the photo claims it.

    An enrolment is named by its photo, so that a person who is enrolled from several photos in turn has as
    many subjects, and under keys of their own as many keys.

    Args:
        mixer: Opened over `SeededKeys`, on the fast method.
        seed: Seed of those keys.
    """

    keyed = True
    name, title = "anonymix", "Anonymix, guided"

    def __init__(self, mixer: Anonymixer, seed: int) -> None:
        self._mixer = mixer
        self._enrolled: set[tuple[str, str]] = set()
        chosen = "" if mixer.face_policy == "largest" else f" {mixer.face_policy}"
        self.fingerprint = f"guided {mixer.guided_fingerprint}{chosen} keys {seed}"

    def protect(self, photo: Path | bytes, key: KeyName) -> Pixels:
        """See `Protection.protect`."""
        if key.enrolled is None:
            raise UsageError("a guided face needs a subject that is enrolled", where=key.scope)
        subject = f"{key.subject} by {key.enrolled.sha256}"
        if (key.scope, subject) not in self._enrolled:
            enrolled = key.enrolled.source
            entry = self._mixer.protect(enrolled, subject=subject, scope=key.scope, enrol=True)
            self._enrolled.add((key.scope, subject))
            if photo == enrolled:
                return entry.pixels
        return self._mixer.protect(photo, subject=subject, scope=key.scope).pixels
