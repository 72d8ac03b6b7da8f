"""Sealed references in bulk work, as the driver sees them.

The first photo of the source that enrols a subject makes the reference, and all others are guided by it, as where one
process does everything. Until that photo is done, the subject's photos in other workers' blocks wait.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from operator import itemgetter
from typing import Final

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from anonymix_keystore import KeyRevokedError, OutdatedReferenceError, SubjectKey
from anonymix_plugin.bulk._pool import Task
from anonymix_plugin.bulk._sealed import Made, Name, Secrets
from anonymix_plugin.bulk._values import Block, Mixer
from anonymix_plugin.guiding import KeepsReferences
from anonymix_plugin.keys import KeySource


class References:
    """Gives workers the references of their subjects, and keeps those that they make.

    Args:
        keys: Where references are, if it keeps any.
    """

    def __init__(self, keys: KeySource) -> None:
        self._book = keys.references if isinstance(keys, KeepsReferences) else None
        self._private = X25519PrivateKey.generate()
        self._reply: Final = self._private.public_key().public_bytes_raw()
        self._makers: dict[Name, Task] = {}
        self._waiting: dict[Name, list[tuple[Block, int]]] = {}
        self._overtaken: set[tuple[Name, Task]] = set()

    @property
    def waiting(self) -> int:
        """How many rows wait for a reference."""
        return sum(map(len, self._waiting.values()))

    def secrets(self) -> Secrets:
        """What a worker gets to know, with nothing in it yet."""
        return Secrets(reply=self._reply)

    def has_to_wait(self, key: SubjectKey, task: Task, place: int) -> bool:
        """Whether another task makes the reference of a row, which is then handed out again by `freed`."""
        name = (key.subject, key.scope)
        if self._makers.get(name, task) is task:
            return False
        self._waiting.setdefault(name, []).append((task.block, place))
        return True

    def read(self, key: SubjectKey, mixer: Mixer, known: Secrets, *, enrols: bool) -> None:
        """Put a subject's reference among the secrets of a task.

        Raises:
            OriginalsError: The scope keeps references, and the second secret is locked.
            OutdatedReferenceError: A probe's reference was made for another mixer.
        """
        name, book = (key.subject, key.scope), self._book
        if book is None or not key.subject or not mixer.guided or name in known.references:
            return
        if key.scope not in known.scopes:
            known.scopes[key.scope] = book.enabled(key.scope)
        if not known.scopes[key.scope]:
            return
        try:
            known.references[name] = book.read(key, fingerprint=mixer.guided, subspace=mixer.subspace)
        except OutdatedReferenceError:
            if not enrols:
                raise
            known.references[name] = None

    def begin(self, key: SubjectKey, task: Task, known: Secrets) -> None:
        """A row that enrols is handed out: it makes the reference, if its subject has none."""
        name = (key.subject, key.scope)
        if known.references.get(name, b"") is None:
            self._makers[name] = task

    def keep(self, sealed: str, key: SubjectKey, task: Task, mixer: Mixer) -> bool:
        """Keep the reference that came with a face, if there was one.

        Returns:
            Whether the face can stay: not where somebody else enrolled the subject in the meantime.

        Raises:
            OriginalsError: The scope keeps no references any more, or the second secret is locked.
        """
        name = (key.subject, key.scope)
        if sealed and self._book is not None:
            made = Made.opened(bytes.fromhex(sealed), self._private)
            if (made.name, made.version) != (name, key.version):
                raise RuntimeError("a worker made a reference for somebody else")
            try:
                how = {"fingerprint": mixer.guided, "subspace": mixer.subspace}
                if not self._book.keep(key, made.data, **how, replace=made.replace):
                    self._overtaken.add((name, task))
            except KeyRevokedError:
                pass  # the face is outdated, too
        return (name, task) not in self._overtaken

    def freed(self, task: Task) -> Iterator[Task]:
        """The rows that waited for a task, which has ended."""
        for name in [name for name, maker in self._makers.items() if maker is task]:
            del self._makers[name]
            self._overtaken.discard((name, task))
            for block, rows in groupby(self._waiting.pop(name, ()), itemgetter(0)):
                yield Task(block, [place for _, place in rows])
