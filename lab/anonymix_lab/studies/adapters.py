"""How well back ends verify behind their adapters, and what an adapter costs.

`anonymix measure adapters opencv crops --photos ../shared/data/london`

Each person's first photo is enrolled and the second is the probe; thresholds are the back end's own.
Impostors are counted in two ways: *claiming*, the stranger's photo is protected under the claimed person's
key, as it is at a door that asks for a name; *other key*, it is protected under the stranger's own key and
held against the entry.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from anonymix_adapters.interceptor import FaceMixer, MixerAround
from anonymix_adapters.protocol import Adapter, Answer, Rehearsal
from anonymix_adapters.testing.conformance import Person
from anonymix_keystore import Keystore
from anonymix_plugin.errors import UsageError
from anonymix_plugin.images import ChannelOrder, decode_photo
from anonymix_plugin.values import CancelableFace


@dataclass(frozen=True)
class Measured:
    """What was measured of one adapter: counts as (accepted, of), times in milliseconds of processor time.

    Attributes:
        adapter: Its name.
        sdks: Versions of the packages behind it.
        guided: Whether the keystore kept sealed references, so that probes were guided.
        refused: People of whom the back end took no picture, one with two faces, say; they are left out.
        genuine: Probes under the own key, against the own entry.
        claiming: Strangers under the claimed person's key, against that person's entry.
        other_key: Strangers under their own keys, against everybody else's entries.
        originals: Unprotected probes against the own entry, which holds a cancelable face.
        nearest_stranger: Score or distance, in the back end's unit, of the stranger of either kind who came
            nearest: a threshold just beyond it lets none of these strangers pass.
        genuine_beyond: Genuine probes that such a threshold accepts, of how many.
        call_ms: A verification through the adapter, median, less the mixer.
        plain_ms: The same past the adapter, median.
        overhead_ms: The difference.
    """

    adapter: str
    sdks: dict[str, str]
    guided: bool
    refused: int
    genuine: tuple[int, int]
    claiming: tuple[int, int]
    other_key: tuple[int, int]
    originals: tuple[int, int]
    nearest_stranger: float
    genuine_beyond: tuple[int, int]
    call_ms: float
    plain_ms: float
    overhead_ms: float


class Timed(MixerAround):
    """A mixer that remembers what it made, and how much processor time it took in this thread."""

    def __init__(self, mixer: FaceMixer) -> None:
        super().__init__(mixer)
        self.seconds = 0.0
        self._made: dict[tuple[Any, ...], CancelableFace] = {}

    @property
    def keystore(self) -> Keystore:
        """The keystore, with its enrolment records."""
        store = self.mixer.keystore
        if not isinstance(store, Keystore):
            raise TypeError("a Keystore is needed")
        return store

    def protect(self, image: Any, **how: Any) -> CancelableFace:
        """Protect a photo, and remember face and processor time."""
        started = time.thread_time()
        name = (_content(image, how.get("channel_order", "rgb")), how.get("subject"), how.get("scope", "default"))
        if name not in self._made:
            self._made[name] = super().protect(image, **how)
        self.seconds += time.thread_time() - started
        return self._made[name]


def _content(image: Any, order: ChannelOrder) -> bytes:
    """The same bytes for the same photo, given as a file or as an array in either order."""
    pixels = decode_photo(image, channel_order=order).pixels
    return hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).digest()


def measure(
    adapter: Adapter,
    mixer: FaceMixer,
    people: Sequence[Person],
    *,
    claims: int = 3,
    calls: int = 15,
    references: bool = False,
) -> Measured:
    """Measure one adapter.

    Args:
        adapter: The adapter.
        mixer: Over a Keystore; it is asked for each face once.
        people: Who takes part.
        claims: How many strangers claim to be each person.
        calls: How many calls are timed.
        references: Keep sealed references, so that probes are guided; the second secret must be unlocked.

    Raises:
        Exception: Whatever the back end answers, where it refuses half of the people.
    """
    timed = mixer if isinstance(mixer, Timed) else Timed(mixer)
    asked = len(people)
    with adapter.rehearse(timed) as stage, adapter.rehearse(timed) as probes:
        if references:
            timed.keystore.references.enable(stage.interceptor.scope(stage.collection), reason="measuring")
        people = _enrolled(stage, probes, people)
        count = len(people)
        genuine = [stage.verify(it.name, it.probe) for it in people]
        originals = sum(stage.verify_original(it.name, it.probe).accepted for it in people)
        claiming = [
            stage.verify(person.name, people[(number + step) % count].probe)
            for number, person in enumerate(people)
            for step in range(1, claims + 1)
        ]
        names = {person.name for person in people}
        other = [
            stage.match(leaked, person.name)
            for leaked in probes.leak()
            for person in people
            if leaked.subject in names and person.name != leaked.subject
        ]
        through, plain = [], []
        for number in range(calls):
            person = people[number % count]
            before, started = timed.seconds, time.thread_time()
            stage.verify(person.name, person.probe)
            through.append(time.thread_time() - started - (timed.seconds - before))
            started = time.thread_time()
            stage.verify_original(person.name, person.probe)
            plain.append(time.thread_time() - started)
    call_ms, plain_ms = (1000 * sorted(times)[len(times) // 2] for times in (through, plain))
    nearest, beyond = beyond_strangers(
        [answer.score for answer in genuine], [answer.score for answer in (*claiming, *other)]
    )
    return Measured(
        adapter=adapter.NAME,
        sdks={sdk.module: sdk.installed() for sdk in adapter.SDKS},
        guided=references,
        refused=asked - count,
        genuine=(_accepted(genuine), count),
        claiming=(_accepted(claiming), len(claiming)),
        other_key=(_accepted(other), len(other)),
        originals=(originals, count),
        nearest_stranger=round(nearest, 4),
        genuine_beyond=(beyond, count),
        call_ms=round(call_ms, 2),
        plain_ms=round(plain_ms, 2),
        overhead_ms=round(call_ms - plain_ms, 2),
    )


def _enrolled(stage: Rehearsal, probes: Rehearsal, people: Sequence[Person]) -> list[Person]:
    """Enrol everybody's two photos, and return those of whom the back end took both.

    One person who is refused should not end the measurement of all; half of them being refused does.
    """
    taken: list[Person] = []
    refused = 0
    for person in people:
        try:
            stage.enrol(person.name, person.enrolled)
            probes.enrol(person.name, person.probe)
        except Exception:  # each SDK has errors of its own
            refused += 1
            if 2 * refused >= len(people):
                raise
        else:
            taken.append(person)
    return taken


def _accepted(answers: Sequence[Answer]) -> int:
    return sum(answer.accepted for answer in answers)


def beyond_strangers(genuine: Sequence[float], strangers: Sequence[float]) -> tuple[float, int]:
    """Find the stranger who came nearest, and how many genuine scores are nearer still.

    Whether a high or a low score is near shows in the means.

    Raises:
        UsageError: There is nobody of one kind.
    """
    if not genuine or not strangers:
        raise UsageError("genuine scores and strangers' are needed", where="people", fix="take two or more")
    sign = 1 if sum(genuine) / len(genuine) >= sum(strangers) / len(strangers) else -1
    nearest = max(sign * score for score in strangers)
    return sign * nearest, sum(sign * score > nearest for score in genuine)
