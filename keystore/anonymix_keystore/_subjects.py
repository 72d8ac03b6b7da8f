"""The part of the public class that deals with the keys of single subjects."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from enum import StrEnum

from anonymix_keystore import _asked, _erasure, _lifecycle
from anonymix_keystore._base import Base
from anonymix_keystore._clock import LAST
from anonymix_keystore._errors import InvalidRequestError, KeyExistsError, UnknownSubjectError
from anonymix_keystore._lifecycle import Ending, Who
from anonymix_keystore._names import DEFAULT_SCOPE
from anonymix_keystore._rows import Purpose, State
from anonymix_keystore._values import KeyInfo, SubjectKey

ISSUE_BATCH = 1_000
DEFAULT_GRACE = timedelta(days=30)


class RotationReason(StrEnum):
    """Why a key is replaced; it decides what becomes of the old one.

    ``ROUTINE``: the old key is retired and serves probes for a while. ``BREACH``: every living key
    of the subject is compromised, its material erased at once.
    """

    ROUTINE = "routine"
    BREACH = "breach"


def ending_for(reason: str, grace: timedelta | None, now: int) -> Ending:
    """What becomes of a key that is replaced for a reason.

    Raises:
        InvalidRequestError: The grace time is negative, given for a breach, or reaches past the year 9999; or the
            reason speaks of a breach in other words, and old keys would live on.
    """
    if reason == RotationReason.BREACH:
        if grace is not None and grace != timedelta(0):
            raise InvalidRequestError("a key that is replaced after a breach can't have a grace time")
        return Ending(State.COMPROMISED)
    seconds = int((DEFAULT_GRACE if grace is None else grace).total_seconds())
    if not 0 <= seconds <= LAST - now:
        raise InvalidRequestError("grace is negative, or reaches past the year 9999", where="grace")
    if seconds and RotationReason.BREACH in reason.casefold():
        raise InvalidRequestError(
            'with this reason old keys would live on; "breach" alone erases them',
            where="reason",
            fix='say "breach", or a reason without the word',
        )
    return Ending(State.RETIRED, now + seconds) if seconds else Ending(State.DESTROYED)


class Subjects(Base):
    """Keys of single subjects: issue, look up, rotate, retire, revoke, list."""

    def issue(self, subject: str, scope: str = DEFAULT_SCOPE, *, reason: str = "") -> SubjectKey:
        """Issue a key to a subject who has no active one.

        Args:
            subject: The subject's id in the host application: 1 to 1,024 bytes of UTF-8 without
                invisible characters; composed and decomposed Unicode spellings are one id.
            scope: The application or gallery; same rules.
            reason: For the audit trail.

        Raises:
            InvalidSubjectError: Subject or scope is not a usable name.
            KeyExistsError: There is an active key.
        """
        who, reason = self._who(subject, scope), _asked.text(reason, "reason")
        with self._core.change() as change:
            return _lifecycle.issue_all(change, [who], reason)[0]

    def issue_many(
        self,
        subjects: Iterable[str],
        scope: str = DEFAULT_SCOPE,
        *,
        reason: str = "",
        batch: int = ISSUE_BATCH,
    ) -> int:
        """Issue keys to many subjects, in all-or-nothing batches; those who have one are left alone.

        Calling it again after an interruption goes on where it stopped.

        Returns:
            How many keys were issued.
        """
        reason, batch = _asked.text(reason, "reason"), _asked.whole(batch, "batch", 1)
        issued = 0
        waiting: dict[bytes, Who] = {}
        for subject in _asked.many(subjects, "subjects"):
            who = self._who(subject, scope)
            waiting[who.tag] = who
            if len(waiting) >= batch:
                issued += self._issue_missing(list(waiting.values()), reason)
                waiting.clear()
                self._core.give_way()
        return issued + (self._issue_missing(list(waiting.values()), reason) if waiting else 0)

    def _issue_missing(self, whos: Sequence[Who], reason: str) -> int:
        with self._core.change() as change:
            known = _lifecycle.find_heads(change.db, change.keys, whos)
            missing = [who for who in whos if who.tag not in known]
            if missing:
                _lifecycle.issue_all(change, missing, reason, known)
            return len(missing)

    def current(self, subject: str, scope: str = DEFAULT_SCOPE) -> SubjectKey:
        """The active key of a subject.

        Raises:
            UnknownSubjectError: No key was ever issued.
            KeyRetiredError: The key was retired and none issued since.
            KeyRevokedError: The key was revoked and none issued since.
        """
        return _lifecycle.current(self._core, self._who(subject, scope))

    def current_or_issue(self, subject: str, scope: str = DEFAULT_SCOPE) -> SubjectKey:
        """The active key of a subject, issued now if the subject is new.

        A revoked or retired subject does not silently get a new key.

        Raises:
            KeyRevokedError: The subject's key was revoked or retired.
        """
        return self._current_or_issue(self._who(subject, scope))

    def _current_or_issue(self, who: Who) -> SubjectKey:
        try:
            return _lifecycle.current(self._core, who)
        except UnknownSubjectError:
            pass
        try:
            with self._core.change() as change:
                self._core.issued_first(who.tag)
                return _lifecycle.issue_all(change, [who], "first use")[0]
        except KeyExistsError:  # somebody was faster
            return _lifecycle.current(self._core, who)

    def take_back(self, subject: str, scope: str = DEFAULT_SCOPE) -> bool:
        """Take back a first key that this object issued by ``current_or_issue``, where nothing came of it.

        The subject is unknown again. The key stays if it was rotated or withdrawn since, or if an enrolment
        or an original is kept of the subject. Whether somebody holds a face that was drawn under it is not known
        here: whoever calls this has to know that nobody does.

        Returns:
            Whether it was taken back.
        """
        who = self._who(subject, scope)
        with self._core.lock:
            mine = who.tag in self._core.issued
            self._core.issued.pop(who.tag, None)
        if not mine:
            return False
        with self._core.change() as change:
            return _erasure.take_back(change, who)

    def at(self, subject: str, version: int, scope: str = DEFAULT_SCOPE) -> SubjectKey:
        """A certain version of a subject's key, for probes: active, or retired until its date.

        Raises:
            UnknownSubjectError: No key was ever issued (``UnknownVersionError``: not this version).
            KeyRetiredError: The version's date has passed.
            KeyRevokedError: The version is compromised or destroyed.
        """
        return _lifecycle.at(self._core, self._who(subject, scope), _asked.whole(version, "version"))

    def gallery(self, scope: str = DEFAULT_SCOPE, *, issue: bool = True) -> SubjectKey:
        """The gallery key of a scope, issued at first use: one key for all, for 1:N search.

        It is independent of all subject keys; its ``subject`` is "".

        Args:
            scope: The scope.
            issue: Whether it is issued if there never was one.

        Raises:
            KeyRevokedError: It was revoked.
            UnknownSubjectError: There never was one, and ``issue`` is false.
        """
        who = _lifecycle.gallery_of(self._core.keys, scope)
        return self._current_or_issue(who) if _asked.flag(issue, "issue") else _lifecycle.current(self._core, who)

    def rotate(
        self,
        subject: str,
        scope: str = DEFAULT_SCOPE,
        *,
        reason: str = RotationReason.ROUTINE,
        grace: timedelta | None = None,
    ) -> SubjectKey:
        """Replace a subject's key by the next version.

        Args:
            subject: The subject.
            scope: The scope.
            reason: For the audit trail. With ``"breach"`` all living versions are compromised and
                erased at once; with any other reason the old key is retired for the grace time.
            grace: How long probes may use the old key, 30 days by default; zero erases it at once.

        Raises:
            UnknownSubjectError: No key was ever issued.
            KeyRevokedError: All keys are erased; issue a new one.
            InvalidRequestError: A negative grace time, or one with ``"breach"``.
        """
        return self._rotate(self._who(subject, scope), reason, grace)

    def rotate_gallery(
        self,
        scope: str = DEFAULT_SCOPE,
        *,
        reason: str = RotationReason.ROUTINE,
        grace: timedelta | None = None,
    ) -> SubjectKey:
        """Replace the gallery key of a scope; as ``rotate``."""
        return self._rotate(_lifecycle.gallery_of(self._core.keys, scope), reason, grace)

    def _rotate(self, who: Who, reason: str, grace: timedelta | None) -> SubjectKey:
        reason, grace = _asked.text(reason, "reason"), _asked.maybe(_asked.span, grace, "grace")
        with self._core.change() as change:
            return _lifecycle.rotate(change, who, ending_for(reason, grace, change.now), reason)

    def retire(
        self, subject: str, scope: str = DEFAULT_SCOPE, *, until: datetime | None = None, reason: str = ""
    ) -> int:
        """Retire a subject's active key: probes may use it until a date, new templates not.

        Args:
            subject: The subject.
            scope: The scope.
            until: With time zone; 30 days from now by default.
            reason: For the audit trail.

        Returns:
            The version retired.

        Raises:
            UnknownSubjectError: No key was ever issued.
            KeyRevokedError: There is no active key.
            InvalidRequestError: The date has no time zone or has passed.
        """
        who, reason = self._who(subject, scope), _asked.text(reason, "reason")
        wanted = _asked.maybe(_asked.moment, until, "until")
        with self._core.change() as change:
            end = change.now + int(DEFAULT_GRACE.total_seconds()) if wanted is None else wanted
            if end <= change.now:
                raise InvalidRequestError("until lies in the past", where="until", fix="revoke the key instead")
            return _lifecycle.withdraw(change, who, Ending(State.RETIRED, end), action="retire", reason=reason)[0]

    def revoke(
        self, subject: str, scope: str = DEFAULT_SCOPE, *, version: int | None = None, reason: str = ""
    ) -> tuple[int, ...]:
        """Destroy a subject's keys at once and for good (crypto-shredding).

        Args:
            subject: The subject.
            scope: The scope.
            version: One version alone; all living ones by default.
            reason: For the audit trail.

        Returns:
            The versions destroyed, none if there was nothing left to destroy.

        Raises:
            UnknownSubjectError: No key was ever issued (``UnknownVersionError``: not this version).
        """
        return self._revoke(self._who(subject, scope), version, reason)

    def revoke_gallery(
        self, scope: str = DEFAULT_SCOPE, *, version: int | None = None, reason: str = ""
    ) -> tuple[int, ...]:
        """Destroy the gallery key of a scope; as ``revoke``."""
        return self._revoke(_lifecycle.gallery_of(self._core.keys, scope), version, reason)

    def _revoke(self, who: Who, version: int | None, reason: str) -> tuple[int, ...]:
        version, reason = _asked.maybe(_asked.whole, version, "version"), _asked.text(reason, "reason")
        with self._core.change() as change:
            ending = Ending(State.DESTROYED)
            return tuple(_lifecycle.withdraw(change, who, ending, version=version, action="revoke", reason=reason))

    # --- listings ---------------------------------------------------------------------------------

    def subjects(self, scope: str | None = None) -> Iterator[str]:
        """The ids of all subjects, of one scope or of all (an id in two scopes comes twice)."""
        for subject, _, head, _ in _lifecycle.everybody(self._core, scope):
            if head.purpose == Purpose.SUBJECT:
                yield subject

    def scopes(self) -> tuple[str, ...]:
        """The names of all scopes."""
        return tuple(_lifecycle.all_scopes(self._core).values())

    def list(self, scope: str | None = None) -> Iterator[KeyInfo]:
        """The latest version of every key, galleries included, page by page in no telling order."""
        for subject, name, head, key in _lifecycle.everybody(self._core, scope):
            yield _lifecycle.info(subject, name, head, key)

    def history(self, subject: str, scope: str = DEFAULT_SCOPE) -> tuple[KeyInfo, ...]:
        """All versions of a subject's key, ascending.

        Raises:
            UnknownSubjectError: No key was ever issued.
        """
        return tuple(_lifecycle.history(self._core, self._who(subject, scope)))

    def gallery_history(self, scope: str = DEFAULT_SCOPE) -> tuple[KeyInfo, ...]:
        """All versions of the gallery key of a scope, ascending; none is issued.

        Raises:
            UnknownSubjectError: None was ever issued.
        """
        return tuple(_lifecycle.history(self._core, _lifecycle.gallery_of(self._core.keys, scope)))
