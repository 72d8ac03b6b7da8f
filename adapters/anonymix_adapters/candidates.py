"""1:N search where each subject has a key of their own: every candidate's key is tried.

A search under a gallery key costs one face, whatever the size of the gallery. This one costs one face for
each candidate, and each of them is one more chance of a false match: at thresholds for photos, FMR .1 %, and
with sealed references, somebody is accepted for 3 to 5 of 100 people who are no candidates where ten are tried,
and for 16 to 25 where fifty are (docs/results.md). It is for small galleries, and for lists that something else
has narrowed down.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from unicodedata import normalize

from anonymix_adapters.protocol import Answer
from anonymix_keystore import KeyRevokedError, UnknownSubjectError
from anonymix_plugin.errors import UsageError
from anonymix_plugin.images import PhotoSource

MOST = 50


@dataclass(frozen=True)
class Candidates:
    """What a search over candidates found.

    Attributes:
        accepted: Those whom the back end accepts, (subject, answer), in the order of the list.
        tried: How many were tried.
        keyless: Those who have no usable key, and so were not.
        seconds: What it cost.
    """

    accepted: tuple[tuple[str, Answer], ...]
    tried: int
    keyless: tuple[str, ...]
    seconds: float

    @property
    def subject(self) -> str | None:
        """The one who is accepted; None for nobody, and for more than one."""
        return self.accepted[0][0] if len(self.accepted) == 1 else None


def search_candidates(
    verify: Callable[[str, PhotoSource], Answer],
    photo: PhotoSource,
    candidates: Sequence[str],
    *,
    most: int = MOST,
) -> Candidates:
    """Hold a photo against each candidate under the candidate's own key.

    Args:
        verify: Holds a photo against a subject through a protected client.
        photo: The photo; no file object, which could be read once only.
        candidates: Subjects; one who is listed twice is tried once.
        most: More candidates than these are refused.

    Raises:
        UsageError: There are too many, or none, or they are one text.
        PhotoError: The photo can't be used.
    """
    if isinstance(candidates, str):
        raise UsageError("one text is no list of candidates", where="candidates", fix="give [subject]")
    candidates = list({normalize("NFC", str(subject)): subject for subject in candidates}.values())
    if not 0 < len(candidates) <= most:
        raise UsageError(
            f"{len(candidates)} candidates, where 1 to {most} are tried one by one",
            where="candidates",
            fix="enrol under a gallery key for larger galleries (keys='gallery')",
        )
    if hasattr(photo, "read"):
        raise UsageError("a file object can be read once only", where="photo", fix="give its bytes")
    started = time.perf_counter()
    accepted: list[tuple[str, Answer]] = []
    keyless: list[str] = []
    for subject in candidates:
        try:
            answer = verify(subject, photo)
        except (KeyRevokedError, UnknownSubjectError):
            keyless.append(subject)
            continue
        if answer.accepted:
            accepted.append((subject, answer))
    tried = len(candidates) - len(keyless)
    return Candidates(tuple(accepted), tried, tuple(keyless), time.perf_counter() - started)
