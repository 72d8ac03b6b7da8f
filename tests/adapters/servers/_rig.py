"""What the tests of all commercial APIs share, made once a session: recognition, faces, photos, stores."""

from __future__ import annotations

import hashlib
import io
import runpy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any

import pytest
from photo_folders import portraits
from PIL import Image

from anonymix_adapters.testing.conformance import Person, Trial
from anonymix_keystore import Argon2Cost, Keystore, PassphraseUnlock
from anonymix_lab.data.keys import SeededKeys
from anonymix_plugin import Anonymixer, BadArrayError, CancelableFace
from anonymix_plugin.claims import Claim, claimed
from anonymix_plugin.first_keys import first_or_current
from anonymix_plugin.images import ChannelOrder
from servers._recognition import Recognition
from servers._witness import Witness

WEIGHTS = ("mobilestylegan", "yunet", "arcface-mbf", "sface", "facenet")
SECRET = "swordfish and chips"

ALICE, BOB = "001", "002"


def photo(person: str, mood: str = "neutral") -> Path:
    """A photo of the first person, the second, ..."""
    return portraits() / f"{person}_{mood}.jpg"


@cache
def recognition() -> Recognition:
    """The recogniser behind all local back ends."""
    return Recognition()


@cache
def witness() -> Witness:
    """Knows the photos of Alice and Bob."""
    moods = ("neutral", "smiling")
    return Witness(recognition(), [photo(person, mood) for person in (ALICE, BOB) for mood in moods])


@cache
def _core() -> Anonymixer:
    return Anonymixer(SeededKeys(11))


class SessionMixer:
    """The real mixer, with each face drawn once a session.

    Which key is used, and whether there is one, is the keystore's decision; its material is made from a seed,
    so that what a recogniser says about a face is the same in every run.

    Args:
        keystore: A keystore of the test's own.
    """

    _drawn: dict[tuple[object, ...], CancelableFace] = {}  # noqa: RUF012 - shared on purpose
    _lock = Lock()

    def __init__(self, keystore: Keystore) -> None:
        self.keystore = keystore
        self.drawn = 0

    @property
    def fingerprint(self) -> str:
        return _core().fingerprint

    def subject(self, subject: str, *, scope: str | None = None, enrol: bool = False) -> Any:
        """See `Anonymixer.subject`."""
        return claimed(Claim(subject, scope, enrol))

    def protect(
        self,
        image: Any,
        *,
        subject: str | None = None,
        scope: str = "default",
        version: int | None = None,
        enrol: bool = False,
        channel_order: ChannelOrder = "rgb",
    ) -> CancelableFace:
        """See `Anonymixer.protect`."""
        if subject is None:
            key = self.keystore.gallery(scope)
        elif version is not None:
            key = self.keystore.at(subject, version, scope)
        else:
            keys = self.keystore
            key = first_or_current(keys, subject, scope) if enrol else keys.current(subject, scope)
        owner = subject or "everybody's gallery"
        content = image.read_bytes() if isinstance(image, Path) else image
        if not isinstance(content, bytes):
            raise BadArrayError(f"a {type(image).__name__} is not remembered")
        name = (hashlib.sha256(content).digest(), owner, scope, key.version)
        with self._lock:
            self.drawn += 1
            if name not in self._drawn:
                self._drawn[name] = _core().protect(
                    content, subject=owner, scope=scope, version=key.version, channel_order=channel_order
                )
            return replace(self._drawn[name], subject=key.subject)


@contextmanager
def store(path: Path) -> Iterator[Keystore]:
    """A keystore that is cheap to open."""
    cheap = Argon2Cost(memory_kib=8_192, passes=1, lanes=1)
    with Keystore.create(path, PassphraseUnlock(SECRET, cost=cheap)) as made:
        yield made


@contextmanager
def session_mixer(folder: Path, need: Callable[[str], Path] | None = None) -> Iterator[SessionMixer]:
    """A mixer over an empty keystore; `need` skips where weights are missing."""
    for name in WEIGHTS if need else ():
        need(name)
    photo(ALICE)
    with store(folder / "keystore.db") as keystore:
        yield SessionMixer(keystore)


def blank() -> bytes:
    """A picture without a face."""
    stream = io.BytesIO()
    Image.new("RGB", (300, 300), (120, 130, 140)).save(stream, "PNG")
    return stream.getvalue()


def trial(adapter: Any, mixer: Any) -> Trial:
    """An adapter on trial with three people; keys from a seed leave no room for chance."""
    people = [Person(name, photo(name), photo(name, "smiling")) for name in (ALICE, BOB, "003")]
    # Faces under two keys match by chance in up to 4 % at thresholds for photos (docs/results.md): after a rotation,
    # which has a tolerance of 0.1 more, one of three may. Of strangers who claim a name, none of three may.
    return Trial(adapter, mixer, people, genuine=1.0, impostors=0.25)


def run_example(name: str, said: pytest.CaptureFixture[str]) -> None:
    """Run an example as it stands; it tells Anna from Ben, and the old key from the new."""
    example = Path(__file__).resolve().parents[3] / "examples" / f"adapter_{name}.py"
    assert len(example.read_text(encoding="utf-8").splitlines()) < 40
    runpy.run_path(str(example), run_name="__main__")
    scores = dict(line.split(":", 1) for line in said.readouterr().out.splitlines() if ":" in line)
    again, stranger, renewed = (float(scores[key]) for key in ("anna again", "ben as anna", "new key"))
    assert again > max(stranger, renewed)
