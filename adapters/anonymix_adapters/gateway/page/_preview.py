"""What a rotation will do to a face: today's key beside one that nobody will ever have again."""

from __future__ import annotations

import base64
import secrets
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Protocol

from anonymix_adapters.interceptor import FaceMixer
from anonymix_keystore import KeyState, SubjectKey, UnknownSubjectError
from anonymix_plugin.images import encode_cancelable
from anonymix_plugin.keys import KeySource
from anonymix_plugin.values import CancelableFace

_KEY_BYTES = 32


class PageMixer(FaceMixer, Protocol):
    """What the page asks of a mixer; `anonymix_plugin.Anonymixer` meets it."""

    def with_keystore(self, keystore: KeySource) -> Any:
        """The same mixer over other keys."""
        ...


@dataclass(frozen=True)
class Preview:
    """Two cancelable faces of one photo.

    Attributes:
        subject: Whose; "" for the gallery key.
        scope: The scope.
        today: A JPEG file in Base64, under the key in use; "" where none was ever issued.
        version: The version of that key; 0 where there is none.
        next: The same under a key that was drawn for this preview and is gone.
    """

    subject: str
    scope: str
    today: str
    version: int
    next: str


def preview(mixer: PageMixer, photo: bytes, subject: str, scope: str) -> Preview:
    """Draw a photo under the key in use and under a new one; nothing is issued, enrolled or recorded.

    The next key does not exist before the rotation: keys are random. So another random key stands for it.

    Args:
        mixer: The gateway's mixer.
        photo: The photo's file.
        subject: Whose key; "" for the gallery key.
        scope: The scope.

    Raises:
        PhotoError: The photo can't be used.
        KeystoreError: The key is revoked or retired, or its reference can't be read.
    """
    today, version = "", 0
    if _has_key(mixer.keystore, subject, scope):
        face = mixer.protect(photo, subject=subject or None, scope=scope)
        today, version = _jpeg(face), face.key_version
    # Closing the other mixer forgets what it derived from the key.
    with closing(_Passing(version + 1)) as keys, closing(mixer.with_keystore(keys)) as other:
        after = other.protect(photo, subject=subject or None, scope=scope)
    return Preview(subject, scope, today, version, _jpeg(after))


def _has_key(keystore: Any, subject: str, scope: str) -> bool:
    try:
        (keystore.history(subject, scope) if subject else keystore.gallery_history(scope))
    except UnknownSubjectError:
        return False
    return True


def _jpeg(face: CancelableFace) -> str:
    return base64.b64encode(encode_cancelable(face, "JPEG")).decode()


class _Passing:
    """One random key for whoever asks, which is nowhere but here.

    Args:
        version: What the version is called.
    """

    def __init__(self, version: int) -> None:
        self._version, self._material = version, secrets.token_bytes(_KEY_BYTES)

    def current(self, subject: str, scope: str = "default") -> SubjectKey:
        """The key."""
        return SubjectKey(subject, scope, self._version, KeyState.ACTIVE, self._material)

    def current_or_issue(self, subject: str, scope: str = "default") -> SubjectKey:
        """The key."""
        return self.current(subject, scope)

    def at(self, subject: str, version: int, scope: str = "default") -> SubjectKey:
        """The key, whatever the version."""
        del version
        return self.current(subject, scope)

    def gallery(self, scope: str = "default") -> SubjectKey:
        """The key, as that of a gallery."""
        return self.current("", scope)

    def close(self) -> None:
        """Forget the key."""
        self._material = b""
