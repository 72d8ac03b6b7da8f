"""The part of the public class that deals with many keys, and with the back ends' entries."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta

from anonymix_keystore import _enrolments, _jobs
from anonymix_keystore._base import Base
from anonymix_keystore._enrolments import EnrolmentInfo
from anonymix_keystore._errors import InvalidRequestError
from anonymix_keystore._jobs import JobInfo, Progress, Selection
from anonymix_keystore._lifecycle import gallery_of
from anonymix_keystore._names import DEFAULT_SCOPE, checked
from anonymix_keystore._report import RotationReport, report
from anonymix_keystore._subjects import RotationReason, ending_for
from anonymix_keystore._values import KeyState

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
        number of keys.

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
        chosen = frozenset(KeyState(state) for state in states)
        if not chosen or not chosen <= {KeyState.ACTIVE, KeyState.RETIRED}:
            raise InvalidRequestError(
                "only active and retired keys can be rotated", fix="issue new keys instead"
            )
        _jobs.check_batch(batch)
        if scope is not None:
            checked(scope, "scope")
        tags = None
        if subjects is not None:
            scope = DEFAULT_SCOPE if scope is None else scope
            tags = tuple(self._who(subject, scope).tag for subject in subjects)
        before = 0
        if older_than is not None:
            if older_than < timedelta(0):
                raise InvalidRequestError("the age is negative")
            self._core.check_clock()
            before = self._core.now(self._core.header()) - int(older_than.total_seconds()) + 1
        select = Selection(scope, before, KeyState.ACTIVE in chosen, KeyState.RETIRED in chosen, tags)
        job = _jobs.begin_rotation(
            self._core, select, lambda now: ending_for(reason, grace, now), str(reason)
        )
        _jobs.run(self._core, job, batch, progress)
        return self.report(job)

    def rewrap_all(
        self,
        *,
        reason: str = "",
        batch: int = JOB_BATCH,
        progress: Callable[[Progress], None] | None = None,
    ) -> JobInfo:
        """Wrap all living keys anew under the next wrapping key; the keys stay the same.

        Args:
            reason: For the audit trail.
            batch: Subjects per step, 1 to 10,000.
            progress: Called after each step.

        Raises:
            UnfinishedJobError: An earlier job was interrupted; resume it first.
        """
        _jobs.check_batch(batch)
        job = _jobs.begin_rewrap(self._core, reason)
        return _jobs.run(self._core, job, batch, progress)

    def resume(
        self, *, batch: int = JOB_BATCH, progress: Callable[[Progress], None] | None = None
    ) -> JobInfo | None:
        """Carry an interrupted job to its end; ``None`` if there is none."""
        job = _jobs.unfinished(self._core)
        return None if job is None else _jobs.run(self._core, job.id, batch, progress)

    def jobs(self) -> tuple[JobInfo, ...]:
        """All jobs, the first one first; those that can be resumed have no end."""
        return tuple(_jobs.infos(self._core))

    def report(self, job: int, *, fingerprint: str | None = None) -> RotationReport:
        """A report on a job and the work that keys leave in back ends, as of now.

        Args:
            job: Number of the job.
            fingerprint: Mixer fingerprint in use; entries made with another are due, too.

        Raises:
            InvalidRequestError: There is no such job.
        """
        return report(self._core, job, fingerprint)

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
            external_id: The entry's id in the back end.
            version: Version of the key used; must be the active one.
            fingerprint: Mixer fingerprint used.
            gallery: Whether the gallery key of the scope was used.

        Returns:
            The record's name, for ``mark_removed``.

        Raises:
            UnknownSubjectError: The key was never issued.
            KeyRevokedError: The version is not active any more: protect and enrol anew.
            InvalidRequestError: A field is empty.
        """
        who = self._who(subject, scope)
        holder = gallery_of(self._core.keys, scope) if gallery else who
        with self._core.change() as change:
            return _enrolments.record(
                change,
                who,
                holder,
                adapter=adapter,
                collection=collection,
                external_id=external_id,
                version=version,
                fingerprint=fingerprint,
            )

    def mark_removed(self, entry: str) -> bool:
        """Write down that an entry was deleted from its back end.

        Args:
            entry: ``EnrolmentInfo.entry``.

        Returns:
            Whether there was a record of it.
        """
        with self._core.change() as change:
            return _enrolments.mark_removed(change, entry)

    def enrolments(self, scope: str | None = None) -> Iterator[EnrolmentInfo]:
        """All enrolment records, page by page."""
        return _enrolments.walk(self._core, scope=scope, fingerprint=None, due=False)

    def due(self, scope: str | None = None, *, fingerprint: str | None = None) -> Iterator[EnrolmentInfo]:
        """The work list: entries to delete from back ends and subjects to enrol anew.

        It is worked out from the records, so it can be left and taken up at any time: adapters call
        ``mark_removed`` and ``record_enrolment`` as they go.

        Args:
            scope: This scope alone.
            fingerprint: Mixer fingerprint in use; entries made with another are due, too.
        """
        return _enrolments.walk(self._core, scope=scope, fingerprint=fingerprint, due=True)
