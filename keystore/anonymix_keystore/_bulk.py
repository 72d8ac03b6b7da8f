"""The part of the public class that deals with many keys, and with the back ends' entries."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from datetime import timedelta

from anonymix_keystore import _asked, _enrolments, _jobs, _renewals
from anonymix_keystore._base import Base
from anonymix_keystore._errors import DamagedError, InvalidRequestError
from anonymix_keystore._jobs import JobInfo, Progress, Selection
from anonymix_keystore._lifecycle import Who, gallery_of
from anonymix_keystore._names import DEFAULT_SCOPE, checked
from anonymix_keystore._renewals import RenewalInfo, RenewalState
from anonymix_keystore._report import RotationReport, report
from anonymix_keystore._subjects import RotationReason, ending_for
from anonymix_keystore._values import EnrolmentInfo, KeyState, NewEnrolment

JOB_BATCH = 2_000


class Bulk(Base):
    """Rotation and re-wrapping of many keys; enrolment records and what is due in back ends."""

    def rotate_all(
        self,
        *,
        scope: str | None = None,
        older_than: timedelta | None = None,
        states: Iterable[KeyState] = (KeyState.ACTIVE,),
        subjects: Iterable[str] | None = None,
        reason: str = RotationReason.ROUTINE,
        grace: timedelta | None = None,
        batch: int = JOB_BATCH,
        progress: Callable[[Progress], None] | None = None,
    ) -> RotationReport:
        """Replace the keys of many subjects, gallery keys included.

        Works batch by batch, each all or nothing. After an interruption ``resume`` goes on; keys
        issued or rotated since the beginning are left alone. Memory use does not grow with the
        number of keys. Of a subject with a damaged row nothing is believed: after a breach its keys are erased
        without a new one, otherwise it stays as it is. The report's job counts both, and ``list`` names them.

        Args:
            scope: This scope alone.
            older_than: Only keys of at least this age.
            states: ``ACTIVE``, ``RETIRED`` (subjects who have only a retired key) or both.
            subjects: These alone (then ``scope`` says in which scope, "default" if not given);
                unknown ones are passed over.
            reason: As for ``rotate``; ``"breach"`` erases all living keys of the subjects.
            grace: As for ``rotate``.
            batch: Subjects per step, 1 to 10,000.
            progress: Called after each step.

        Raises:
            UnfinishedJobError: An earlier job was interrupted; resume it first.
            InvalidRequestError: An argument is out of range.
            ClockError: With ``older_than``: the clock is in doubt, as for ``unused_since``.
        """
        reason, grace = _asked.text(reason, "reason"), _asked.maybe(_asked.span, grace, "grace")
        chosen = _states(states)
        if not chosen or not chosen <= {KeyState.ACTIVE, KeyState.RETIRED}:
            raise InvalidRequestError("only active and retired keys can be rotated", fix="issue new keys instead")
        batch, progress = _steps(batch, progress)
        if scope is not None:
            scope = checked(scope, "scope")
        tags = None
        if subjects is not None:
            scope = DEFAULT_SCOPE if scope is None else scope
            tags = tuple(self._who(subject, scope).tag for subject in _asked.many(subjects, "subjects"))
        before = 0
        if older_than is not None:
            age = int(_asked.span(older_than, "older_than").total_seconds())
            if age < 0:
                raise InvalidRequestError("older_than is negative", where="older_than")
            self._core.check_clock()
            before = self._core.now(self._core.header()) - age + 1
        select = Selection(scope, before, KeyState.ACTIVE in chosen, KeyState.RETIRED in chosen, tags)
        job = _jobs.begin_rotation(self._core, select, lambda now: ending_for(reason, grace, now), reason)
        _jobs.run(self._core, job, batch, progress)
        return self.report(job)

    def rewrap_all(
        self,
        *,
        reason: str = "",
        batch: int = JOB_BATCH,
        progress: Callable[[Progress], None] | None = None,
    ) -> JobInfo:
        """Wrap all living keys again under the next wrapping key; the keys stay the same.

        Rows of a subject of whom one fails authentication stay as they are, under the wrapping key that they had;
        ``JobInfo.left`` counts such subjects, and ``list`` names them.

        Args:
            reason: For the audit trail.
            batch: Subjects per step, 1 to 10,000.
            progress: Called after each step.

        Raises:
            UnfinishedJobError: An earlier job was interrupted; resume it first.
        """
        batch, progress = _steps(batch, progress)
        job = _jobs.begin_rewrap(self._core, _asked.text(reason, "reason"))
        return _jobs.run(self._core, job, batch, progress)

    def resume(self, *, batch: int = JOB_BATCH, progress: Callable[[Progress], None] | None = None) -> JobInfo | None:
        """Carry an interrupted job to its end; ``None`` if there is none."""
        batch, progress = _steps(batch, progress)
        job = _jobs.unfinished(self._core)
        return None if job is None else _jobs.run(self._core, job.id, batch, progress)

    def jobs(self) -> tuple[JobInfo, ...]:
        """All jobs, the first one first; those that can be resumed have no end."""
        return tuple(_jobs.infos(self._core))

    def report(
        self, job: int, *, fingerprint: str | None = None, guided_fingerprint: str | None = None
    ) -> RotationReport:
        """A report on a job and the work that keys leave in back ends, as of now.

        Args:
            job: Number of the job.
            fingerprint: Mixer fingerprint in use; entries made with another are due, too.
            guided_fingerprint: The fingerprint of the same mixer's guided faces.

        Raises:
            InvalidRequestError: There is no such job.
        """
        return report(self._core, _asked.whole(job, "job"), _fingerprints(fingerprint, guided_fingerprint))

    # --- enrolments -------------------------------------------------------------------------------

    def record_enrolment(
        self,
        subject: str,
        scope: str = DEFAULT_SCOPE,
        *,
        adapter: str,
        collection: str,
        external_id: str,
        version: int,
        fingerprint: str,
        gallery: bool = False,
    ) -> str:
        """Write down that a back end holds an entry made with a key; call it after enrolling.

        Recording the same entry again replaces its record; outdated entries of the subject in the
        same collection then no longer wait for a new enrolment, only for deletion.

        Args:
            subject: Whose face it is.
            scope: The scope of the key.
            adapter: Name of the adapter.
            collection: The back end's collection.
            external_id: The entry's id in the back end; a number or a UUID stands for its text.
            version: Version of the key used; must be the active one.
            fingerprint: Mixer fingerprint used.
            gallery: Whether the gallery key of the scope was used.

        Returns:
            The record's name, for ``mark_removed``.

        Raises:
            UnknownSubjectError: The key was never issued.
            KeyRevokedError: The version is not active any more: protect and enrol again.
            InvalidRequestError: A field is empty.
        """
        place = (adapter, collection, external_id)
        return self.record_enrolments([NewEnrolment(subject, scope, *place, version, fingerprint, gallery)])[0]

    def record_enrolments(self, entries: Iterable[NewEnrolment]) -> tuple[str, ...]:
        """Write down many entries in one step, all of them or none; each as by ``record_enrolment``.

        Returns:
            The records' names.

        Raises:
            KeystoreError: One of them can't be written down, for a reason that ``record_enrolment`` names.
        """
        known = [self._new(entry) for entry in _asked.many(entries, "entries")]
        with self._core.change() as change:
            return tuple(
                _enrolments.record(
                    change,
                    who,
                    holder,
                    adapter=entry.adapter,
                    collection=entry.collection,
                    external_id=entry.external_id,
                    version=entry.version,
                    fingerprint=entry.fingerprint,
                )
                for entry, who, holder in known
            )

    def _new(self, entry: NewEnrolment) -> tuple[NewEnrolment, Who, Who]:
        """An entry whose fields are what they should be, whose it is, and whose key it was made with."""
        if not isinstance(entry, NewEnrolment):
            raise InvalidRequestError("entries holds something that is no NewEnrolment", where="entries")
        who = self._who(entry.subject, entry.scope)
        holder = gallery_of(self._core.keys, entry.scope) if _asked.flag(entry.gallery, "gallery") else who
        fields = replace(
            entry,
            adapter=_asked.text(entry.adapter, "adapter", empty=False),
            collection=_asked.identifier(entry.collection, "collection"),
            external_id=_asked.identifier(entry.external_id, "external_id"),
            version=_asked.whole(entry.version, "version"),
            fingerprint=_asked.text(entry.fingerprint, "fingerprint", empty=False),
        )
        return fields, who, holder

    def mark_removed(self, entry: str) -> bool:
        """Write down that an entry was deleted from its back end.

        Args:
            entry: ``EnrolmentInfo.entry``.

        Returns:
            Whether there was a record of it.
        """
        entry = _asked.text(entry, "entry")
        with self._core.change() as change:
            return _enrolments.mark_removed(change, entry)

    def enrolment(self, *, adapter: str, collection: str, external_id: str) -> EnrolmentInfo | None:
        """The record of one entry, or ``None``; looked up, however many there are.

        Args:
            adapter: Name of the adapter.
            collection: The back end's collection.
            external_id: The entry's id in the back end; a number or a UUID stands for its text.
        """
        return _enrolments.find(
            self._core,
            _asked.text(adapter, "adapter", empty=False),
            _asked.identifier(collection, "collection"),
            _asked.identifier(external_id, "external_id"),
        )

    def enrolment_named(self, entry: str) -> EnrolmentInfo | None:
        """The record of the name that ``record_enrolment`` gave, or ``None``."""
        return _enrolments.named(self._core, _asked.text(entry, "entry"))

    def enrolments(
        self,
        scope: str | None = None,
        *,
        fingerprint: str | None = None,
        guided_fingerprint: str | None = None,
        beyond: str = "",
        damaged: Callable[[DamagedError], object] | None = None,
    ) -> Iterator[EnrolmentInfo]:
        """All enrolment records in the order of their names, page by page; what is due is told as by ``due``.

        Args:
            scope: This scope alone.
            fingerprint: As for ``due``.
            guided_fingerprint: As for ``due``.
            beyond: Only records after the one of this name: ``EnrolmentInfo.entry``.
            damaged: Called with an error for each record that is passed over, by whoever may not come to the end.

        Raises:
            DamagedError: At the end, where ``damaged`` is not given: it names whose records were passed over, since
                they or the keys that they were made with fail authentication.
        """
        fingerprints, beyond = _fingerprints(fingerprint, guided_fingerprint), _asked.text(beyond, "beyond")
        told = _asked.maybe(_asked.function, damaged, "damaged")
        return _enrolments.walk(
            self._core, scope=scope, fingerprints=fingerprints, due=False, beyond=beyond, damaged=told
        )

    def enrolments_of(
        self,
        subject: str,
        scope: str = DEFAULT_SCOPE,
        *,
        fingerprint: str | None = None,
        guided_fingerprint: str | None = None,
    ) -> Iterator[EnrolmentInfo]:
        """The enrolment records of a subject in a scope, under whichever key; looked up, however many others are.

        What is due is told as by ``due``.

        Raises:
            InvalidSubjectError: Subject or scope is not a usable name.
        """
        fingerprints = _fingerprints(fingerprint, guided_fingerprint)
        return _enrolments.walk(
            self._core, scope=scope, fingerprints=fingerprints, due=False, of=self._who(subject, scope)
        )

    def gallery_enrolments(
        self,
        scope: str = DEFAULT_SCOPE,
        *,
        fingerprint: str | None = None,
        guided_fingerprint: str | None = None,
    ) -> Iterator[EnrolmentInfo]:
        """The enrolment records under the gallery key of a scope; as ``enrolments_of``."""
        fingerprints = _fingerprints(fingerprint, guided_fingerprint)
        of = gallery_of(self._core.keys, scope)
        return _enrolments.walk(self._core, scope=scope, fingerprints=fingerprints, due=False, of=of)

    def due(
        self,
        scope: str | None = None,
        *,
        fingerprint: str | None = None,
        guided_fingerprint: str | None = None,
    ) -> Iterator[EnrolmentInfo]:
        """The work list: entries to delete from back ends and subjects to enrol again.

        It is worked out from the records, so it can be left and taken up at any time: adapters call
        ``mark_removed`` and ``record_enrolment`` as they go.

        Args:
            scope: This scope alone.
            fingerprint: Mixer fingerprint in use; entries made with another are due, too.
            guided_fingerprint: The fingerprint of the same mixer's guided faces.

        Raises:
            DamagedError: At the end, as by ``enrolments``.
        """
        fingerprints = _fingerprints(fingerprint, guided_fingerprint)
        return _enrolments.walk(self._core, scope=scope, fingerprints=fingerprints, due=True)

    # --- renewals ---------------------------------------------------------------------------------

    def write_renewals(self, renewals: Iterable[RenewalInfo], *, removed: Iterable[str] = ()) -> None:
        """Write down, in one step, how far renewals are, and which entries were deleted from their back ends.

        Args:
            renewals: Each replaces what was written of the same subject and collection.
            removed: ``EnrolmentInfo.entry`` of what was deleted; unknown ones are passed over.
        """
        renewals = list(_asked.many(renewals, "renewals"))
        if not all(isinstance(item, RenewalInfo) for item in renewals):
            raise InvalidRequestError("renewals holds something that is no RenewalInfo", where="renewals")
        removed = [_asked.text(entry, "removed") for entry in _asked.many(removed, "removed")]
        with self._core.change() as change:
            for entry in removed:
                _enrolments.mark_removed(change, entry, "removed")
            _renewals.write(change, renewals)

    def renewal(self, subject: str, scope: str = DEFAULT_SCOPE, *, adapter: str, collection: str) -> RenewalInfo | None:
        """How far the renewal of one subject is, or ``None`` if none was begun.

        Args:
            subject: The subject.
            scope: The scope of the key.
            adapter: Name of the adapter.
            collection: The back end's collection.
        """
        where = _asked.text(adapter, "adapter", empty=False), _asked.identifier(collection, "collection")
        return _renewals.find(self._core, subject, scope, *where)

    def renewals(
        self,
        *,
        adapter: str,
        collection: str,
        only: RenewalState | None = None,
        beyond: str = "",
        damaged: Callable[[DamagedError], object] | None = None,
    ) -> Iterator[RenewalInfo]:
        """All renewals in a collection in the order of their names, page by page.

        Args:
            adapter: Name of the adapter.
            collection: The back end's collection.
            only: Those in this state alone.
            beyond: Only renewals after the one of this name: ``RenewalInfo.name``.
            damaged: As for ``enrolments``.

        Raises:
            DamagedError: At the end, where ``damaged`` is not given: it names whose renewals were passed over.
        """
        where = _asked.text(adapter, "adapter", empty=False), _asked.identifier(collection, "collection")
        try:
            wanted = None if only is None else RenewalState(only)
        except ValueError:
            raise InvalidRequestError("only is no RenewalState", where="only") from None
        told = _asked.maybe(_asked.function, damaged, "damaged")
        return _renewals.walk(self._core, *where, wanted, _asked.text(beyond, "beyond"), told)


def _fingerprints(plain: str | None, guided: str | None) -> frozenset[str] | None:
    """The fingerprints that entries may have, or ``None`` for any."""
    plain = _asked.maybe(_asked.text, plain, "fingerprint")
    guided = _asked.maybe(_asked.text, guided, "guided_fingerprint")
    named = frozenset(name for name in (plain, guided) if name is not None)
    return named or None


def _steps(batch: int, progress: Callable[[Progress], None] | None) -> tuple[int, Callable[[Progress], None] | None]:
    batch = _asked.whole(batch, "batch", 1, _jobs.MOST_PER_BATCH)
    return batch, _asked.maybe(_asked.function, progress, "progress")


def _states(states: Iterable[KeyState]) -> frozenset[KeyState]:
    try:
        return frozenset(KeyState(state) for state in _asked.many(states, "states"))
    except ValueError:
        raise InvalidRequestError("states holds something that is no KeyState", where="states") from None
