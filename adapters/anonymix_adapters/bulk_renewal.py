"""Renewal of many entries after a rotation: faces drawn by workers, entries exchanged by the adapter, block by block.

What the keystore's ledger says is written before the back end is asked and after it has answered, so that a job which
is killed at any moment goes on without a subject lost or enrolled twice.
"""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeAlias

from anonymix_adapters.drawn import DrawnFaces
from anonymix_adapters.errors import AdapterError, in_words
from anonymix_adapters.interceptor import recorded_together
from anonymix_adapters.protocol import BackEnd
from anonymix_keystore import (
    AnchorError,
    DamagedError,
    EnrolmentInfo,
    Keystore,
    KeystoreError,
    NewEnrolment,
    RenewalInfo,
    RenewalState,
    RolledBackError,
)
from anonymix_plugin.bulk import (
    Block,
    BulkError,
    Fault,
    Mixer,
    Result,
    Row,
    Work,
    draw_in_bulk,
)
from anonymix_plugin.claims import Claim, claimed
from anonymix_plugin.csv_cells import as_cells
from anonymix_plugin.errors import AnonymixError, PhotoError
from anonymix_plugin.files import whole_file
from anonymix_plugin.guiding import PutsBack
from anonymix_plugin.images import PhotoSource
from anonymix_plugin.keyservice import LeaseError, RemoteKeystore, ServiceError, renewing_beside
from anonymix_plugin.options import MixerOptions
from anonymix_plugin.values import CancelableFace

Photos: TypeAlias = Callable[[EnrolmentInfo], Sequence[bytes]]
"""Gives the photos of a subject as image files: none, one, or several of which one entry is drawn."""

_WAITING: Final = 2  # complete blocks that may wait for the back end
_MOST_REFUSALS: Final = 100
_DELETED_TOGETHER: Final = 32
_TOGETHER: Final = 32  # faces that are decoded at a time
_BACK_END: Final = "back_end"
# After these it is not known whether the store wrote something down. The next run looks.
_UNTOLD: Final = (AnchorError, RolledBackError, ServiceError)
_NOT_VERIFIED: Final = Fault(
    "not_verified",
    "the back end does not accept the person by the new entry; the old one stays",
    fix="renew again; then look at the back end",
)
_COLUMNS: Final = (
    *("subject", "scope", "adapter", "collection", "state", "entry", "key_version", "fingerprint"),
    *("error", "what", "fix", "changed"),
)


@dataclass(frozen=True)
class Counts:
    """How far a renewal is, and what it did.

    Attributes:
        renewed: Subjects with a new entry that was verified, and whose old entries are deleted.
        failed: Subjects for whom that did not work; the work list still names them.
        deleted: Old entries deleted.
        strays: Entries without a record, left by a run that was killed, that were deleted.
        total: Entries that were due at the beginning; 0 until the workers are ready.
        finished: Whether the whole work list was gone through.
    """

    renewed: int = 0
    failed: int = 0
    deleted: int = 0
    strays: int = 0
    total: int = 0
    finished: bool = False


@dataclass(frozen=True)
class _Due(Row):
    """A row of the work list."""

    item: EnrolmentInfo = field(kw_only=True)


@dataclass(eq=False)
class _Exchange:
    """One person's entry on its way: the face, the new entry, what was noted of it, how it ended, what is deleted."""

    row: _Due
    result: Result
    face: CancelableFace | None = None
    entry: str = ""
    records: list[NewEnrolment] = field(default_factory=list)
    outcome: RenewalInfo | None = None
    removed: bool = False


class BulkRenewal:
    """A renewal of one collection; a context manager.

    Args:
        keystore: The keystore. Its renewals are the ledger.
        faces: The mixer that the back end's adapter was given.
        back_end: The back end.
        photos: Where the photos come from.
        calls: How many calls the back end gets at a time.

    Attributes:
        counts: How far it is.
        damage: What the store said of records that it can't read; None if it said nothing. All others are renewed,
            but the renewal is not finished.

    Raises:
        AdapterError: The back end stands behind another mixer.
    """

    def __init__(
        self,
        keystore: Keystore | RemoteKeystore,
        faces: DrawnFaces,
        back_end: BackEnd,
        photos: Photos,
        *,
        calls: int = 1,
    ) -> None:
        if back_end.interceptor.mixer is not faces:
            raise AdapterError(
                "the back end was protected by another mixer",
                where=back_end.interceptor.adapter,
                fix="protect it with the mixer that the function was called with",
            )
        self._store, self._faces, self._back_end, self._photos = keystore, faces, back_end, photos
        self._place = {"adapter": back_end.interceptor.adapter, "collection": str(back_end.collection)}
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="anonymix-renewal")
        self._callers = ThreadPoolExecutor(calls, thread_name_prefix="anonymix-calls")
        self._written: deque[Future[None]] = deque()
        self._in_hand: set[tuple[str, str]] = set()
        self._failed: set[tuple[str, str]] = set()
        self._put_off: set[str] = set()
        self._deletions: list[EnrolmentInfo] = []
        self._refusals = 0
        self._doubted = False
        self._recorded: dict[tuple[str, str], str] = {}  # subject and scope to the new entry
        self.damage: DamagedError | None = None
        self._mine_alone: Callable[[], bool] = lambda: False
        self._under: dict[str, Any] = {}  # the lease over a key service, which refuses what is written without it
        self._progress: Callable[[Counts], None] | None = None
        self.counts = Counts()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait for the calls that are under way; what waits behind them is left to the next run."""
        self._writer.shutdown(cancel_futures=True)
        self._callers.shutdown()

    def run(self, options: MixerOptions, work: Work, progress: Callable[[Counts], None] | None = None) -> Counts:
        """Work through the work list, or as far as the limit.

        Args:
            options: What the mixers of the workers are to be like.
            work: How it is done.
            progress: Called after each subject.

        Raises:
            BulkError: The back end refuses whatever it is asked, another renewal of the collection is at work, or
                workers can't be started.
        """
        # An entry that another run has made and not yet recorded would be taken for a leftover, and deleted.
        with self._turn() as self._mine_alone:
            if not self._mine_alone():
                where = self._place["adapter"]
                raise BulkError("another renewal of this collection is at work", where=where, fix="wait for its end")
            return self._run(options, work, progress)

    @contextmanager
    def _turn(self) -> Iterator[Callable[[], bool]]:
        """Keep other renewals of the collection out; what it gives says whether they are out."""
        if isinstance(self._store, RemoteKeystore):
            with self._store.renewing(**self._place) as lease:
                self._under["lease"] = lease
                yield lambda: lease.held
        else:
            with renewing_beside(self._store.path, **self._place) as first:
                yield lambda: first

    def _need_turn(self) -> None:
        """Before the back end is asked for anything: see that nobody else may be at work."""
        if not self._mine_alone():
            raise self._over()

    def _over(self) -> BulkError:
        return BulkError(
            "the key service was not asked for so long that another renewal may be at work",
            where=self._place["adapter"],
            fix="see to the key service; the same command goes on",
        )

    def _run(self, options: MixerOptions, work: Work, progress: Callable[[Counts], None] | None) -> Counts:
        self._progress = progress
        finished = self._pass(options, replace(work, enrol=False), first=True)
        while finished and self._put_off:  # further entries of people who were in hand when the list came to them
            finished = self._pass(options, replace(work, enrol=False), first=False)
        if self._doubted or self.counts.failed:
            self._settle()
        finished = finished and self.damage is None  # who is left out of the work list is not done
        if finished:
            self._close_ledger()
        self._count(finished=finished)
        return self.counts

    def sample(self, count: int) -> tuple[list[Row], int, int]:
        """For a rehearsal: the first rows with photos, and how many entries and people are due.

        Entries that only a new mixer makes due are left out, as no mixer is loaded.
        """
        rows: list[Row] = []
        people, entries = set(), 0
        for item in self._listed():
            entries += 1
            if item.enrol and (item.subject, item.scope) not in people:
                people.add((item.subject, item.scope))
                if len(rows) < count:
                    rows.append(self._row(item))
        return rows, entries, len(people)

    def export(self, path: Path) -> None:
        """Write what the ledger says of the collection as a CSV table."""
        with whole_file(path) as draft, draft.open("w", encoding="utf-8", newline="") as stream:
            table = csv.writer(stream)
            table.writerow(_COLUMNS)
            for it in self._ledger():
                whose = (it.subject, it.scope, it.adapter, it.collection)
                when = "" if it.changed is None else it.changed.isoformat()
                made = (it.state.value, it.entry, it.version, it.fingerprint)
                table.writerow(as_cells((*whose, *made, it.error, it.what, it.fix, when)))

    def failures(self, most: int) -> list[RenewalInfo]:
        """The first subjects for whom it did not work."""
        return list(islice(self._ledger(RenewalState.FAILED), most))

    # --- the work list ----------------------------------------------------------------------------

    def _pass(self, options: MixerOptions, work: Work, *, first: bool) -> bool:
        wanted = None if first else frozenset(self._put_off)
        self._put_off.clear()
        limit = None if work.limit is None else max(0, work.limit - self.counts.renewed - self.counts.failed)
        finished = draw_in_bulk(
            self._rows(wanted),
            self._store,
            self,
            options,
            replace(work, limit=limit),
            ready=self._ready if first else None,
        )
        self._delete_old(everything=True)
        while self._written:
            self._written.popleft().result()
        return finished

    def _ready(self, mixer: Mixer) -> None:
        self._faces.know(mixer)
        self._doubted = bool(self._open_renewals())
        if self._doubted:
            self._settle()
        self._count(total=sum(1 for _ in self._due()))

    def _open_renewals(self) -> list[RenewalInfo]:
        begun, failed = (self._ledger(state) for state in (RenewalState.BEGUN, RenewalState.FAILED))
        return [*begun, *failed]

    def _ledger(self, state: RenewalState | None = None) -> Iterator[RenewalInfo]:
        try:
            yield from self._store.renewals(
                adapter=self._place["adapter"], collection=self._place["collection"], only=state
            )
        except DamagedError as error:  # as below
            self.damage = self.damage or error

    def _due(self) -> Iterator[EnrolmentInfo]:
        faces = self._faces
        return self._listed(fingerprint=faces.fingerprint, guided_fingerprint=faces.guided_fingerprint)

    def _listed(self, **mixer: str) -> Iterator[EnrolmentInfo]:
        try:
            yield from filter(self._mine, self._store.due(**mixer))
        except DamagedError as error:  # it comes at the end; the others are renewed all the same
            self.damage = error

    def _mine(self, item: EnrolmentInfo) -> bool:
        return (item.adapter, item.collection) == tuple(self._place.values())

    def _rows(self, wanted: frozenset[str] | None) -> Iterator[Row]:
        """What has to be drawn; what has only to be deleted is deleted on the way."""
        for item in self._due():
            whose = (item.subject, item.scope)
            if (wanted is not None and item.entry not in wanted) or whose in self._failed:
                continue
            if whose in self._in_hand:
                self._put_off.add(item.entry)
                continue
            try:
                new = self._is_new(item)
            except DamagedError as error:  # what is left of a run that was killed is not known: all stays as it is
                self.damage = self.damage or error
                continue
            if new:
                self._deletions.append(item)
                self._delete_old()
            else:
                self._in_hand.add(whose)
                yield self._row(item)

    def _is_new(self, item: EnrolmentInfo) -> bool:
        """Whether nothing has to be drawn: the person has a new entry that needs no look, or can have none."""
        known = self._store.renewal(item.subject, item.scope, **self._place)
        if known is None or (known.version, known.fingerprint) != (item.current_version, self._faces.fingerprint):
            # Whoever enrolled the person in the meantime, or took the key away, did so without this job.
            return not item.enrol
        return known.state is RenewalState.DONE

    def _row(self, item: EnrolmentInfo) -> _Due:
        subject = None if item.gallery else item.subject
        return _Due(
            "<photos of a subject>",
            subject,
            item.scope,
            Path(),
            lambda: self._photos_of(item),
            enrols=item.enrol,
            item=item,
        )

    def _photos_of(self, item: EnrolmentInfo) -> Sequence[bytes]:
        photos = self._photos(item)
        if not photos:
            fix = f"add one, for the scope {item.scope}, and renew again"
            raise PhotoError("there is no photo of the subject", fix=fix)
        return photos

    # --- the sink of the drawn faces --------------------------------------------------------------

    def meet(self, mixer: Mixer) -> None:
        """See `Sink`; `_ready` is told of it as well."""

    def has(self, block: Block) -> bool:  # noqa: ARG002 - the work list names what is not done
        """See `Sink`."""
        return False

    def write(self, block: Block) -> None:
        """See `Sink`: hand a block to the thread that talks to the back end, unless too many wait there."""
        rows = [row for row in block.rows if isinstance(row, _Due)]
        self._enqueue(self._exchange, [(row, block.results[place]) for place, row in enumerate(rows)])

    def _enqueue(self, step: Callable[..., None], *args: object) -> None:
        while self._written and (self._written[0].done() or len(self._written) >= _WAITING):
            self._written.popleft().result()
        self._written.append(self._writer.submit(step, *args))

    def _exchange(self, drawn: list[tuple[_Due, Result]]) -> None:
        """Enrol, verify, delete; what is known before and after is written down in one step each."""
        begun = [self._outcome(row, RenewalState.BEGUN) for row, result in drawn if result.fault is None]
        self._store.write_renewals(begun, **self._under)
        exchanges = [_Exchange(row, result) for row, result in drawn]
        for start in range(0, len(exchanges), _TOGETHER):
            together = exchanges[start : start + _TOGETHER]
            self._need_turn()
            list(self._callers.map(self._enrol, together))
            self._write_down(together)
            self._need_turn()
            list(self._callers.map(self._finish, together))
            for it in together:
                it.face = None
        outcomes = [it.outcome for it in exchanges if it.outcome is not None]
        removed = [it.row.item.entry for it in exchanges if it.removed]
        self._store.write_renewals(outcomes, removed=removed, **self._under)
        for row, _ in drawn:
            self._in_hand.discard((row.item.subject, row.item.scope))
        failed = [it for it in outcomes if it.state is RenewalState.FAILED]
        self._failed |= {(it.subject, it.scope) for it in failed}
        made = len(outcomes) - len(failed)
        self._count(
            renewed=self.counts.renewed + made,
            failed=self.counts.failed + len(failed),
            deleted=self.counts.deleted + len(removed),
        )
        refused = [it for it in failed if it.error == _BACK_END]
        self._refusals = 0 if len(refused) < len(outcomes) else self._refusals + len(refused)
        if self._refusals >= _MOST_REFUSALS:
            raise BulkError(
                f"the back end refused {self._refusals} subjects one after the other: {refused[-1].what}",
                where=self._place["adapter"],
                fix="see to the back end; the same command goes on",
            )

    def _enrol(self, it: _Exchange) -> None:
        """Have a new entry made, unless the person has one."""

        def made(photo: PhotoSource) -> None:
            with recorded_together(it.records):
                it.entry = str(self._back_end.enrol(it.row.item.subject, photo))

        if it.result.fault is not None:
            it.outcome = self._failure(it.row, it.result.fault)
        elif it.row.item.enrol and self._mine_alone():  # if not, what the others made is still written down
            self._try(it, made)

    def _write_down(self, exchanges: list[_Exchange]) -> None:
        """Record the new entries in one step; or else one by one, and delete those again that can't be recorded."""
        made = [it for it in exchanges if it.records]
        try:
            if made:
                records = [record for it in made for record in it.records]
                self._store.record_enrolments(records, **self._under)
        except _UNTOLD:
            raise
        except KeystoreError as error:
            for it in made:
                self._try(it, lambda _, it=it: self._write_down_alone(it))  # type: ignore[misc]
            if isinstance(error, LeaseError):
                raise self._over() from None

    def _write_down_alone(self, it: _Exchange) -> None:
        try:
            self._store.record_enrolments(it.records, **self._under)
        except _UNTOLD:
            raise
        except KeystoreError:  # the key was rotated or revoked since the face was drawn, or the lease is lost
            for record in it.records:
                # A back end may give equal ids: then whoever has the lease now may have recorded this entry.
                if self._store.enrolment(external_id=record.external_id, **self._place) is None:
                    self._back_end.delete(record.external_id)
            it.entry = ""
            raise

    def _finish(self, it: _Exchange) -> None:
        """Verify the new entry, and delete the old one."""

        def verified(photo: PhotoSource) -> None:
            if not self._back_end.verify(item.subject, photo).accepted:
                it.outcome = self._failure(it.row, _NOT_VERIFIED)
            elif item.delete:
                self._back_end.delete(item.external_id)

        item = it.row.item
        if it.outcome is None:
            self._try(it, verified)
        if it.outcome is None:
            entry = it.entry or self._recorded.get((item.subject, item.scope), "")
            done = self._outcome(it.row, RenewalState.DONE)
            it.outcome = replace(done, entry=str(entry), fingerprint=it.result.fingerprint)
            it.removed = item.delete

    def _try(self, it: _Exchange, step: Callable[[PhotoSource], None]) -> None:
        """Take a step with the person's photo and face; whatever goes wrong is the outcome."""
        item = it.row.item
        try:
            photo: PhotoSource = self._photos_of(item)[it.result.photo]
            it.face = it.face or self._faces.face_of(it.row, it.result)
            # Equal names in two scopes are two people: the record says whose key it is.
            with claimed(Claim(item.subject, item.scope)), self._faces.given(it.face):
                step(photo)
        except (AnonymixError, KeystoreError) as error:
            code = _BACK_END if isinstance(error, AdapterError) else error.code
            fault = replace(Fault.of(error), code=code)
        except Exception as error:  # noqa: BLE001 - whatever an SDK raises: it is an outcome, the rest goes on
            fault = Fault(_BACK_END, in_words(error), fix="see to the back end, and renew again")
        else:
            return
        if not it.entry:
            self._put_reference_back(item)
        it.outcome = self._failure(it.row, fault)

    def _put_reference_back(self, item: EnrolmentInfo) -> None:
        """Undo what the drawn face left in the store, where the back end made no entry of it."""
        if item.enrol and not item.gallery:
            book = self._store.references
            with suppress(KeystoreError):  # the key is gone, and the reference with it
                if isinstance(book, PutsBack):
                    book.put_back(self._store.current(item.subject, item.scope))

    def _outcome(self, row: _Due, state: RenewalState) -> RenewalInfo:
        item, mixer = row.item, self._faces.fingerprint
        return RenewalInfo(item.subject, item.scope, item.adapter, item.collection, item.current_version, mixer, state)

    def _failure(self, row: _Due, fault: Fault) -> RenewalInfo:
        failed = self._outcome(row, RenewalState.FAILED)
        return replace(failed, error=fault.code, what=fault.what, fix=fault.fix)

    def _delete_old(self, *, everything: bool = False) -> None:
        if self._deletions and (everything or len(self._deletions) >= _DELETED_TOGETHER):
            self._enqueue(self._delete, self._deletions)
            self._deletions = []

    def _delete(self, items: list[EnrolmentInfo]) -> None:
        self._need_turn()
        gone = [entry for entry in self._callers.map(self._deleted, items) if entry]
        self._store.write_renewals([], removed=gone, **self._under)
        self._count(deleted=self.counts.deleted + len(gone))

    def _deleted(self, item: EnrolmentInfo) -> str:
        try:
            self._back_end.delete(item.external_id)
        except Exception:  # noqa: BLE001 - as above; the entry stays on the work list
            self._failed.add((item.subject, item.scope))
            return ""
        return item.entry

    # --- what a killed run left -------------------------------------------------------------------

    def _settle(self) -> None:
        """Delete entries without a record of people whose renewal was begun: a run ended before it wrote them down."""
        # The back end knows no scopes: an entry without a record may be of whoever bears the name.
        doubted = {it.subject for it in self._open_renewals()}
        strays = 0
        try:
            for entry, subject in self._back_end.entries().items() if doubted else ():
                if subject not in doubted:
                    continue
                try:
                    known = self._store.enrolment(external_id=entry, **self._place)
                except DamagedError as error:  # it is recorded, or may be: it stays
                    self.damage = self.damage or error
                    continue
                if known is None:
                    self._need_turn()
                    self._back_end.delete(entry)
                    strays += 1
                elif not known.delete:
                    self._recorded[known.subject, known.scope] = entry
        except (AnonymixError, KeystoreError):
            raise
        except Exception as error:
            raise BulkError(
                f"the back end does not tell what it holds: {in_words(error)}",
                where=self._place["adapter"],
                fix="see to the back end; the same command goes on",
            ) from error
        self._count(strays=self.counts.strays + strays)

    def _close_ledger(self) -> None:
        """Renewals that are open, and of which the work list has nothing left, are done."""
        due = {(item.subject, item.scope) for item in self._due()}
        ended = [it for it in self._open_renewals() if (it.subject, it.scope) not in due]
        done = {"state": RenewalState.DONE, "error": "", "what": "", "fix": ""}
        self._store.write_renewals(
            [replace(it, entry=self._recorded.get((it.subject, it.scope), it.entry), **done) for it in ended],  # type: ignore[arg-type]
            **self._under,
        )

    def _count(self, **changes: int) -> None:
        self.counts = replace(self.counts, **changes)  # type: ignore[arg-type]
        if self._progress is not None:
            self._progress(self.counts)
