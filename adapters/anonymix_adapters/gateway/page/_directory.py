"""The subjects of a keystore, to be searched and leafed through: names are sealed, so that they are read once."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final, NamedTuple, TypeVar

from anonymix_adapters.interceptor import FaceMixer
from anonymix_keystore import DamagedError

T = TypeVar("T")

PAGE: Final = 50
MOST: Final = 200_000
"""Keys that are read, and so many records; the page says when there are more."""

STATES: Final = ("active", "retired", "compromised", "destroyed")
_PATIENCE: Final = 10
"""A list is read again at the earliest after so many times the seconds that reading takes."""


class Row(NamedTuple):
    """A subject in a scope.

    Attributes:
        subject: "" for the gallery key.
        scope: The scope.
        own: Whether the subject has a key of its own; without one it is known by entries under the gallery key.
        version: The latest version of the key; 0 where it has none of its own.
        state: The key's state; "" where it has none of its own.
        entries: Entries in back ends.
        due: Entries that leave work to do.
    """

    subject: str
    scope: str
    own: bool
    version: int
    state: str
    entries: int
    due: int


@dataclass(frozen=True)
class Asked:
    """What somebody looks for.

    Attributes:
        text: Part of a subject's name, in any case; "" for all.
        scope: One scope alone.
        state: One state alone.
        due: Those alone that leave work to do.
        page: 1, 2, ...
    """

    text: str = ""
    scope: str = ""
    state: str = ""
    due: bool = False
    page: int = 1


@dataclass(frozen=True)
class Found:
    """A page of what was found.

    Attributes:
        rows: Its rows, at most `PAGE`.
        total: How many there are on all pages.
        page: Which page it is.
        pages: How many pages there are.
        scopes: All scopes that may be seen.
        complete: Whether all subjects were looked at.
        damage: What the store says of subjects that are left out, since their rows are damaged; "" if there are none.
            To somebody who may not see all scopes it names nobody.
    """

    rows: Sequence[Row]
    total: int
    page: int
    pages: int
    scopes: Sequence[str]
    complete: bool
    damage: str = ""


_DAMAGE: Final = "rows of some subjects fail authentication"


class Directory:
    """Reads the keystore when it has changed, but never all the time.

    Args:
        mixer: Its keystore is read; its fingerprints say what is due.
    """

    def __init__(self, mixer: FaceMixer) -> None:
        self._mixer, self._lock = mixer, threading.Lock()
        self._rows: Sequence[Row] = ()
        self._complete, self._damage, self._epoch, self._again = True, "", -1, 0.0

    def changed(self) -> None:
        """Forget what was read: somebody here has just changed it."""
        with self._lock:
            self._rows, self._epoch, self._again = (), -1, 0.0

    def find(self, asked: Asked, allowed: Callable[[str], bool], *, everything: bool = True) -> Found:
        """Search, sorted by scope and name.

        Args:
            asked: What for.
            allowed: Which scopes may be seen.
            everything: Whether those are all scopes, whatever they are called.
        """
        rows = [row for row in self._read() if allowed(row.scope)]
        text = asked.text.casefold()
        found = [
            row
            for row in rows
            if (not text or text in row.subject.casefold())
            and asked.scope in {"", row.scope}
            and asked.state in {"", row.state}
            and (row.due or not asked.due)
        ]
        pages = max(1, -(-len(found) // PAGE))
        page = min(max(asked.page, 1), pages)
        scopes = sorted({row.scope for row in rows})
        damage = self._damage if everything or not self._damage else _DAMAGE
        return Found(found[(page - 1) * PAGE : page * PAGE], len(found), page, pages, scopes, self._complete, damage)

    def _read(self) -> Sequence[Row]:
        with self._lock:
            now, epoch = time.monotonic(), self._mixer.keystore.epoch
            if epoch != self._epoch and now >= self._again:
                self._rows, self._complete, self._damage = rows_of(self._mixer)
                self._epoch, end = epoch, time.monotonic()
                self._again = end + _PATIENCE * (end - now)
            return self._rows


def fingerprints(mixer: Any) -> dict[str, str]:
    """The mixer's fingerprints, as the keystore takes them."""
    guided = getattr(mixer, "guided_fingerprint", "")
    return {"fingerprint": mixer.fingerprint} | ({"guided_fingerprint": guided} if guided else {})


def rows_of(mixer: FaceMixer) -> tuple[Sequence[Row], bool, str]:
    """All subjects by scope and name, whether these are all, and what the store says of those with damaged rows."""
    keystore = mixer.keystore
    damage: list[str] = []

    def sound(listing: Iterator[T]) -> Iterator[T]:
        try:
            yield from islice(listing, MOST)
        except DamagedError as error:  # it comes at the end, and hides nobody else
            damage.append(error.what)

    entries: Counter[tuple[str, str]] = Counter()
    due: Counter[tuple[str, str]] = Counter()
    count = 0
    for count, item in enumerate(sound(keystore.enrolments(**fingerprints(mixer))), 1):  # noqa: B007
        for name in {(item.scope, item.subject), (item.scope, "" if item.gallery else item.subject)}:
            entries[name] += 1
            due[name] += item.delete or item.enrol
    keys = {(key.scope, key.subject): key for key in sound(keystore.list())}
    rows = []
    for name in sorted(keys.keys() | entries.keys(), key=lambda each: (each[0], each[1].casefold(), each[1])):
        key = keys.get(name)
        version, state = (0, "") if key is None else (key.version, key.state.value)
        rows.append(Row(name[1], name[0], key is not None, version, state, entries[name], due[name]))
    return rows, max(count, len(keys)) < MOST, "; ".join(damage)
