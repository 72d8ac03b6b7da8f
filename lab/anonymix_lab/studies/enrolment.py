"""Enrolment from one photo and from several: how well other photos match the face that was drawn.

Everybody shares a key. Without references, a probe is compared with all entries, its own person's and the
others'. With references, a probe claims somebody: it is drawn by that person's reference, and a stranger's
claim is drawn by the reference of the person whom he claims to be.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from anonymix_lab.data.keys import GUIDED_SCOPE, SHARED_SCOPE
from anonymix_lab.matchers import Panel
from anonymix_lab.metrics.error_rates import eer, fnmr_at_fmr
from anonymix_plugin.anonymixer import Anonymixer
from anonymix_plugin.errors import PhotoError, UsageError
from anonymix_plugin.values import CancelableFace, Floats
from anonymix_plugin.verification import drawn

Array = npt.NDArray[np.float64]
_PROBES = 3


@dataclass(frozen=True)
class EnrolmentFigures:
    """Figures of one matcher.

    Attributes:
        matcher: Its name.
        photos: From how many photos people are enrolled.
        people: How many of them.
        genuine: Comparisons of one person.
        impostor: Comparisons of two.
        eer: Equal error rate.
        fnmr: FNMR where the FMR is 1 %.
        refused: Genuine comparisons below the matcher's threshold for photos.
        accepted: Comparisons of strangers at or above it.
    """

    matcher: str
    photos: int
    people: int
    genuine: int
    impostor: int
    eer: float
    fnmr: float
    refused: float
    accepted: float


def measure_enrolment(
    people: Sequence[Sequence[Path]],
    mixer: Anonymixer,
    panel: Panel,
    counts: Sequence[int],
    thresholds: Mapping[str, float],
    *,
    guided: bool = False,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> list[EnrolmentFigures]:
    """Enrol people from several counts of photos under one key, and compare.

    Args:
        people: Photos of each person: as many as the largest count, and three more, which are the probes.
        mixer: Opened over `SeededKeys`.
        panel: Who compares.
        counts: From how many photos.
        thresholds: Matcher -> its threshold for photos.
        guided: Whether references are kept.
        progress: Called with faces done and all faces.

    Raises:
        UsageError: There are fewer than two people, or one has too few photos.
    """
    most = max(counts)
    if len(people) < 2 or min(map(len, people)) < most + _PROBES:
        raise UsageError(
            f"{most + _PROBES} photos of each of two people or more are needed", where="people", fix="enrol from fewer"
        )
    scope = f"{SHARED_SCOPE} {GUIDED_SCOPE}" if guided else SHARED_SCOPE
    names, done = list(panel.dims), 0
    total = len(people) * (len(counts) * (1 + 2 * _PROBES) if guided else len(counts) + _PROBES)

    def look(make: Callable[[], CancelableFace]) -> dict[str, Floats | None]:
        nonlocal done
        done += 1
        progress(done, total)
        try:
            return panel.look(drawn(make()), names, "largest")
        except PhotoError:
            return dict.fromkeys(names)

    def entry(person: int, count: int) -> dict[str, Floats | None]:
        photos = tuple(people[person][:count])
        return look(lambda: mixer.protect(photos, subject=f"{person} by {count}", scope=scope, enrol=True)[0])

    def probe(person: int, number: int, claimed: int, count: int) -> dict[str, Floats | None]:
        photo = people[person][most + number]
        return look(lambda: mixer.protect(photo, subject=f"{claimed} by {count}", scope=scope))

    everybody = range(len(people))
    plain = [] if guided else [probe(person, number, person, 0) for person in everybody for number in range(_PROBES)]
    figures = []
    for count in counts:
        entries = [entry(person, count) for person in everybody]
        if guided:
            # The stranger who claims to be a person is the next one, whose photos the person's reference never saw.
            claims = [
                ((person + away) % len(people), number, person)
                for person in everybody
                for away in (0, 1)
                for number in range(_PROBES)
            ]
            looks = [probe(who, number, claimed, count) for who, number, claimed in claims]
            compared = [
                (entries[claimed], shown, who == claimed)
                for (who, _, claimed), shown in zip(claims, looks, strict=True)
            ]
        else:
            compared = [
                (one, shown, claimed == number // _PROBES)
                for claimed, one in enumerate(entries)
                for number, shown in enumerate(plain)
            ]
        same = np.array([own for _, _, own in compared])
        for name, threshold in thresholds.items():
            scores = np.array([_score(one[name], other[name]) for one, other, _ in compared])
            own, other = scores[same], scores[~same]
            figures.append(
                EnrolmentFigures(
                    name,
                    count,
                    len(people),
                    len(own),
                    len(other),
                    eer(own, other),
                    fnmr_at_fmr(own, other, 0.01),
                    float((own < threshold).mean()),
                    float((other >= threshold).mean()),
                )
            )
    return figures


def _score(one: Floats | None, other: Floats | None) -> float:
    return -1.0 if one is None or other is None else float(one.astype(np.float64) @ other.astype(np.float64))
