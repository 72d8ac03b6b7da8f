"""A mixer that remembers what it made: many adapters are tried on the same people under the same keys."""

from __future__ import annotations

import hashlib
import threading
from typing import Any

from anonymix_adapters.interceptor import MixerAround
from anonymix_keystore import Keystore
from anonymix_plugin import Anonymixer, AnonymixError, CancelableFace
from anonymix_plugin.first_keys import first_or_current
from anonymix_plugin.images import ChannelOrder, decode_photo
from anonymix_plugin.keys import KeySource


class RememberingMixer(MixerAround):
    """The real mixer; the same photo under the same living key is not drawn again."""

    def __init__(self, mixer: Anonymixer, store: KeySource) -> None:
        super().__init__(mixer)
        self._store = store
        self._made: dict[tuple[Any, ...], CancelableFace] = {}
        self._lock = threading.Lock()
        self.calls = 0

    def over(self, store: Keystore) -> RememberingMixer:
        """The same over another store; what one remembers, both know."""
        other = RememberingMixer(self.mixer.with_keystore(store), store)
        other._made, other._lock = self._made, self._lock
        return other

    @property
    def keystore(self) -> Any:
        return self._store

    def protect(self, image: Any, **how: Any) -> CancelableFace:
        def make() -> CancelableFace:
            self.calls += 1
            made: CancelableFace = self.mixer.protect(image, **how)
            return made

        content = None if hasattr(image, "read") else _content(image, how.get("channel_order", "rgb"))
        if content is None or how.get("version") is not None:
            return make()
        subject, scope = how.get("subject"), how.get("scope", "default")
        if subject is None:
            key = self._store.gallery(scope)
        elif how.get("enrol", False):
            key = first_or_current(self._store, subject, scope)
        else:
            key = self._store.current(subject, scope)
        name = (content, key.material)
        with self._lock:
            known = self._made.get(name)
        if known is None:
            known = make()
            with self._lock:
                self._made[name] = known
        return known


def _content(image: Any, order: ChannelOrder) -> bytes | None:
    """The same bytes for the same photo, given as a file or as an array; None leaves it to the mixer."""
    try:
        pixels = decode_photo(image, channel_order=order).pixels
    except (AnonymixError, TypeError):
        return None
    return hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).digest()
