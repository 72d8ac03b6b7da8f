"""What tests of the demo have in common: a run, and the secrets that were in use during it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from anonymix_lab.demo.values import Person


@dataclass(frozen=True)
class Run:
    """What a run of the demo left behind.

    Attributes:
        code: The exit code.
        folder: The output folder.
        printed: Standard output.
        page: The page's text.
        facts: The summary.
        secrets: The passphrase and all key material that was in use.
        people: The sample people.
        seconds: Processor time that it took.
    """

    code: int
    folder: Path
    printed: str
    page: str
    facts: dict[str, Any]
    secrets: tuple[bytes, ...]
    people: tuple[Person, ...]
    seconds: float


def remember_secrets(patch: pytest.MonkeyPatch) -> list[bytes]:
    """Note every passphrase and every key that passes by."""
    from anonymix_lab.demo import story
    from anonymix_plugin import production

    seen: list[bytes] = []

    class Unlock(story.PassphraseUnlock):
        def __init__(self, passphrase: str | bytes) -> None:
            seen.append(passphrase if isinstance(passphrase, bytes) else passphrase.encode())
            super().__init__(passphrase)

    class Schedule(production.KeySchedule):
        __slots__ = ()

        def __init__(self, material: bytes) -> None:
            seen.append(bytes(material))
            super().__init__(material)

    patch.setattr(story, "PassphraseUnlock", Unlock)
    patch.setattr(production, "KeySchedule", Schedule)
    return seen


def remember_people(patch: pytest.MonkeyPatch) -> list[Person]:
    """Note every sample person."""
    from anonymix_lab.demo import story

    seen: list[Person] = []
    draw = story.sample_people

    def drawn(*args: Any, **options: Any) -> Iterator[Person]:
        for person in draw(*args, **options):
            seen.append(person)
            yield person

    patch.setattr(story, "sample_people", drawn)
    return seen
