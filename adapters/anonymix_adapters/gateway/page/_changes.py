"""Rotate, revoke, forget: first what will follow, from the records as they are now; then the change."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final

from anonymix_adapters.gateway.page._directory import fingerprints
from anonymix_adapters.gateway.problems import ProblemError
from anonymix_adapters.interceptor import FaceMixer
from anonymix_keystore import EnrolmentInfo, KeyInfo, KeyState, UnknownSubjectError

GRACE: Final = timedelta(days=30)
SHOWN: Final = 200
"""Entries of a subject that a page lists one by one."""

ACTIONS: Final = {
    "rotate": "Rotate",
    "breach": "Rotate after a breach",
    "revoke": "Revoke",
    "forget": "Forget",
}


@dataclass(frozen=True)
class Subject:
    """A subject in a scope, as the records are now.

    Attributes:
        subject: "" for the gallery key.
        scope: The scope.
        versions: All versions of the own key, ascending; empty where there is none.
        entries: Entries in back ends, at most `SHOWN` of them.
        places: How many entries each (adapter, collection) has.
        people: How many people those entries are of.
        due: How many entries leave work to do.
        elsewhere: Other scopes that know the subject.
    """

    subject: str
    scope: str
    versions: Sequence[KeyInfo]
    entries: Sequence[EnrolmentInfo]
    places: Sequence[tuple[str, str, int]]
    people: int
    due: int
    elsewhere: Sequence[str]

    @property
    def title(self) -> str:
        """What the subject is called on the page."""
        return self.subject or f"Gallery key of {self.scope}"

    @property
    def count(self) -> int:
        """How many entries there are."""
        return sum(number for _, _, number in self.places)

    @property
    def latest(self) -> KeyInfo | None:
        """The latest version of the key."""
        return self.versions[-1] if self.versions else None

    @property
    def living(self) -> Sequence[KeyInfo]:
        """Versions whose material is there."""
        return [each for each in self.versions if each.state in {KeyState.ACTIVE, KeyState.RETIRED}]

    @property
    def actions(self) -> Sequence[str]:
        """What can be done."""
        found = ["rotate", "breach", "revoke"] if self.living else []
        return [*found, "forget"] if self.subject else found

    @property
    def stamp(self) -> str:
        """Says which state of the records a page has shown; a confirmation counts for that one alone."""
        states = ",".join(f"{each.version}{each.state.value}" for each in self.versions)
        return f"{states} {self.count} {self.due}"


def subject_now(mixer: FaceMixer, subject: str, scope: str) -> Subject:
    """Look a subject up.

    Raises:
        ProblemError: Nothing is known of it.
        KeystoreError: The name is not usable, or the store can't be read.
    """
    keystore = mixer.keystore
    records: Iterator[EnrolmentInfo]
    known = fingerprints(mixer)
    records = (
        keystore.enrolments_of(subject, scope, **known) if subject else keystore.gallery_enrolments(scope, **known)
    )
    shown: list[EnrolmentInfo] = []
    places: Counter[tuple[str, str]] = Counter()
    people, due = set(), 0
    for item in records:
        if len(shown) < SHOWN:
            shown.append(item)
        places[item.adapter, item.collection] += 1
        people.add(item.subject)
        due += item.delete or item.enrol
    versions = _versions(keystore, subject, scope)
    if not versions and not places:
        raise ProblemError("nothing is known of this subject any more", status=404, code="unknown_subject")
    others = [name for name in keystore.scopes() if name != scope] if subject else []
    elsewhere = [name for name in others if _known_in(keystore, subject, name)]
    counted = sorted((*place, number) for place, number in places.items())
    return Subject(subject, scope, versions, shown, counted, len(people), due, sorted(elsewhere))


def _versions(keystore: Any, subject: str, scope: str) -> Sequence[KeyInfo]:
    try:
        found: Sequence[KeyInfo] = keystore.history(subject, scope) if subject else keystore.gallery_history(scope)
    except UnknownSubjectError:
        return ()
    return found


def _known_in(keystore: Any, subject: str, scope: str) -> bool:
    return bool(_versions(keystore, subject, scope)) or any(True for _ in keystore.enrolments_of(subject, scope))


@dataclass(frozen=True)
class Consequences:
    """What will follow from a change.

    Attributes:
        button: What the button says.
        follows: What happens at once, in sentences.
        due: What is then to be done in back ends, in sentences.
        undone: What can't be undone; "" where nothing is lost.
    """

    button: str
    follows: Sequence[str]
    due: Sequence[str] = field(default=())
    undone: str = ""


def consequences(it: Subject, action: str) -> Consequences:
    """What will follow.

    Raises:
        ProblemError: This can't be done to the subject.
    """
    if action not in it.actions:
        raise ProblemError("this can't be done here", status=404, code="action", fix="go back to the subject")
    name = it.subject or f"the gallery key of the scope {it.scope}"
    button = f"{ACTIONS[action]}: {name}"
    if action == "forget":
        return _forgetting(it, button)
    latest = it.versions[-1].version
    living = _versions_in_words([each.version for each in it.living])
    if action == "revoke":
        follows = [
            f"The key is erased at once: {living}. Photos of {name} are refused until a new key is issued.",
        ]
        due = []
        if it.count:
            due = [f"Entries in back ends that nobody can match any more, and that should be deleted: {it.count}."]
        return Consequences(button, follows, due, "An erased key never comes back.")
    follows = [f"Version {latest + 1} takes the place of version {latest}. New templates are made with it."]
    undone = "The old key can't become the current one again."
    if action == "breach":
        follows.append(f"The old key is erased at once: {living}. Probes under it are refused from then on.")
        undone = "An erased key never comes back."
    else:
        until = datetime.now(UTC) + GRACE
        follows.append(f"Probes may use version {latest} until {until:%Y-%m-%d}; then it is erased.")
    due = []
    if it.count:
        due = [
            f"Entries then to be deleted in back ends: {it.count}.",
            f"People then to be enrolled again, with a new photo: {it.people}.",
        ]
    return Consequences(button, follows, due, undone)


def _forgetting(it: Subject, button: str) -> Consequences:
    follows = []
    if it.versions:
        follows.append(f"All keys are erased: {_versions_in_words([each.version for each in it.versions])}.")
    follows.append("The name, the records of entries, sealed originals and sealed references are erased.")
    follows.append("The audit trail keeps a random name that nothing links to the person any more.")
    if it.elsewhere:
        follows.append(f"What these scopes know stays: {', '.join(it.elsewhere)}.")
    due = []
    if it.count:
        due.append(f"Entries then to be deleted in back ends: {it.count}. The next page is the last list of them.")
    return Consequences(button, follows, due, "What is forgotten never comes back.")


def _versions_in_words(versions: Sequence[int]) -> str:
    return f"version{'s' if len(versions) > 1 else ''} {', '.join(map(str, versions))}"


@dataclass(frozen=True)
class Done:
    """What became of a change.

    Attributes:
        told: In a sentence.
        left: Entries in back ends that no record names any more.
        gone: Whether nothing is known of the subject any more.
    """

    told: str
    left: Sequence[EnrolmentInfo] = ()
    gone: bool = False


def change(mixer: FaceMixer, it: Subject, action: str, token: str) -> Done:
    """Make a change.

    Args:
        mixer: Its keystore is changed.
        it: The subject.
        action: One of `ACTIONS`.
        token: Id of the token that asks, for the audit trail.

    Raises:
        KeystoreError: The keys stand against it.
    """
    with mixer.keystore.acting_for(f"token {token}"):
        return _changed(mixer.keystore, it, action)


def _changed(keystore: Any, it: Subject, action: str) -> Done:
    reason = "on the page"
    if action == "forget":
        receipt = keystore.forget(it.subject, it.scope, reason=reason)
        told = f"Forgotten. Keys erased: {receipt.keys}. Records of entries erased: {receipt.enrolments}."
        if not receipt.clean:
            told += " Traces may be in the file until nobody reads it any more."
        return Done(told, receipt.entries, gone=True)
    if action == "revoke":
        revoke = partial(keystore.revoke, it.subject) if it.subject else keystore.revoke_gallery
        versions = revoke(it.scope, reason=reason)
        return Done(f"Revoked: {_versions_in_words(versions)}." if versions else "There was nothing left to revoke.")
    rotate = partial(keystore.rotate, it.subject) if it.subject else keystore.rotate_gallery
    made = rotate(it.scope, reason="breach") if action == "breach" else rotate(it.scope, reason=reason, grace=GRACE)
    return Done(f"Rotated: version {made.version} counts from now on.")
